"""TCP connections within this machine whose far end looks like one that is still connecting.

A program waits for a non-blocking connect until its descriptor is writable, and then asks for
SO_ERROR. A held connection gives it such a descriptor before its stream is open: the far end is
connected, and not writable, because bytes that nobody reads (the filler) fill it up to the window
of the near end, which is kept tiny, and one byte more is enough with TCP_NOTSENT_LOWAT at 1
(tcp_stream_memory_free in include/net/tcp.h). `let_go` makes it writable, with SO_ERROR 0; `reset`
too, with ECONNRESET. The filler is read by us alone.

The far end is handed to a program, perhaps of another network namespace, and a TCP socket can be
disconnected and connected elsewhere (connect(2), AF_UNSPEC). So a filter that it cannot take off
lets in nothing but what comes from near ends: elsewhere in our namespace it reaches nobody. Newer
kernels want CAP_NET_ADMIN for a filter of a TCP socket. Who lacks that cannot have made another
namespace for the program either, and the far end is bound to lo instead: it gets no further than
our own loopback, and to take that off takes CAP_NET_RAW (sock_bindtoindex in net/core/sock.c).
"""

import errno
import itertools
import os
import random
import socket
import struct
from array import array
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Self

from vsockproxy.dataplane.closing import arm_reset, reset_socket
from vsockproxy.dataplane.dialling import tune_tcp
from vsockproxy.dataplane.loop import Future, add_reader, new_future, remove_reader, timeout
from vsockproxy.dataplane.sockets import receive

__all__ = ("HeldConnection", "HeldConnections")

BACKLOG: Final = 4096
ACCEPTS_AT_ONCE: Final = 64
ACCEPT_SECONDS: Final = 5.0
"""The kernel connects the two ends at once, unless it drops packets for lack of memory."""

MOST_ADDRESSES_TRIED: Final = 16

LOCKED_RECEIVE_BYTES: Final = 1024 * 1024
"""The near end's buffer where the kernel cannot go back to one that grows (before Linux 5.14);
net.core.rmem_max may cut it."""

_LOOPBACK: Final = "127.0.0.1"
_NETWORK: Final = 127 << 24
_ADDRESSES: Final = range(1 << 16, (1 << 24) - 1)
"""Of near ends, within 127.0.0.0/8: each has its own, so that ports are never used up."""

# include/uapi/asm-generic/socket.h, include/uapi/linux/tcp.h; Python 3.11 has no names for them.
_SO_ATTACH_FILTER: Final = 26
_SO_LOCK_FILTER: Final = 44
_SO_BUF_LOCK: Final = 72

_MOST_WINDOW_BYTES: Final = 0xFFFF << 14
"""The clamp of a connection that has none (tcp_select_initial_window in net/ipv4/tcp_output.c)."""

_LINGER: Final = struct.Struct("ii")
"""struct linger of <sys/socket.h>: whether, and for how many seconds."""

_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_Address = tuple[str, int]


class HeldConnection:
    """One connection; made by `HeldConnections.make`.

    Args:
        near: the worker's end; owned.
        far: the program's end, a blocking socket; owned, but the program has its own descriptor.
        filler_bytes: how many bytes stand between the program's and the near end.
        receive_bytes: the near end's receive buffer from `let_go` on.
    """

    __slots__ = ("_far", "_filler_bytes", "_near", "_receive_bytes")

    def __init__(
        self, near: socket.socket, far: socket.socket, filler_bytes: int, receive_bytes: int
    ) -> None:
        self._near = near
        self._far = far
        self._filler_bytes = filler_bytes
        self._receive_bytes = receive_bytes

    @property
    def far_descriptor(self) -> int:
        """The far end, to be passed to the program."""
        return self._far.fileno()

    def arm_far(self) -> None:
        """Have the far end reset the connection when it is closed, until its owner disarms it."""
        arm_reset(self._far)

    async def let_go(self) -> socket.socket:
        """Make the far end writable; give the near end, without the filler, to the caller.

        Raises:
            OSError: the program has reset the connection; both ends are closed.
        """
        try:
            # 0 is the system's own value, and setting it wakes who waits (do_tcp_setsockopt).
            self._far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
            self._give_up_far()  # now it is the program's alone, and its end comes with its close
            self._open_window()
            while self._filler_bytes:
                filler = await self._receive(self._filler_bytes)
                if not filler:
                    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
                self._filler_bytes -= len(filler)
        except BaseException:
            self.reset()
            raise
        return self._near

    def _give_up_far(self) -> None:
        # The program may have closed its descriptor already, and have asked that a close waits
        # until all is acknowledged: then ours is the last, and the whole loop would wait.
        on, seconds = _LINGER.unpack(
            self._far.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
        )
        if on and seconds:
            self._far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(0, 0))
        self._far.close()

    def reset(self) -> None:
        """Close both ends; the program sees a reset. Not to be called after `let_go`."""
        reset_socket(self._near)
        self._far.close()

    async def _receive(self, most_bytes: int) -> bytes:
        try:
            return self._near.recv(most_bytes)  # nearly always it is here already
        except BlockingIOError:
            return await receive(self._near, most_bytes)

    def _open_window(self) -> None:
        near = self._near
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes // 2)  # it doubles
        if not _unlock_buffers(near):
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LOCKED_RECEIVE_BYTES)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, _MOST_WINDOW_BYTES)


