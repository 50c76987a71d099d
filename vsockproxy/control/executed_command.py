"""One of several commands as a process: through the launcher, in a process group of its own."""

import os
import signal
from contextlib import suppress
from io import FileIO
from typing import Self

from vsockproxy import processes
from vsockproxy.control.child import Child
from vsockproxy.control.command import (
    Failure,
    read_report,
    start_command,
    tell_failure,
    tell_start_error,
)
from vsockproxy.control.commands import PlannedCommand
from vsockproxy.control.listening_ports import listens_in
from vsockproxy.control.logs import EventLog

__all__ = ("ExecutedCommand",)


class ExecutedCommand:
    """A command that has been started; `launch` makes one."""

    def __init__(self, planned: PlannedCommand, pid: int, report: FileIO, log: EventLog) -> None:
        self._planned = planned
        self._child = Child(pid)
        self._report = report
        self._failure: Failure | None = None
        self._log = log

    @classmethod
    def launch(cls, planned: PlannedCommand, log: EventLog) -> Self | int:
        """Start a command; where it cannot be, log why, and return the exit code for that."""
        try:
            pid, report = start_command(planned.command, is_alone=False)
        except OSError as error:
            return tell_start_error(error, planned.command, log)
        return cls(planned, pid, report, log)

    @property
    def pid(self) -> int:
        """Its process id, which is that of its process group too."""
        return self._child.pid

    async def started(self) -> bool:
        """Wait until it runs; False if it cannot."""
        self._failure = await read_report(self._report)
        return self._failure is None

    async def wait(self) -> int:
        """Wait, after `started`, until it has ended; its exit code as a shell has it."""
        try:
            status = await self._child.wait()
        finally:
            self._child.close()
            self._report.close()
        if self._failure is None:
            return processes.exit_code(status)
        return tell_failure(self._failure, self._planned.command.arguments[0], self._log)

    def listens_on(self, port: int) -> bool:
        """Whether something listens on that port in its network namespace."""
        return listens_in(self.pid, port)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """Kill it and its process group."""
        self._child.send_signal(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
