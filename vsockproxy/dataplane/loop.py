"""The event loop, as both sides see it: nothing outside `dataplane` imports asyncio or uvloop.

`run` starts a process's loop. The rest are asyncio's own types and functions under this project's
roof, and thin typed wrappers for what belongs to the running loop.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import uvloop

__all__ = (
    "CancelledError",
    "Event",
    "Future",
    "Semaphore",
    "Task",
    "Timeout",
    "TimerHandle",
    "add_reader",
    "add_writer",
    "call_later",
    "in_thread",
    "new_future",
    "now",
    "remove_reader",
    "remove_writer",
    "run",
    "sleep",
    "spawn",
    "timeout",
)

T = TypeVar("T")

CancelledError = asyncio.CancelledError
Event = asyncio.Event
Future = asyncio.Future
Semaphore = asyncio.Semaphore
Task = asyncio.Task
Timeout = asyncio.Timeout
TimerHandle = asyncio.TimerHandle
sleep = asyncio.sleep
timeout = asyncio.timeout
"""`async with timeout(seconds):` raises TimeoutError when the block takes longer; None is never."""

_spawned: Final[set[asyncio.Task[Any]]] = set()
"""The root that keeps spawned tasks alive: asyncio itself refers to tasks only weakly."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a new uvloop loop until it ends; then cancel and await what it left behind."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def spawn(coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Start a task that nobody has to await.

    The task stays alive until it ends. An exception that escapes it goes to the loop's exception
    handler, with the task's name, even when somebody awaits the task too.
    """
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _spawned.add(task)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[Any]) -> None:
    _spawned.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        task.get_loop().call_exception_handler(
            {"message": f"task {task.get_name()!r} failed", "exception": error, "task": task}
        )


def now() -> float:
    """The running loop's clock: seconds, monotonic, cached for one iteration of the loop."""
    return asyncio.get_running_loop().time()


def new_future() -> asyncio.Future[Any]:
    """A future of the running loop."""
    return asyncio.get_running_loop().create_future()


async def in_thread(function: Callable[[], T], name: str) -> T:
    """Call what blocks in a thread of its own; its result, or what it raises.

    No end of the process waits for the thread, and neither does whoever is cancelled: it runs on.

    Args:
        function: called once; may block for as long as it likes.
        name: of the thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error it is a T

    def work() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function()
        except BaseException as caught:  # whatever it is, it is the caller's
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


def call_later(
    delay_seconds: float, callback: Callable[..., object], *args: Any
) -> asyncio.TimerHandle:
    """Call `callback(*args)` after `delay_seconds`, unless the handle is cancelled before."""
    return asyncio.get_running_loop().call_later(delay_seconds, callback, *args)


def add_reader(descriptor: int, callback: Callable[..., object], *args: Any) -> None:
    """Call `callback(*args)` whenever `descriptor` is readable; replaces an earlier callback."""
    asyncio.get_running_loop().add_reader(descriptor, callback, *args)


def remove_reader(descriptor: int) -> None:
    """Undo `add_reader`, if there was one; to be done before the descriptor is closed."""
    asyncio.get_running_loop().remove_reader(descriptor)


def add_writer(descriptor: int, callback: Callable[..., object], *args: Any) -> None:
    """Call `callback(*args)` whenever `descriptor` is writable; replaces an earlier callback."""
    asyncio.get_running_loop().add_writer(descriptor, callback, *args)


def remove_writer(descriptor: int) -> None:
    """Undo `add_writer`, if there was one; to be done before the descriptor is closed."""
    asyncio.get_running_loop().remove_writer(descriptor)
