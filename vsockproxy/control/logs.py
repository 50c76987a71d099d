"""Log lines of a supervisor and its workers on the way to stderr, which may block for ever.

Only a thread writes to stderr. What waits for it is bounded: a worker's lines wait in its pipe,
where the worker counts what does not fit; the supervisor's own are counted here.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import trio

from vsockproxy.log_lines import Level, LineFormat, format_line, passes

__all__ = ("EventLog", "StderrLog", "open_log")

STDERR: Final = 2
WAITING_PIECES: Final = 256
"""Pieces that wait for the thread; one is at most `PIECE_BYTES`."""
PIECE_BYTES: Final = 64 * 1024
FLUSH_SECONDS: Final = 1.0
"""How long the end of the process waits for a stderr that blocks."""


class EventLog(Protocol):
    """Where supervision reports what happened."""

    def event(self, level: Level, event: str, **fields: object) -> None:
        """Write one line. Never waits and never fails."""


class StderrLog:
    """The log of one supervisor; make it with `open_log`."""

    def __init__(
        self,
        side: str,
        line_format: LineFormat,
        threshold: Level,
        pieces: trio.MemorySendChannel[bytes],
        nursery: trio.Nursery,
    ) -> None:
        self._side = side
        self._format = line_format
        self._threshold = threshold
        self._pieces = pieces
        self._nursery = nursery
        self._lost_lines = 0

    def event(self, level: Level, event: str, **fields: object) -> None:
        """Write one line, or count it as lost while stderr blocks."""
        if not passes(level, self._threshold):
            return
        now_seconds = time.time()
        try:
            if self._lost_lines:
                lost = {"event": "lines_lost", "side": self._side, "count": self._lost_lines}
                self._pieces.send_nowait(format_line(self._format, now_seconds, "warning", lost))
                self._lost_lines = 0
            line = {"event": event, "side": self._side, **fields}
            self._pieces.send_nowait(format_line(self._format, now_seconds, level, line))
        except trio.WouldBlock:
            self._lost_lines += 1

    def relay(self, pipe: int) -> None:
        """Copy a worker's lines until its end closes; this takes over the descriptor `pipe`."""
        self._nursery.start_soon(_relay_lines, pipe, self._pieces.clone())


@asynccontextmanager
async def open_log(
    side: str, line_format: LineFormat, threshold: Level
) -> AsyncIterator[StderrLog]:
    """A log to stderr; at the end it waits a little for what has not been written."""
    send, receive = trio.open_memory_channel[bytes](WAITING_PIECES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write_pieces, receive)
        try:
            with send:
                yield StderrLog(side, line_format, threshold, send, nursery)
        finally:
            # The writer ends by itself, once `send` and the relays of dead workers are closed.
            nursery.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS


async def _relay_lines(pipe: int, pieces: trio.MemorySendChannel[bytes]) -> None:
    os.set_blocking(pipe, False)
    rest = b""
    try:
        with pieces:
            while True:
                try:
                    data = os.read(pipe, PIECE_BYTES)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(pipe)
                    continue
                if not data:
                    break
                lines, newline, rest = (rest + data).rpartition(b"\n")
                if newline:
                    await pieces.send(lines + newline)
                if len(rest) > PIECE_BYTES:
                    await pieces.send(rest + b"\n")
                    rest = b""
            if rest:
                await pieces.send(rest + b"\n")
    finally:
        os.close(pipe)


async def _write_pieces(pieces: trio.MemoryReceiveChannel[bytes]) -> None:
    async for piece in pieces:
        # Abandoned when stderr still blocks at the end: the thread is no reason to stay.
        await trio.to_thread.run_sync(_write, piece, abandon_on_cancel=True)


def _write(data: bytes) -> None:
    with suppress(OSError):  # nobody reads our stderr, and there is no other place to say so
        while data:
            data = data[os.write(STDERR, data) :]
