"""The store of sockets that were made in the command's network."""

import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from enclave_side.command_sockets import STORE, CommandSockets
from vsockproxy.dataplane import loop
from vsockproxy.dataplane.questions import SupervisorBusy
from vsockproxy.errors import Refused
from vsockproxy.worker_messages import SocketsWanted


def some(count: int) -> list[socket.socket]:
    return [socket.socket() for _ in range(count)]


class Asked:
    """A store, and what it has asked for."""

    def __init__(self) -> None:
        self.wanted: list[SocketsWanted] = []
        self.is_busy = False
        self.store = CommandSockets(4, self._ask)

    def _ask(self, wanted: SocketsWanted) -> None:
        if self.is_busy:
            raise SupervisorBusy("busy")
        self.wanted.append(wanted)


def run(main: Callable[[Asked], Coroutine[Any, Any, None]]) -> None:
    asked = Asked()
    try:
        loop.run(main(asked))
    finally:
        asked.store.close()


def test_the_first_one_waits_until_some_come() -> None:
    async def main(asked: Asked) -> None:
        tasks = [loop.spawn(asked.store.take(), "take") for _ in range(3)]
        await loop.sleep(0)
        assert asked.wanted == [SocketsWanted(4, STORE)]
        made = some(STORE)
        asked.store.arrived(made)
        taken = [await task for task in tasks]
        assert taken == made[:3]
        for each in taken:
            each.close()

    run(main)


def test_more_are_asked_for_when_half_are_left() -> None:
    async def main(asked: Asked) -> None:
        first = loop.spawn(asked.store.take(), "take")
        await loop.sleep(0)
        asked.store.arrived(some(STORE))
        (await first).close()
        while len(asked.wanted) == 1:
            (await asked.store.take()).close()
        left = [await asked.store.take() for _ in range(STORE // 2)]
        assert len(asked.wanted) == 2, "it has been asked for already"
        for each in left:
            each.close()

    run(main)


def test_more_wait_than_come() -> None:
    async def main(asked: Asked) -> None:
        tasks = [loop.spawn(asked.store.take(), "take") for _ in range(5)]
        await loop.sleep(0)
        asked.store.arrived(some(2))
        assert len(asked.wanted) == 2
        asked.store.arrived(some(3))
        for task in tasks:
            (await task).close()

    run(main)


def test_none_can_be_made() -> None:
    async def main(asked: Asked) -> None:
        tasks = [loop.spawn(asked.store.take(), "take") for _ in range(2)]
        await loop.sleep(0)
        asked.store.arrived([])
        for task in tasks:
            with pytest.raises(Refused, match="no socket is left"):
                await task

    run(main)


def test_the_supervisor_is_busy() -> None:
    async def main(asked: Asked) -> None:
        asked.is_busy = True
        with pytest.raises(Refused, match="cannot be asked"):
            await asked.store.take()
        asked.is_busy = False
        later = loop.spawn(asked.store.take(), "take")
        await loop.sleep(0)
        asked.store.arrived(some(1))
        (await later).close()

    run(main)


def test_one_that_nobody_waits_for_any_more_goes_to_the_next() -> None:
    async def main(asked: Asked) -> None:
        given_up = loop.spawn(asked.store.take(), "given up")
        await loop.sleep(0)
        (made,) = some(1)
        asked.store.arrived([made])
        given_up.cancel()
        await loop.sleep(0)
        with await asked.store.take() as taken:
            assert taken is made

    run(main)
