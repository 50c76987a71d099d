"""What a program does through a pair, each with the seconds and latencies that it took."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Thread

from tests.benchmarks.transfers import TOTAL, receive_exactly, send_zeros, swallow

MESSAGE = b"E" * 512
WAIT_SECONDS = 30
"""Longest wait for a single read or write; a pair that takes longer has failed."""

_KERNEL_TIMEOUT = (WAIT_SECONDS).to_bytes(8, "little") + bytes(8)  # struct timeval


@dataclass(frozen=True, slots=True)
class Work:
    """One run of one kind of load: how long it took in all, and each operation where counted."""

    amount: int
    """Bytes, round trips or connections."""
    seconds: float
    latencies_seconds: tuple[float, ...] = ()


def open_stream(port: int) -> socket.socket:
    """A connection to a pair. Its waits are bounded by the kernel, which costs no system call."""
    sock = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, _KERNEL_TIMEOUT)
    return sock


def bulk_up(port: int, length: int) -> Work:
    """One stream, from the program to the origin."""
    with open_stream(port) as sock:
        began = time.perf_counter()
        sock.sendall(b"S")
        send_zeros(sock, length)
        sock.shutdown(socket.SHUT_WR)
        (total,) = TOTAL.unpack(receive_exactly(sock, TOTAL.size))
        taken = time.perf_counter() - began
    return _whole(length, total, taken)


def bulk_down(port: int, length: int) -> Work:
    """One stream, from the origin to the program."""
    with open_stream(port) as sock:
        began = time.perf_counter()
        sock.sendall(b"R" + TOTAL.pack(length))
        total = swallow(sock)
        taken = time.perf_counter() - began
    return _whole(length, total, taken)


def bulk_both(port: int, length: int) -> Work:
    """One stream, `length` bytes in each direction at once."""
    with open_stream(port) as sock:
        began = time.perf_counter()
        sock.sendall(b"B" + TOTAL.pack(length))
        sender = Thread(target=_send_and_finish, args=(sock, length), daemon=True)
        sender.start()
        total = swallow(sock)
        sender.join()
        taken = time.perf_counter() - began
    work = _whole(length, total, taken)
    return Work(2 * work.amount, work.seconds)


def _send_and_finish(sock: socket.socket, length: int) -> None:
    send_zeros(sock, length)
    sock.shutdown(socket.SHUT_WR)


def _whole(wanted: int, total: int, seconds: float) -> Work:
    if total != wanted:
        raise ConnectionError(f"{total} of {wanted} bytes arrived")
    return Work(wanted, seconds)


def round_trips(port: int, count: int) -> Work:
    """512 bytes there and back on one stream, one after the other."""
    latencies: list[float] = []
    with open_stream(port) as sock:
        _round_trip(sock)
        began = now = time.perf_counter()
        for _ in range(count):
            before = now
            _round_trip(sock)
            now = time.perf_counter()
            latencies.append(now - before)
    return Work(count, now - began, tuple(latencies))


def _round_trip(sock: socket.socket) -> None:
    sock.send(MESSAGE)
    left = len(MESSAGE)
    while left:
        length = len(sock.recv(left))
        if not length:
            raise ConnectionError("closed within a round trip")
        left -= length


def round_trips_at_once(port: int, count: int, streams: int) -> Work:
    """512 bytes there and back on many streams; each has one message under way."""
    with ExitStack() as stack:
        socks = {}
        epoll = stack.enter_context(select.epoll())
        for _ in range(streams):
            sock = stack.enter_context(open_stream(port))
            _round_trip(sock)
            socks[sock.fileno()] = sock
            epoll.register(sock.fileno(), select.EPOLLIN)
        left = dict.fromkeys(socks, len(MESSAGE))
        began = time.perf_counter()
        for sock in socks.values():
            sock.send(MESSAGE)
        done = 0
        while done < count:
            for descriptor, _events in _poll(epoll):
                sock = socks[descriptor]
                length = len(sock.recv(left[descriptor]))
                if not length:
                    raise ConnectionError("closed within a round trip")
                left[descriptor] -= length
                if not left[descriptor]:
                    done += 1
                    left[descriptor] = len(MESSAGE)
                    sock.send(MESSAGE)
        taken = time.perf_counter() - began
    return Work(done, taken)


def connections(port: int, count: int) -> Work:
    """Connect, one byte there and back, close; one after the other."""
    latencies: list[float] = []
    began = now = time.perf_counter()
    for _ in range(count):
        before = now
        with open_stream(port) as sock:
            sock.send(b"E")
            receive_exactly(sock, 1)
        now = time.perf_counter()
        latencies.append(now - before)
    return Work(count, now - began, tuple(latencies))


def connections_at_once(port: int, count: int, at_once: int) -> Work:
    """Connect, one byte there and back, close; always `at_once` under way."""
    latencies: list[float] = []
    under_way: dict[int, tuple[socket.socket, float]] = {}
    with select.epoll() as epoll:
        try:
            began = time.perf_counter()
            started = 0
            while len(latencies) < count:
                while started < count and len(under_way) < at_once:
                    started += 1
                    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                    sock.setblocking(False)
                    under_way[sock.fileno()] = sock, time.perf_counter()
                    sock.connect_ex(("127.0.0.1", port))
                    epoll.register(sock.fileno(), select.EPOLLOUT)
                for descriptor, events in _poll(epoll):
                    sock, at = under_way[descriptor]
                    if events & select.EPOLLOUT:
                        sock.send(b"E")  # raises what the connect ended with
                        epoll.modify(descriptor, select.EPOLLIN)
                        continue
                    receive_exactly(sock, 1)
                    del under_way[descriptor]
                    epoll.unregister(descriptor)
                    sock.close()
                    latencies.append(time.perf_counter() - at)
            taken = time.perf_counter() - began
        finally:
            for sock, _at in under_way.values():
                sock.close()
    return Work(count, taken, tuple(latencies))


def _poll(epoll: select.epoll) -> list[tuple[int, int]]:
    events = epoll.poll(WAIT_SECONDS)
    if not events:
        raise TimeoutError(f"nothing happened for {WAIT_SECONDS} s")
    return events


@contextmanager
def idle_streams(port: int, count: int) -> Iterator[None]:
    """`count` streams that have carried one byte each way and are silent while the body runs."""
    with ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(open_stream(port))
            sock.send(b"E")
            receive_exactly(sock, 1)
        yield
