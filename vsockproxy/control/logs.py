"""Log lines of a supervisor and its workers on the way to stderr, which may block for ever.

Only a thread writes to stderr. What waits for it waits in pipes, one for each worker and one for
the supervisor itself: a full pipe is a bounded queue, and `vsockproxy.log` counts what it loses.
"""

import os
import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import trio

from vsockproxy import processes
from vsockproxy.log import Log
from vsockproxy.log_lines import Level, LineFormat

__all__ = ("REST_SECONDS", "STDERR", "EventLog", "Relay", "Tap", "open_log")

STDERR: Final = 2
PIECE_BYTES: Final = 64 * 1024
REST_SECONDS: Final = 0.01
"""How long the lines of a busy worker gather in its pipe: waking up for each of them would cost
more than the connections that they tell of."""

BUSY_WAKINGS: Final = 4
BUSY_SECONDS: Final = 0.1
"""A worker is busy that has had us wake up so often within that time."""

FLUSH_SECONDS: Final = 1.0
"""How long the end of the process waits for a stderr that blocks."""


class EventLog(Protocol):
    """Where supervision reports what happened: `vsockproxy.log.Log`."""

    def write(self, level: Level, event: str, fields: dict[str, object]) -> None:
        """Write one line. Never waits and never fails."""


Tap = Callable[[bytes], None]
"""Gets a copy of whole lines, and takes it at once."""


class Relay:
    """Copies lines from pipes to stderr, whole lines at a time, and to a tap, if there is one."""

    def __init__(
        self,
        pieces: trio.MemorySendChannel[bytes],
        nursery: trio.Nursery,
        tap: Tap | None,
    ) -> None:
        self._pieces = pieces
        self._nursery = nursery
        self._tap = tap

    def copy_from(self, pipe: int) -> None:
        """Copy until the other end is closed; this takes over the descriptor `pipe`."""
        self._nursery.start_soon(_copy_lines, pipe, self._pieces.clone(), self._tap)


@asynccontextmanager
async def open_log(
    side: str, line_format: LineFormat, threshold: Level, tap: Tap | None = None
) -> AsyncIterator[tuple[Log, Relay]]:
    """A log to stderr, and a relay for those of workers.

    At the end it waits a little for lines that have not been written.
    """
    send, receive = trio.open_memory_channel[bytes](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_pieces, receive)
        relay = Relay(send, nursery, tap)
        read_end, write_end = processes.open_pipe()
        os.set_blocking(write_end, False)
        relay.copy_from(read_end)
        try:
            with send:
                yield Log(side, line_format, threshold, write_end), relay
        finally:
            os.close(write_end)
            # The tasks end by themselves, once the pipes of dead workers are empty.
            nursery.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS


async def _copy_lines(pipe: int, pieces: trio.MemorySendChannel[bytes], tap: Tap | None) -> None:
    async def pass_on(lines: bytes) -> None:
        if tap is not None:
            tap(lines)
        await pieces.send(lines)

    os.set_blocking(pipe, False)
    rest = b""
    wakings, counted_from = 0, trio.current_time()
    try:
        with pieces:
            while True:
                try:
                    data = os.read(pipe, PIECE_BYTES)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(pipe)
                    now = trio.current_time()
                    if now - counted_from > BUSY_SECONDS:
                        wakings, counted_from = 0, now
                    wakings += 1
                    if wakings > BUSY_WAKINGS:
                        await trio.sleep(REST_SECONDS)
                    continue
                if not data:
                    break
                lines, newline, rest = (rest + data).rpartition(b"\n")
                if newline:
                    await pass_on(lines + newline)
                if len(rest) > PIECE_BYTES:
                    await pass_on(rest + b"\n")
                    rest = b""
            if rest:
                await pass_on(rest + b"\n")
    finally:
        os.close(pipe)


async def _write_pieces(pieces: trio.MemoryReceiveChannel[bytes]) -> None:
    async for piece in pieces:
        # Abandoned when stderr still blocks at the end: the thread is no reason to stay.
        await trio.to_thread.run_sync(_write, piece, abandon_on_cancel=True)


def _write(data: bytes) -> None:
    with suppress(OSError):  # nobody reads our stderr, and there is no other place to say so
        while data:
            try:
                data = data[os.write(STDERR, data) :]
            except BlockingIOError:  # whoever shares it with us made it non-blocking
                select.select([], [STDERR], [])
