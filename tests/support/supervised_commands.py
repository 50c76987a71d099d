"""Commands without processes, for tests of their supervision, and what a test does to them."""

import os
import signal
from dataclasses import dataclass, field

import trio

from vsockproxy.control.command import UserCommand
from vsockproxy.control.command_restarts import RestartPolicy
from vsockproxy.control.commands import PlannedCommand, Readiness


def planned(
    name: str,
    *after: str,
    ready: Readiness = "started",
    restart: RestartPolicy = "never",
    essential: bool = False,
    stop_grace: float = 10.0,
) -> PlannedCommand:
    command = UserCommand([name], dict(os.environ), 1000, ["launcher"], stop_grace=stop_grace)
    return PlannedCommand(name, command, after, ready, restart, essential)


@dataclass
class FakeProcess:
    """One life of a command."""

    name: str
    pid: int
    obeys: bool = True
    runs: bool = True
    """False where it cannot be executed."""
    ports: set[int] = field(default_factory=set)
    signals: list[signal.Signals] = field(default_factory=list)
    was_killed: bool = False
    code: int = 0
    ended: trio.Event = field(default_factory=trio.Event)
    began_at: float = field(default_factory=trio.current_time)

    async def started(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.runs

    async def wait(self) -> int:
        await self.ended.wait()
        return self.code

    def listens_on(self, port: int) -> bool:
        return port in self.ports

    def send_signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if self.obeys:
            self.end(128 + number)

    def kill(self) -> None:
        self.was_killed = True
        self.end(137)

    def end(self, code: int) -> None:
        if not self.ended.is_set():
            self.code = code
            self.ended.set()


class FakeCommands:
    """Starts fake processes, and keeps all of them in their order."""

    def __init__(self) -> None:
        self.lives: list[FakeProcess] = []
        self.deaf: set[str] = set()
        """Those that ignore SIGTERM."""
        self.broken: dict[str, int] = {}
        """Exit codes of those that cannot be started."""
        self.short: dict[str, int] = {}
        """Exit codes of those that end at once."""

    def launch(self, command: PlannedCommand) -> FakeProcess | int:
        if command.name in self.broken:
            return self.broken[command.name]
        process = FakeProcess(
            command.name, 100 + len(self.lives), obeys=command.name not in self.deaf
        )
        if command.name in self.short:
            process.end(self.short[command.name])
        self.lives.append(process)
        return process

    @property
    def started(self) -> list[str]:
        return [each.name for each in self.lives]

    def latest(self, name: str) -> FakeProcess:
        return next(each for each in reversed(self.lives) if each.name == name)
