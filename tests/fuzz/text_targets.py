"""Targets: configuration files and addresses."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzz.target import Target
from vsockproxy.addresses import (
    AddressError,
    Destination,
    Endpoint,
    Host,
    normalise_host,
    parse_destination,
    parse_endpoint,
)
from vsockproxy.config.errors import ConfigError, ConfigErrors
from vsockproxy.config.load import Document, parse

_EXAMPLES = Path(__file__).parents[2] / "configs"


def _execute_config(data: bytes) -> str:
    try:
        document = parse(data, "fuzz.yaml")
    except ConfigErrors as error:
        return _check_faults(error.errors)
    assert Document.from_builtins(document.to_builtins()) == document
    return document.kind


def _check_faults(faults: Sequence[ConfigError]) -> str:
    assert faults
    for fault in faults:
        assert fault.line >= 1
        assert len(str(fault).splitlines()) == 1, f"more than one line: {fault}"
    return faults[0].what


CONFIG = Target(
    "config",
    _execute_config,
    corpus=(
        *(path.read_bytes() for path in sorted(_EXAMPLES.glob("*.yaml"))),
        b"listen: vsock://any:5000\n",
        b"parent: unix:///run/link\nallowlist: [{address: a.test, ports: [443, 8000-8010]}]\n",
        b'{"allowlist": [{"address": "10.0.0.0/8", "port": 443}]}',
        b"",
    ),
    dictionary=(
        b"\n",
        b": ",
        b"- ",
        b"  ",
        b"{",
        b"}",
        b"[" * 500,
        b"]",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object:os.system",
        b"!!binary ",
        b"? ",
        b"|\n",
        b'"\\u0000"',
        b"'",
        b"#",
        b"%YAML 1.1\n---\n",
        b"...\n---\n",
        b"0o17",
        b"1e400",
        b".inf",
        b"12:30:45",
        b"2001-01-01",
        b"9" * 5000,
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc2\x85",
        b"allowlist:",
        b"address:",
        b"port: ",
        b"ports: ",
        b"version: 1\n",
        b"512MiB",
        b"vsock://any:5000",
        b"**.a.test",
    ),
    most_memory_factor=100,
)


def _address(parse_text: Callable[[str], Host | Endpoint | Destination]) -> Callable[[bytes], str]:
    """An execution that parses bytes as text, and what it wrote for the result once more."""

    def execute(data: bytes) -> str:
        try:
            value = parse_text(data.decode(errors="replace"))
        except AddressError as error:
            return str(error)
        assert parse_text(str(value)) == value, f"{value!r} is written in another form"
        return type(value).__name__

    return execute


_ADDRESS_PIECES = (
    b".",
    b"..",
    b":",
    b"::",
    b"[",
    b"]",
    b"%eth0",
    b"@",
    b"/",
    b"0x7f",
    b"0177",
    b"127.0.0.1",
    b"::ffff:10.0.0.1",
    b"64:ff9b::1",
    b"xn--",
    b"_",
    b"-",
    b"a" * 63,
    b"a." * 126,
    b"\xe3\x80\x82",
    b"\xef\xbc\x8e",
    b"\xc3\x9f",
    b"\xe2\x80\x8d",
    b"\xc2\xad",
    b"\xd9\xa1",
    b"\x00",
    b":443",
    b":99999",
    b"vsock://",
    b"unix:///",
    b"tcp://",
    b"any",
    b"?cid=16&mode=0660",
    b"4294967295",
)

HOST = Target(
    "host",
    _address(normalise_host),
    corpus=(
        b"example.com",
        b"EXAMPLE.com.",
        b"my_bucket.s3.eu-west-1.amazonaws.com",
        "bücher.example".encode(),
        b"xn--bcher-kva.example",
        b"127.0.0.1",
        b"2001:db8::1",
        b"::ffff:10.0.0.1",
        b"0x7f.1",
    ),
    dictionary=_ADDRESS_PIECES,
)

ENDPOINT = Target(
    "endpoint",
    _address(parse_endpoint),
    corpus=(
        b"vsock://any:5000",
        b"vsock://3:5000",
        b"unix:///run/vsockproxy/link.sock?cid=16&mode=0660",
        b"tcp://127.0.0.1:3128",
        b"tcp://[::1]:443",
        b"tcp://localhost:80",
    ),
    dictionary=_ADDRESS_PIECES,
)

DESTINATION = Target(
    "destination",
    _address(parse_destination),
    corpus=(b"example.com:443", b"[2001:db8::1]:8443", b"10.0.0.1:5432", b"EXAMPLE.com.:1"),
    dictionary=_ADDRESS_PIECES,
)
