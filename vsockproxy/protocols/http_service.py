"""HTTP/1.1 as our own services speak it: requests without a body, one for each connection.

Whoever serves reads a head with `HeadReader`, and answers `read_request` with `write_answer`.
Whoever asks sends `write_request` and gives `AnswerReader` what comes. Every message says
`Connection: close`: nothing is left of one request when the next one comes.

`write_post` asks with a body, on a connection that is kept; `http_conversation` serves such ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Final

import h11

from vsockproxy.protocols.errors import (
    INCOMPLETE,
    MALFORMED,
    HeadError,
    HttpRequestError,
    HttpResponseError,
)
from vsockproxy.protocols.http_head import (
    MAX_FRAMING_BYTES,
    HeadReader,
    parse_request,
    without_quotes,
)

__all__ = (
    "MAX_HEADERS",
    "MAX_HEAD_BYTES",
    "AnswerReader",
    "ServiceAnswer",
    "ServiceRequest",
    "read_request",
    "write_answer",
    "write_post",
    "write_request",
)

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 64

_HTTP: Final = b"HTTP/"


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """A request.

    Args:
        method: as it was written.
        target: in origin-form: a path, and perhaps a query.
        headers: the last value of each, by its name in lower case.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """An answer, whole."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str = "text/plain; charset=utf-8"
    headers: Sequence[tuple[str, str]] = ()


def read_request(head: bytes) -> ServiceRequest:
    """Read a head that `HeadReader` has let pass.

    Raises:
        HttpRequestError: it is no request of these services.
    """
    request = parse_request(head)
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise HttpRequestError(413, "a request with a body: send it without")
    target = request.target.decode("ascii")
    if not target.startswith("/"):
        raise HttpRequestError(400, "the target is no path: this is no proxy")
    return ServiceRequest(request.method.decode("ascii"), target, headers)


def write_answer(answer: ServiceAnswer, *, has_body: bool = True) -> bytes:
    """The bytes of an answer; `has_body` is False for the answer to a HEAD request."""
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        *(f"{name}: {value}" for name, value in answer.headers),
        "Connection: close",
        "",
        "",
    ]
    head = "\r\n".join(lines).encode("latin-1")
    return head + answer.body if has_body else head


def write_request(
    method: str, target: str, host: str, headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    """The bytes of a request without a body."""
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: vsockproxy",
        "Accept: */*",
        *(("Content-Length: 0",) if method == "PUT" else ()),
        *(f"{name}: {value}" for name, value in headers),
        "Connection: close",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def write_post(target: str, host: str, headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    """The bytes of a POST whose connection may be kept.

    Args:
        target: the path.
        host: for the Host header.
        headers: further ones, which were read or made by a reader of ours: without line breaks.
        body: of the request.
    """
    lines = [
        f"POST {target} HTTP/1.1",
        f"Host: {host}",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + body


_END: Final = h11.EndOfMessage()


@cache
def _asked(method: str) -> h11.Request:
    return h11.Request(method=method, target="/", headers=[("Host", "-")])


class AnswerReader:
    """Reads the answer to one request. Names of its headers are in lower case.

    Args:
        method: of the request.
        max_body_bytes: the longest body that is taken.
        takes_interim: whether answers with a status of 1xx may come first, which tell nothing here.
    """

    __slots__ = (
        "_beginning",
        "_body",
        "_connection",
        "_head",
        "_headers",
        "_is_surplus",
        "_max_body_bytes",
        "_status",
        "_takes_interim",
        "has_begun",
    )

    def __init__(self, method: str, max_body_bytes: int, *, takes_interim: bool = False) -> None:
        self._takes_interim = takes_interim
        self._head: HeadReader | None = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_FRAMING_BYTES)
        # h11 wants to have sent the request whose answer it reads.
        self._connection.send(_asked(method))
        self._connection.send(_END)
        self._max_body_bytes = max_body_bytes
        self._beginning = b""
        self._status = 0
        self._headers: tuple[tuple[str, str], ...] = ()
        self._body = bytearray()
        self._is_surplus = False
        self.has_begun = False
        """Whether any byte of the answer has come."""

    @property
    def may_reuse(self) -> bool:
        """Whether the connection can carry another request, once the answer is whole."""
        # `h11.DONE` on both sides: neither said close, and the body's end is not the connection's.
        states = {self._connection.our_state, self._connection.their_state}
        return states == {h11.DONE} and not self._is_surplus

    def receive(self, data: bytes) -> ServiceAnswer | None:
        """Take bytes, none at the end of file; the answer once it is whole.

        Raises:
            HttpResponseError: it is malformed, longer than it may be, or cut off.
        """
        self.has_begun = self.has_begun or bool(data)
        if len(self._beginning) < len(_HTTP):
            self._beginning += data[: len(_HTTP) - len(self._beginning)]
            if not _HTTP.startswith(self._beginning):  # whose head would be waited for in vain
                raise HttpResponseError(MALFORMED, "the answer is no HTTP")
        try:
            while self._head is not None:
                if not data:
                    raise HttpResponseError(INCOMPLETE, "the answer was cut off")
                parts = self._head.receive(data)
                if parts is None:
                    return None
                head, data = parts
                self._head = None
                self._connection.receive_data(head)
                if self._take_events():
                    return self._answer(data)
                if not data:
                    return None
            pieces = range(0, len(data), MAX_FRAMING_BYTES) if data else range(1)
            for start in pieces:
                end = start + MAX_FRAMING_BYTES
                self._connection.receive_data(data[start:end])
                if self._take_events():
                    return self._answer(data[end:])
        except HeadError as error:
            raise HttpResponseError(MALFORMED, f"the answer has {error.text}") from None
        except h11.RemoteProtocolError as error:
            raise HttpResponseError(MALFORMED, without_quotes(error)) from None
        return None

    def _take_events(self) -> bool:
        while True:
            match self._connection.next_event():
                case h11.InformationalResponse():
                    if not self._takes_interim:
                        raise HttpResponseError(MALFORMED, "an interim answer")
                    self._head = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)
                case h11.Response() as response:
                    self._status = response.status_code
                    self._headers = tuple(
                        (name.decode("ascii"), value.decode("latin-1"))
                        for name, value in response.headers
                    )
                case h11.Data() as part:
                    self._body += part.data
                    if len(self._body) > self._max_body_bytes:
                        text = f"an answer of more than {self._max_body_bytes} bytes"
                        raise HttpResponseError(MALFORMED, text)
                case h11.EndOfMessage():
                    return True
                case _:
                    return False

    def _answer(self, following: bytes) -> ServiceAnswer:
        self._is_surplus = bool(following or self._connection.trailing_data[0])
        return ServiceAnswer(self._status, bytes(self._body), headers=self._headers)
