"""Calls that block, made one after another in a thread of their own while the loop goes on."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from vsockproxy.errors import VsockproxyError

__all__ = ("BlockingCalls", "TooManyWait")

T = TypeVar("T")

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class TooManyWait(VsockproxyError):
    """As many calls wait as may."""


class BlockingCalls(Generic[T]):
    """One thread, which begins with the first call, and ends with the process.

    Args:
        name: of the thread.
        most_waiting: calls that may wait, with the one that is being made.
    """

    def __init__(self, name: str, most_waiting: int) -> None:
        self._name = name
        self._most_waiting = most_waiting
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._waiting = 0
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """Make a call. Whoever stops waiting for one that has begun does not stop it.

        Raises:
            TooManyWait: it was not made.
            Exception: what `function` raises.
        """
        if self._waiting >= self._most_waiting:
            raise TooManyWait(f"{self._waiting} calls wait already")
        loop = asyncio.get_running_loop()
        if self._thread is None:
            # A daemon: a call that blocks must not keep the process from its end.
            self._thread = threading.Thread(
                target=self._work, args=(loop,), name=self._name, daemon=True
            )
            self._thread.start()
        answer: asyncio.Future[T] = loop.create_future()
        self._waiting += 1
        self._jobs.put((function, answer))
        return await answer

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            function, answer = self._jobs.get()
            result: Any = None
            failure: Exception | None = None
            try:
                if not answer.cancelled():
                    result = function()
            except Exception as error:  # it belongs to whoever waits
                failure = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._answer, answer, result, failure)

    def _answer(
        self, answer: "asyncio.Future[Any]", result: object, failure: Exception | None
    ) -> None:
        self._waiting -= 1
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(result)
