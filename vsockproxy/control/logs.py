"""Log lines of a supervisor and its workers on the way to stderr, which may block for ever.

Only a thread writes to stderr, and it reads what it writes by itself: the way through the loop of
trio and back would cost more than all the rest. What waits for it waits in pipes, one for each
worker and one for the supervisor itself: a full pipe is a bounded queue, and `vsockproxy.log`
counts what it loses.
"""

import os
import select
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
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

_NO_MORE: Final = -1
"""In the place of a pipe: there will be no other."""


class EventLog(Protocol):
    """Where supervision reports what happened: `vsockproxy.log.Log`."""

    def write(self, level: Level, event: str, fields: dict[str, object]) -> None:
        """Write one line. Never waits and never fails."""


Tap = Callable[[bytes], None]
"""Gets a copy of whole lines, and takes it at once."""


class Relay:
    """Copies lines from pipes to stderr, whole lines at a time, and to a tap, if there is one.

    Args:
        tap: called in the loop of trio.
    """

    def __init__(self, tap: Tap | None) -> None:
        self._tap = tap
        self._token = trio.lowlevel.current_trio_token() if tap is not None else None
        self._coming: deque[int] = deque()
        """Pipes that the thread has yet to learn of."""
        self._bell, self._ringer = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ringer, False)

    def copy_from(self, pipe: int) -> None:
        """Copy until the other end is closed; this takes over the descriptor `pipe`."""
        self._coming.append(pipe)
        self._ring()

    def finish(self) -> None:
        """End once the other ends of all pipes are closed."""
        self._coming.append(_NO_MORE)
        self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            os.write(self._ringer, b"\0")

    def run(self) -> None:
        """Copy until `finish` was called and all pipes have ended. In a thread: this waits."""
        pipes: dict[int, _Pipe] = {}
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        is_finishing = False
        while pipes or not is_finishing:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._bell in ready:
                ready.remove(self._bell)
                os.read(self._bell, PIECE_BYTES)
                while self._coming:
                    descriptor = self._coming.popleft()
                    if descriptor == _NO_MORE:
                        is_finishing = True
                    else:
                        pipes[descriptor] = _Pipe(descriptor)
                        poll.register(descriptor, select.POLLIN)
            now = time.monotonic()
            busy = [descriptor for descriptor in ready if pipes[descriptor].wake(now)]
            if busy:
                time.sleep(REST_SECONDS)
            for descriptor in ready:
                lines = pipes[descriptor].read()
                if lines:
                    self._pass_on(lines)
                elif lines is None:
                    poll.unregister(descriptor)
                    self._pass_on(pipes.pop(descriptor).close())
        os.close(self._bell)
        os.close(self._ringer)

    def _pass_on(self, lines: bytes) -> None:
        if not lines:
            return
        if self._tap is not None:
            with suppress(trio.RunFinishedError):  # the process has given up waiting for us
                trio.from_thread.run_sync(self._tap, lines, trio_token=self._token)
        _write(lines)


class _Pipe:
    """One pipe of lines."""

    __slots__ = ("_counted_from", "_descriptor", "_rest", "_wakings")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._wakings = 0
        self._counted_from = time.monotonic()

    def wake(self, now: float) -> bool:
        """It can be read; whether its lines are to gather for a while first."""
        if now - self._counted_from > BUSY_SECONDS:
            self._wakings, self._counted_from = 0, now
        self._wakings += 1
        return self._wakings > BUSY_WAKINGS

    def read(self) -> bytes | None:
        """Whole lines, empty if there are none yet; None once the other end is closed."""
        data = os.read(self._descriptor, PIECE_BYTES)
        if not data:
            return None
        lines, newline, self._rest = (self._rest + data).rpartition(b"\n")
        lines += newline
        if len(self._rest) > PIECE_BYTES:
            lines += self._rest + b"\n"
            self._rest = b""
        return lines

    def close(self) -> bytes:
        """Close it; what came behind the last whole line, as a line."""
        os.close(self._descriptor)
        return self._rest and self._rest + b"\n"


@asynccontextmanager
async def open_log(
    side: str, line_format: LineFormat, threshold: Level, tap: Tap | None = None
) -> AsyncIterator[tuple[Log, Relay]]:
    """A log to stderr, and a relay for those of workers.

    At the end it waits a little for lines that have not been written.
    """
    relay = Relay(tap)
    async with trio.open_nursery() as nursery:
        # Abandoned when stderr still blocks at the end: the thread is no reason to stay.
        nursery.start_soon(partial(trio.to_thread.run_sync, relay.run, abandon_on_cancel=True))
        read_end, write_end = processes.open_pipe()
        os.set_blocking(write_end, False)
        relay.copy_from(read_end)
        try:
            yield Log(side, line_format, threshold, write_end), relay
        finally:
            os.close(write_end)
            # The thread ends by itself, once the pipes of dead workers are empty.
            relay.finish()
            nursery.cancel_scope.deadline = trio.current_time() + FLUSH_SECONDS


def _write(data: bytes) -> None:
    with suppress(OSError):  # nobody reads our stderr, and there is no other place to say so
        while data:
            try:
                data = data[os.write(STDERR, data) :]
            except BlockingIOError:  # whoever shares it with us made it non-blocking
                select.select([], [STDERR], [])
