"""The request for an attestation document, told from everything else that a connection may carry.

A TLS server of ours looks at the first bytes of a connection, and only at these: as soon as they
differ from such a request they are the service's, untouched, with all that follows. After an answer
that leaves the connection open the next bytes are looked at likewise, so that a client can ask
first and then use the very connection that it has verified.
"""

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import h11

from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_head import HeadReader, is_kept_alive, receive_request

__all__ = (
    "ATTESTATION_PATH",
    "DOCUMENT_TYPE",
    "MAX_NONCE_BYTES",
    "AttestationRequest",
    "AttestationRequestReader",
    "OtherBytes",
    "document_answer",
    "refusal_answer",
)

ATTESTATION_PATH: Final = "/.well-known/attestation"

DOCUMENT_TYPE: Final = 'application/cose; cose-type="cose-sign1"'
"""RFC 9052, section 2; the document is COSE_Sign1."""

MAX_NONCE_BYTES: Final = 512
"""What AWS's description of documents allows; its module takes 1024."""

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 64

_BEGINNING: Final = f"GET {ATTESTATION_PATH}".encode("ascii")
_ENDS_PATH: Final = b" ?"
"""What has to follow the path; with anything else it is a longer one, and not ours."""

_NONCE: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class OtherBytes:
    """The connection carries something else.

    Args:
        data: all bytes of it so far; they belong to the service.
    """

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AttestationRequest:
    """Somebody wants a document.

    Args:
        nonce: to be in it.
        keeps_alive: whether the connection stays open after the answer.
        following: bytes that came behind the request.
    """

    nonce: bytes
    keeps_alive: bool
    following: bytes = field(repr=False)


class AttestationRequestReader:
    """Looks at the bytes of one request."""

    __slots__ = ("_beginning", "_head")

    def __init__(self) -> None:
        self._beginning = b""
        self._head = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)

    @property
    def is_ours(self) -> bool:
        """Whether the request can be none of the service's any more."""
        return len(self._beginning) > len(_BEGINNING)

    @property
    def undecided(self) -> bytes:
        """The bytes so far, for the service, while `is_ours` is false."""
        return self._beginning

    def receive(self, data: bytes) -> AttestationRequest | OtherBytes | None:
        """Take the next bytes; what they are, or None while that is not clear.

        Raises:
            HttpRequestError: it is our request, and malformed; answer with `refusal_answer`.
        """
        if self.is_ours:
            return self._read(data)
        self._beginning += data
        seen = self._beginning
        length = min(len(seen), len(_BEGINNING))
        if seen[:length] != _BEGINNING[:length]:
            return OtherBytes(seen)
        if len(seen) == length:
            return None
        if seen[length] not in _ENDS_PATH:
            return OtherBytes(seen)
        return self._read(seen)

    def _read(self, data: bytes) -> AttestationRequest | None:
        received = receive_request(self._head, data)
        if received is None:
            return None
        request, _, following = received
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in request.headers
        )
        if has_body:
            raise HttpRequestError(400, "a request with a body: send it without")
        return AttestationRequest(_nonce_of(request), is_kept_alive(request), following)


def _nonce_of(request: h11.Request) -> bytes:
    _, _, query = request.target.decode("ascii").partition("?")
    name, _, value = query.partition("=")
    mend = f"write {ATTESTATION_PATH}?nonce=HEX and nothing else"
    if name != "nonce" or "&" in query:
        raise HttpRequestError(400, f"the query is not one nonce: {mend}")
    if not _NONCE.match(value):
        raise HttpRequestError(400, f"the nonce is not bytes in hex: {mend}")
    if len(value) > 2 * MAX_NONCE_BYTES:
        text = f"the nonce has more than {MAX_NONCE_BYTES} bytes"
        raise HttpRequestError(400, text)
    return bytes.fromhex(value)


def document_answer(document: bytes, *, keeps_alive: bool) -> bytes:
    """The answer that holds a document."""
    return _answer(200, DOCUMENT_TYPE, document, () if keeps_alive else ("Connection: close",))


def refusal_answer(status: int, text: str) -> bytes:
    """An answer without one; close the connection after it.

    Args:
        status: 400-599.
        text: one line of ours.
    """
    retry = ("Retry-After: 1",) if status in (429, 503) else ()
    body = f"{text}\n".encode()
    return _answer(status, "text/plain; charset=utf-8", body, (*retry, "Connection: close"))


def _answer(status: int, content_type: str, body: bytes, headers: tuple[str, ...]) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("ascii") + body
