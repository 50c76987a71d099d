"""Work for a stream in a task of its own, which ends with the stream at the latest."""

from collections.abc import Callable, Coroutine
from typing import Any

from vsockproxy.dataplane.loop import spawn
from vsockproxy.dataplane.stream_end import StreamEnd

__all__ = ("serve_stream",)


def serve_stream(
    end: StreamEnd,
    work: Coroutine[Any, Any, None],
    name: str,
    closed: Callable[[StreamEnd], None] | None = None,
) -> None:
    """Begin the work for a stream; returns at once.

    Args:
        end: the stream, which counts as long as the work is not done.
        work: cancelled when nothing of the stream is left.
        name: of the task, for whoever looks for a fault.
        closed: called then, too.
    """
    end.hold()
    task = spawn(work, name)
    # Not in the task itself: one that is cancelled before its first step runs no `finally`.
    task.add_done_callback(lambda _: end.let_go())

    def stop(end: StreamEnd) -> None:
        if not task.done():
            task.cancel()
        if closed is not None:
            closed(end)

    end.when_closed(stop)
