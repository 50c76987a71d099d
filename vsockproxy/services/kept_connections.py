"""Serves HTTP on connections that are kept: many requests each, with bodies, one at a time."""

from collections.abc import Awaitable, Callable
from socket import socket
from typing import Final

import trio

from vsockproxy.control.logs import EventLog
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_conversation import BodyRequest, Conversation
from vsockproxy.protocols.http_service import ServiceAnswer
from vsockproxy.services.accepting import accept_connections

__all__ = ("AnswerCall", "RefuseCall", "serve_kept_connections")

AnswerCall = Callable[[BodyRequest], Awaitable[ServiceAnswer]]
"""Answers a request; it sees to its own time limit."""

RefuseCall = Callable[[HttpRequestError], ServiceAnswer]
"""The answer to what is no request."""

CONNECTIONS_AT_ONCE: Final = 512
"""For the next one the connection ends that has been idle for longest, if there is one."""

IDLE_SECONDS: Final = 75.0
"""How long a connection is kept on which no request comes."""

PROMISED_SECONDS: Final = 60
"""What clients are told of it, so that theirs is not the request that meets the end."""

REQUEST_SECONDS: Final = 10.0
"""Time for a request to arrive from its first byte on, and for an answer to leave."""

LINGER_SECONDS: Final = 1.0
"""How long what a refused client still sends is read: an end with it unread would be a reset, and
take the refusal with it."""

READ_BYTES: Final = 64 * 1024


async def serve_kept_connections(
    listener: socket,
    answering: AnswerCall,
    refusing: RefuseCall,
    log: EventLog,
    *,
    max_body_bytes: int,
) -> None:
    """Serve until cancelled.

    Args:
        listener: non-blocking and listening; whoever made it closes it.
        answering: answers each request.
        refusing: answers what is none; the connection ends with it.
        log: gets a line when accepting has to rest.
        max_body_bytes: the longest body that is taken.
    """
    waiting = _Waiting()

    async def serve(connection: trio.socket.SocketType) -> None:
        async with trio.SocketStream(connection) as stream:
            try:
                await _serve(stream, answering, refusing, Conversation(max_body_bytes), waiting)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it has gone
            finally:
                waiting.ended()

    await accept_connections(
        listener, serve, log, at_once=CONNECTIONS_AT_ONCE, make_room=waiting.end_one
    )


class _Waiting:
    """The connections on which nothing of a request has come."""

    def __init__(self) -> None:
        self._scopes: dict[trio.CancelScope, None] = {}
        """The one that waits for longest comes first."""
        self._is_full = False
        """Whether somebody waits for room, and no connection could be ended for it."""

    def end_one(self) -> None:
        """End the one that waits for longest, or else the next one that would wait."""
        if self._scopes:
            next(iter(self._scopes)).cancel()
        else:
            self._is_full = True

    def ended(self) -> None:
        """A connection has ended, so there is room."""
        self._is_full = False

    async def read(self, stream: trio.SocketStream, *, is_first: bool) -> bytes:
        """Wait for the first bytes of a request; none if the connection is over.

        Args:
            stream: the connection.
            is_first: whether it has had no answer yet. One that has may make room for the next.
        """
        if self._is_full and not is_first:
            self._is_full = False
            return b""
        data = b""
        with trio.move_on_after(IDLE_SECONDS) as scope:
            self._scopes[scope] = None
            try:
                data = bytes(await stream.receive_some(READ_BYTES))
            finally:
                del self._scopes[scope]
        return data


async def _serve(
    stream: trio.SocketStream,
    answering: AnswerCall,
    refusing: RefuseCall,
    conversation: Conversation,
    waiting: _Waiting,
) -> None:
    is_first = True
    while not conversation.is_over:
        data = b""
        if conversation.is_idle:
            data = await waiting.read(stream, is_first=is_first)
            if not data:
                return
        is_first = False
        try:
            request = await _receive(stream, conversation, data)
        except HttpRequestError as error:
            await _send(stream, conversation.answer(refusing(error)))
            await _linger(stream)
            return
        if request is None:
            return
        answer = await answering(request)
        await _send(stream, conversation.answer(answer, keep_seconds=PROMISED_SECONDS))
    await stream.send_eof()


async def _receive(
    stream: trio.SocketStream, conversation: Conversation, data: bytes
) -> BodyRequest | None:
    """A request that has begun with `data`; None if it does not arrive.

    Raises:
        HttpRequestError: it is none.
    """
    request = conversation.receive(data)
    if request is not None:  # as almost always
        return request
    with trio.move_on_after(REQUEST_SECONDS):
        while request is None:
            if conversation.interim:
                await stream.send_all(conversation.interim)
                conversation.interim = b""
            data = bytes(await stream.receive_some(READ_BYTES))
            if not data:
                return None
            request = conversation.receive(data)
        return request
    return None


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    with trio.move_on_after(REQUEST_SECONDS) as sending:
        await stream.send_all(data)
    if sending.cancelled_caught:
        raise trio.BrokenResourceError("the client takes no answer")


async def _linger(stream: trio.SocketStream) -> None:
    await stream.send_eof()
    with trio.move_on_after(LINGER_SECONDS):
        while await stream.receive_some(READ_BYTES):
            pass
