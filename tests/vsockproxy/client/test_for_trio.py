import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.scripted_streams import (
    OPENED,
    SECONDS,
    Script,
    ScriptedStreams,
    is_gone,
    opens,
    packet,
    pending,
    refuses,
    request_of,
    reset,
    send,
)
from vsockproxy.client.errors import DialRefused, OpeningCut, StreamSocketMissing
from vsockproxy.client.for_trio import open_stream


@asynccontextmanager
async def streams(tmp_path: Path, script: Script) -> AsyncIterator[str]:
    with trio.fail_after(SECONDS), ScriptedStreams(tmp_path / "s.sock", script) as running:
        yield running.path


async def test_a_stream_carries_bytes_and_both_ends_of_file(tmp_path: Path) -> None:
    async with (
        streams(tmp_path, opens) as path,
        await open_stream("kms.test", 443, path=path) as stream,
    ):
        assert isinstance(stream, trio.SocketStream)
        await stream.send_all(b"x" * 100_000)
        await stream.send_eof()
        assert sum([len(data) async for data in stream]) == 100_000


async def test_what_is_refused_is_raised(tmp_path: Path) -> None:
    async with streams(tmp_path, refuses("dial_refused", "no")) as path:
        with pytest.raises(DialRefused) as caught:
            await open_stream("kms.test", 443, path=path)
        assert caught.value.reason == "dial_refused"


async def test_a_cut_is_a_broken_resource(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        request_of(connection)
        near = pending(connection)
        send(connection, packet(OPENED, {}))
        assert near.recv(1) == b"g"
        reset(near)

    async with (
        streams(tmp_path, script) as path,
        await open_stream("kms.test", 443, path=path) as stream,
    ):
        await stream.send_all(b"go on")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some(100)


async def test_giving_up_is_seen_by_the_worker(tmp_path: Path) -> None:
    is_pending = threading.Event()
    is_seen = threading.Event()
    ends: list[bool] = []

    def script(connection: socket.socket) -> None:
        request_of(connection)
        with pending(connection) as near:
            is_pending.set()
            ends.append(is_gone(connection))
            ends.append(is_gone(near))
        is_seen.set()

    async with streams(tmp_path, script) as path:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_open, path)
            await _until(is_pending)
            nursery.cancel_scope.cancel()
        await _until(is_seen)
    assert ends == [True, True]


async def _open(path: str) -> None:
    await open_stream("kms.test", 443, path=path)


async def _until(event: threading.Event) -> None:
    assert await trio.to_thread.run_sync(event.wait, SECONDS)


async def test_a_worker_that_ends_is_told_from_a_refusal(tmp_path: Path) -> None:
    async with streams(tmp_path, lambda connection: pending(connection).close()) as path:
        with pytest.raises(OpeningCut):
            await open_stream("kms.test", 443, path=path)


async def test_a_full_backlog_is_waited_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path = str(tmp_path / "s.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
            first.connect(path)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fails, lambda: _open(path))
                await trio.sleep(1)
                assert autojump_clock.current_time() >= 1
                for _ in range(2):  # the first, and the one that waited
                    listener.accept()[0].close()
                    await trio.sleep(1)


async def _fails(attempt: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(OpeningCut):
        await attempt()


async def test_without_the_variable_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VSOCKPROXY_STREAMS", raising=False)
    with pytest.raises(StreamSocketMissing, match="VSOCKPROXY_STREAMS is not set"):
        await open_stream("kms.test", 443)