class HeldConnections:
    """Makes held connections, by a listener of its own on loopback that serves nobody else."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self._is_reading = False
        self._awaited: dict[_Address, Future[socket.socket]] = {}
        """The connections that are to be accepted, by their near ends."""
        first = random.choice(_ADDRESSES)
        self._hosts: Iterator[int] = itertools.cycle(
            itertools.chain(range(first, _ADDRESSES.stop), range(_ADDRESSES.start, first))
        )

    async def make(self) -> HeldConnection:
        """A new connection.

        Raises:
            OSError: descriptors, memory or addresses are used up, or lo is down.
        """
        listener = self._listen()
        near = socket.socket(socket.AF_INET, _STREAM)
        try:
            arm_reset(near)
            receive_bytes = near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            _shrink_buffer(near)
            # A buffer that is locked when the connection is made would bound the window for ever
            # (tcp_connect_init in net/ipv4/tcp_output.c), one that is not grows when it is full.
            _unlock_buffers(near)
            self._bind(near, listener)
            code = near.connect_ex(listener.getsockname())
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            far = await self._accept(near.getsockname())
            try:
                _shrink_buffer(near)
                tune_tcp(near)
                filler_bytes = _fill(near, far)
                far.setblocking(True)  # what the program gets is an ordinary socket
            except BaseException:
                far.close()
                raise
        except BaseException:
            reset_socket(near)
            raise
        return HeldConnection(near, far, filler_bytes, receive_bytes)

    def close(self) -> None:
        """Make no more; those that were made stay."""
        if self._listener is not None:
            self._stop_reading()
            self._listener.close()
            self._listener = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> socket.socket:
        if self._listener is None:
            listener = socket.socket(socket.AF_INET, _STREAM)
            try:
                listener.bind((_LOOPBACK, 0))
                # Before it listens, so that every far end has inherited it.
                try:
                    _admit_only(listener, listener.getsockname()[1])
                except PermissionError:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
                listener.listen(BACKLOG)
            except BaseException:
                listener.close()
                raise
            self._listener = listener
        if not self._is_reading:
            self._is_reading = True
            add_reader(self._listener.fileno(), self._accept_all)
        return self._listener

    def _stop_reading(self) -> None:
        if self._is_reading and self._listener is not None:
            self._is_reading = False
            remove_reader(self._listener.fileno())

    def _bind(self, near: socket.socket, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        for host in itertools.islice(self._hosts, MOST_ADDRESSES_TRIED):
            try:
                near.bind((socket.inet_ntoa((_NETWORK | host).to_bytes(4, "big")), port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        raise OSError(errno.EADDRINUSE, f"no address of 127.0.0.0/8 is free for port {port}")

    async def _accept(self, address: _Address) -> socket.socket:
        accepted: Future[socket.socket] = new_future()
        self._awaited[address] = accepted
        try:
            self._accept_all()
            async with timeout(ACCEPT_SECONDS):
                return await accepted
        except BaseException as error:
            if accepted.done() and not accepted.cancelled() and accepted.exception() is None:
                accepted.result().close()
            if isinstance(error, TimeoutError):
                raise OSError(errno.ETIMEDOUT, "loopback drops packets") from None
            raise
        finally:
            del self._awaited[address]

    def _accept_all(self) -> None:
        """Accept what has connected; only what was awaited is kept."""
        assert self._listener is not None  # it is read, or about to accept
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                far, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Used up: the next `make` tries again. It would be called for ever meanwhile.
                self._stop_reading()
                for accepted in self._awaited.values():
                    if not accepted.done():
                        accepted.set_exception(error)
                return
            awaited = self._awaited.get(address)
            if awaited is None or awaited.done():
                reset_socket(far)  # a stranger's
            else:
                awaited.set_result(far)


def _shrink_buffer(near: socket.socket) -> None:
    """Give it the smallest receive buffer there is, some 2 KiB, and keep it from growing."""
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)


def _unlock_buffers(sock: socket.socket) -> bool:
    """Let the buffers grow as if nobody had set their size; False where the kernel cannot."""
    with suppress(OSError):  # before Linux 5.14
        sock.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, 0)
        return True
    return False


def _fill(near: socket.socket, far: socket.socket) -> int:
    """Fill the far end for good; the number of bytes that did it."""
    # All that a buffer holds counts against it, so that no window ever takes twice its size.
    filler = bytes(2 * near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    if far.send(filler) != len(filler):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 1)
    return len(filler)


def _admit_only(listener: socket.socket, port: int) -> None:
    """Drop what does not come from `port` of 127.0.0.0/8; for good, and on what is accepted too."""
    source_address = 0xFFF0_0000 + 12  # SKF_NET_OFF (include/uapi/linux/filter.h), RFC 791
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, source_address),  # ld: four bytes
            (0x74, 0, 0, 24),  # rsh
            (0x15, 0, 3, 127),  # jeq, else 3 on
            (0x28, 0, 0, 0),  # ldh: the TCP header begins with the source port
            (0x15, 0, 1, port),  # jeq, else 1 on
            (0x06, 0, 0, 0xFFFF_FFFF),  # ret: the whole packet
            (0x06, 0, 0, 0),  # ret: nothing of it
        )
    )
    held = array("B", program)
    address, length = held.buffer_info()
    listener.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", length // 8, address)
    )
    listener.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
