"""The user's command: started, signalled and judged as if nothing stood above it."""

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Final, Self

import trio

from vsockproxy import processes
from vsockproxy.control.child import Child
from vsockproxy.control.command_output import CommandOutput
from vsockproxy.control.logs import EventLog
from vsockproxy.signals import ENDING, Received, SignalDescriptor

__all__ = (
    "Failure",
    "UserCommand",
    "next_signal",
    "read_report",
    "run_command",
    "start_command",
    "tell_failure",
    "tell_start_error",
    "wait_for_ending_signal",
)

FENCE_FAILED: Final = 1
"""Exit code where the command was not run, because it could not be fenced in."""

MAX_REPORT_BYTES: Final = 4096  # PIPE_BUF

_EXEC_STEP: Final = "exec"


@dataclass(frozen=True, slots=True)
class UserCommand:
    """The command, how it is started, all of its environment, and its limit on open files.

    Args:
        arguments: they begin with the program, which is looked up in PATH.
        environment: all variables.
        soft_descriptor_limit: the soft limit on open files.
        launcher: a program and arguments of ours. It gets two more: the number of a descriptor for
            its report, and then `arguments`, into which it turns itself by exec. The descriptor is
            closed by then; a launcher that cannot go on writes a line to it, `STEP ERRNO TEXT`,
            where the step `exec` means that the command itself could not be executed.
        passed: descriptors that `launcher` needs.
        stop_grace: seconds that it may go on after SIGTERM; then it is killed.
        owner: user and group that it becomes; None if it stays who we are.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    soft_descriptor_limit: int
    launcher: Sequence[str]
    passed: Sequence[int] = ()
    stop_grace: float = 10.0
    owner: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What a launcher reports."""

    step: str
    number: int
    text: str

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the line that a launcher has written."""
        step, number, text = data.decode(errors="replace").split(" ", 2)
        return cls(step, int(number), text)


async def next_signal(signals: SignalDescriptor) -> list[Received]:
    """Wait for signals; at least one is returned."""
    while True:
        await trio.lowlevel.wait_readable(signals)
        if received := signals.read():
            return received


async def wait_for_ending_signal(signals: SignalDescriptor) -> int:
    """Wait for a signal that ends a program, and return its number; others are dropped."""
    while True:
        for each in await next_signal(signals):
            if each.number in ENDING:
                return each.number


async def run_command(
    command: UserCommand,
    *,
    signals: SignalDescriptor,
    log: EventLog,
    output: CommandOutput | None = None,
) -> int:
    """Run `command` in the foreground, with our stdin, stdout and stderr, until it ends.

    Args:
        command: what to run.
        signals: what arrives here is passed on.
        log: is told why a command could not be started, or not be fenced in.
        output: pipes that it has as stdout and stderr, in place of ours.

    Returns:
        What a shell reports: its exit code, 128+N for signal N, 127 if there is no such program,
        126 if it cannot be executed. `FENCE_FAILED` if the launcher could not do its part.
    """
    program = command.arguments[0]
    try:
        pid, report = start_command(command, output)
    except OSError as error:
        return tell_start_error(error, command, log)
    with Child(pid) as child, report:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, signals, child, command.stop_grace, log)
            failure = await read_report(report)
            status = await child.wait()
            if output is not None and failure is None:
                output.wait_status = status
            nursery.cancel_scope.cancel()
    return processes.exit_code(status) if failure is None else tell_failure(failure, program, log)


def tell_failure(failure: Failure, program: str, log: EventLog) -> int:
    """Log why a command does not run; the exit code for that."""
    if failure.step != _EXEC_STEP:
        log.write(
            "error",
            "fence_failed",
            {"step": failure.step, "command": program, "text": failure.text},
        )
        return FENCE_FAILED
    log.write("error", "command_not_started", {"command": program, "text": failure.text})
    is_missing = failure.number in (errno.ENOENT, errno.ENOTDIR)
    return processes.NOT_FOUND if is_missing else processes.NOT_EXECUTABLE


def tell_start_error(error: OSError, command: UserCommand, log: EventLog) -> int:
    """Log why the launcher could not be started; the exit code for that."""
    text = f"{command.launcher[0]}: {os.strerror(error.errno or 0)}"
    log.write("error", "command_not_started", {"command": command.arguments[0], "text": text})
    return processes.NOT_EXECUTABLE


def start_command(
    command: UserCommand, output: CommandOutput | None = None, *, is_alone: bool = True
) -> tuple[int, FileIO]:
    """Start the launcher; its process id and, non-blocking, its report.

    Args:
        command: what to start.
        output: pipes that it has as stdout and stderr, in place of ours.
        is_alone: whether it is the only one, and has our stdin and our process group; otherwise
            it has a group of its own, and /dev/null.

    Raises:
        OSError: the system has no process or descriptor to spare, or the arguments are too long.
    """
    read_end, write_end = os.pipe()
    report = FileIO(read_end)
    try:
        with processes.descriptor_limit(command.soft_descriptor_limit):
            pid = processes.start(
                [*command.launcher, str(write_end), *command.arguments],
                environment=command.environment,
                passed=[write_end, *command.passed],
                outputs=output.descriptors if output is not None else None,
                has_input=is_alone,
                in_own_group=not is_alone,
                keeps_signal_mask=True,  # what comes before the exec is for the command
            )
    except BaseException:
        report.close()
        raise
    finally:
        os.close(write_end)
        if output is not None:
            output.started()
    os.set_blocking(read_end, False)
    return pid, report


async def read_report(report: FileIO) -> Failure | None:
    """Wait until the launcher has become the command (None), or cannot."""
    while True:
        await trio.lowlevel.wait_readable(report)
        data = report.read(MAX_REPORT_BYTES)  # a pipe does not part what is written at once
        if data is not None:
            return Failure.parse(data) if data else None


async def _pass_on(
    signals: SignalDescriptor, child: Child, stop_grace: float, log: EventLog
) -> None:
    """Pass signals on for ever; from a SIGTERM on the command's time is counted."""
    async with trio.open_nursery() as nursery:
        is_counted = False
        while True:
            for each in await next_signal(signals):
                if not each.for_whole_group:
                    child.send_signal(each.number)
                if each.number == signal.SIGTERM and not is_counted:
                    is_counted = True
                    nursery.start_soon(_kill_after, stop_grace, child, log)


async def _kill_after(seconds: float, child: Child, log: EventLog) -> None:
    await trio.sleep(seconds)
    log.write("warning", "command_killed", {"after": seconds, "text": "it did not end by SIGTERM"})
    child.send_signal(signal.SIGKILL)
