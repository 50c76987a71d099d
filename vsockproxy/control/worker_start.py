"""Starting worker processes, without trio: the first are on their way while it is imported."""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from vsockproxy import processes

__all__ = ("StartedWorker", "count_workers", "start_first_workers", "start_worker")


@dataclass(frozen=True, slots=True)
class StartedWorker:
    """A worker process that nobody watches yet.

    Args:
        pid: its process id.
        channel: our end of its channel, non-blocking; its end of the channel is its order to exit.
        output: the read end of its stdout and stderr.
    """

    pid: int
    channel: socket.socket
    output: int


def start_worker(module: str) -> StartedWorker:
    """Start `python -m MODULE DESCRIPTOR`.

    Raises:
        OSError: the system has no process or descriptor to spare.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            ours.setblocking(False)
            pid, output = processes.start_with_output(
                processes.module_command(module, str(theirs.fileno())), passed=[theirs.fileno()]
            )
        except BaseException:
            ours.close()
            raise
    return StartedWorker(pid, ours, output)


def count_workers(setting: int | Literal["auto"]) -> int:
    """How many workers the setting `workers` means; `auto` is one for each processor."""
    return len(os.sched_getaffinity(0)) if setting == "auto" else setting


def start_first_workers(module: str, number: int) -> list[StartedWorker]:
    """Start up to `number` workers; supervision starts those that could not be."""
    started: list[StartedWorker] = []
    with suppress(OSError):  # it will be tried again, and logged
        started.extend(start_worker(module) for _ in range(number))
    return started
