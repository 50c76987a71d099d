"""The keys of TLS to a forward's destination."""

import pytest

from vsockproxy.config.document import Document
from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import EnclaveConfig, EnclaveForward, ForwardTls

PIN = f"{'A' * 43}="


def text(keys: str) -> bytes:
    forward = "{listen: 'tcp://127.0.0.1:1', to: 'a.test:443', " + keys + "}"
    return f"parent: vsock://3:5000\nforwards:\n  - {forward}\n".encode()


def forward(keys: str) -> EnclaveForward:
    document = parse(text(keys), "f")
    assert Document.from_builtins(document.to_builtins()).config == document.config
    assert isinstance(document.config, EnclaveConfig)
    return document.config.forwards[0]


TLS: dict[str, tuple[str, bool | ForwardTls]] = {
    "none": ("tls: false", False),
    "as the image trusts": ("tls: true", True),
    "a section without keys": ("tls: {}", ForwardTls()),
    "one pin": (f"tls: {{pin_spki: {PIN}}}", ForwardTls(pin_spki=[PIN])),
    "every key": (
        f"tls: {{ca: /a, pin_spki: [{PIN}, {PIN}], client_cert: /c, "
        "server_name: b.test, alpn: [h2]}",
        ForwardTls(
            ca="/a", pin_spki=[PIN, PIN], client_cert="/c", server_name="b.test", alpn=["h2"]
        ),
    ),
}


@pytest.mark.parametrize(("keys", "wanted"), TLS.values(), ids=TLS)
def test_tls_is_a_word_or_a_section(keys: str, wanted: bool | ForwardTls) -> None:
    assert forward(keys).tls == wanted


FAULTS = {
    "a word that is none": (
        "tls: yes please",
        "forwards[0].tls: 'yes please' is neither true nor false: write true or false or a mapping",
    ),
    "an unknown key": ("tls: {cca: /a}", "forwards[0].tls.cca: unknown key: write ca"),
    "a relative path": (
        "tls: {ca: a.pem}",
        "forwards[0].tls.ca: 'a.pem' does not fit: write the absolute path of a file",
    ),
    "a pin in hexadecimal": (
        f"tls: {{pin_spki: '{'ab' * 32}'}}",
        f"forwards[0].tls.pin_spki: '{'ab' * 32}' does not fit: "
        "write the base64 SHA-256 of a public key, 44 characters",
    ),
    "a name that is a pattern": (
        "tls: {server_name: '*.test'}",
        "forwards[0].tls.server_name: '*.test' is a pattern, where one host has to stand: "
        "write each host, or use the allowlist of a parent's or an enclave's file",
    ),
    "a front for http:// to a destination without https": (
        "protocol: http",
        "forwards[0].protocol: protocol: http is for a destination that speaks https: "
        "add tls: true, or remove protocol",
    ),
    "a protocol that has no such name": (
        "tls: {alpn: ['h 2']}",
        "forwards[0].tls.alpn[0]: 'h 2' does not fit: "
        "write a protocol's name in ALPN, as h2 or http/1.1",
    ),
    "a front for http:// that is to speak HTTP/2": (
        "protocol: http, tls: {alpn: [h2]}",
        "forwards[0].tls.alpn: a forward with protocol: http speaks HTTP/1.1 to its destination: "
        "remove alpn",
    ),
    "a front for http:// on connections of their own": (
        "protocol: http, tls: true, carrier: dedicated",
        "forwards[0].carrier: a forward with protocol: http has shared streams only: "
        "remove carrier",
    ),
}


@pytest.mark.parametrize(("keys", "line"), FAULTS.values(), ids=FAULTS)
def test_what_is_wrong_is_named(keys: str, line: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        parse(text(keys), "f")
    assert [str(error) for error in caught.value.errors] == [f"f:3: {line}"]
