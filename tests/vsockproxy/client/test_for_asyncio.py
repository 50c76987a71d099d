import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from tests.support.certificates import Authority
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
from vsockproxy.client.errors import NotAllowed, OpeningCut, StreamSocketMissing
from vsockproxy.client.for_asyncio import open_stream

T = TypeVar("T")
Run = Callable[[Callable[[str], Coroutine[Any, Any, T]], Script], T]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run[Any]:
    """Runs a program against a script, on each loop."""

    def run_program(main: Callable[[str], Coroutine[Any, Any, T]], script: Script) -> T:
        with (
            ScriptedStreams(tmp_path / "streams.sock", script) as streams,
            asyncio.Runner(loop_factory=request.param) as runner,
        ):
            return runner.run(asyncio.wait_for(main(streams.path), SECONDS))

    return run_program


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


def test_a_stream_carries_bytes_and_both_ends_of_file(run: Run[None]) -> None:
    async def main(path: str) -> None:
        reader, writer = await open_stream("kms.test", 443, path=path)
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"x" * 1_000_000
        await close(writer)

    run(main, opens)


def test_what_is_refused_is_raised(run: Run[None]) -> None:
    async def main(path: str) -> None:
        with pytest.raises(NotAllowed) as caught:
            await open_stream("kms.test", 443, path=path)
        assert str(caught.value) == "denied: kms.test:443: no"

    run(main, refuses("denied", "no"))


def test_a_cut_is_a_reset(run: Run[None]) -> None:
    def script(connection: socket.socket) -> None:
        request_of(connection)
        near = pending(connection)
        send(connection, packet(OPENED, {}))
        assert near.recv(1) == b"g"
        reset(near)

    async def main(path: str) -> None:
        reader, writer = await open_stream("kms.test", 443, path=path)
        writer.write(b"go on")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    run(main, script)


def test_tls_is_spoken_on_demand(run: Run[None], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    theirs = authority.context("kms.test")

    def script(connection: socket.socket) -> None:
        request_of(connection)
        near = pending(connection)
        send(connection, packet(OPENED, {}))
        with theirs.wrap_socket(near, server_side=True) as stream:
            stream.sendall(b"over " + str(stream.version()).encode())

    async def main(path: str) -> None:
        ours = ssl.create_default_context(cafile=str(authority.file))
        reader, writer = await open_stream("kms.test", 443, ssl=ours, path=path)
        assert (await reader.read(100)).startswith(b"over TLSv1.")
        await close(writer)

    run(main, script)


def test_a_certificate_for_another_host_is_refused(run: Run[None], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    theirs = authority.context("other.test")

    def script(connection: socket.socket) -> None:
        request_of(connection)
        near = pending(connection)
        send(connection, packet(OPENED, {}))
        theirs.wrap_socket(near, server_side=True).close()

    async def main(path: str) -> None:
        ours = ssl.create_default_context(cafile=str(authority.file))
        with pytest.raises(ssl.SSLCertVerificationError):
            await open_stream("kms.test", 443, ssl=ours, path=path)

    run(main, script)


def test_giving_up_is_seen_by_the_worker(run: Run[None]) -> None:
    is_pending = threading.Event()
    ends: list[bool] = []

    def script(connection: socket.socket) -> None:
        request_of(connection)
        with pending(connection) as near:
            is_pending.set()
            ends.append(is_gone(connection))
            ends.append(is_gone(near))

    async def main(path: str) -> None:
        task = asyncio.create_task(open_stream("kms.test", 443, path=path))
        await asyncio.to_thread(is_pending.wait, SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main, script)
    assert ends == [True, True]


def test_a_worker_that_ends_is_told_from_a_refusal(run: Run[None]) -> None:
    async def main(path: str) -> None:
        with pytest.raises(OpeningCut):
            await open_stream("kms.test", 443, path=path)

    run(main, lambda connection: pending(connection).close())


def test_many_streams_are_opened_at_once(run: Run[None]) -> None:
    async def one(path: str, number: int) -> None:
        reader, writer = await open_stream(f"host-{number}.test", 443, path=path)
        writer.write(b"%d" % number)
        writer.write_eof()
        assert await reader.read() == b"%d" % number
        await close(writer)

    async def main(path: str) -> None:
        await asyncio.gather(*(one(path, number) for number in range(50)))

    run(main, opens)


def test_a_full_backlog_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "streams.sock")

    async def main() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen(0)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first:
                first.connect(path)
                task = asyncio.create_task(open_stream("kms.test", 443, path=path))
                await asyncio.sleep(0)
                listener.accept()[0].close()
                connection = await asyncio.to_thread(lambda: listener.accept()[0])
                with connection:
                    assert request_of(connection)[1] == {1: "kms.test", 2: 443}
        with pytest.raises(OpeningCut):
            await task

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def test_without_the_variable_it_is_said_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VSOCKPROXY_STREAMS", raising=False)
    with pytest.raises(StreamSocketMissing, match="VSOCKPROXY_STREAMS is not set"):
        asyncio.run(open_stream("kms.test", 443))
