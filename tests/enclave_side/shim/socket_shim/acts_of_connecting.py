"""Manners of connecting, and what a program sees that connects so."""

import asyncio
import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

from tests.enclave_side.shim.socket_shim.errors_told import CONNECTED, number_symbol, symbol

SECONDS = 30.0


def blocking(host: str, port: int) -> str:
    socket.create_connection((host, port)).close()
    return CONNECTED


def with_timeout(host: str, port: int) -> str:
    socket.create_connection((host, port), SECONDS).close()
    return CONNECTED


def by_number(host: str, port: int) -> str:
    with socket.socket() as sock:
        return number_symbol(sock.connect_ex((host, port)))


@contextlib.contextmanager
def woken(host: str, port: int) -> Iterator[socket.socket]:
    """A socket whose connect is over, however it ended."""
    with socket.socket() as sock:
        sock.setblocking(False)
        number = sock.connect_ex((host, port))
        assert number == errno.EINPROGRESS, number
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        assert poll.poll(SECONDS * 1000), "it was never woken"
        yield sock


def not_blocking(host: str, port: int) -> str:
    with woken(host, port) as sock:
        return number_symbol(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def connecting_again(host: str, port: int) -> str:
    with woken(host, port) as sock:
        return number_symbol(sock.connect_ex((host, port)))


def sending(host: str, port: int) -> str:
    with woken(host, port) as sock:
        sock.send(b"word")
    return CONNECTED


def receiving(host: str, port: int) -> str:
    with woken(host, port) as sock:
        try:
            sock.recv(1)
        except BlockingIOError:
            return CONNECTED
    return "an end of file"


def with_asyncio(host: str, port: int) -> str:
    async def main() -> None:
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())
    return CONNECTED


MANNERS: dict[str, Callable[[str, int], str]] = {
    "blocking": blocking,
    "with_timeout": with_timeout,
    "by_number": by_number,
    "not_blocking": not_blocking,
    "connecting_again": connecting_again,
    "sending": sending,
    "receiving": receiving,
    "with_asyncio": with_asyncio,
}


def see(manner: str, host: str, port: int) -> str:
    """What a program sees that connects in this manner."""
    try:
        return MANNERS[manner](host, port)
    except OSError as error:
        return symbol(error)


_begun: list[socket.socket] = []


def begin(host: str, port: int) -> str:
    """Begin to connect; the socket stays."""
    sock = socket.socket()
    _begun.append(sock)
    sock.setblocking(False)
    return number_symbol(sock.connect_ex((host, port)))


def outcome() -> list[str]:
    """Wait for what was begun; what SO_ERROR says, twice."""
    with _begun.pop() as sock:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        assert poll.poll(SECONDS * 1000), "it was never woken"
        numbers = [sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for _ in range(2)]
    return [number_symbol(number) for number in numbers]


def wakes(waiter: str, host: str, port: int) -> list[Any]:
    """Register first, connect then, wait: readiness at once, after the wait, and SO_ERROR."""
    with socket.socket() as sock:
        sock.setblocking(False)
        wait = WAITERS[waiter](sock)
        assert sock.connect_ex((host, port)) == errno.EINPROGRESS
        is_ready = wait(SECONDS)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return [
            is_ready,
            number_symbol(number),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
        ]


def _with_select(sock: socket.socket) -> Callable[[float], bool]:
    return lambda seconds: bool(select.select([], [sock], [], seconds)[1])


def _with_poll(sock: socket.socket) -> Callable[[float], bool]:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return lambda seconds: bool(poll.poll(seconds * 1000))


def _with_epoll(sock: socket.socket) -> Callable[[float], bool]:
    epoll = select.epoll()
    epoll.register(sock, select.EPOLLOUT)

    def wait(seconds: float) -> bool:
        with epoll:
            return [number for number, _ in epoll.poll(seconds)] == [sock.fileno()]

    return wait


def _with_edges(sock: socket.socket) -> Callable[[float], bool]:
    epoll = select.epoll()
    epoll.register(sock, select.EPOLLOUT | select.EPOLLET)
    epoll.poll(0)  # the edge of a socket that is not connected

    def wait(seconds: float) -> bool:
        with epoll:
            return [number for number, _ in epoll.poll(seconds)] == [sock.fileno()]

    return wait


WAITERS: dict[str, Callable[[socket.socket], Callable[[float], bool]]] = {
    "select": _with_select,
    "poll": _with_poll,
    "epoll": _with_epoll,
    "epoll by edges": _with_edges,
}


def waits_again(host: str, port: int) -> list[str]:
    """Begin without blocking, then wait in a second connect(); what that says, and a third one."""
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex((host, port)) == errno.EINPROGRESS
        sock.settimeout(SECONDS)
        return [number_symbol(sock.connect_ex((host, port))) for _ in range(2)]


def tries_both(first: tuple[str, int], second: tuple[str, int]) -> list[str]:
    """Fail without blocking, then connect the same socket elsewhere, and have a word echoed."""
    with woken(first[0], first[1]) as sock:
        descriptor = sock.fileno()
        seen = [number_symbol(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)), peer(sock)]
        sock.connect_ex((first[0], first[1]))  # ECONNABORTED, as the kernel has it
        sock.settimeout(SECONDS)
        sock.connect((second[0], second[1]))
        seen.append("the same descriptor" if sock.fileno() == descriptor else "another")
        sock.sendall(b"word")
        return [*seen, sock.recv(4).decode()]


def peer(sock: socket.socket) -> str:
    """Whom getpeername names, or its error."""
    try:
        return str(sock.getpeername())
    except OSError as error:
        return symbol(error)


def is_early(host: str, port: int) -> list[bool]:
    """Whether a socket is readable or writable while nobody has decided."""
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        assert sock.connect_ex((host, port)) == errno.EINPROGRESS
        readable, writable, _ = select.select([sock], [sock], [], 0.05)
        assert sock.connect_ex((host, port)) == errno.EALREADY
        assert peer(sock) == "ENOTCONN"
        return [bool(readable), bool(writable)]
