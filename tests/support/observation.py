"""What a running side can be seen to hold, and how to end one as a crash would."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.support.pair import Line, Pair, Side, resident_bytes

GONE_SECONDS = 20.0


def descriptors(pid: int) -> int:
    """How many descriptors a process has open; root alone sees those of our processes."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        pytest.skip("needs root, to see the descriptors of processes that cannot be traced")


def wait_for_descriptors(pid: int, most: int) -> None:
    """Wait until a process has no more than so many open: it may close some a little later."""
    deadline = time.monotonic() + GONE_SECONDS
    while descriptors(pid) > most:
        assert time.monotonic() < deadline, f"{descriptors(pid)} descriptors, not {most}"
        time.sleep(0.01)


def open_sockets() -> set[str]:
    """The sockets that this process has open, by their inodes."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            target = os.readlink(f"/proc/self/fd/{descriptor}")
            if target.startswith("socket:"):
                found.add(target)
    return found


def wait_for_sockets(wanted: set[str]) -> None:
    """Wait until this process has just these open: threads may close some a little later."""
    deadline = time.monotonic() + GONE_SECONDS
    while (found := open_sockets()) != wanted:
        assert time.monotonic() < deadline, f"{found} are open, not {wanted}"
        time.sleep(0.01)


def logged_at(line: Line) -> float:
    """When a line was written, in seconds since the epoch."""
    return datetime.fromisoformat(line["time"]).timestamp()


def count(side: Side, event: str, **fields: object) -> int:
    """How many lines of an event, with the given fields, a side has logged."""
    return sum(
        all(line.get(key) == value for key, value in fields.items()) for line in side.events(event)
    )


def wait_until(side: Side, condition: Callable[[], bool]) -> None:
    """Wait until a condition on what a side has logged holds; asked at each new line."""
    side.wait_for(lambda _: condition(), after=max(0, len(side.lines) - 1))


def kill_all(side: Side) -> None:
    """SIGKILL to the supervisor and its workers, at once, and wait until they are gone."""
    watched = [os.pidfd_open(pid) for pid in side.processes]
    try:
        for descriptor in watched:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _wait(watched)
    finally:
        for descriptor in watched:
            os.close(descriptor)
    side.kill()


def kill(pid: int) -> None:
    """SIGKILL to one process, and wait until it is gone."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _wait([descriptor])
    finally:
        os.close(descriptor)


def _wait(descriptors_of_processes: list[int]) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    for descriptor in descriptors_of_processes:
        left = max(0.0, deadline - time.monotonic())
        assert select.select([descriptor], [], [], left)[0], "a killed process is still there"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one worker holds."""

    descriptors: int
    resident_bytes: int


def holdings(pair: Pair) -> dict[int, Holding]:
    """What each worker of both sides holds, by process id."""
    found = {}
    for side in (pair.parent, pair.enclave):
        assert side is not None
        for pid in side.workers:
            with contextlib.suppress(FileNotFoundError):
                found[pid] = Holding(descriptors(pid), resident_bytes(pid))
    return found


def forget_lines(side: Side, kept: int = 1000) -> None:
    """Forget all but the latest lines of a side that runs for long, and those that are no lines."""
    with side._changed:
        del side.lines[:-kept]
        side.raw[:] = plain_lines(side) + [text for text in side.raw[-kept:] if text[:1] == "{"]


def plain_lines(side: Side) -> list[str]:
    """What a side wrote that is no log line: a traceback, or a warning of Python's."""
    return [text for text in side.raw if not text.startswith("{")]


@contextlib.contextmanager
def unread(side: Side) -> Iterator[None]:
    """Read nothing of what a side writes while the body runs."""
    # Its reader takes this lock for each line.
    with side._changed:
        yield
