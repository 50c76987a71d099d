"""HTTP with connections that are kept, over real sockets, and what ends them."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.support.supervision import RecordingLog
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_conversation import BodyRequest
from vsockproxy.protocols.http_service import ServiceAnswer
from vsockproxy.services import kept_connections
from vsockproxy.services.kept_connections import serve_kept_connections

Address = tuple[str, int]

POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


async def echo(request: BodyRequest) -> ServiceAnswer:
    return ServiceAnswer(200, request.body)


def refuse(error: HttpRequestError) -> ServiceAnswer:
    return ServiceAnswer(error.status, str(error).encode())


@asynccontextmanager
async def serving(
    answering: Callable[[BodyRequest], Awaitable[ServiceAnswer]] = echo,
) -> AsyncIterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address: Address = listener.getsockname()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await serve_kept_connections(
                    listener, answering, refuse, RecordingLog(), max_body_bytes=100_000
                )

            nursery.start_soon(serve)
            with trio.fail_after(30):
                yield address
            nursery.cancel_scope.cancel()


async def read_answer(stream: trio.abc.Stream, body: bytes = b"abc") -> bytes:
    """One answer with a body that is known; its head."""
    received = b""
    while not (received.endswith(b"\r\n\r\n" + body)):
        piece = await stream.receive_some()
        assert piece, received
        received += piece
    return received.removesuffix(body)


async def test_a_connection_carries_many_requests() -> None:
    async with serving() as address, await trio.open_tcp_stream(*address) as stream:
        for _ in range(3):
            await stream.send_all(POST)
            assert b"Keep-Alive: timeout=60" in await read_answer(stream)


async def test_requests_that_come_at_once_are_answered_one_after_the_other() -> None:
    async with serving() as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(POST + POST[:-1])
        await read_answer(stream)
        await stream.send_all(b"c")
        await read_answer(stream)


async def test_a_client_hears_at_once_that_it_may_send() -> None:
    async with serving() as address, await trio.open_tcp_stream(*address) as stream:
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        await stream.send_all(head)
        assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        await read_answer(stream)


async def test_a_body_that_is_too_long_is_refused_while_it_is_sent() -> None:
    async with serving() as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
        await stream.send_all(bytes(300_000))  # and the refusal is not lost by a reset
        received = b""
        async for piece in stream:
            received += piece
        assert received.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in received


async def test_a_client_that_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_connections, "IDLE_SECONDS", 0.2)
    async with serving() as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(POST)
        await read_answer(stream)
        assert await stream.receive_some() == b""


async def test_a_request_that_does_not_go_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_connections, "REQUEST_SECONDS", 0.2)
    async with serving() as address, await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(POST[:-1])
        assert await stream.receive_some() == b""


async def test_an_idle_connection_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_connections, "CONNECTIONS_AT_ONCE", 2)
    async with serving() as address:
        streams = []
        for _ in range(3):
            stream = await trio.open_tcp_stream(*address)
            streams.append(stream)
            await stream.send_all(POST)
            await read_answer(stream)
        assert await streams[0].receive_some() == b""
        await streams[1].send_all(POST)
        await read_answer(streams[1])
        for stream in streams:
            await stream.aclose()


async def test_clients_that_close_each_time_are_all_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_connections, "CONNECTIONS_AT_ONCE", 2)
    everybody_is_there = trio.Event()
    answered = []

    async def answering(request: BodyRequest) -> ServiceAnswer:
        await everybody_is_there.wait()
        return await echo(request)

    async def call(address: Address) -> None:
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(POST.replace(b"Host: a", b"Host: a\r\nConnection: close"))
            answered.append(await read_answer(stream))

    async with serving(answering) as address, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(call, address)
        await trio.testing.wait_all_tasks_blocked(0.05)
        everybody_is_there.set()
    assert len(answered) == 10


async def test_a_client_that_goes_harms_nobody() -> None:
    async with serving() as address:
        for data in (b"", POST[:-1], POST, POST * 2):
            stream = await trio.open_tcp_stream(*address)
            await stream.send_all(data)
            await stream.aclose()
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(POST)
            await read_answer(stream)
