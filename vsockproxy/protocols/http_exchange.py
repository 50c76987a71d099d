"""One request and its response, between a client and an origin that we dialled.

Two h11 connections back to back: we are the server of one and the client of the other, so each
body is read in one framing and written in the framing that its receiver understands. Nothing is
kept beyond the bytes of one call, but for an incomplete head, chunk header or trailer section.

Both messages say `Connection: close`, unless the connections are to be kept for a next exchange.
Hop-by-hop headers (RFC 9110, section 7.6.1) go no further than us. So do trailer fields, which an
intermediary may drop (RFC 9110, section 6.5): without TE and Trailer neither end was told of any.
"""

import sys
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
    connection_options,
    header,
    is_kept_alive,
    without_quotes,
)
from vsockproxy.protocols.http_proxy import DEFAULT_HTTP_PORT, ForwardRequest

__all__ = ("ForwardedExchange",)

MAX_RESPONSE_HEAD_BYTES: Final = 32 * 1024
"""Twice a request's head: cookies and policies make them long. Node takes 16 KiB, Go 1 MiB. While
h11 reads one it uses up to 280 times its size, which makes 9 MiB, for a moment."""
MAX_RESPONSE_HEADERS: Final = 256

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
    )
)
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""Not removed because a Connection header names them: h11 writes the body that they announce."""


class ForwardedExchange:
    """Carries one exchange, in bytes that the caller moves.

    Send the origin `start()`, then what `client_data` returns; send the client what `origin_data`
    and `origin_eof` return. Once `is_complete`, close both connections in order. When a call
    raises, the exchange is over: answer the client with `http_answers.refusal` if `may_answer`,
    else reset it, and reset the origin: a clean end would make a cut body look whole.

    Args:
        request: as its reader read it.
        default_port: what the Host header leaves out.
        may_persist: whether the connections may be kept; then ask `persists` and `surplus`.
    """

    __slots__ = (
        "_client",
        "_client_step",
        "_is_complete",
        "_may_persist",
        "_origin",
        "_origin_step",
        "_outgoing",
        "_request_is_complete",
        "_response_head",
        "_surplus",
        "_takes_interim",
        "_trailing",
    )

    def __init__(
        self,
        request: ForwardRequest,
        *,
        default_port: int = DEFAULT_HTTP_PORT,
        may_persist: bool = False,
    ) -> None:
        self._client = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_FRAMING_BYTES)
        self._origin = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_FRAMING_BYTES)
        self._response_head = _response_head_reader()
        self._trailing = request.trailing
        self._request_is_complete = False
        self._is_complete = False
        self._may_persist = may_persist
        self._surplus = b""
        self._client.receive_data(request.head)
        incoming = self._client.next_event()
        assert isinstance(incoming, h11.Request), "ProxyRequestReader has parsed this head"
        self._takes_interim = incoming.http_version != b"1.0"
        self._client_step = _step(incoming)
        self._origin_step = 0
        headers = [item for item in _end_to_end(incoming) if item[0].lower() != b"host"]
        self._outgoing = h11.Request(
            method=incoming.method,
            target=request.target,
            headers=[
                (b"Host", _host_header(request, default_port)),
                *headers,
                *self._our_own(incoming),
            ],
        )

    @property
    def is_complete(self) -> bool:
        """Whether the whole response has been returned. The request's body may not be over."""
        return self._is_complete

    @property
    def may_answer(self) -> bool:
        """Whether the client has seen nothing of a final response, so that a refusal can be it."""
        return self._client.our_state is h11.SEND_RESPONSE

    @property
    def request_is_complete(self) -> bool:
        """Whether the whole request has been taken."""
        return self._request_is_complete

    @property
    def persists(self) -> bool:
        """After a whole response: whether both connections may carry another exchange."""
        states = (*self._client.states.values(), *self._origin.states.values())
        return self._may_persist and all(state is h11.DONE for state in states)

    @property
    def surplus(self) -> bytes:
        """What the client has sent behind its request: the next one, where `persists`."""
        return self._surplus

    def start(self) -> bytes:
        """The first bytes for the origin: the head, and of the body what came along with it.

        Raises:
            HttpRequestError: as from `client_data`.
        """
        trailing, self._trailing = self._trailing, b""
        return self._origin.send(self._outgoing) + self.client_data(trailing)

    def client_data(self, data: bytes) -> bytes:
        """Take bytes from the client, return bytes for the origin.

        What follows the request is `surplus`; what comes after the response has ended is dropped.

        Raises:
            HttpRequestError: the body is malformed.
        """
        if self._request_is_complete:
            self._surplus += data if self._may_persist else b""
            return b""
        if self._is_complete:
            return b""
        try:
            payload, rest = _read_body(self._client, data, self._client_step)
        except h11.RemoteProtocolError as error:
            raise HttpRequestError(400, without_quotes(error)) from None
        if rest is not None:
            self._request_is_complete = True
            self._surplus = rest
        return _write_body(self._origin, payload, is_last=self._request_is_complete)

    def client_eof(self) -> None:
        """Take the client's half-close, which changes nothing once its request is complete.

        Raises:
            HttpRequestError: the request's body was not complete.
        """
        if not self._request_is_complete and not self._is_complete:
            raise HttpRequestError(400, "the client closed inside its body")

    def origin_data(self, data: bytes) -> bytes:
        """Take bytes from the origin, return bytes for the client.

        What follows the response is dropped.

        Raises:
            HttpResponseError: the response is malformed, or answers something that was not asked.
        """
        if self._is_complete:
            return b""
        interim = b""
        try:
            while self.may_answer:
                parts = self._response_head.receive(data)
                if parts is None:
                    return interim
                head, data = parts
                interim += self._pass_head(head)
            return interim + self._pass_body(data)
        except HeadError as error:
            raise HttpResponseError(MALFORMED, f"the origin sent {error.text}") from None
        except h11.RemoteProtocolError as error:
            text = f"the origin's response: {without_quotes(error)}"
            raise HttpResponseError(MALFORMED, text) from None

    def origin_eof(self) -> bytes:
        """Take the origin's clean end, return the last bytes for the client.

        Only a body without any framing ends this way; `is_complete` is true afterwards.

        Raises:
            HttpResponseError: the response is not complete.
        """
        if self._is_complete:
            return b""
        if self.may_answer:
            raise HttpResponseError(INCOMPLETE, "the origin closed before it had answered")
        self._origin.receive_data(b"")
        try:
            return self._pass_body(b"")
        except h11.RemoteProtocolError:
            text = "the origin closed inside its response"
            raise HttpResponseError(INCOMPLETE, text) from None

    def _pass_head(self, head: bytes) -> bytes:
        self._origin.receive_data(head)
        response = self._origin.next_event()
        assert isinstance(response, h11.InformationalResponse | h11.Response), "a whole head"
        headers = _end_to_end(response)
        if response.status_code < 200 or response.status_code == 204:
            # These have no body, and must not announce one (RFC 9110, section 8.6).
            headers = [item for item in headers if item[0].lower() not in _FRAMING]
        if isinstance(response, h11.InformationalResponse):
            self._response_head = _response_head_reader()
            if not self._takes_interim:
                return b""
            return self._client.send(
                h11.InformationalResponse(
                    status_code=response.status_code, reason=response.reason, headers=headers
                )
            )
        self._origin_step = _step(response)
        return self._client.send(
            h11.Response(
                status_code=response.status_code,
                reason=response.reason,
                headers=[*headers, *self._our_own(response)],
            )
        )

    def _pass_body(self, data: bytes) -> bytes:
        payload, rest = _read_body(self._origin, data, self._origin_step)
        self._is_complete = rest is not None
        if rest:  # nothing was asked that it could answer
            self._may_persist = False
        return _write_body(self._client, payload, is_last=self._is_complete)

    def _our_own(self, message: h11.Request | h11.Response) -> list[tuple[bytes, bytes]]:
        """What an intermediary adds (RFC 9110, section 7.6.3), and whether nothing follows."""
        via = (b"Via", message.http_version + b" vsockproxy")
        if self._may_persist and is_kept_alive(message):
            return [via]
        self._may_persist = False
        return [via, (b"Connection", b"close")]


