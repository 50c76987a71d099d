"""Connections that look as if they were still being made, on this kernel and as on an older one."""

import ctypes
import errno
import os
import resource
import select
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.capabilities import without_capabilities
from tests.support.observation import open_sockets
from tests.support.pair import is_reset
from vsockproxy.dataplane import held_connections, loop
from vsockproxy.dataplane.held_connections import HeldConnection, HeldConnections
from vsockproxy.dataplane.sockets import receive

LONG = 30.0
"""Seconds that no test waits for when all is well."""
SOON = 0.3

RESET = struct.pack("ii", 1, 0)

Main = Callable[[HeldConnections], Coroutine[Any, Any, None]]


def run(main: Main) -> None:
    async def bounded() -> None:
        before = open_sockets()
        with HeldConnections() as connections:
            async with loop.timeout(LONG):
                await main(connections)
        assert open_sockets() == before

    loop.run(bounded())


@pytest.fixture(params=["this kernel", "one before 5.14"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "this kernel":
        # An option that this kernel does not know, as an old one does not know SO_BUF_LOCK.
        monkeypatch.setattr(held_connections, "_SO_BUF_LOCK", 0x7FFF)


on_both_kernels = pytest.mark.usefixtures("_kernel")


def taken(held: HeldConnection) -> socket.socket:
    """The far end as a program gets it: another descriptor of the same socket."""
    return socket.socket(fileno=os.dup(held.far_descriptor))


def is_writable(sock: socket.socket, seconds: float = 0.0) -> bool:
    return bool(select.select([], [sock], [], seconds)[1])


def is_readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def error_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@contextmanager
def edges_of(sock: socket.socket) -> Iterator[select.epoll]:
    """Waits for changes alone, as programs that never ask twice do."""
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLOUT | select.EPOLLIN | select.EPOLLET)
        yield epoll


@on_both_kernels
def test_it_becomes_writable_when_it_is_let_go_and_not_before() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with taken(held) as far, edges_of(far) as edges:
            assert edges.poll(0) == []
            # Longer than the kernel waits before it probes a window that is closed.
            await loop.sleep(SOON)
            assert not is_writable(far)
            assert not is_readable(far)
            with pytest.raises(BlockingIOError):
                far.send(b"too soon", socket.MSG_DONTWAIT)
            with await held.let_go() as near:
                assert edges.poll(0) == [(far.fileno(), select.EPOLLOUT)]
                assert is_writable(far)
                assert not is_readable(far)
                assert error_of(far) == 0
                far.sendall(b"the first bytes")
                assert await receive(near, 100) == b"the first bytes"

    run(main)


@on_both_kernels
def test_a_reset_shows_as_an_error_of_the_connection() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with taken(held) as far, edges_of(far) as edges:
            assert edges.poll(0) == []
            held.reset()
            ((_, events),) = edges.poll(LONG)
            assert events & select.EPOLLOUT
            assert events & select.EPOLLERR
            assert is_writable(far)
            assert error_of(far) == errno.ECONNRESET

    run(main)


@on_both_kernels
def test_bytes_pass_both_ways_whole_and_with_both_ends_of_file() -> None:
    data = bytes(range(251)) * 40_000

    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with taken(held) as far, await held.let_go() as near:
            far.setblocking(False)
            for source, target in ((far, near), (near, far)):
                sent = 0
                received = bytearray()
                while len(received) < len(data):
                    if sent < len(data) and is_writable(source):
                        sent += source.send(data[sent:])
                    received += await receive(target, 1 << 20)
                assert received == data
                source.shutdown(socket.SHUT_WR)
                assert await receive(target, 1) == b""

    run(main)


def test_the_far_end_is_an_ordinary_socket() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with taken(held) as far, await held.let_go():
            assert os.get_blocking(far.fileno())
            assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 0
            assert far.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == bytes(8)
            assert far.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
            assert far.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0

    run(main)


def test_the_near_end_grows_like_any_other() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with socket.socket() as other:
            usual = other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        with taken(held), await held.let_go() as near:
            assert near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == usual
            locked = near.getsockopt(socket.SOL_SOCKET, held_connections._SO_BUF_LOCK)
            assert locked == 0

    run(main)


def test_a_program_that_makes_it_writable_itself_is_heard_only_after() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with taken(held) as far:
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
            far.sendall(b"impatient")
            far.shutdown(socket.SHUT_WR)
            with await held.let_go() as near:
                assert await receive(near, 100) == b"impatient"
                assert await receive(near, 100) == b""

    run(main)


def test_a_program_that_has_closed_is_an_end_of_file() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        taken(held).close()
        with await held.let_go() as near:
            assert await receive(near, 100) == b""

    run(main)


def test_a_program_that_lingers_and_has_closed_keeps_nobody_waiting() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with taken(held) as far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, int(LONG)))
        began = loop.now()
        with await held.let_go() as near:
            assert await receive(near, 100) == b""
        await loop.sleep(0)
        assert loop.now() - began < LONG / 2

    run(main)


