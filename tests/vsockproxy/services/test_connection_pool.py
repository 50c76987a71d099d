"""Connections that are kept: when they are used again, and when a question is sent twice."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.support.certificates import Authority
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.services.connection_pool import ConnectionCut, ConnectionPool

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
IDLE_SECONDS = 30.0

Serve = Callable[[trio.abc.Stream, int], Awaitable[None]]


class Server:
    """The other end: `serve` gets each connection, and how many came before it."""

    def __init__(self, serve: Serve, nursery: trio.Nursery) -> None:
        self._serve = serve
        self._nursery = nursery
        self.connections = 0
        self.questions = 0

    async def open(self) -> trio.abc.Stream:
        client, server = memory_stream_pair()
        self._nursery.start_soon(self._serve, server, self.connections)
        self.connections += 1
        return client


async def answer_all(stream: trio.abc.Stream, _: int) -> None:
    while await stream.receive_some():
        await stream.send_all(ANSWER)


@asynccontextmanager
async def pool_of(serve: Serve, at_once: int = 4) -> AsyncIterator[tuple[ConnectionPool, Server]]:
    async with trio.open_nursery() as nursery:
        server = Server(serve, nursery)
        pool = ConnectionPool(server.open, at_once=at_once, idle_seconds=IDLE_SECONDS)
        nursery.start_soon(pool.run)
        yield pool, server
        nursery.cancel_scope.cancel()


async def ask(pool: ConnectionPool, *, may_repeat: bool = True) -> bytes:
    answer = await pool.ask(REQUEST, may_repeat=may_repeat, max_body_bytes=100)
    return answer.body


async def test_one_connection_does_for_questions_one_after_the_other() -> None:
    async with pool_of(answer_all) as (pool, server):
        for _ in range(3):
            assert await ask(pool) == b"abc"
        assert (server.connections, pool.idle) == (1, 1)


async def test_questions_at_once_have_connections_of_their_own_up_to_the_limit() -> None:
    async def answer_late(stream: trio.abc.Stream, _: int) -> None:
        while await stream.receive_some():
            await trio.sleep(0.01)
            await stream.send_all(ANSWER)

    async with pool_of(answer_late, at_once=3) as (pool, server):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, pool)
        assert (server.connections, pool.idle) == (3, 3)


async def test_a_connection_that_nobody_uses_is_closed(autojump_clock: MockClock) -> None:
    del autojump_clock
    ended = trio.Event()

    async def answer_and_tell(stream: trio.abc.Stream, number: int) -> None:
        await answer_all(stream, number)
        ended.set()

    async with pool_of(answer_and_tell) as (pool, server):
        await ask(pool)
        await trio.sleep(IDLE_SECONDS - 1)
        assert (await ask(pool), server.connections) == (b"abc", 1)
        began = trio.current_time()
        await ended.wait()
        assert trio.current_time() - began == pytest.approx(IDLE_SECONDS)
        assert pool.idle == 0
        assert (await ask(pool), server.connections) == (b"abc", 2)


async def test_one_that_says_close_is_not_kept() -> None:
    async def answer_and_close(stream: trio.abc.Stream, _: int) -> None:
        await stream.receive_some()
        await stream.send_all(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    async with pool_of(answer_and_close) as (pool, server):
        await ask(pool)
        await ask(pool)
        assert (server.connections, pool.idle) == (2, 0)


async def test_one_that_says_more_than_its_answer_is_not_kept() -> None:
    async def answer_twice(stream: trio.abc.Stream, _: int) -> None:
        await stream.receive_some()
        await stream.send_all(ANSWER + ANSWER)

    async with pool_of(answer_twice) as (pool, server):
        await ask(pool)
        await ask(pool)
        assert (server.connections, pool.idle) == (2, 0)


async def test_one_that_says_more_in_a_record_of_its_own_is_not_kept(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def answer_twice(carrier: trio.abc.Stream, _: int) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = authority.context("kms.test").wrap_bio(incoming, outgoing, server_side=True)

        async def until_done(step: Callable[[], object]) -> None:
            while True:
                with suppress(ssl.SSLWantReadError):
                    step()
                    return
                if data := outgoing.read():
                    await carrier.send_all(data)
                incoming.write(await carrier.receive_some())

        await until_done(server.do_handshake)
        await until_done(lambda: server.read(1000))
        server.write(ANSWER)
        server.write(ANSWER)
        await carrier.send_all(outgoing.read())

    async with pool_of(answer_twice) as (pool, server):
        context = ssl.create_default_context(cafile=str(authority.file))
        opened = server.open

        async def open_tls() -> trio.abc.Stream:
            return trio.SSLStream(await opened(), context, server_hostname="kms.test")

        encrypted = ConnectionPool(open_tls, at_once=4, idle_seconds=IDLE_SECONDS)
        await ask(encrypted)
        await ask(encrypted)
        assert (server.connections, encrypted.idle, pool.idle) == (2, 0, 0)


async def end_after_one(stream: trio.abc.Stream, _: int) -> None:
    """Answers once, hears the next question, and ends."""
    await stream.receive_some()
    await stream.send_all(ANSWER)
    await stream.receive_some()
    await stream.aclose()


async def test_a_question_that_met_the_end_of_a_kept_connection_is_sent_again() -> None:
    async with pool_of(end_after_one) as (pool, server):
        await ask(pool)
        assert await ask(pool) == b"abc"
        assert server.connections == 2


async def test_but_not_one_that_changes_something() -> None:
    async with pool_of(end_after_one) as (pool, server):
        await ask(pool)
        with pytest.raises(ConnectionCut):
            await ask(pool, may_repeat=False)
        assert server.connections == 1


async def test_one_that_has_not_left_is_sent_again_whatever_it_changes() -> None:
    async def answer_once_and_end(stream: trio.abc.Stream, _: int) -> None:
        await stream.receive_some()
        await stream.send_all(ANSWER)
        await stream.aclose()

    async with pool_of(answer_once_and_end) as (pool, server):
        await ask(pool)
        assert await ask(pool, may_repeat=False) == b"abc"
        assert server.connections == 2


async def test_a_fresh_connection_that_ends_is_the_caller_s_to_judge() -> None:
    async def end(stream: trio.abc.Stream, _: int) -> None:
        await stream.receive_some()
        await stream.aclose()

    async with pool_of(end) as (pool, server):
        with pytest.raises(ConnectionCut):
            await ask(pool)
        assert server.connections == 1


CUT = {
    "in its head": b"HTTP/1.1 200 O",
    "in its body": ANSWER[:-1],
    "where only the end says where it ends": b"HTTP/1.1 200 OK\r\n\r\nabc",
}


@pytest.mark.parametrize("said", CUT.values(), ids=CUT)
async def test_an_answer_that_is_cut_is_none(said: bytes) -> None:
    async def answer_once_then_cut(stream: trio.abc.Stream, _: int) -> None:
        await stream.receive_some()
        await stream.send_all(ANSWER)
        await stream.receive_some()
        await stream.send_all(said)
        await stream.aclose()

    async with pool_of(answer_once_then_cut) as (pool, server):
        await ask(pool)
        with pytest.raises(ConnectionCut):
            await ask(pool)
        assert (server.connections, pool.idle) == (1, 0)


@pytest.mark.parametrize("pieces", [1, 2])
async def test_an_interim_answer_is_passed_over(pieces: int) -> None:
    async def answer_twice(stream: trio.abc.Stream, _: int) -> None:
        while await stream.receive_some():
            interim = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 2
            if pieces == 2:
                await stream.send_all(interim)
                await trio.testing.wait_all_tasks_blocked()
                interim = b""
            await stream.send_all(interim + ANSWER)

    async with pool_of(answer_twice) as (pool, server):
        assert await ask(pool) == b"abc"
        assert await ask(pool) == b"abc"
        assert server.connections == 1


async def test_an_answer_that_is_no_http_is_an_error_and_its_connection_is_not_kept() -> None:
    async def talk(stream: trio.abc.Stream, _: int) -> None:
        await stream.receive_some()
        await stream.send_all(b"hello\r\n\r\n")

    async with pool_of(talk) as (pool, _):
        with pytest.raises(HttpResponseError):
            await ask(pool)
        assert pool.idle == 0


async def test_a_question_that_is_given_up_takes_its_connection_along() -> None:
    async def never(stream: trio.abc.Stream, number: int) -> None:
        if number:
            await answer_all(stream, number)
        await trio.sleep_forever()

    async with pool_of(never, at_once=1) as (pool, server):
        with trio.move_on_after(0.05):
            await ask(pool)
        assert pool.idle == 0
        assert (await ask(pool), server.connections) == (b"abc", 2)


async def test_a_connection_on_which_something_came_is_not_used() -> None:
    async with trio.open_nursery() as nursery:
        server = Server(answer_all, nursery)
        pool = ConnectionPool(
            server.open, at_once=1, idle_seconds=IDLE_SECONDS, is_alive=lambda _: False
        )
        await ask(pool)
        await ask(pool)
        assert server.connections == 2
        nursery.cancel_scope.cancel()
