"""One of several commands as a process: through the launcher, in a process group of its own."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from io import FileIO

import trio

from vsockproxy import processes
from vsockproxy.control.child import Child
from vsockproxy.control.command import (
    Failure,
    read_report,
    start_command,
    tell_failure,
    tell_start_error,
)
from vsockproxy.control.command_output import CommandOutput
from vsockproxy.control.commands import PlannedCommand
from vsockproxy.control.listening_ports import listens_in
from vsockproxy.control.logs import EventLog
from vsockproxy.protocols.log_stream import Source

__all__ = ("CommandLauncher", "ExecutedCommand", "ReceiveLabelled")

ReceiveLabelled = Callable[[Source, bytes, str], None]
"""Takes, at once, a copy of what the command of that name has written."""


class ExecutedCommand:
    """A command that has been started; made by `CommandLauncher`.

    Args:
        planned: what it is.
        pid: the process.
        report: what the launcher has to say; this object closes it.
        output: the pipes that it writes to; None where it has our stdout and stderr.
        log: is told why it does not run.
    """

    def __init__(
        self,
        planned: PlannedCommand,
        pid: int,
        report: FileIO,
        output: CommandOutput | None,
        log: EventLog,
    ) -> None:
        self._planned = planned
        self._child = Child(pid)
        self._report = report
        self._failure: Failure | None = None
        self._output = output
        self._log = log

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
            if self._output is not None:
                await self._output.finish()
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
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class CommandLauncher:
    """Starts commands, and copies what they write.

    Args:
        nursery: in which it is copied; has to outlive the commands.
        log: is told why one could not be started.
        receive: gets the copies; None where commands have our stdout and stderr.
    """

    def __init__(
        self, nursery: trio.Nursery, log: EventLog, receive: ReceiveLabelled | None
    ) -> None:
        self._nursery = nursery
        self._log = log
        self._receive = receive

    def launch(self, planned: PlannedCommand) -> ExecutedCommand | int:
        """Start a command; where it cannot be, log why, and return the exit code for that."""
        output = None
        try:
            if (receive := self._receive) is not None:

                def label(source: Source, data: bytes) -> None:
                    receive(source, data, planned.name)

                output = CommandOutput(label, planned.command.owner)
            pid, report = start_command(planned.command, output, is_alone=False)
        except OSError as error:
            if output is not None:
                output.close()
            return tell_start_error(error, planned.command, self._log)
        if output is not None:
            self._nursery.start_soon(self._copy, output)
        return ExecutedCommand(planned, pid, report, output, self._log)

    async def _copy(self, output: CommandOutput) -> None:
        try:
            await output.copy(self._log)
        finally:
            output.close()
