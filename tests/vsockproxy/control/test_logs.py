import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from vsockproxy.control import logs
from vsockproxy.control.logs import open_log
from vsockproxy.processes import open_pipe


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The read end of a pipe that stands for this process's stderr."""
    read_end, write_end = os.pipe()
    monkeypatch.setattr(logs, "STDERR", write_end)
    yield read_end
    os.close(write_end)
    os.close(read_end)


def read_all(descriptor: int) -> bytes:
    os.set_blocking(descriptor, False)
    data = b""
    try:
        while piece := os.read(descriptor, 1 << 20):
            data += piece
    except BlockingIOError:
        pass
    return data


async def test_own_lines_and_those_of_workers_arrive_whole(stderr: int) -> None:
    read_end, write_end = open_pipe()
    with trio.fail_after(10):
        async with open_log("parent", "json", "info") as (log, relay):
            relay.copy_from(read_end)
            os.write(write_end, b"one\ntw")
            await trio.sleep(0.01)
            log.info("own")
            os.write(write_end, b"o\nthree")
            os.close(write_end)
    lines = read_all(stderr).splitlines()
    own = [line for line in lines if line.startswith(b"{")]
    assert [line for line in lines if line not in own] == [b"one", b"two", b"three"]
    assert len(own) == 1
    assert b'"event": "own"' in own[0]


async def test_a_line_without_an_end_is_bounded(stderr: int) -> None:
    read_end, write_end = open_pipe()
    os.set_blocking(stderr, False)
    data = b"x" * (3 * logs.PIECE_BYTES)
    received: list[bytes] = []

    async def read() -> None:
        while sum(piece.count(b"x") for piece in received) < len(data):
            await trio.lowlevel.wait_readable(stderr)
            received.append(os.read(stderr, 1 << 20))

    with trio.fail_after(10):
        async with open_log("parent", "json", "info") as (_, relay), trio.open_nursery() as nursery:
            relay.copy_from(read_end)
            nursery.start_soon(read)
            await trio.to_thread.run_sync(os.write, write_end, data)
            os.close(write_end)
    longest = max(map(len, b"".join(received).split(b"\n")))
    assert logs.PIECE_BYTES < longest <= 2 * logs.PIECE_BYTES


async def test_a_stderr_that_blocks_blocks_nobody(stderr: int) -> None:
    os.set_blocking(stderr, False)
    started_at = trio.current_time()
    with trio.fail_after(30):
        async with open_log("parent", "json", "info") as (log, _):
            for number in range(20_000):
                log.info("much", number=number)
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
            assert log.dropped_lines > 0
    assert trio.current_time() - started_at < 15
    # The thread that was abandoned while it wrote ends when somebody reads.
    with trio.fail_after(10):
        received = b""
        while not received.endswith(b"\n"):
            await trio.lowlevel.wait_readable(stderr)
            received += read_all(stderr)


async def test_a_stderr_that_nobody_reads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    monkeypatch.setattr(logs, "STDERR", write_end)
    with trio.fail_after(10):
        async with open_log("parent", "text", "info") as (log, _):
            log.info("unheard")
            await trio.sleep(0.01)
            log.info("unheard")
    with pytest.raises(BrokenPipeError) as raised:
        os.write(write_end, b"x")
    assert raised.value.errno == errno.EPIPE
    os.close(write_end)


async def test_lines_below_the_level_are_not_written(stderr: int, tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_log("parent", "text", "warning") as (log, _):
            log.info("quiet")
            log.warning("loud")
    assert [b"event=loud" in line for line in read_all(stderr).splitlines()] == [True]
