"""The time limits of a relay without a session, on a clock that the test sets."""

import socket
from collections.abc import Awaitable, Callable

import pytest

from vsockproxy.dataplane.loop import now, run, timeout
from vsockproxy.dataplane.socket_relay import SocketRelay
from vsockproxy.dataplane.sockets import receive, send_all

HALF_CLOSED, IDLE = 300.0, 60.0


class Ends:
    """A relay between two socket pairs, and the far ends of both."""

    def __init__(self) -> None:
        self.program, carrier = socket.socketpair()
        self.destination, local = socket.socketpair()
        for sock in (self.program, carrier, self.destination, local):
            sock.setblocking(False)
        self.closed: list[bool] = []
        self.relay = SocketRelay(local, carrier, closed=self.closed.append)
        self.relay.start()
        self.began = now()

    async def send(self) -> None:
        """One byte from the program to the destination."""
        await send_all(self.program, b"x")
        assert await receive(self.destination, 10) == b"x"

    async def finish(self) -> None:
        """The program sends no more."""
        self.program.shutdown(socket.SHUT_WR)
        assert await receive(self.destination, 10) == b""

    def look(self, after_seconds: float, *, half_closed: float, idle: float) -> bool:
        """Look so long after the beginning; whether the relay lives."""
        self.relay.check_time(self.began + after_seconds, half_closed, idle)
        return not self.relay.is_closed

    def close(self) -> None:
        self.relay.close(is_clean=False)
        self.program.close()
        self.destination.close()


Scene = Callable[[Ends], Awaitable[None]]


def play(scene: Scene) -> None:
    async def main() -> None:
        ends = Ends()
        try:
            async with timeout(30):
                await scene(ends)
        finally:
            ends.close()

    run(main())


def test_without_a_byte_it_lives_for_the_idle_limit() -> None:
    async def scene(ends: Ends) -> None:
        assert ends.look(IDLE - 1, half_closed=HALF_CLOSED, idle=IDLE)
        assert not ends.look(IDLE + 1, half_closed=HALF_CLOSED, idle=IDLE)
        assert (ends.relay.has_timed_out, ends.closed) == (True, [False])
        assert await receive(ends.program, 10) == b""

    play(scene)


def test_each_byte_begins_the_time_anew() -> None:
    async def scene(ends: Ends) -> None:
        for turn in range(1, 5):
            await ends.send()
            assert ends.look(turn * (IDLE - 1), half_closed=HALF_CLOSED, idle=IDLE)
        assert ends.look(5 * (IDLE - 1), half_closed=HALF_CLOSED, idle=IDLE)
        assert not ends.look(4 * (IDLE - 1) + IDLE, half_closed=HALF_CLOSED, idle=IDLE)

    play(scene)


@pytest.mark.parametrize("idle", [0.0, IDLE])
def test_half_closed_has_a_limit_of_its_own(idle: float) -> None:
    async def scene(ends: Ends) -> None:
        await ends.finish()
        assert ends.look(HALF_CLOSED - 1, half_closed=HALF_CLOSED, idle=idle)
        assert not ends.look(HALF_CLOSED + 1, half_closed=HALF_CLOSED, idle=idle)
        assert ends.relay.has_timed_out

    play(scene)


def test_idle_is_without_a_limit_by_default() -> None:
    async def scene(ends: Ends) -> None:
        assert ends.look(1e6, half_closed=HALF_CLOSED, idle=0)
        await ends.finish()
        ends.destination.shutdown(socket.SHUT_WR)
        assert await receive(ends.program, 10) == b""
        assert (ends.closed, ends.relay.has_timed_out) == ([True], False)

    play(scene)
