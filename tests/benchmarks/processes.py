"""Processes of one pair: start them, add up what they use, end them."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vsockproxy.processes import die_with_starter

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
END_SECONDS = 5.0
"""How long processes may take to end by themselves after SIGTERM."""


@contextmanager
def started(
    command: Sequence[str], *, passed: Sequence[int] = (), environment: Mapping[str, str] = {}
) -> Iterator[int]:
    """Run `command` in a process group of its own while the body runs; gives its process id.

    Whatever it writes is discarded. At the end its group gets SIGTERM, then SIGKILL.

    Args:
        command: program and arguments.
        passed: descriptors that stay open in it.
        environment: what differs from the environment of this process.
    """
    starter = os.getpid()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=passed,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=lambda: die_with_starter(starter, signal.SIGTERM),
    )
    try:
        yield process.pid
    finally:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


class ProcessTree:
    """Some processes and everything that they have started.

    Args:
        roots: process ids of children of this process.
    """

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = roots

    def cpu_seconds(self) -> float:
        """User and system time, with that of children that have ended and were waited for."""
        total = 0.0
        for pid in self._members():
            with suppress(OSError):
                # cutime and cstime are fields 16 and 17 (proc(5)).
                ended_ticks = sum(map(int, _stat(pid)[13:15]))
                total += time.clock_gettime(_cpu_clock(pid)) + ended_ticks / TICKS_PER_SECOND
        return total

    def memory_bytes(self) -> int:
        """Resident user memory; what several processes share is counted once (Pss, proc(5))."""
        total = 0
        for pid in self._members():
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total * 1024

    def _members(self) -> set[int]:
        """The process ids of the whole tree."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):
                    children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
        members: set[int] = set()
        waiting = list(self._roots)
        while waiting:
            pid = waiting.pop()
            members.add(pid)
            waiting.extend(children.get(pid, ()))
        return members


def _cpu_clock(pid: int) -> int:
    """The clock of a process's user and system time, all threads, in nanoseconds.

    As clock_getcpuclockid(3) makes it; /proc/PID/stat counts in hundredths of a second.
    """
    return ~pid << 3 | 2


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, the state, on; the name may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
