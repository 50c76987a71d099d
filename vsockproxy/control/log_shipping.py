"""Brings the log of an enclave to its parent: the ring of `protocols.log_ring` over streams.

One task sends and one hears what the parent has written; both end with their stream, and the next
stream goes on from there. Whoever adds to the ring never waits.
"""

import itertools
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from vsockproxy.client.for_trio import open_service
from vsockproxy.control.logs import EventLog
from vsockproxy.control.supervisor import AcceptedConnection, Supervisor
from vsockproxy.errors import Refused, VsockproxyError
from vsockproxy.protocols import log_stream
from vsockproxy.protocols.errors import LogStreamError
from vsockproxy.protocols.log_ring import LineSplitter, LogRing
from vsockproxy.protocols.log_stream import PositionReader, Source
from vsockproxy.worker_messages import Connection

__all__ = ("END_SECONDS", "Connect", "LogShipper", "through_workers")

Connect = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a stream to the parent's `vsockproxy.log`; VsockproxyError or OSError if it cannot be."""

OPEN_SECONDS: Final = 30.0
"""For a worker to take the request and the parent to answer."""

FIRST_PAUSE_SECONDS: Final = 0.05
MOST_PAUSE_SECONDS: Final = 1.0
UNWANTED_PAUSE_SECONDS: Final = 60.0
"""Before the next attempt where the parent has no such service: it is of an older version."""

SEND_BYTES: Final = 64 * 1024

END_SECONDS: Final = 3.0
"""How long the end of the enclave's side waits for the parent to have the last lines."""

LAST_BYTES: Final = 8 * 1024
"""What is kept of what is left when half of that time is over, so that the end itself arrives."""

_RECEIVE_BYTES: Final = 4096


def through_workers(supervisor: Supervisor, service: str = log_stream.SERVICE) -> Connect:
    """Streams that the workers open, one after the other: one end of a pair is handed to them."""
    turns = itertools.cycle(range(supervisor.workers))

    async def connect() -> trio.abc.Stream:
        ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        )
        supervisor.hand_over(next(turns), AcceptedConnection(Connection("streams", 0, 0), theirs))
        return await open_service(ours, service)

    return connect


class LogShipper:
    """Numbers lines, keeps them, and sends them while `run` runs.

    Args:
        most_bytes: what is kept at most.
        wall_clock: seconds since the epoch.
    """

    def __init__(self, most_bytes: int, wall_clock: Callable[[], float] = time.time) -> None:
        self._ring = LogRing(most_bytes)
        self._wall_clock = wall_clock
        self._splitters: dict[tuple[Source, str], LineSplitter] = {}
        self._changed = trio.Event()
        """Set when there may be something to send."""
        self._acknowledged = trio.Event()
        """Set when the parent has written something; replaced by whoever waits for the next."""
        self._is_unwanted = False
        self._is_ending = False
        self._conversation = trio.CancelScope()

    @property
    def dropped(self) -> int:
        """Records that found no room, as `LogRing` counts them."""
        return self._ring.dropped

    def receive(self, source: Source, data: bytes, label: str = "") -> None:
        """Take what somebody wrote, in whatever pieces.

        Args:
            source: who wrote it.
            data: the bytes.
            label: which command it was, where there are several: up to 64 letters, digits, `_`,
                `.` and `-`.
        """
        splitter = self._splitters.setdefault((source, label), LineSplitter())
        self._add(source, label, splitter.receive(data))

    def receive_own(self, lines: bytes) -> None:
        """Take whole lines of our own log."""
        self.receive(Source.VSOCKPROXY, lines)

    def finish(self, source: Source, label: str = "") -> None:
        """Take what came behind the last line break."""
        splitter = self._splitters.pop((source, label), None)
        if splitter is not None:
            self._add(source, label, splitter.finish())

    def _add(self, source: Source, label: str, lines: list[tuple[bytes, bool]]) -> None:
        time_ms = self._time_ms()
        for text, continues in lines:
            self._ring.add_line(source, text, continues=continues, time_ms=time_ms, label=label)
        self._changed.set()

    def _time_ms(self) -> int:
        return max(0, int(self._wall_clock() * 1000))

    async def run(self, connect: Connect, log: EventLog) -> None:
        """Send until cancelled; what cannot be sent stays."""
        pause = FIRST_PAUSE_SECONDS
        is_told = False
        while True:
            began = trio.current_time()
            text = await self._attempt(connect)
            if text is None:
                is_told = False
            elif not is_told:
                is_told = True
                log.write("warning", "log_not_taken", {"text": text})
            if text is None and trio.current_time() - began > MOST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            if self._is_ending:
                pause = FIRST_PAUSE_SECONDS
            await trio.sleep(UNWANTED_PAUSE_SECONDS if self._is_unwanted else pause)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)

    async def _attempt(self, connect: Connect) -> str | None:
        """One stream, from its opening to its end; what was wrong, None for a mere cut."""
        self._is_unwanted = False
        try:
            with trio.fail_after(OPEN_SECONDS):
                stream = await connect()
        except Refused as refused:
            self._is_unwanted = refused.reason == "not_listed"
            return f"{refused.reason}: {refused.text}"
        except (VsockproxyError, OSError, trio.TooSlowError) as error:
            return str(error) or f"no answer for {OPEN_SECONDS:g} s"
        self._ring.begin()
        text = None
        with trio.CancelScope() as self._conversation:
            async with stream, trio.open_nursery() as nursery:
                nursery.start_soon(self._send, stream)
                text = await self._hear(stream)
                nursery.cancel_scope.cancel()
        return text

    async def _send(self, stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):  # then there is nothing to hear either
            while True:
                while data := self._ring.take(SEND_BYTES):
                    await stream.send_all(data)
                self._changed = trio.Event()
                await self._changed.wait()

    async def _hear(self, stream: trio.abc.Stream) -> str | None:
        positions = PositionReader()
        try:
            while data := await stream.receive_some(_RECEIVE_BYTES):
                for position in positions.receive(bytes(data)):
                    self._ring.acknowledge(position)
                self._changed.set()
                self._acknowledged.set()
        except trio.BrokenResourceError:
            pass
        except LogStreamError as error:
            return error.text
        return None

    async def end(self, status: int, signal: int, uptime_seconds: float) -> bool:
        """Say that the enclave's side ends; wait until the parent knows, `END_SECONDS` at most.

        The parent may be slow, or take so many lines a second and no more. Then the older part of
        what it does not have yet is dropped, and what is on its way with it: a new stream has the
        count, the last lines and the end.

        Args:
            status: what its process exits with.
            signal: the signal that ended the command, or 0.
            uptime_seconds: how long it ran.

        Returns:
            Whether the parent has all that there was.
        """
        for source, label in list(self._splitters):
            self.finish(source, label)
        self._ring.add_exit(status, signal, int(uptime_seconds * 1000), self._time_ms())
        self._changed.set()
        self._is_ending = True
        await self._wait_for_delivery()
        if not self._ring.is_delivered:
            self._ring.keep_latest(LAST_BYTES)
            self._conversation.cancel()
            await self._wait_for_delivery()
        return self._ring.is_delivered

    async def _wait_for_delivery(self) -> None:
        with trio.move_on_after(0 if self._is_unwanted else END_SECONDS / 2):
            while not self._ring.is_delivered:
                self._acknowledged = trio.Event()
                await self._acknowledged.wait()
