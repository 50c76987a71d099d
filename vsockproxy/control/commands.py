"""Several commands under supervision: started in order, started again, and stopped in reverse.

A command is ready when it runs, when it has ended well, or when it listens on a port, as the file
says; those that are to come after it wait for that. It is over when it has ended and is not started
again. The end comes with the end of an essential command, or when all are over, or when one that
others wait for is over without having been ready, or with a signal.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import trio

from vsockproxy.control.command import UserCommand, next_signal
from vsockproxy.control.command_restarts import CommandRestarts, RestartPolicy
from vsockproxy.control.logs import EventLog
from vsockproxy.signals import ENDING, SignalDescriptor

__all__ = ("CommandProcess", "Launch", "PlannedCommand", "Readiness", "run_commands")

Readiness = int | Literal["started", "finished"]
"""What makes a command ready; a number is a TCP port."""

PORT_LOOK_SECONDS: Final = 0.1
"""How often a port is looked at."""

UNREADY: Final = 1
"""Exit code where a command that others wait for has ended with 0, and was never ready."""


class CommandProcess(Protocol):
    """A command that has been started."""

    @property
    def pid(self) -> int:
        """Its process id."""

    async def started(self) -> bool:
        """Wait until it runs; False if it cannot."""

    async def wait(self) -> int:
        """Wait, after `started`, until it has ended; its exit code as a shell has it."""

    def listens_on(self, port: int) -> bool:
        """Whether something listens on that port where it runs."""

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""

    def kill(self) -> None:
        """Kill it and its process group."""


@dataclass(frozen=True, slots=True)
class PlannedCommand:
    """One of the commands, and its place among the others.

    Args:
        name: what logs call it.
        command: how it is started.
        after: the names of those that have to be ready first.
        ready: when it is ready itself.
        restart: whether it is started again.
        essential: whether its end is the end of all.
    """

    name: str
    command: UserCommand
    after: Sequence[str] = ()
    ready: Readiness = "started"
    restart: RestartPolicy = "never"
    essential: bool = False


Launch = Callable[[PlannedCommand], CommandProcess | int]
"""Starts a command; an exit code where it could not be started, and has said so."""


@dataclass(slots=True)
class _Place:
    """A command through all its restarts."""

    planned: PlannedCommand
    ready: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    """Set as well when it was stopped."""
    process: CommandProcess | None = None


async def run_commands(
    commands: Sequence[PlannedCommand],
    *,
    launch: Launch,
    signals: SignalDescriptor,
    log: EventLog,
) -> int:
    """Run them until the end; the exit code of the command that brought it, 0 after a signal.

    Args:
        commands: what to run: every name in `after` is there, and nobody waits for itself.
        launch: starts one of them.
        signals: one that ends a program stops all; others are for a single command, and dropped.
        log: is told what starts and ends.
    """
    supervision = _Supervision(commands, launch, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervision.take_signals, signals)
        code = await supervision.run()
        nursery.cancel_scope.cancel()
    return code


class _Supervision:
    def __init__(self, commands: Sequence[PlannedCommand], launch: Launch, log: EventLog) -> None:
        self._places = {each.name: _Place(each) for each in commands}
        self._launch = launch
        self._log = log
        self._end = trio.Event()
        self._code = 0

    async def run(self) -> int:
        async with trio.open_nursery() as nursery:
            for place in self._places.values():  # those that wait for nobody in the file's order
                await nursery.start(self._keep_running, place)
            await self._end.wait()
            await self._stop_all()
            nursery.cancel_scope.cancel()
        return self._code

    async def take_signals(self, signals: SignalDescriptor) -> None:
        told: set[signal.Signals] = set()
        while True:
            for each in await next_signal(signals):
                if each.number in ENDING:
                    self._log.write("info", "stopping", {"signal": each.number.name})
                    self._finish(0)
                elif each.number not in told:
                    told.add(each.number)
                    text = "there is more than one command"
                    fields: dict[str, object] = {"signal": each.number.name, "text": text}
                    self._log.write("warning", "signal_dropped", fields)

    def _finish(self, code: int) -> None:
        """Let the end come; the first reason counts."""
        if not self._end.is_set():
            self._code = code
            self._end.set()

    async def _keep_running(
        self, place: _Place, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep a command running until it is over; reports when it was launched, or waits."""
        planned = place.planned
        is_told = bool(planned.after)
        if is_told:
            task_status.started()
        for name in planned.after:
            await self._places[name].ready.wait()
        restarts = CommandRestarts(planned.restart)
        while True:
            if self._end.is_set():
                if not is_told:
                    task_status.started()
                return
            started_at = trio.current_time()
            launched = self._launch(planned)
            if not is_told:
                task_status.started()
                is_told = True
            code = launched if isinstance(launched, int) else await self._run(place, launched)
            if planned.ready == "finished" and code == 0:
                place.ready.set()
            if self._end.is_set():
                place.over.set()
                return
            delay_seconds = restarts.after_end(code, trio.current_time() - started_at)
            fields: dict[str, object] = {
                "command": planned.name,
                "status": code,
                "restart_after": delay_seconds,
            }
            self._log.write("info" if code == 0 else "warning", "command_ended", fields)
            if delay_seconds is None:
                break
            await trio.sleep(delay_seconds)
        if restarts.has_given_up:
            fields = {"command": planned.name, "short_lives": restarts.short_lives}
            self._log.write("error", "command_given_up", fields)
        place.over.set()
        self._judge_end(place, code)

    def _judge_end(self, place: _Place, code: int) -> None:
        """What the end of a command, for good, means for the others."""
        name = place.planned.name
        waiting = [
            each.planned.name for each in self._places.values() if name in each.planned.after
        ]
        if waiting and not place.ready.is_set():
            text = f"it has ended before it was ready, and these wait for it: {' '.join(waiting)}"
            self._log.write("error", "command_not_ready", {"command": name, "text": text})
            self._finish(code or UNREADY)
        elif place.planned.essential or all(each.over.is_set() for each in self._places.values()):
            self._finish(code)

    async def _run(self, place: _Place, process: CommandProcess) -> int:
        """Wait until a command that was started has ended; its exit code."""
        place.process = process
        try:
            if await process.started():
                fields: dict[str, object] = {"command": place.planned.name, "pid": process.pid}
                self._log.write("info", "command_started", fields)
                if place.planned.ready == "started":
                    place.ready.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_port, place, process)
                code = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            place.process = None
        return code

    async def _watch_port(self, place: _Place, process: CommandProcess) -> None:
        if isinstance(port := place.planned.ready, int):
            while not process.listens_on(port):  # noqa: ASYNC110 — nobody tells of a port
                await trio.sleep(PORT_LOOK_SECONDS)
            place.ready.set()

    async def _stop_all(self) -> None:
        """Stop each command as soon as those that came after it are over."""
        async with trio.open_nursery() as nursery:
            for place in self._places.values():
                nursery.start_soon(self._stop, place)

    async def _stop(self, place: _Place) -> None:
        name = place.planned.name
        for each in self._places.values():
            if name in each.planned.after:
                await each.over.wait()
        if place.process is None:
            place.over.set()
            return
        grace_seconds = place.planned.command.stop_grace
        place.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(grace_seconds):
            await place.over.wait()
            return
        text = "it did not end by SIGTERM"
        fields: dict[str, object] = {"command": name, "after": grace_seconds, "text": text}
        self._log.write("warning", "command_killed", fields)
        place.process.kill()
        await place.over.wait()
