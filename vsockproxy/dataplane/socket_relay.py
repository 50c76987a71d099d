"""Copies bytes between two sockets, each direction by itself, with half-close.

For streams whose bytes are not framed: the connection of a dedicated stream, and the raw ports that
AWS's vsock-proxy offers.
"""

import asyncio
from collections.abc import Callable

from vsockproxy.dataplane.closing import (
    arm_reset,
    close_cleanly,
    finish_socket,
    reset_socket,
)
from vsockproxy.dataplane.local_socket import LocalFault, LocalSocket
from vsockproxy.dataplane.second_look import look_again

READ_BYTES = 256 * 1024
READS_PER_EVENT = 4
"""Reads of one direction before the rest of the loop has its turn."""

_read_buffer = memoryview(bytearray(READ_BYTES))


class Direction:
    """Bytes from one socket to another; reads on only when the target has taken everything.

    Args:
        source: read until its end of file.
        target: written to.
        first_bytes: go to the target first.
        most_bytes: the longest read and write (vsock: 32 KiB).
        finished: called once after the source's end of file, when all bytes have been taken.
        failed: called once with the socket that failed, where one did.
    """

    __slots__ = (
        "_failed",
        "_finished",
        "_is_reading",
        "_is_stopped",
        "_loop",
        "_most_bytes",
        "_pending",
        "_source",
        "_source_fd",
        "_target",
        "_target_fd",
        "has_look_due",
        "is_finished",
        "total_bytes",
    )

    def __init__(
        self,
        source: LocalSocket,
        target: LocalSocket,
        *,
        first_bytes: bytes,
        most_bytes: int,
        finished: Callable[[], None],
        failed: Callable[[LocalSocket], None],
    ) -> None:
        self.total_bytes = 0
        """Bytes that the target took."""
        self.is_finished = False
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._source_fd = source.fileno()
        self._target = target
        self._target_fd = target.fileno()
        self._most_bytes = min(most_bytes, READ_BYTES)
        self._finished = finished
        self._failed = failed
        self.has_look_due = False
        self._is_reading = False
        self._is_stopped = False
        self._pending = bytearray(first_bytes)

    def start(self) -> None:
        """Begin to copy."""
        if self._pending:
            self._on_writable()
            if self._pending:
                self._loop.add_writer(self._target_fd, self._on_writable)
        else:
            self._read_on()

    def stop(self) -> None:
        """Copy no more; the sockets stay open."""
        self._is_stopped = True
        self._pause()
        self._loop.remove_writer(self._target_fd)
        self._pending = bytearray()

    def _read_on(self) -> None:
        if not (self._is_reading or self.is_finished or self._is_stopped):
            self._is_reading = True
            self._loop.add_reader(self._source_fd, self._on_readable)

    def _pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._source_fd)

    def _on_readable(self) -> None:
        for _ in range(READS_PER_EVENT):
            if not self._copy():
                return
        self._pause()
        self._loop.call_soon(self._read_on)

    def look_again(self) -> None:
        """See `second_look`."""
        if self._is_reading and not self._is_stopped:
            self._on_readable()

    def _copy(self) -> bool:
        """Copy one read; whether to go on."""
        try:
            length = self._source.recv_into(_read_buffer[: self._most_bytes])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._failed(self._source)
            return False
        if not length:
            self._pause()
            self.is_finished = True
            self._finished()
            return False
        try:
            sent = self._target.send(_read_buffer[:length])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._failed(self._target)
            return False
        self.total_bytes += sent
        if sent == length:
            if length == self._most_bytes:
                return True
            look_again(self)
            return False
        self._pending += _read_buffer[sent:length]
        self._pause()
        self._loop.add_writer(self._target_fd, self._on_writable)
        return False

    def _on_writable(self) -> None:
        try:
            with memoryview(self._pending) as view:
                sent = self._target.send(view[: self._most_bytes])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._failed(self._target)
            return
        self.total_bytes += sent
        del self._pending[:sent]
        if not self._pending:
            self._pending = bytearray()
            self._loop.remove_writer(self._target_fd)
            self._read_on()


class SocketRelay:
    """Both directions between a local socket and a carrier, until both have ended.

    Args:
        local: the program's or the destination's socket; owned from now on.
        carrier: the other socket; owned from now on.
        to_carrier: bytes that were read from `local` already.
        to_local: bytes that were read from `carrier` already.
        most_bytes: the longest read and write.
        closed: called once with True for a clean end; both sockets are closed then.
    """

    def __init__(
        self,
        local: LocalSocket,
        carrier: LocalSocket,
        *,
        to_carrier: bytes = b"",
        to_local: bytes = b"",
        most_bytes: int = READ_BYTES,
        closed: Callable[[bool], None],
    ) -> None:
        self.local = local
        self.carrier = carrier
        self.is_closed = False
        self.failed: LocalSocket | None = None
        """The socket that failed, where one did."""
        self.has_timed_out = False
        """Whether it was closed for having moved no byte for longer than its limit."""
        self._closed = closed
        self._mark = 0
        """Bytes moved when that was last looked at, or when they last were others."""
        self._marked_at = 0.0
        self.outward = Direction(
            local,
            carrier,
            first_bytes=to_carrier,
            most_bytes=most_bytes,
            finished=self.local_finished,
            failed=self._failed,
        )
        self.inward = Direction(
            carrier,
            local,
            first_bytes=to_local,
            most_bytes=most_bytes,
            finished=self.carrier_finished,
            failed=self._failed,
        )

    def start(self) -> None:
        """Begin to copy."""
        arm_reset(self.local)
        arm_reset(self.carrier)
        self._marked_at = asyncio.get_running_loop().time()
        self.outward.start()
        if not self.is_closed:
            self.inward.start()

    def local_finished(self) -> None:
        """The program sends no more, and the carrier has all it sent."""
        finish_socket(self.carrier)
        self.close_if_done()

    def carrier_finished(self) -> None:
        """The carrier's end of file, and the program has all that came before."""
        if self.finish_local():
            self.close_if_done()

    def finish_local(self) -> bool:
        """Tell the program that no more follows; False when it is cut instead."""
        try:
            finish_socket(self.local)
        except LocalFault:
            self._failed(self.local)
            return False
        return True

    def check_time(self, now: float, half_closed_seconds: float, idle_seconds: float) -> None:
        """Cut a relay that has moved no byte for longer than its limit (0: no limit)."""
        mark = self.outward.total_bytes + self.inward.total_bytes
        if mark != self._mark:
            self._mark = mark
            self._marked_at = now
            return
        is_half_closed = self.outward.is_finished or self.inward.is_finished
        limit = half_closed_seconds if is_half_closed and half_closed_seconds else idle_seconds
        if limit and now - self._marked_at >= limit:
            self.has_timed_out = True
            self.close(is_clean=False)

    def close_if_done(self) -> None:
        """Close cleanly once both directions have ended."""
        if self.outward.is_finished and self.inward.is_finished:
            self.close(is_clean=True)

    def close(self, *, is_clean: bool) -> None:
        """Close both sockets; the program sees a reset unless the end is clean."""
        if self.is_closed:
            return
        self.is_closed = True
        self.outward.stop()
        self.inward.stop()
        for sock in (self.local, self.carrier):
            if is_clean:
                close_cleanly(sock)
            else:
                reset_socket(sock)
        self._closed(is_clean)

    def _failed(self, sock: LocalSocket) -> None:
        self.failed = sock
        self.close(is_clean=False)
