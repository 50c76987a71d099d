"""Calls that block, beside a loop that goes on."""

import threading
from functools import partial

import pytest

from vsockproxy.dataplane.blocking_calls import BlockingCalls, TooManyWait
from vsockproxy.dataplane.loop import CancelledError, run, sleep, spawn, timeout

SECONDS = 30.0


def test_the_loop_goes_on_and_answers_find_their_calls() -> None:
    calls: BlockingCalls[int] = BlockingCalls("test", 8)
    may_end = threading.Event()
    threads: set[int] = set()

    def call(number: int) -> int:
        threads.add(threading.get_ident())
        assert may_end.wait(SECONDS)
        return number

    async def main() -> list[int]:
        tasks = [spawn(calls.call(partial(call, number)), "call") for number in range(3)]
        for _ in range(10):
            await sleep(0)
        assert not any(task.done() for task in tasks)
        may_end.set()
        return [await task for task in tasks]

    assert run(main()) == [0, 1, 2]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_a_call_raises_is_its_callers() -> None:
    calls: BlockingCalls[int] = BlockingCalls("test", 8)

    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await calls.call(lambda: 1 // 0)
        return await calls.call(lambda: 7)

    assert run(main()) == 7


def test_no_more_wait_than_may_and_whoever_gave_up_is_not_called_for() -> None:
    calls: BlockingCalls[int] = BlockingCalls("test", 2)
    may_end = threading.Event()
    has_begun = threading.Event()
    made: list[str] = []

    def first() -> int:
        has_begun.set()
        assert may_end.wait(SECONDS)
        made.append("first")
        return 1

    def second() -> int:
        made.append("second")
        return 2

    async def main() -> None:
        one = spawn(calls.call(first), "one")
        two = spawn(calls.call(second), "two")
        await sleep(0)
        assert has_begun.wait(SECONDS)
        with pytest.raises(TooManyWait, match="2 calls wait already"):
            await calls.call(second)
        two.cancel()
        with pytest.raises(CancelledError):
            await two
        may_end.set()
        assert await one == 1
        async with timeout(SECONDS):
            assert await calls.call(lambda: 3) == 3
        assert made == ["first"]

    run(main())
