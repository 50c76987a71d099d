"""One worker's place: what is known of it through all its replacements."""

import os
import signal
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from vsockproxy.control.restarts import CRASH_LOOP_DEATHS, CrashLoop
from vsockproxy.control.worker_process import WorkerProcess
from vsockproxy.worker_messages import (
    Configure,
    Connection,
    Heartbeat,
    Message,
    MessageError,
    Reloaded,
    Routed,
    Stopped,
)

__all__ = (
    "HUNG_SECONDS",
    "START_SECONDS",
    "AcceptedConnection",
    "Place",
    "Reloading",
    "describe_end",
)

HUNG_SECONDS: Final = 10.0
"""A worker from which nothing was heard for so long is killed; it says something each second."""

START_SECONDS: Final = 60.0
"""The same for one that does not serve yet: a slow machine takes long to start a Python."""


@dataclass(frozen=True, slots=True)
class AcceptedConnection:
    """A connection on its way to a worker.

    `endpoint` is where it was accepted, if a reload may give the listener there another name while
    the connection waits: the worker is told the name of that moment.
    """

    message: Connection | Routed
    socket: socket.socket
    endpoint: str | None = None


@dataclass(slots=True)
class Reloading:
    """A worker that was told to change over, and its answer."""

    request: int
    answer: Reloaded | None = None
    is_over: trio.Event = field(default_factory=trio.Event)
    """It has answered, or it is dead."""


@dataclass(slots=True)
class Place:
    """One of the workers, through all its replacements."""

    configuration: Configure
    alive_at: float
    """When it was started, or heard of for the last time; on trio's clock."""
    may_deliver: trio.Event = field(default_factory=trio.Event)
    """Not set between a reload and the message that tells the worker."""
    died_at: float = 0.0
    """When the last one died."""
    crash_loop: CrashLoop = field(default_factory=CrashLoop)
    process: WorkerProcess | None = None
    """The one that has been told the configuration, or is about to be."""
    load: Heartbeat = field(default_factory=Heartbeat)
    reloading: Reloading | None = None
    waiting: deque[AcceptedConnection] = field(default_factory=deque)
    arrived: trio.Event = field(default_factory=trio.Event)
    """Set while something waits; replaced by a fresh one when nothing does."""
    is_ready: bool = False
    deaths: int = 0
    closed_connections: int = 0
    """Closed because too many were waiting."""
    is_overflowing: bool = False

    @property
    def index(self) -> int:
        """Which of the workers it is."""
        return self.configuration.worker

    @property
    def counters(self) -> dict[str, object]:
        """What every line about a worker says."""
        return {
            "worker": self.index,
            "deaths": self.deaths,
            "waiting_connections": len(self.waiting),
            "closed_connections": self.closed_connections,
        }

    @property
    def most_silence(self) -> float:
        """How long nothing may be heard of the worker, in seconds."""
        return HUNG_SECONDS if self.is_ready else START_SECONDS

    def deliver_at_once(self, connection: AcceptedConnection) -> bool:
        """Send it where nothing waits before it: a task for each would cost as much again.

        Returns:
            Whether it is done with, and its socket may be closed.
        """
        process = self.process
        if process is None or not self.is_ready:
            return False
        if self.waiting or not self.may_deliver.is_set():
            return False
        message = self.named_now(connection)
        return message is None or process.try_send(message, [connection.socket.fileno()])

    def named_now(self, connection: AcceptedConnection) -> Connection | Routed | None:
        """The message for a connection, with its listener's name of now; None if that is gone."""
        if connection.endpoint is None:
            return connection.message
        for listener in self.configuration.listeners:
            if listener.endpoint == connection.endpoint:
                return msgspec.structs.replace(connection.message, listener=listener.name)
        return None

    def note(self, message: Message) -> None:
        """Keep what the worker says of itself.

        Raises:
            MessageError: it has no business to say that.
        """
        match message:
            case Heartbeat():
                self.load = message
            case Reloaded(request=request) if self.reloading and self.reloading.request == request:
                self.reloading.answer = message
                self.reloading.is_over.set()
                self.reloading = None
            case Stopped():
                pass
            case _:
                raise MessageError(f"unexpected {type(message).__name__}")

    def leave(self) -> None:
        """Its process is gone."""
        self.process = None
        self.is_ready = False
        self.load = Heartbeat()
        self.may_deliver.set()
        if self.reloading is not None:
            self.reloading.is_over.set()
            self.reloading = None

    def describe_crash_loop(self, end: str) -> str:
        """What a crash loop is, and what to do about it; `end` says how the last worker ended."""
        return (
            f"died {CRASH_LOOP_DEATHS} times within {self.crash_loop.span_seconds:.0f} s, last "
            f"with {end}: the lines before its deaths say why. If it began with a new file or "
            "version, go back to the former one. It is started again and again, and connections "
            "wait"
        )


def describe_end(wait_status: int) -> str:
    """How a process ended, for the log."""
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
