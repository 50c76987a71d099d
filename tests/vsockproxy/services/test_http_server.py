"""HTTP over real sockets: what hostile clients and services get."""

import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.support.supervision import RecordingLog
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.protocols.http_service import ServiceAnswer, ServiceRequest
from vsockproxy.services.http_client import ask
from vsockproxy.services.http_server import CONNECTIONS_AT_ONCE, serve_http


def answer(request: ServiceRequest) -> ServiceAnswer:
    return ServiceAnswer(200, f"{request.method} {request.path}".encode())


@asynccontextmanager
async def serving(head_seconds: float = math.inf) -> AsyncIterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address: tuple[str, int] = listener.getsockname()
        async with trio.open_nursery() as nursery:
            serve = partial(serve_http, head_seconds=head_seconds)
            nursery.start_soon(serve, listener, answer, RecordingLog())
            yield address
            nursery.cancel_scope.cancel()


async def say(address: tuple[str, int], data: bytes) -> bytes:
    """Send bytes, and read to the end."""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(data)
        received = b""
        async for piece in stream:
            received += piece
        return received


REFUSED = {
    "no HTTP": (b"\x16\x03\x01\r\n\r\n", b"400"),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", b"400"),
    "a body": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"413"),
    "chunks": (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"413"),
    "a proxy's request": (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
    "a head without end": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000, b"431"),
    "too many headers": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: x\r\n" * 100 + b"\r\n", b"431"),
}


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_request_of_ours_is_refused(request_bytes: bytes, status: bytes) -> None:
    async with serving() as address:
        with trio.fail_after(20):
            try:
                said = await say(address, request_bytes)
            except trio.BrokenResourceError:
                return  # what it had not read turned its close into a reset
            assert said.split(b" ", 2)[1] == status


async def test_one_request_is_answered_and_the_connection_ends() -> None:
    async with serving() as address:
        with trio.fail_after(20):
            said = await say(
                address, b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n\r\n"
            )
            assert said.count(b"HTTP/1.1") == 1
            assert said.endswith(b"\r\n\r\nGET /a")
            assert b"Connection: close" in said
            said = await say(address, b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert said.endswith(b"\r\n\r\n")
            assert b"Content-Length: 7" in said


async def test_clients_that_say_nothing_keep_nobody_out_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vsockproxy.services.http_server.EXCHANGE_SECONDS", 0.3)
    async with serving() as address:
        with trio.fail_after(30):
            silent = [await trio.open_tcp_stream(*address) for _ in range(CONNECTIONS_AT_ONCE + 1)]
            said = await say(address, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"GET /a" in said
            for stream in silent:
                await stream.aclose()


@pytest.mark.parametrize("beginning", [b"", b"GET /a HTTP/1.1\r\nHost: "])
async def test_who_asks_at_once_gets_the_place_of_one_who_does_not(
    beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsockproxy.services.http_server.EXCHANGE_SECONDS", math.inf)
    async with serving() as address:
        with trio.fail_after(30):
            others = [await trio.open_tcp_stream(*address) for _ in range(CONNECTIONS_AT_ONCE + 20)]
            for stream in others[20:]:
                await stream.send_all(beginning)
            for _ in range(3):
                assert b"GET /a" in await say(address, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await others[0].receive_some() == b""
            for stream in others:
                await stream.aclose()


async def test_a_request_may_take_so_long_and_no_longer() -> None:
    async with serving(head_seconds=0.05) as address:
        with trio.fail_after(5):  # an exchange may take 10 s
            assert await say(address, b"GET /a HTTP/1.1\r\n") == b""


ANSWERS = {
    "no HTTP": b"hello\r\n\r\n",
    "an end in the head": b"HTTP/1.1 200 OK\r\nContent-",
    "an end in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    "nothing": b"",
    "a body beyond its limit": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b"x" * 99,
    "a body without end": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 99,
    "broken chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a head beyond its limit": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000,
}


async def ask_one_that_says(data: bytes) -> ServiceAnswer:
    client, server = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await server.send_all(data)
        await server.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        return await ask(client, "GET", "/", host="a", max_body_bytes=50)
    raise AssertionError("the nursery swallows nothing")


@pytest.mark.parametrize("data", ANSWERS.values(), ids=ANSWERS)
async def test_what_is_no_answer_is_an_error(data: bytes) -> None:
    with pytest.raises(ExceptionGroup) as caught, trio.fail_after(20):
        await ask_one_that_says(data)
    assert caught.group_contains(HttpResponseError)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc and more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
    ],
)
async def test_every_framing_of_a_body_is_read(data: bytes) -> None:
    found = await ask_one_that_says(data)
    assert (found.status, found.body) == (200, b"abc")
