"""Targets: the first bytes of a TLS client, records of either end, certificates."""

import base64
import functools
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.target import KIBIBYTE, Target, in_pieces, same_however_cut
from tests.support.certificates import Authority
from tests.vsockproxy.protocols import hellos
from vsockproxy.addresses import normalise_host
from vsockproxy.dataplane.tls_contexts import client_context, server_context
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.dataplane.tls_records import CHUNK_BYTES, TlsRecords
from vsockproxy.protocols.certificate import public_key_info
from vsockproxy.protocols.client_hello import ClientHello, ClientHelloReader, check_server_name
from vsockproxy.protocols.errors import CertificateError, NotTls, SniMismatch


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
    outcomes = []
    for host in _HOSTS:
        try:
            check_server_name(outcome, host)
            outcomes.append("the name")
        except SniMismatch:
            outcomes.append("another name")
    return ", ".join(outcomes)


_HOSTS = tuple(normalise_host(text) for text in ("example.com", "192.0.2.1"))
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
        hellos.hello_for(b"other.test"),
        hellos.hello_for(b"192.0.2.1"),
        hellos.hello(hellos.server_name_extension(b"a", b"b")),
        hellos.hello(hellos.server_name_extension(b"a", kind=1)),
        hellos.hello(_NAMED + b"\x00"),
        hellos.records(hellos.message(b"", kind=2)),
        hellos.records(hellos.message(bytes(2))),
        hellos.records(hellos.message(b"")[:3]),
        hellos.records(hellos.message(bytes(70_000))[:100]),
        hellos.records(hellos.message(hellos.hello_body(_NAMED)) + b"\x00"),
        hellos.records(hellos.message(bytes(16_000)), 100),
        hellos.hello(_NAMED + _NAMED),
        b"\x16\x03\x01\x00\x00",
        b"\x16\x02",
        b"\x80\x2e\x01",
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


# ---------------------------------------------------------------------- records

AS_SERVER, AS_CLIENT, ESTABLISHED, FINISHED = range(4)
"""What the first byte of an input asks for, and how often what follows comes; in an established
connection, which our end may have finished, the next two bytes say how many bytes of what the peer
really sent come first."""

MOST_TIMES = 8

_SENT = b"x" + bytes(100) + bytes(range(250)) * 80
_ROOM = memoryview(bytearray(2 * CHUNK_BYTES))


@functools.cache
def _contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        client, server = client_context(), server_context()
        client.load_verify_locations(authority.file)
        server.load_cert_chain(authority.issue("example.com"))
    return client, server


def _ends() -> tuple[TlsRecords, TlsRecords]:
    client, server = _contexts()
    return (
        TlsRecords(client, server_side=False, server_name="example.com"),
        TlsRecords(server, server_side=True),
    )


def _established() -> tuple[TlsRecords, bytes]:
    """Our end, a client, after its handshake; and everything that the peer then sends."""
    client, server = _ends()
    client.handshake()
    server.feed(memoryview(client.take()))
    server.handshake()
    client.feed(memoryview(server.take()))
    assert client.handshake()
    server.feed(memoryview(client.take()))
    assert server.handshake()
    for start, end in ((0, 1), (1, 101), (101, len(_SENT))):
        server.encrypt(memoryview(_SENT)[start:end])
    server.close_notify()
    return client, server.take()


def _read_records(records: TlsRecords, data: bytes) -> tuple[bytes, str]:
    plain = b""
    try:
        for piece in in_pieces(data):
            records.feed(memoryview(piece))
            plain += bytes(_ROOM[: records.decrypt(_ROOM)])
    except TlsFailed as error:
        return plain, error.text
    return plain, "closed" if records.has_peer_ended else "more"


def _shake_hands(records: TlsRecords, data: bytes) -> str:
    try:
        for piece in in_pieces(data):
            records.feed(memoryview(piece))
            if records.handshake():
                return "done"
    except TlsFailed as error:
        return error.text
    return "more"


