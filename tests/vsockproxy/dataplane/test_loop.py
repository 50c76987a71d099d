"""The loop's wrappers: nothing is lost, neither results nor tasks nor exceptions."""

import asyncio
import gc
import socket
import threading
import weakref
from typing import Any

import pytest
import uvloop

from vsockproxy.dataplane import loop


def test_run_gives_the_result_and_runs_on_uvloop() -> None:
    async def main() -> type:
        return type(asyncio.get_running_loop())

    assert loop.run(main()) is uvloop.Loop


def test_run_raises_what_main_raises() -> None:
    async def main() -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        loop.run(main())


def test_run_cancels_what_is_left_behind() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await loop.Event().wait()
        except loop.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        loop.spawn(endless(), "endless")
        await loop.sleep(0)

    loop.run(main())
    assert ended == ["cancelled"]


def _reports_of(*tasks_that: str) -> list[dict[str, Any]]:
    """Spawn a task for each word, let it end, and collect what the loop's handler is told."""
    reports: list[dict[str, Any]] = []

    async def fail() -> None:
        raise ValueError("lost?")

    async def succeed() -> int:
        return 7

    async def wait() -> None:
        await loop.Event().wait()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        coroutines = {"fail": fail, "succeed": succeed, "wait": wait}
        tasks = [loop.spawn(coroutines[word](), word) for word in tasks_that]
        await loop.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    loop.run(main())
    return reports


def test_an_exception_of_a_spawned_task_reaches_the_exception_handler() -> None:
    (report,) = _reports_of("fail")
    assert report["message"] == "task 'fail' failed"
    assert str(report["exception"]) == "lost?"
    assert report["task"].get_name() == "fail"


def test_success_and_cancellation_of_a_spawned_task_are_not_reported() -> None:
    assert _reports_of("succeed", "wait") == []


def test_a_spawned_task_that_nobody_refers_to_survives_the_garbage_collector() -> None:
    async def wait_for_what_only_this_frame_knows() -> None:
        await loop.new_future()

    async def main() -> bool:
        task = weakref.ref(loop.spawn(wait_for_what_only_this_frame_knows(), "alone"))
        await loop.sleep(0)
        gc.collect()
        return task() is not None

    assert loop.run(main())


def test_timeout_raises_timeout_error() -> None:
    async def main() -> None:
        async with loop.timeout(0.001):
            await loop.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run(main())


def test_readers_and_writers_are_called_until_removed() -> None:
    async def main() -> list[bytes]:
        left, right = socket.socketpair()
        received: list[bytes] = []
        done = loop.Event()

        def read() -> None:
            received.append(right.recv(100))
            loop.remove_reader(right.fileno())
            done.set()

        def write(payload: bytes) -> None:
            left.send(payload)
            loop.remove_writer(left.fileno())

        with left, right:
            loop.add_reader(right.fileno(), read)
            loop.add_writer(left.fileno(), write, b"once")
            async with loop.timeout(10):
                await done.wait()
        return received

    assert loop.run(main()) == [b"once"]


def test_timers_fire_in_order_of_time_and_can_be_cancelled() -> None:
    async def main() -> list[str]:
        fired: list[str] = []
        done = loop.Event()
        loop.call_later(0.002, done.set)
        loop.call_later(0.001, fired.append, "kept")
        loop.call_later(0.001, fired.append, "cancelled").cancel()
        before = loop.now()
        async with loop.timeout(10):
            await done.wait()
        assert loop.now() > before
        return fired

    assert loop.run(main()) == ["kept"]


def test_a_thread_gives_its_result_while_the_loop_runs() -> None:
    async def main() -> tuple[int, int]:
        go_on = threading.Event()
        waiting = asyncio.ensure_future(loop.in_thread(lambda: go_on.wait(10) and 7, "test"))
        await loop.sleep(0)
        assert not waiting.done()
        go_on.set()
        return int(await waiting), await loop.in_thread(lambda: 8, "test")

    assert loop.run(main()) == (7, 8)


def test_a_thread_raises_what_its_function_raises() -> None:
    def fail() -> int:
        raise ValueError("in a thread")

    async def main() -> int:
        return await loop.in_thread(fail, "test")

    with pytest.raises(ValueError, match="in a thread"):
        loop.run(main())


def test_nobody_waits_for_a_thread_that_hangs() -> None:
    go_on, has_ended = threading.Event(), threading.Event()

    def hang() -> None:
        go_on.wait(60)
        has_ended.set()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with loop.timeout(0.01):
                await loop.in_thread(hang, "test")

    loop.run(main())  # which ends, and then the thread finds no loop
    assert not has_ended.is_set()
    go_on.set()
    assert has_ended.wait(60)
