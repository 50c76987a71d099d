"""Connections of a KMS: requests one after another, and answers that are sent as faults want it."""

import asyncio
import struct
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import Protocol, cast

from tests.support.aws_http import BadRequest, Request, RequestReader
from tests.support.kms_faults import Fault
from tests.support.kms_messages import Reply, message

_DRIBBLE_BYTES = 7
_LINGER = struct.Struct("ii")


class Answering(Protocol):
    """Who knows the answers."""

    slow_seconds: float

    def reply(self, request: Request) -> Reply:
        """What is sent for a request."""

    def hold(self, answer: Callable[[], object]) -> None:
        """Keep an answer until later."""

    def note_bad_request(self) -> None:
        """Something came that is no request."""

    def count_connection(self, change: int) -> None:
        """One more, or one less."""


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        server: answers.
        connections: all that there are.
    """

    def __init__(self, server: Answering, connections: set["Connection"]) -> None:
        self._server = server
        self._connections = connections
        self._reader = RequestReader()
        self._is_busy = False
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be there, the handshake being done."""
        # uvloop's transport of TLS has the methods, and not the class.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._server.count_connection(1)

    def connection_lost(self, error: Exception | None) -> None:
        """Be gone."""
        self._transport = None
        self._connections.discard(self)
        self._server.count_connection(-1)
        self._ended.set()

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        self._reader.receive(data)
        self._go_on()

    async def end(self) -> None:
        """End it at once, by a reset."""
        if self._transport is not None:
            self._transport.abort()
        await self._ended.wait()

    def _go_on(self) -> None:
        while not self._is_busy and self._transport is not None:
            try:
                request = self._reader.next_request()
                if request is None:
                    return
                self._is_busy = True
                reply = self._server.reply(request)
            except BadRequest as error:
                self._server.note_bad_request()
                self._end_with(message(400, f"{error}\n".encode(), "text/plain").data)
                return
            self._send(reply)

    def _send(self, reply: Reply) -> None:
        assert self._transport is not None
        match reply.fault:
            case Fault.SLOW:
                seconds = self._server.slow_seconds
                asyncio.get_running_loop().call_later(seconds, self._finish, reply.data)
            case Fault.HELD:
                self._server.hold(lambda: self._finish(reply.data))
            case Fault.DRIBBLING:
                self._dribble(reply.data)
            case Fault.CUT_BEFORE:
                self._cut_after(b"")
            case Fault.CUT_IN_HEAD:
                self._cut_after(reply.data[: reply.head_bytes // 2])
            case Fault.CUT_IN_BODY:
                self._cut_after(reply.data[: (reply.head_bytes + len(reply.data)) // 2])
            case Fault.RESET:
                socket = self._transport.get_extra_info("socket")
                socket.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER.pack(1, 0))
                self._transport.abort()
            case Fault.CLOSED_AFTER | Fault.CLOSED_SILENTLY_AFTER | Fault.WITHOUT_LENGTH:
                self._end_with(reply.data)
            case _:
                self._finish(reply.data)

    def _finish(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            self._is_busy = False
            self._go_on()

    def _end_with(self, data: bytes) -> None:
        self._is_busy = True  # whatever else comes
        if self._transport is not None:
            self._transport.write(data)
            self._transport.close()

    def _cut_after(self, data: bytes) -> None:
        """End it without a word of TLS, once the loop has sent what it was given."""
        self._is_busy = True
        if self._transport is not None:
            self._transport.write(data)
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._transport.abort)

    def _dribble(self, data: bytes) -> None:
        if self._transport is None:
            return
        if len(data) <= _DRIBBLE_BYTES:
            self._finish(data)
            return
        self._transport.write(data[:_DRIBBLE_BYTES])
        asyncio.get_running_loop().call_soon(self._dribble, data[_DRIBBLE_BYTES:])
