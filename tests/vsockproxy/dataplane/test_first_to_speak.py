"""Which end speaks first."""

import socket
from collections import deque
from collections.abc import Iterator

import pytest

from vsockproxy.dataplane.first_to_speak import read_unless_readable
from vsockproxy.dataplane.loop import CancelledError, Event, run, sleep, spawn

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def service() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Client:
    """Bytes that are read as they come; a read that is cancelled takes none."""

    def __init__(self) -> None:
        self.pieces: deque[bytes | Exception] = deque()
        self.came = Event()

    def say(self, data: bytes | Exception) -> None:
        self.pieces.append(data)
        self.came.set()

    async def read(self) -> bytes:
        while not self.pieces:
            self.came.clear()
            await self.came.wait()
        piece = self.pieces.popleft()
        if isinstance(piece, Exception):
            raise piece
        return piece


def test_the_client_speaks_first(service: Pair) -> None:
    async def main() -> None:
        client = Client()
        waiting = spawn(read_unless_readable(client.read, service[0]), "wait")
        await sleep(0)
        client.say(b"hello")
        assert await waiting == b"hello"
        client.say(b"")
        assert await read_unless_readable(client.read, service[0]) == b"", "its end"

    run(main())


def test_the_service_speaks_first_and_nothing_of_the_client_is_lost(service: Pair) -> None:
    async def main() -> None:
        client = Client()
        waiting = spawn(read_unless_readable(client.read, service[0]), "wait")
        await sleep(0)
        service[1].send(b"220")
        assert await waiting is None
        assert service[0].recv(10) == b"220"
        client.say(b"later")
        assert await client.read() == b"later"

    run(main())


def test_the_end_of_the_service_counts_as_its_word(service: Pair) -> None:
    async def main() -> None:
        service[1].close()
        assert await read_unless_readable(Client().read, service[0]) is None

    run(main())


def test_both_at_once_is_the_client(service: Pair) -> None:
    async def main() -> None:
        client = Client()
        client.say(b"hello")
        service[1].send(b"220")
        assert await read_unless_readable(client.read, service[0]) == b"hello"

    run(main())


def test_neither_in_time(service: Pair) -> None:
    async def main() -> None:
        client = Client()
        with pytest.raises(TimeoutError):
            await read_unless_readable(client.read, service[0], 0.01)
        client.say(b"later")
        assert await client.read() == b"later"

    run(main())


def test_what_the_read_raises(service: Pair) -> None:
    async def main() -> None:
        client = Client()
        client.say(ConnectionResetError("gone"))
        with pytest.raises(ConnectionResetError, match="gone"):
            await read_unless_readable(client.read, service[0])

    run(main())


def test_whoever_waits_may_be_cancelled(service: Pair) -> None:
    async def main() -> None:
        client = Client()
        waiting = spawn(read_unless_readable(client.read, service[0]), "wait")
        await sleep(0)
        waiting.cancel()
        with pytest.raises(CancelledError):
            await waiting
        await sleep(0)
        client.say(b"later")
        assert await client.read() == b"later"

    run(main())
