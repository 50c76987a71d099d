"""Target: the first bytes of a TLS client."""

import ssl
from collections.abc import Iterable

from tests.fuzz.target import Target, same_however_cut
from tests.vsockproxy.protocols import hellos
from vsockproxy.addresses import normalise_host
from vsockproxy.protocols.client_hello import ClientHello, ClientHelloReader, check_server_name
from vsockproxy.protocols.errors import NotTls, SniMismatch


def _read(pieces: Iterable[bytes]) -> ClientHello | str:
    reader = ClientHelloReader()
    fed = b""
    try:
        for piece in pieces:
            fed += piece
            if (hello := reader.receive(piece)) is not None:
                assert reader.received == fed
                return hello
    except NotTls as error:
        return error.text
    return "more"


def _execute(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read(cut(data)))
    if isinstance(outcome, str):
        assert outcome.isprintable()
        return outcome
    if outcome.server_name is None:
        return "no name"
    try:
        check_server_name(outcome, normalise_host("example.com"))
    except SniMismatch:
        return "another name"
    return "the name"


_NAMED = hellos.server_name_extension(b"example.com")

CLIENT_HELLO = Target(
    "client_hello",
    _execute,
    corpus=(
        hellos.openssl_hello("example.com", ssl.TLSVersion.TLSv1_3, alpn=("h2", "http/1.1")),
        hellos.openssl_hello("example.com", ssl.TLSVersion.TLSv1_2),
        hellos.openssl_hello(None, ssl.TLSVersion.TLSv1_3),
        hellos.openssl_resumption_hello("example.com", ssl.TLSVersion.TLSv1_2),
        hellos.hello(_NAMED),
        hellos.hello(None),
        hellos.records(hellos.message(hellos.hello_body(_NAMED)), 20),
        hellos.hello(hellos.extension(hellos.ENCRYPTED_CLIENT_HELLO, bytes(100)) + _NAMED),
    ),
    dictionary=(
        _NAMED,
        hellos.server_name_extension(b"a.test", b"b.test"),
        hellos.extension(hellos.PADDING, bytes(1000)),
        b"\x16\x03\x01",
        b"\x16\x03\x01\x00\x01",
        b"\x17\x03\x03\x00\x01\x00",
        b"\x00\x00",
        b"\xff\xff",
        b"example.com",
    ),
)
