"""Target: a connection's first bytes, which may be a request for an attestation document."""

from collections.abc import Iterable

from tests.fuzz.target import Target, same_however_cut
from vsockproxy.protocols.attestation_request import (
    MAX_NONCE_BYTES,
    AttestationRequest,
    AttestationRequestReader,
    OtherBytes,
)
from vsockproxy.protocols.errors import HttpRequestError

NOT_OURS = "an error for bytes of the service"


def _read(data: bytes, pieces: Iterable[bytes]) -> str:
    reader = AttestationRequestReader()
    position = 0
    for piece in pieces:
        position += len(piece)
        try:
            found = reader.receive(piece)
        except HttpRequestError as error:
            return f"malformed: {error.text}" if reader.is_ours else NOT_OURS
        match found:
            case OtherBytes(data=others):
                assert others + data[position:] == data
                return "other"
            case AttestationRequest():
                assert 1 <= len(found.nonce) <= MAX_NONCE_BYTES
                rest = found.following + data[position:]
                assert data.endswith(rest)
                return f"request, {'alive' if found.keeps_alive else 'closing'}, {rest!r}"
        if not reader.is_ours:
            assert reader.undecided == data[:position]
    return "more"


def _execute(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read(data, cut(data)))
    assert outcome != NOT_OURS
    return outcome.partition(", b")[0]


_TARGET = b"GET /.well-known/attestation"
_REQUEST = _TARGET + b"?nonce=00ff HTTP/1.1\r\nHost: a.example\r\n\r\n"

ATTESTATION_REQUEST = Target(
    "attestation_request",
    _execute,
    corpus=(
        _REQUEST,
        _REQUEST + b"GET / HTTP/1.1\r\n\r\n",
        _REQUEST[:-2] + b"Connection: close\r\n\r\n",
        _REQUEST[:-2] + b"Connection: TE, close\r\nAccept: */*\r\n\r\n",
        _REQUEST[:-2] + b"Content-Length: 3\r\n\r\nabc",
        _REQUEST[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        _REQUEST[:-2] + b"a: b\r\n" * 70 + b"\r\n",
        _REQUEST.replace(b"1.1", b"1.0"),
        _TARGET + b"?nonce=" + b"ab" * 513 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        _TARGET + b"?nonce=0 HTTP/1.1\r\nHost: a\r\n\r\n",
        _TARGET + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        _TARGET + b"?nonce=00 HTTP/1.1\r\nHost: a\r\na: " + b"b" * 17_000,
        b"GET / HTTP/1.1\r\n\r\n",
        _TARGET + b"s HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    dictionary=(
        _TARGET,
        b"?nonce=",
        b"&",
        b" HTTP/1.1\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
        b"\r\n ",
        b"\n",
    ),
)
