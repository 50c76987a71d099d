"""The user's command: started, signalled and judged as if nothing stood above it."""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from vsockproxy import processes
from vsockproxy.control.child import Child
from vsockproxy.control.logs import EventLog
from vsockproxy.signals import ENDING, Received, SignalDescriptor

__all__ = ("UserCommand", "next_signal", "run_command", "wait_for_ending_signal")


@dataclass(frozen=True, slots=True)
class UserCommand:
    """The command, all of its environment, and its soft limit on open files.

    `arguments` begin with the program, which is looked up in PATH.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    soft_descriptor_limit: int


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


async def run_command(command: UserCommand, *, signals: SignalDescriptor, log: EventLog) -> int:
    """Run `command` in the foreground, with our stdin, stdout and stderr, until it ends.

    Args:
        command: what to run.
        signals: what arrives here is passed on.
        log: is told why a command could not be started.

    Returns:
        What a shell reports: its exit code, 128+N for signal N, 127 if there is no such program,
        126 if it cannot be executed.
    """
    program = command.arguments[0]
    try:
        with processes.descriptor_limit(command.soft_descriptor_limit):
            pid = processes.start(command.arguments, environment=command.environment)
    except OSError as error:
        text = os.strerror(error.errno or 0)
        log.write("error", "command_not_started", {"command": program, "text": text})
        is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return processes.NOT_FOUND if is_missing else processes.NOT_EXECUTABLE
    with Child(pid) as child:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pass_on, signals, child)
            status = await child.wait()
            nursery.cancel_scope.cancel()
    return processes.exit_code(status)


async def _pass_on(signals: SignalDescriptor, child: Child) -> None:
    while True:
        for each in await next_signal(signals):
            if not each.for_whole_group:
                child.send_signal(each.number)
