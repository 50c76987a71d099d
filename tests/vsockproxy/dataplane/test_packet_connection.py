import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.observation import open_sockets
from vsockproxy.dataplane import loop
from vsockproxy.dataplane.packet_connection import PacketConnection, PeerGone

LONG = 30.0
"""Seconds that no test waits for when all is well."""

Main = Callable[[PacketConnection, socket.socket], Coroutine[Any, Any, None]]


def run(main: Main) -> None:
    async def bounded() -> None:
        before = open_sockets()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        connection = PacketConnection(ours)
        with theirs:
            async with loop.timeout(LONG):
                await main(connection, theirs)
            connection.close()
        assert open_sockets() == before

    loop.run(bounded())


def test_packets_keep_their_bounds() -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        for packet in (b"one", b"two", b"12345678"):
            peer.send(packet)
        assert await connection.receive(7) == b"one"
        assert await connection.receive(7) == b"two"
        assert len(await connection.receive(7)) == 8  # too long, by so much as shows it
        connection.send(b"three")
        connection.send(b"four")
        assert [peer.recv(100), peer.recv(100)] == [b"three", b"four"]

    run(main)


def test_a_descriptor_goes_with_a_packet() -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        read_end, write_end = os.pipe()
        connection.send(b"x", [write_end])
        os.close(write_end)
        _, (received,), _, _ = socket.recv_fds(peer, 100, 4)
        os.write(received, b"hello")
        os.close(received)
        assert os.read(read_end, 100) == b"hello"
        os.close(read_end)

    run(main)


def test_descriptors_that_a_peer_sends_are_closed() -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        read_end, write_end = os.pipe()
        socket.send_fds(peer, [b"x"], [write_end])
        os.close(write_end)
        assert await connection.receive(100) == b"x"
        assert os.read(read_end, 1) == b""
        os.close(read_end)

    run(main)


def test_an_answer_to_nobody_is_an_error() -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        peer.close()
        with pytest.raises(BrokenPipeError):
            connection.send(b"answer")
        assert await connection.receive(100) == b""

    run(main)


def test_a_peer_that_waits_disturbs_nothing() -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        with connection.while_peer_waits():
            await loop.sleep(0)
        peer.send(b"next")
        assert await connection.receive(100) == b"next"

    run(main)


@pytest.mark.parametrize(
    ("leave", "has_spoken"),
    [
        pytest.param(lambda peer: peer.close(), False, id="closes"),
        pytest.param(lambda peer: peer.shutdown(socket.SHUT_WR), False, id="says no more"),
        pytest.param(lambda peer: peer.send(b"hurry"), True, id="sends another packet"),
    ],
)
def test_a_peer_that_does_not_wait_cancels(
    leave: Callable[[socket.socket], object], has_spoken: bool
) -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        cleaned: list[bool] = []

        async def wait() -> None:
            try:
                await loop.sleep(2 * LONG)
            finally:
                await loop.sleep(0)  # cleaning up is not cancelled once more
                cleaned.append(True)

        leave(peer)
        with pytest.raises(PeerGone) as caught, connection.while_peer_waits():
            await wait()
        assert cleaned == [True]
        assert caught.value.has_spoken is has_spoken
        await loop.sleep(0)

    run(main)


def test_another_cancellation_is_not_taken_for_the_peers() -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        del peer

        async def wait() -> None:
            with connection.while_peer_waits():
                await loop.sleep(2 * LONG)

        task = loop.spawn(wait(), "waits")
        await loop.sleep(0)
        task.cancel()
        with pytest.raises(loop.CancelledError):
            await task

    run(main)


def test_a_time_limit_inside_is_its_own() -> None:
    async def main(connection: PacketConnection, peer: socket.socket) -> None:
        del peer
        with pytest.raises(TimeoutError), connection.while_peer_waits():
            async with loop.timeout(0.01):
                await loop.sleep(2 * LONG)

    run(main)
