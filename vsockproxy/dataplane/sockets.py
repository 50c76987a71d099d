"""Sockets by hand for coroutines, on any family: uvloop's transports do not take AF_VSOCK."""

import asyncio
import socket
from collections.abc import Callable

from vsockproxy.dataplane.closing import arm_reset
from vsockproxy.dataplane.dialling import tune_tcp
from vsockproxy.listening import ACCEPT_PAUSE_SECONDS, EXHAUSTED

ACCEPTS_PER_EVENT = 64


async def receive(sock: socket.socket, most_bytes: int) -> bytes:
    """Bytes from a non-blocking socket, at least one; empty at the end of file.

    Raises:
        OSError: when the connection failed.
    """
    return await asyncio.get_running_loop().sock_recv(sock, most_bytes)


async def receive_at_once(sock: socket.socket, most_bytes: int) -> bytes:
    """As `receive`, without a turn of the loop where bytes are there already.

    For what has an end, as a hello or a request: one who repeats it may keep all others waiting.

    Raises:
        OSError: when the connection failed.
    """
    return await _receive(sock, most_bytes, 0)


async def peek(sock: socket.socket, most_bytes: int) -> bytes:
    """As `receive_at_once`, but the bytes stay in the socket.

    Raises:
        OSError: when the connection failed.
    """
    return await _receive(sock, most_bytes, socket.MSG_PEEK)


async def _receive(sock: socket.socket, most_bytes: int, flags: int) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return sock.recv(most_bytes, flags)
        except (BlockingIOError, InterruptedError):
            readable = loop.create_future()
            loop.add_reader(sock.fileno(), _wake, readable)
            try:
                await readable
            finally:
                loop.remove_reader(sock.fileno())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Send everything.

    Raises:
        OSError: when the connection failed.
    """
    await asyncio.get_running_loop().sock_sendall(sock, data)


class Acceptor:
    """Accepts from a listening socket until it is closed.

    Args:
        listener: non-blocking and listening; owned from now on.
        accepted: called with each connection, non-blocking, and the peer's address.
        exhausted: called once when accepting has to rest because a resource ran out, until it
            has succeeded again.
    """

    def __init__(
        self,
        listener: socket.socket,
        accepted: Callable[[socket.socket, object], None],
        exhausted: Callable[[OSError], None],
    ) -> None:
        self._listener = listener
        self._accepted = accepted
        self._exhausted = exhausted
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._is_resting = False
        self._has_heirs = False
        """Whether all that are still to be accepted came after the listener was given its options,
        which a connection begins with (sk_clone_lock in net/core/sock.c)."""
        _prepare(listener)
        self._start()

    def _start(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            if self._is_closed:
                return
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                self._has_heirs = True
                return
            except (InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._loop.remove_reader(self._listener.fileno())
                self._timer = self._loop.call_later(ACCEPT_PAUSE_SECONDS, self._start)
                if not self._is_resting:
                    self._is_resting = True
                    self._exhausted(error)
                return
            self._is_resting = False
            sock.setblocking(False)
            if not self._has_heirs:
                _prepare(sock)
            self._accepted(sock, address)

    def close(self) -> None:
        """Accept no more."""
        if not self._is_closed:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
            else:
                self._loop.remove_reader(self._listener.fileno())
            self._listener.close()


def _prepare(sock: socket.socket) -> None:
    arm_reset(sock)  # whoever means well with it closes it cleanly
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        tune_tcp(sock)
