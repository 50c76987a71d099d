"""Programs that listen for a service with the public API."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import trio
import uvloop

from tests.support.pair import Pair, free_port, is_refused, is_reset
from tests.support.traffic import start
from vsockproxy.client import for_asyncio, for_trio
from vsockproxy.client.errors import NotAllowed
from vsockproxy.client.listening import ServiceListener
from vsockproxy.client.opening import connect

SECONDS = 60.0
BYTES = 3_000_000


class Rig:
    """A pair whose service `web` is for programs."""

    def __init__(self, pair: Pair, port: int) -> None:
        self.pair = pair
        self.port = port
        self.path = str(pair.streams)

    def dial(self) -> socket.socket:
        """A connection from outside."""
        return socket.create_connection(("127.0.0.1", self.port), SECONDS)

    def listen(self, service: str = "web") -> ServiceListener:
        """A program that listens, and knows that it does."""
        connection = connect(self.path, SECONDS)
        connection.settimeout(SECONDS)
        listener = ServiceListener(connection, service)
        try:
            assert listener.receive() is None
        except BaseException:
            listener.close()
            raise
        return listener


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with started() as made:
        yield made


@contextmanager
def started() -> Iterator[Rig]:
    port = free_port()
    with Pair(
        "unix",
        [],
        parent={"ingress": [{"listen": f"tcp://127.0.0.1:{port}", "service": "web"}]},
        enclave={
            "ingress": [
                {"service": "web", "to": "streams"},
                {"service": "fixed", "to": "tcp://127.0.0.1:1"},
            ]
        },
    ) as pair:
        yield Rig(pair, port)


def ask(rig: Rig) -> tuple[str, bytes]:
    """A client's address, and what it gets for its question."""
    with rig.dial() as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
        return "{}:{}".format(*sock.getsockname()), answer


async def serve_on_asyncio(rig: Rig, listening: Callable[[], None]) -> tuple[str, str]:
    async with await for_asyncio.listen("web", path=rig.path) as listener:
        listening()
        connection = await listener.accept()
        assert await connection.reader.read() == b"question"
        connection.writer.write(b"a" * BYTES)
        await connection.writer.drain()
        connection.writer.close()
        await connection.writer.wait_closed()
        return connection.client, connection.server


async def serve_on_trio(rig: Rig, listening: Callable[[], None]) -> tuple[str, str]:
    async with await for_trio.listen("web", path=rig.path) as listener:
        listening()
        connection = await listener.accept()
        async with connection.stream as stream:
            question = b""
            async for piece in stream:
                question += piece
            assert question == b"question"
            await stream.send_all(b"a" * BYTES)
        return connection.client, connection.server


Serve = Callable[[Rig, Callable[[], None]], Coroutine[Any, Any, tuple[str, str]]]


def on_uvloop(serving: Coroutine[Any, Any, tuple[str, str]]) -> tuple[str, str]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serving)


LOOPS: dict[str, Callable[[Rig, Callable[[], None]], tuple[str, str]]] = {
    "asyncio": lambda rig, listening: asyncio.run(serve_on_asyncio(rig, listening)),
    "asyncio on uvloop": lambda rig, listening: on_uvloop(serve_on_asyncio(rig, listening)),
    "trio": lambda rig, listening: trio.run(serve_on_trio, rig, listening),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_program_serves_a_connection(rig: Rig, loop: str) -> None:
    listening = threading.Event()
    serving = start(lambda: LOOPS[loop](rig, listening.set))
    assert listening.wait(SECONDS)
    client, answer = ask(rig)
    assert answer == b"a" * BYTES
    assert serving.result(SECONDS) == (client, f"127.0.0.1:{rig.port}")


@pytest.mark.parametrize("service", ["fixed", "unknown"])
def test_a_service_that_is_not_for_programs(rig: Rig, service: str) -> None:
    with pytest.raises(NotAllowed, match=f"{service} is no service for programs") as caught:
        rig.listen(service)
    assert caught.value.reason == "not_listed"
    assert rig.pair.enclave is not None
    rig.pair.enclave.wait_for_event("listen_refused", service=service, reason="not_listed")


def test_a_name_that_no_service_can_have(rig: Rig) -> None:
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        rig.listen("s" * 65)


def test_nobody_listens(rig: Rig) -> None:
    assert rig.pair.parent is not None
    after = len(rig.pair.parent.lines)
    assert is_refused(rig.port)
    seen = rig.pair.parent.wait_for_event("decision", after=after, reason="dial_refused")
    assert "no program listens for web" in seen["text"]


def test_two_programs_take_turns(rig: Rig) -> None:
    with ExitStack() as stack:
        listeners = [rig.listen(), rig.listen()]
        for listener in listeners:
            stack.callback(listener.close)
        for _ in range(2):
            clients = [stack.enter_context(rig.dial()) for _ in range(2)]
            accepted = [listener.receive() for listener in listeners]
            for each in accepted:
                assert each is not None
                stack.enter_context(each.socket)
            asked = {"{}:{}".format(*sock.getsockname()) for sock in clients}
            assert {each.client for each in accepted if each is not None} == asked


def test_what_a_program_did_not_take_is_reset_when_it_ends(rig: Rig) -> None:
    listener = rig.listen()
    with rig.dial() as sock:
        assert rig.pair.enclave is not None
        client = "{}:{}".format(*sock.getsockname())
        rig.pair.enclave.wait_for_event("decision", allowed=True, client=client)
        listener.close()
        assert is_reset(sock)


def test_a_program_that_takes_no_connections_refuses_those_beyond_its_queue(rig: Rig) -> None:
    listener = rig.listen()
    assert rig.pair.parent is not None
    after = len(rig.pair.parent.lines)
    with ExitStack() as stack:
        stack.callback(listener.close)
        for _ in range(1000):
            stack.enter_context(rig.dial())
        seen = rig.pair.parent.wait_for_event("decision", after=after, reason="dial_refused")
        assert "the queue of the program that listens for web is full" in seen["text"]
        accepted = listener.receive()  # those in its queue are there
        assert accepted is not None
        accepted.socket.close()


def test_a_listener_finds_the_next_worker() -> None:
    with started() as rig:

        async def serve() -> str:
            async with await for_trio.listen("web", path=rig.path) as listener:
                assert rig.pair.enclave is not None
                assert rig.pair.parent is not None
                os.kill(rig.pair.enclave.workers[0], 9)
                rig.pair.enclave.wait_for_event("worker_died")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, keep_asking)
                    connection = await listener.accept()
                    await connection.stream.send_all(b"x")
                    await connection.stream.aclose()
                return connection.client

        def keep_asking() -> None:
            while True:
                try:
                    with rig.dial() as sock:
                        if sock.recv(1) == b"x":
                            return
                except ConnectionResetError:
                    pass  # the program does not listen again yet

        assert trio.run(serve).startswith("127.0.0.1:")