def _response_head_reader() -> HeadReader:
    return HeadReader(MAX_RESPONSE_HEAD_BYTES, MAX_RESPONSE_HEADERS)


def _step(message: h11.Request | h11.Response) -> int:
    """How many bytes of a body h11 is fed at once."""
    return sys.maxsize if header(message, b"transfer-encoding") is None else MAX_FRAMING_BYTES


def _host_header(request: ForwardRequest, default_port: int) -> bytes:
    destination = request.destination
    text = str(destination)
    if destination.port == default_port:
        text = text.removesuffix(f":{default_port}")
    return text.encode("ascii")


def _end_to_end(
    message: h11.Request | h11.InformationalResponse | h11.Response,
) -> list[tuple[bytes, bytes]]:
    """The headers that are meant for more than the next hop, as they were written."""
    dropped = _HOP_BY_HOP | (connection_options(message) - _FRAMING)
    return [item for item in message.headers.raw_items() if item[0].lower() not in dropped]


def _read_body(source: h11.Connection, data: bytes, step: int) -> tuple[bytes, bytes | None]:
    """The payload that `data` brings, and what follows the body; None where it has not ended."""
    payload: list[bytes] = []
    has_ended = _take_events(source, payload)  # A body of no bytes ends before any arrive.
    start = 0
    while not has_ended and start < len(data):
        source.receive_data(data[start : start + step])
        start += step
        has_ended = _take_events(source, payload)
    if not has_ended:
        return b"".join(payload), None
    return b"".join(payload), source.trailing_data[0] + data[start:]


def _take_events(source: h11.Connection, payload: list[bytes]) -> bool:
    while isinstance(event := source.next_event(), h11.Data):
        payload.append(event.data)
    return isinstance(event, h11.EndOfMessage)


def _write_body(sink: h11.Connection, payload: bytes, *, is_last: bool) -> bytes:
    written = sink.send(h11.Data(data=payload)) if payload else b""
    return written + sink.send(h11.EndOfMessage()) if is_last else written