def test_a_program_that_has_reset_is_an_error_and_nothing_is_left() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with taken(held) as far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            _disconnect(far)
        with pytest.raises(ConnectionResetError):
            await held.let_go()

    run(main)


def _disconnect(sock: socket.socket) -> None:
    """connect(2) with AF_UNSPEC, which Python's own does not take."""
    address = struct.pack("H14x", socket.AF_UNSPEC)
    library = ctypes.CDLL(None, use_errno=True)
    assert library.connect(sock.fileno(), address, len(address)) == 0


def test_elsewhere_the_far_end_reaches_nobody() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with ExitStack() as stack:
            far = stack.enter_context(taken(held))
            stack.enter_context(await held.let_go())
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            _disconnect(far)
            far.settimeout(SOON)
            with pytest.raises(TimeoutError):
                far.connect(listener.getsockname())
            with pytest.raises(PermissionError):
                far.setsockopt(socket.SOL_SOCKET, 27, 0)  # SO_DETACH_FILTER

    run(main)


def test_without_privileges_the_far_end_stays_on_loopback() -> None:
    async def main(connections: HeldConnections) -> None:
        with without_capabilities():
            held = await connections.make()
            with taken(held) as far, await held.let_go() as near:
                far.sendall(b"the first bytes")
                assert await receive(near, 100) == b"the first bytes"
                # An older kernel lets everybody have a filter.
                is_bound = far.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) != b""
                option = socket.SO_BINDTODEVICE if is_bound else 27  # SO_DETACH_FILTER
                with pytest.raises(PermissionError):
                    far.setsockopt(socket.SOL_SOCKET, option, b"\0")

    run(main)


def test_nobody_reaches_a_far_end_that_listens() -> None:
    async def main(connections: HeldConnections) -> None:
        held = await connections.make()
        with ExitStack() as stack:
            far = stack.enter_context(taken(held))
            stack.enter_context(await held.let_go())
            _disconnect(far)
            far.bind(("127.0.0.1", 0))
            far.listen()
            with pytest.raises(TimeoutError):
                socket.create_connection(far.getsockname(), SOON)

    run(main)


def test_strangers_are_not_taken_for_the_other_end() -> None:
    async def main(connections: HeldConnections) -> None:
        with ExitStack() as stack:
            held = await connections.make()
            stack.callback(held.reset)
            with taken(held) as far:
                listening = far.getsockname()  # a far end has the listener's address
            with pytest.raises(TimeoutError):  # since it does not come from the listener's port
                socket.create_connection(listening, SOON)
            strangers = [
                stack.enter_context(
                    socket.create_connection(listening, LONG, (f"127.0.0.{last}", listening[1]))
                )
                for last in range(2, 200)
            ]
            for _ in range(20):
                made = await connections.make()
                stack.callback(made.reset)
                with taken(made) as far:
                    assert not far.getpeername()[0].startswith("127.0.")
            assert all(is_reset(stranger) for stranger in strangers)

    run(main)


def test_many_are_held_at_once_and_none_is_mistaken() -> None:
    async def main(connections: HeldConnections) -> None:
        held = [await connections.make() for _ in range(300)]
        far = [taken(each) for each in held]
        assert select.select([], far, [], 0)[1] == []
        for number, each in enumerate(held):
            if number % 2:
                each.reset()
        near = {number: await each.let_go() for number, each in enumerate(held) if not number % 2}
        for number, sock in enumerate(far):
            assert error_of(sock) == (errno.ECONNRESET if number % 2 else 0)
            if number in near:
                sock.sendall(b"%d" % number)
                assert await receive(near[number], 100) == b"%d" % number
        for sock in (*far, *near.values()):
            sock.close()

    run(main)


def test_when_descriptors_run_out_it_says_so_and_goes_on_later() -> None:
    async def main(connections: HeldConnections) -> None:
        (await connections.make()).reset()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest_free)
        try:
            for left in (0, 1):
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + left, hard))
                with pytest.raises(OSError, match="Too many open files"):
                    await connections.make()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        held = await connections.make()
        with taken(held) as far, await held.let_go() as near:
            far.sendall(b"again")
            assert await receive(near, 100) == b"again"

    run(main)


def test_a_reset_of_what_was_never_passed_leaves_nothing() -> None:
    async def main(connections: HeldConnections) -> None:
        for _ in range(3):
            (await connections.make()).reset()

    run(main)


def test_after_close_it_can_make_more() -> None:
    async def main(connections: HeldConnections) -> None:
        for _ in range(2):
            (await connections.make()).reset()
            connections.close()
            connections.close()

    run(main)
