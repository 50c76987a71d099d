"""Serves HTTP on a listening socket that somebody else has made: one request a connection."""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from socket import socket
from typing import Final

import trio

from vsockproxy.control.logs import EventLog
from vsockproxy.protocols.errors import HeadError, HttpRequestError
from vsockproxy.protocols.http_head import HeadReader, head_refused
from vsockproxy.protocols.http_service import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    ServiceAnswer,
    ServiceRequest,
    read_request,
    write_answer,
)
from vsockproxy.services.accepting import accept_connections

__all__ = ("Answering", "serve_http")

Answering = Callable[[ServiceRequest], ServiceAnswer | Awaitable[ServiceAnswer]]
"""Answers a request, at once or after having waited for what is needed."""

CONNECTIONS_AT_ONCE: Final = 128
"""For the next one the connection ends that has waited for longest for its request."""

EXCHANGE_SECONDS: Final = 10.0
"""Time for a request to arrive and its answer to leave."""

READ_BYTES: Final = 4096


async def serve_http(
    listener: socket, answering: Answering, log: EventLog, *, head_seconds: float = math.inf
) -> None:
    """Serve until cancelled.

    Args:
        listener: non-blocking and listening; whoever made it closes it.
        answering: answers each request.
        log: gets a line when accepting has to rest.
        head_seconds: time for a request to arrive, where strangers may connect.
    """
    asking = _Asking(head_seconds)
    serve = partial(_serve_one, answering=answering, asking=asking)
    await accept_connections(
        listener, serve, log, at_once=CONNECTIONS_AT_ONCE, make_room=asking.end_one
    )


class _Asking:
    """The connections whose request is not complete."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._scopes: dict[trio.CancelScope, None] = {}
        """The oldest comes first."""

    def end_one(self) -> None:
        """End the oldest, if there is one."""
        if self._scopes:
            next(iter(self._scopes)).cancel()

    async def read(self, stream: trio.SocketStream) -> ServiceRequest | None:
        """Wait for a request; None if none came.

        Raises:
            HttpRequestError: what came is no request, or none that is served.
        """
        reader = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)
        with trio.move_on_after(self._seconds) as scope:
            self._scopes[scope] = None
            try:
                while data := await stream.receive_some(READ_BYTES):
                    if parts := reader.receive(bytes(data)):
                        return read_request(parts[0])
            except HeadError as error:
                raise head_refused(error) from None
            finally:
                del self._scopes[scope]
        return None


async def _serve_one(
    connection: trio.socket.SocketType, answering: Answering, asking: _Asking
) -> None:
    async with trio.SocketStream(connection) as stream:
        with trio.move_on_after(EXCHANGE_SECONDS):
            try:
                await stream.send_all(await _exchange(stream, answering, asking))
                await stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the client has gone


async def _exchange(stream: trio.SocketStream, answering: Answering, asking: _Asking) -> bytes:
    """The bytes that answer one request; none if none came."""
    try:
        request = await asking.read(stream)
        if request is None:
            return b""
        answer = answering(request)
        if not isinstance(answer, ServiceAnswer):
            answer = await answer
        return write_answer(answer, has_body=request.method != "HEAD")
    except HttpRequestError as error:
        return write_answer(ServiceAnswer(error.status, f"{error.text}\n".encode()))
