"""What a command writes to stdout and stderr: on to where ours lead, and a copy for the log.

The command has pipes then. Pipes and files behind our own stdout and stderr get every byte, and
hold the command back as they would without us. A console does not: what it does not take in time is
left out there, since nobody may be reading it.
"""

import os
import select
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from vsockproxy import processes
from vsockproxy.control.logs import EventLog
from vsockproxy.protocols.log_stream import Source

__all__ = ("CommandOutput", "Receive", "open_output")

Receive = Callable[[Source, bytes], None]
"""Takes the copy, at once."""

PIECE_BYTES: Final = 16 * 1024
"""One read. It is parted into lines before anything else of the supervisor has its turn."""

QUEUED_PIECES: Final = 16
"""What waits for a console."""

STALL_SECONDS: Final = 0.5
"""After so long a console is slow: until it takes something again, nobody waits for it."""

FINISH_SECONDS: Final = 3.0
"""How long the end of the command waits for what it wrote to be taken."""

_SOURCES: Final = ((Source.STDOUT, 1), (Source.STDERR, 2))


class _Outlet:
    """A descriptor of ours that somebody else may read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:  # closed
            mode = 0
        self.is_console = stat.S_ISCHR(mode)
        self._takes_small_writes = stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
        self.is_broken = False
        """Nobody reads the pipe, and nobody ever will."""

    async def write(self, data: bytes) -> None:
        """Write all; what cannot be written is forgotten."""
        try:
            if self._takes_small_writes and len(data) <= select.PIPE_BUF and self._is_writable():
                os.write(self._descriptor, data)  # at once: it has room for so much (pipe(7))
                return
            await trio.to_thread.run_sync(
                _write_all, self._descriptor, data, abandon_on_cancel=True
            )
        except BrokenPipeError:
            self.is_broken = True
        except OSError:
            pass  # it is closed, or a terminal that was hung up

    def _is_writable(self) -> bool:
        return bool(select.select([], [self._descriptor], [], 0)[1])


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # whoever shares it with us made it non-blocking
            select.select([], [descriptor], [])


class _Copy:
    """One of the two, from the command to the outlet."""

    def __init__(self, source: Source, descriptor: int, owner: tuple[int, int] | None) -> None:
        self.source = source
        self.outlet = _Outlet(descriptor)
        self.is_slow = False
        self.left_out_bytes = 0
        """What a console did not take."""
        self.done = trio.Event()
        self.waiting = trio.CancelScope()
        self.read_end, self.write_end = processes.open_pipe()
        os.set_blocking(self.read_end, False)
        if owner is not None:
            # Opening /dev/stderr anew asks for permission (proc(5), /proc/PID/fd).
            with suppress(OSError):
                os.fchown(self.write_end, *owner)

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


class CommandOutput:
    """The pipes of one command; made by `open_output`.

    Args:
        receive: gets the copy.
        owner: user and group that the command becomes; None if it stays who we are.
    """

    def __init__(self, receive: Receive, owner: tuple[int, int] | None) -> None:
        self._receive = receive
        self._copies = [_Copy(source, number, owner) for source, number in _SOURCES]
        self._is_finishing = False
        self.wait_status: int | None = None
        """How the command ended (as of waitpid); None while it runs, or if it never did."""

    @property
    def descriptors(self) -> tuple[int, int]:
        """What the command is to have as stdout and stderr."""
        stdout, stderr = self._copies
        return stdout.write_end, stderr.write_end

    def started(self) -> None:
        """The command has its own descriptors; ours would keep the pipes from ending."""
        for copy in self._copies:
            copy.close_write_end()

    async def copy(self, log: EventLog) -> None:
        """Copy both until they end, or until `finish`."""
        async with trio.open_nursery() as nursery:
            for copy in self._copies:
                nursery.start_soon(self._copy, copy, log)

    async def _copy(self, copy: _Copy, log: EventLog) -> None:
        send, receive = trio.open_memory_channel[bytes](QUEUED_PIECES)
        try:
            async with trio.open_nursery() as nursery:
                if copy.outlet.is_console:
                    nursery.start_soon(_write_pieces, receive, copy.outlet)
                with send:
                    while (data := await self._read(copy)) and not copy.outlet.is_broken:
                        self._receive(copy.source, data)
                        if not copy.outlet.is_console:
                            await copy.outlet.write(data)
                            continue
                        if not await _put(send, data, 0 if copy.is_slow else STALL_SECONDS):
                            if not copy.is_slow:
                                copy.is_slow = True
                                log.write("warning", "console_slow", {"source": copy.source.text})
                            copy.left_out_bytes += len(data)
                        elif copy.is_slow:
                            copy.is_slow = False
                # Nobody reads what the command writes: it is to see that.
                os.close(copy.read_end)
                copy.read_end = -1
        finally:
            copy.done.set()
            if copy.left_out_bytes:
                fields: dict[str, object] = {"source": copy.source.text}
                fields["bytes"] = copy.left_out_bytes
                log.write("warning", "console_left_out", fields)

    async def _read(self, copy: _Copy) -> bytes:
        """What the command has written; empty at the end."""
        await trio.lowlevel.checkpoint()
        while True:
            try:
                return os.read(copy.read_end, PIECE_BYTES)
            except BlockingIOError:
                if self._is_finishing:
                    return b""
            with trio.CancelScope() as copy.waiting:
                await trio.lowlevel.wait_readable(copy.read_end)

    async def finish(self) -> None:
        """The command has ended: pass on what it wrote, and do not wait for others to write."""
        self._is_finishing = True
        with trio.move_on_after(FINISH_SECONDS):
            for copy in self._copies:
                copy.waiting.cancel()
                await copy.done.wait()

    def close(self) -> None:
        """Close what is open."""
        for copy in self._copies:
            copy.close_write_end()
            if copy.read_end >= 0:
                os.close(copy.read_end)
                copy.read_end = -1


async def _put(pieces: trio.MemorySendChannel[bytes], piece: bytes, wait_seconds: float) -> bool:
    """Queue a piece; False if there was no room for so long."""
    with trio.move_on_after(wait_seconds):
        try:
            pieces.send_nowait(piece)
        except trio.WouldBlock:
            await pieces.send(piece)
        return True
    return False


async def _write_pieces(pieces: trio.MemoryReceiveChannel[bytes], outlet: _Outlet) -> None:
    async for piece in pieces:
        await outlet.write(piece)


@asynccontextmanager
async def open_output(
    receive: Receive, owner: tuple[int, int] | None, log: EventLog
) -> AsyncIterator[CommandOutput]:
    """Pipes for one command, copied while the body runs; at its end they are closed.

    Raises:
        OSError: there are no descriptors to spare.
    """
    output = CommandOutput(receive, owner)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.copy, log)
            yield output
            await output.finish()
            nursery.cancel_scope.cancel()
    finally:
        output.close()
