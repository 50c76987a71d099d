"""A log and workers for tests of supervision, without processes."""

import math
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from trio.testing import wait_all_tasks_blocked

from vsockproxy.control.supervisor import AcceptedConnection, Supervisor
from vsockproxy.log_lines import Level
from vsockproxy.passed_memory import empty_document_descriptor
from vsockproxy.worker_messages import (
    ChannelClosed,
    Configure,
    Connection,
    FromWorker,
    Heartbeat,
    Message,
    Ready,
    Reload,
    Reloaded,
    Stop,
    ToWorker,
)

BEAT_SECONDS = 1.0


@dataclass
class RecordingLog:
    """Keeps what it is told."""

    lines: list[tuple[Level, str, dict[str, object]]] = field(default_factory=list)

    def write(self, level: Level, event: str, fields: dict[str, object]) -> None:
        self.lines.append((level, event, fields))

    def events(self, event: str) -> list[dict[str, object]]:
        return [fields for _, name, fields in self.lines if name == event]


class ProcesslessWorker:
    """A worker process as supervision sees it, driven by the test.

    Its channel holds one message, so that a worker that does not read stops its supervisor.
    """

    def __init__(
        self,
        *,
        obeys_stop: bool = True,
        is_ready_at_once: bool = True,
        beats: bool = True,
        answers_reload: bool = True,
        reload_error: str | None = None,
    ) -> None:
        self.pid = 4711
        self.received: list[ToWorker] = []
        self._arrived = trio.Event()
        self.was_killed = False
        self.was_closed = False
        self.started_at = trio.current_time()
        self.beats = beats
        self.answers_reload = answers_reload
        self.reload_error = reload_error
        """What it says against each reload."""
        self._obeys_stop = obeys_stop
        self._is_ready_at_once = is_ready_at_once
        self._to_supervisor, self._from_worker = trio.open_memory_channel[FromWorker](math.inf)
        self._ended = trio.Event()
        self._status = 0
        self.may_take = trio.Event()
        """Until it is set, connections stay in the supervisor's hands."""
        self.may_take.set()

    def say(self, message: FromWorker) -> None:
        self._to_supervisor.send_nowait(message)

    async def has_received(self, number: int) -> None:
        """Wait until `number` messages have come in all."""
        while len(self.received) < number:
            self._arrived = trio.Event()
            await self._arrived.wait()

    def hang_up(self) -> None:
        """Close the channel, and live on."""
        self._to_supervisor.close()

    def die(self, wait_status: int) -> None:
        if not self._ended.is_set():
            self._status = wait_status
            self._ended.set()
            self._to_supervisor.close()

    async def send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> None:
        if isinstance(message, Connection):
            await self.may_take.wait()
        if self._ended.is_set():
            raise ChannelClosed("the worker channel is closed")
        self.received.append(message)
        self._arrived.set()
        if isinstance(message, Configure) and self._is_ready_at_once:
            self.say(Ready())
        if isinstance(message, Reload) and self.answers_reload:
            self.say(Reloaded(message.request, self.reload_error))
        if isinstance(message, Stop) and self._obeys_stop:
            self.die(0)

    def try_send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        is_held = isinstance(message, Connection) and not self.may_take.is_set()
        if is_held or self._ended.is_set():
            return False
        self.received.append(message)
        self._arrived.set()
        return True

    async def receive(self) -> tuple[Message, tuple[int, ...]]:
        try:
            with trio.move_on_after(BEAT_SECONDS if self.beats else math.inf):
                return await self._from_worker.receive(), ()
            return Heartbeat(), ()
        except trio.EndOfChannel:
            raise ChannelClosed("the worker channel is closed") from None

    async def wait(self) -> int:
        await self._ended.wait()
        return self._status

    def kill(self) -> None:
        if not self._ended.is_set():
            self.was_killed = True
        self.die(9)

    def close(self) -> None:
        self.was_closed = True


class Workers:
    """Starts workers, and keeps them in the order of their starts."""

    def __init__(self, make: Callable[[], ProcesslessWorker] = ProcesslessWorker) -> None:
        self.started: list[ProcesslessWorker] = []
        self.make = make
        self.failures = 0
        """How many starts fail first."""
        self._has_started = trio.Event()

    def __call__(self) -> ProcesslessWorker:
        if self.failures:
            self.failures -= 1
            raise OSError(12, "no memory")
        self.started.append(self.make())
        self._has_started.set()
        return self.started[-1]

    async def next_start(self) -> None:
        self._has_started = trio.Event()
        await self._has_started.wait()


@asynccontextmanager
async def supervise(
    workers: Workers, log: RecordingLog, count: int = 1
) -> AsyncIterator[Supervisor]:
    """Workers and their supervisor while the body runs."""
    supervisor = Supervisor(
        launch=workers,
        configurations=[Configure(i, bytes(16), "json", "info", []) for i in range(count)],
        document=empty_document_descriptor(),
        log=log,
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await wait_all_tasks_blocked()
            yield supervisor
            supervisor.stop()
    finally:
        os.close(supervisor.document)


def accepted(port: int = 1) -> AcceptedConnection:
    ours, theirs = socket.socketpair()
    theirs.close()
    return AcceptedConnection(Connection("listen[0]", 16, port), ours)


def ports(worker: ProcesslessWorker) -> list[int]:
    return [message.port for message in worker.received if isinstance(message, Connection)]


def index_of(worker: ProcesslessWorker) -> int:
    configure = worker.received[0]
    assert isinstance(configure, Configure)
    return configure.worker