def _execute_records(data: bytes) -> str:
    first = data[0] if data else AS_SERVER
    what, times = first % 4, 1 + first // 4 % MOST_TIMES
    if what in (ESTABLISHED, FINISHED):
        records, sent = _established()
        if what == FINISHED:
            records.close_notify()
            assert records.has_output
        genuine = sent[: int.from_bytes(data[1:3], "big")]
        plain, outcome = _read_records(records, genuine + data[3:] * times)
        # Whatever comes behind or in place of the peer's records: nothing of it is taken for data.
        assert _SENT.startswith(plain)
        assert outcome != "closed" or plain == _SENT
    else:
        client, server = _ends()
        records = server if what == AS_SERVER else client
        if what == AS_CLIENT:
            records.handshake()
            records.take()
        outcome = _shake_hands(records, data[1:] * times)
        assert outcome != "done", "no handshake is guessed"
    assert outcome.isprintable()
    assert len(outcome) <= 200
    return outcome


TLS_RECORDS = Target(
    "tls_records",
    _execute_records,
    corpus=(
        *(
            bytes([role]) + hello
            for role in (AS_SERVER, AS_CLIENT)
            for hello in CLIENT_HELLO.corpus
        ),
        *(bytes([ESTABLISHED, *length.to_bytes(2, "big")]) for length in (0, 5, 300, 700, 0xFFFF)),
        bytes([FINISHED, 255, 255]),
        bytes([FINISHED, 2, 0]),
        bytes([ESTABLISHED, 255, 255]) + b"\x15\x03\x03\x00\x02\x01\x00",
        bytes([AS_CLIENT]) + b"\x15\x03\x03\x00\x02\x02\x28",
        bytes([AS_SERVER]) + b"GET / HTTP/1.1\r\n\r\n",
        bytes([AS_SERVER + 4 * (MOST_TIMES - 1)])
        + hellos.records(b"\x01\x01\xfb\xd0" + bytes(16_380)),
    ),
    # What the peer sends, each of its bytes up to eight times, and what is made of it.
    most_memory_bytes=1024 * KIBIBYTE,
    most_memory_factor=30 * MOST_TIMES,
    dictionary=(
        *CLIENT_HELLO.dictionary,
        b"\x14\x03\x03\x00\x01\x01",
        b"\x15\x03\x03\x00\x02\x02\x30",
        b"\x16\x03\x03",
        b"\x17\x03\x03\x40\x11",
        b"\x17\x03\x03\x00\x00",
        b"\x02\x00\x00\x4c\x03\x03",
    ),
)

# ----------------------------------------------------------------- certificates

_CERTIFICATE = base64.b64decode(
    "MIIBgTCCASegAwIBAgIUFiAaGkVhNUHtSgdlMKb7ymeK74IwCgYIKoZIzj0EAwIwFjEUMBIGA1UEAwwLZXhh"
    "bXBsZS5jb20wHhcNMjYxMTIyMTY1MzIzWhcNMzYxMTE5MTY1MzIzWjAWMRQwEgYDVQQDDAtleGFtcGxlLmNv"
    "bTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABITdi2BbhGMJXEjFOCE5IFrUd5SJI6jN4Lwfk6EYBwWPK1xc"
    "ks4j4r9ONVlehXeOfB+5lNgX0Rt3BWTUotO5C1WjUzBRMB0GA1UdDgQWBBQdtlWV1+xenWjwNZ3tMkm+522n"
    "rTAfBgNVHSMEGDAWgBQdtlWV1+xenWjwNZ3tMkm+522nrTAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMC"
    "A0gAMEUCIG9+5fXxImz9xR82uKAughjMhqUj0Awo9pvGTjZrCYlMAiEAwSHHZI+Bi3d64K/FAuTwQPMB6U7x"
    "ILn7IAm9cMKXyAo="
)
"""Of a server, made for this file: P-256, version 3."""


def _execute_certificate(data: bytes) -> str:
    try:
        found = public_key_info(data)
    except CertificateError as error:
        return error.text
    assert found in data
    return f"a key of {len(found)} bytes"


CERTIFICATE = Target(
    "certificate",
    _execute_certificate,
    corpus=(
        _CERTIFICATE,
        _CERTIFICATE[:60],
        b"\x30\x15\x30\x13\x02\x01\x01" + 4 * b"\x30\x00" + b"\x30\x04fuzz",
    ),
    dictionary=(b"\x30\x80", b"\x30\x82\xff\xff", b"\xa0\x03\x02\x01\x02", b"\x30\x84", b"\x30"),
)
