"""The HTTP front where a destination answers early, or speaks unasked: one loop, no process."""

import socket
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import cast

import pytest

from enclave_side.opener import Destined, Opener
from enclave_side.shim import http_front
from enclave_side.shim.http_front import HttpFront
from tests.support.certificates import Authority
from tests.support.linked_streams import LinkedStreams
from tests.support.tls_scene import SECONDS, play, tcp_pair
from vsockproxy.addresses import parse_destination, parse_endpoint
from vsockproxy.config.model import EnclaveForward, ForwardTls
from vsockproxy.dataplane.loop import sleep
from vsockproxy.dataplane.sockets import receive, send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.tls_client import TlsClient
from vsockproxy.dataplane.tls_connection import TlsConnection
from vsockproxy.dataplane.tls_contexts import server_context
from vsockproxy.dataplane.tls_records import TlsRecords
from vsockproxy.log import Log

WINDOW_BYTES = 4 * 1024
BODY = bytes(range(250)) * 50
"""More than a window, and less than what is read at once: the front has it all, and waits."""
POST = b"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: %d\r\n\r\n" % len(BODY)
GET = b"GET /next HTTP/1.1\r\nHost: api.test\r\n\r\n"
EARLY = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


class OneStream:
    """An `Opener` that allows everything, and has one stream to give."""

    def __init__(self, near: StreamEnd) -> None:
        self.limits = SimpleNamespace(handshake=SECONDS)
        self._near = near

    def decide(self, host: str, port: int, way: str) -> None:
        del host, port, way

    async def open(self, destined: Destined, *, is_final: bool) -> StreamEnd:
        del destined, is_final
        return self._near

    async def secure(self, destined: Destined, end: StreamEnd, client: TlsClient) -> TlsConnection:
        del destined
        return await client.connect(end.read, end.write, SECONDS)


class Scene:
    """A program, the front, and the destination's end of the stream.

    Args:
        program: a socket of the program.
        origin: the destination, before its handshake.
        near: our end of the stream.
    """

    def __init__(self, program: socket.socket, origin: TlsConnection, near: StreamEnd) -> None:
        self.program = program
        self.origin = origin
        self.near = near

    async def say(self, data: bytes) -> None:
        await send_all(self.program, data)

    async def hear(self, ending: bytes) -> bytes:
        """What the front answers, up to some bytes."""
        data = b""
        while not data.endswith(ending):
            piece = await receive(self.program, 65_536)
            assert piece, data
            data += piece
        return data

    async def asked(self, length: int) -> bytes:
        """So much of what the destination gets, at least."""
        data = b""
        while len(data) < length:
            data += await self.origin.read()
        return data


def enact(authority: Authority, act: Callable[[Scene], Coroutine[None, None, None]]) -> None:
    context = server_context()
    context.load_cert_chain(authority.issue("api.test"))
    forward = EnclaveForward(
        listen=parse_endpoint("tcp://127.0.0.1:1"),
        to=parse_destination("api.test:443"),
        tls=ForwardTls(ca=str(authority.file)),
        protocol="http",
    )

    async def main() -> None:
        streams = LinkedStreams(first_window_bytes=WINDOW_BYTES)
        near, far = await streams.open()
        program, accepted = tcp_pair()
        for sock in (program, accepted):
            sock.setblocking(False)
        opener = cast("Opener", OneStream(near))
        front = HttpFront(opener, Log("enclave", "json", "error"), forward, "test")
        origin = TlsConnection(far.read, far.write, TlsRecords(context, server_side=True))
        front.accepted(accepted, None)
        try:
            await act(Scene(program, origin, near))
        finally:
            program.close()
            streams.close()

    play(main)


async def wait_for(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await sleep(0)


async def answer_early(scene: Scene) -> bytes:
    """An answer while the end of the request waits for credit; what the destination has got."""
    await scene.say(POST)
    await scene.origin.handshake(SECONDS)
    seen = await scene.origin.read()
    assert seen.endswith(b"\r\n\r\n")
    await scene.say(BODY)
    # All that may be sent is sent.
    await wait_for(lambda: scene.near.stream.send.sent == scene.near.stream.send.limit)
    await scene.origin.write(EARLY)
    answer = await scene.hear(b"no")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Connection: close" not in answer
    return seen


def test_a_next_request_comes_behind_the_last_byte_of_one_that_was_answered_early(
    authority: Authority,
) -> None:
    async def act(scene: Scene) -> None:
        seen = await answer_early(scene)
        await scene.say(GET)
        for _ in range(100):  # turns in which a front that does not wait would write it
            await sleep(0)
        seen += await scene.asked(len(BODY))
        head, _, body = seen.partition(b"\r\n\r\n")
        assert head.startswith(b"POST / ")
        while len(body) == len(BODY) or not body.endswith(b"\r\n\r\n"):
            body += await scene.origin.read()
        assert body[: len(BODY)] == BODY
        assert body[len(BODY) :].startswith(b"GET /next HTTP/1.1\r\n")
        await scene.origin.write(OK)
        assert (await scene.hear(b"yes")).startswith(b"HTTP/1.1 200 ")

    enact(authority, act)


def test_a_request_whose_end_is_not_taken_ends_the_connection(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_front, "LINGER_SECONDS", 0.05)

    async def act(scene: Scene) -> None:
        await answer_early(scene)
        await scene.say(GET)
        assert await receive(scene.program, 100) == b""
        await wait_for(lambda: scene.near.is_closed)
        with pytest.raises(ConnectionResetError):
            await scene.asked(2 * len(BODY))

    enact(authority, act)


def test_what_comes_unasked_is_no_answer(authority: Authority) -> None:
    async def act(scene: Scene) -> None:
        await scene.say(GET)
        await scene.origin.handshake(SECONDS)
        await scene.origin.read()
        await scene.origin.write(OK)
        await scene.hear(b"yes")
        # Both are there when the front looks: it has had no turn in between.
        scene.program.send(GET)
        await scene.origin.write(OK)
        assert await receive(scene.program, 100) == b""
        assert await scene.origin.read() == b""

    enact(authority, act)
