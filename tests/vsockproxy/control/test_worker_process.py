import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from vsockproxy import processes
from vsockproxy.control.logs import open_log
from vsockproxy.control.worker_process import ExecutedWorker
from vsockproxy.control.worker_start import (
    StartedWorker,
    count_workers,
    start_first_workers,
    start_worker,
)
from vsockproxy.worker_messages import (
    ChannelClosed,
    Connection,
    MessageError,
    Ready,
    Statistics,
    Stop,
    receive,
    send,
)

DEADLINE_SECONDS = 30


@asynccontextmanager
async def worker() -> AsyncIterator[tuple[ExecutedWorker, socket.socket]]:
    """A worker process, and its end of the channel in the hands of the test."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    read_end, write_end = processes.open_pipe()
    pid = processes.start(["sleep", "60"], output=write_end)
    os.close(write_end)
    with theirs, trio.fail_after(DEADLINE_SECONDS):
        async with open_log("parent", "json", "info") as (_, relay):
            made = ExecutedWorker(StartedWorker(pid, ours, read_end), relay)
            try:
                yield made, theirs
            finally:
                made.kill()
                with trio.CancelScope(shield=True):
                    await made.wait()
                made.close()


async def test_messages_both_ways() -> None:
    async with worker() as (made, theirs):
        await made.send(Stop())
        assert receive(theirs) == (Stop(), ())
        send(theirs, Ready())
        assert await made.receive() == (Ready(), ())
        theirs.send(b"garbage")
        with pytest.raises(MessageError):
            await made.receive()
        theirs.close()
        with pytest.raises(ChannelClosed):
            await made.receive()
        with pytest.raises(ChannelClosed):
            await made.send(Stop())


async def test_several_tasks_may_wait_for_a_full_channel() -> None:
    async with worker() as (made, theirs):
        taken: list[int] = []

        async def offer(port: int) -> None:
            await made.send(Connection("listen[0]", 16, port), [0])

        async with trio.open_nursery() as nursery:
            for port in range(600):
                nursery.start_soon(offer, port)
            await wait_all_tasks_blocked()
            while len(taken) < 600:
                try:
                    message, (descriptor,) = receive(theirs)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(theirs)
                    continue
                os.close(descriptor)
                assert isinstance(message, Connection)
                taken.append(message.port)
        assert sorted(taken) == list(range(600))


async def test_a_cancelled_send_was_not_sent() -> None:
    async with worker() as (made, theirs):
        sent = 0
        with trio.move_on_after(0.2):
            while True:
                await made.send(Connection("listen[0]", 16, sent), [0])
                sent += 1
        received = 0
        while True:
            try:
                _, (descriptor,) = receive(theirs)
            except BlockingIOError:
                break
            os.close(descriptor)
            received += 1
        assert received == sent > 0


async def test_descriptors_that_a_worker_sends_come_with_the_message() -> None:
    async with worker() as (made, theirs):
        before = set(os.listdir("/proc/self/fd"))
        send(theirs, Statistics(), [0])
        message, (descriptor,) = await made.receive()
        assert message == Statistics()
        os.close(descriptor)
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_number_of_workers() -> None:
    assert count_workers(3) == 3
    assert count_workers("auto") == len(os.sched_getaffinity(0))


def test_workers_that_cannot_be_started_are_left_to_supervision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        assert start_first_workers("module", 2) == []
        with pytest.raises(FileNotFoundError):
            start_worker("module")
    assert set(os.listdir("/proc/self/fd")) == before, "nothing has leaked"
