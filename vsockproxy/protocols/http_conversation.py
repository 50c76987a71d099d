"""HTTP/1.1 as a service that keeps its connections: requests with bodies, one after the other.

Each request is read by an h11 of its own, behind `HeadReader`: nothing of one request is left when
the next one comes but the bytes that follow it. A body may be chunked or have a length, and is
refused before it is taken where it is too long.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import h11

from vsockproxy.protocols.errors import HeadError, HttpRequestError
from vsockproxy.protocols.http_head import (
    MAX_FRAMING_BYTES,
    HeadReader,
    head_refused,
    header,
    is_kept_alive,
    without_quotes,
)
from vsockproxy.protocols.http_service import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    ServiceAnswer,
)

__all__ = ("BodyRequest", "Conversation")

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class BodyRequest:
    """A request, whole.

    Args:
        method: as it was written.
        target: as it was written; a path, and perhaps a query.
        headers: the last value of each, by its name in lower case.
        body: without its framing.
    """

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


class Conversation:
    """One client's connection.

    Give `receive` what comes until it returns a request; send what `interim` holds meanwhile. Then
    send what `answer` returns, and begin again, with `receive(b"")` for what has come already
    unless it `is_idle`. Once `is_over`, close.

    Args:
        max_body_bytes: the longest body that is taken.
    """

    __slots__ = (
        "_body",
        "_connection",
        "_head",
        "_max_body_bytes",
        "_request",
        "_rest",
        "interim",
        "is_over",
    )

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._rest = b""
        """What follows the request that is being answered."""
        self.interim = b""
        """What the client is told before its request is whole; whoever sends it empties it."""
        self.is_over = False
        self._begin()

    def _begin(self) -> None:
        self._head: HeadReader | None = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_FRAMING_BYTES)
        self._request: h11.Request | None = None
        self._body = bytearray()

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request has come."""
        return self._head is not None and self._head.is_empty and not self._rest

    def receive(self, data: bytes) -> BodyRequest | None:
        """Take bytes; the request once it is whole.

        Raises:
            HttpRequestError: it is malformed or too long. Answer it; the connection is over then.
        """
        data, self._rest = self._rest + data, b""
        try:
            if self._head is not None:
                parts = self._head.receive(data)
                if parts is None:
                    return None
                self._head = None
                head, data = parts
                self._take_head(head)
            assert self._request is not None  # its head was taken
            if self._take_events():
                self._rest = data
                return self._whole()
            is_chunked = header(self._request, b"transfer-encoding") is not None
            step = MAX_FRAMING_BYTES if is_chunked else max(1, len(data))
            for start in range(0, len(data), step):
                self._connection.receive_data(data[start : start + step])
                if self._take_events():
                    self._rest = self._connection.trailing_data[0] + data[start + step :]
                    return self._whole()
        except HeadError as error:
            self.is_over = True
            raise head_refused(error) from None
        except h11.RemoteProtocolError as error:
            self.is_over = True
            raise HttpRequestError(400, without_quotes(error)) from None
        except HttpRequestError:
            self.is_over = True
            raise
        return None

    def _take_head(self, head: bytes) -> None:
        self._connection.receive_data(head)
        request = self._connection.next_event()
        if not isinstance(request, h11.Request):
            raise HttpRequestError(400, "no whole request")
        self._request = request
        if not request.target.startswith(b"/"):
            raise HttpRequestError(400, "the target is no path: this is no proxy")
        # h11 has checked that it is a number, of at most 20 digits.
        length = header(request, b"content-length")
        if length is not None and int(length) > self._max_body_bytes:
            raise self._too_long()
        if self._connection.they_are_waiting_for_100_continue:
            self.interim = _CONTINUE

    def _take_events(self) -> bool:
        while True:
            match self._connection.next_event():
                case h11.Data() as part:
                    self._body += part.data
                    if len(self._body) > self._max_body_bytes:
                        raise self._too_long()
                case h11.EndOfMessage():
                    return True
                case _:
                    return False

    def _too_long(self) -> HttpRequestError:
        text = f"a body of more than {self._max_body_bytes} bytes"
        return HttpRequestError(413, text)

    def _whole(self) -> BodyRequest:
        request = self._request
        assert request is not None  # `receive` has seen it
        self.interim = b""
        self.is_over = not is_kept_alive(request)
        return BodyRequest(
            request.method.decode("ascii"),
            request.target.decode("ascii"),
            {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers},
            bytes(self._body),
        )

    def answer(
        self, answer: ServiceAnswer, *, keep_seconds: int = 0, is_last: bool = False
    ) -> bytes:
        """The bytes of an answer to the request, or to what was raised in its place.

        Args:
            answer: the answer.
            keep_seconds: how long the client may count on the connection afterwards.
            is_last: whether the connection is over with it, if it is not anyway.
        """
        self.is_over = self.is_over or is_last
        is_head = self._request is not None and self._request.method == b"HEAD"
        lines: Sequence[str] = (
            f"HTTP/1.1 {answer.status} {_phrase(answer.status)}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            *(f"{name}: {value}" for name, value in answer.headers),
            "Connection: close" if self.is_over else f"Keep-Alive: timeout={keep_seconds}",
            "",
            "",
        )
        head = "\r\n".join(lines).encode("latin-1")
        self._begin()
        return head if is_head else head + answer.body


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # one that we do not know; the phrase may be empty (RFC 9112, section 4)
        return ""
