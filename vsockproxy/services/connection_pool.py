"""Connections to one HTTP server that are kept: no handshake for each question."""

import select
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import trio

from vsockproxy.protocols.http_service import AnswerReader, ServiceAnswer

__all__ = ("ConnectionCut", "ConnectionPool", "OpenConnection", "is_quiet")

OpenConnection = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a connection, with all that belongs to it."""

READ_BYTES: Final = 64 * 1024
CLOSE_SECONDS: Final = 1.0
"""Time for a connection to say goodbye."""


class ConnectionCut(ConnectionError):
    """The connection ended before the answer was whole, and asking again was not ours to do."""


@dataclass(slots=True)
class _Idle:
    stream: trio.abc.Stream
    since: float


class ConnectionPool:
    """Asks one server, on at most so many connections; `run` ends those that nobody uses.

    A question is sent a second time in one case alone, which the one who asks cannot see: a
    connection that had been kept turns out to have ended, without a byte of an answer, and either
    the question had not left whole, or it may be repeated (RFC 9112, section 9.3.1).

    Args:
        open_connection: opens one.
        at_once: how many there are at most; further questions wait.
        idle_seconds: how long one is kept that nobody uses.
        is_alive: whether a kept one may be used: that nothing has come on it.
    """

    def __init__(
        self,
        open_connection: OpenConnection,
        *,
        at_once: int,
        idle_seconds: float,
        is_alive: Callable[[trio.abc.Stream], bool] = lambda _: True,
    ) -> None:
        self._open = open_connection
        self._room = trio.Semaphore(at_once)
        self._idle_seconds = idle_seconds
        self._is_alive = is_alive
        self._idle: deque[_Idle] = deque()
        """The one that was used last comes last, and is used next."""
        self._has_idle = trio.Event()
        self.opened = 0
        """Connections that were opened."""

    @property
    def idle(self) -> int:
        """How many are kept at the moment."""
        return len(self._idle)

    async def run(self) -> None:
        """End connections that are idle for too long, until cancelled; then all."""
        try:
            while True:
                while not self._idle:
                    self._has_idle = trio.Event()
                    await self._has_idle.wait()
                await trio.sleep_until(self._idle[0].since + self._idle_seconds)
                while self._idle and self._is_old(self._idle[0]):
                    await _say_goodbye(self._idle.popleft().stream)
        finally:
            while self._idle:
                await _drop(self._idle.pop().stream)

    async def ask(
        self,
        request: bytes,
        *,
        may_repeat: bool,
        max_body_bytes: int,
        has_left: Callable[[], None] = lambda: None,
    ) -> ServiceAnswer:
        """Ask, and wait for the whole answer. The caller sees to a time limit.

        Args:
            request: head and body of a POST.
            may_repeat: whether doing it twice is as good as once.
            max_body_bytes: the longest body that is taken.
            has_left: called once all of it has been sent, and again where it is sent again.

        Raises:
            HttpResponseError: the answer is malformed or too long.
            ConnectionCut: the connection ended first.
            Whatever opening one raises.
        """
        async with self._room:
            kept = await self._take()
            if kept is not None:
                try:
                    return await self._exchange(kept, request, max_body_bytes, has_left)
                except _Stale as stale:
                    if stale.has_left and not may_repeat:
                        text = "a kept connection ended before any of the answer had come"
                        raise ConnectionCut(text) from None
            fresh = await self._open()
            self.opened += 1
            try:
                return await self._exchange(fresh, request, max_body_bytes, has_left)
            except _Stale:
                raise ConnectionCut("the connection ended before the answer") from None

    async def _take(self) -> trio.abc.Stream | None:
        while self._idle:
            found = self._idle.pop()
            if not self._is_old(found) and self._is_alive(found.stream):
                return found.stream
            await _drop(found.stream)
        return None

    def _is_old(self, idle: _Idle) -> bool:
        return trio.current_time() >= idle.since + self._idle_seconds

    async def _exchange(
        self,
        stream: trio.abc.Stream,
        request: bytes,
        max_body_bytes: int,
        has_left: Callable[[], None],
    ) -> ServiceAnswer:
        reader = AnswerReader("POST", max_body_bytes, takes_interim=True)
        async with _closed_unless_kept(stream) as keeping:
            try:
                await stream.send_all(request)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # Its last bytes were not taken, so it cannot have been understood.
                raise _Stale(has_left=False) from None
            has_left()
            answer = None
            while answer is None:
                try:
                    data = bytes(await stream.receive_some(READ_BYTES))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""
                if not data and not reader.has_begun:
                    raise _Stale(has_left=True)
                if not data:  # so a body without framing, which nobody can tell from a cut one
                    raise ConnectionCut("the connection ended inside the answer")
                answer = reader.receive(data)
            if reader.may_reuse and not _has_unread_records(stream):
                keeping.append(stream)
                self._idle.append(_Idle(stream, trio.current_time()))
                self._has_idle.set()
            return answer


class _Stale(Exception):  # it is no error yet
    """A connection ended without a byte of the answer."""

    def __init__(self, *, has_left: bool) -> None:
        super().__init__()
        self.has_left = has_left


@asynccontextmanager
async def _closed_unless_kept(
    stream: trio.abc.Stream,
) -> AsyncIterator[list[trio.abc.Stream]]:
    keeping: list[trio.abc.Stream] = []
    try:
        yield keeping
    finally:
        if not keeping:
            await _drop(stream)


async def _drop(stream: trio.abc.Stream) -> None:
    """Close without a goodbye, at once."""
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(stream)


async def _say_goodbye(stream: trio.abc.Stream) -> None:
    """Close in order, if that takes no time."""
    with trio.move_on_after(CLOSE_SECONDS), suppress(trio.BrokenResourceError):
        await stream.aclose()


def _has_unread_records(stream: trio.abc.Stream) -> bool:
    """Whether more has come over TLS than the answer, in the piece that the answer ended in."""
    if not isinstance(stream, trio.SSLStream):
        return False
    # What trio has taken from the socket and not yet decrypted; it has no name in public.
    incoming: ssl.MemoryBIO = stream._incoming
    return bool(incoming.pending) or bool(stream.pending())


def is_quiet(stream: trio.abc.Stream) -> bool:
    """Whether nothing waits to be read from a TCP connection, or from one with TLS on it.

    Between answers nothing comes but an end.
    """
    carrier = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(carrier, trio.SocketStream)  # as whoever has opened it knows
    waiting = select.poll()
    waiting.register(carrier.socket.fileno(), select.POLLIN)
    return not waiting.poll(0)
