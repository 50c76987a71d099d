"""Keeps a number of workers running, and hands accepted connections to them."""

import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import trio

from vsockproxy.control.logs import EventLog
from vsockproxy.control.restarts import RestartDelay
from vsockproxy.control.worker_process import Launcher, WorkerProcess
from vsockproxy.worker_messages import (
    MAX_DESCRIPTORS,
    ChannelClosed,
    Configure,
    Connection,
    FromWorker,
    Heartbeat,
    Listeners,
    ListStreams,
    MessageError,
    Named,
    NameOf,
    NumberName,
    Ready,
    RegionKnown,
    Statistics,
    Stop,
    Stopped,
    StreamsListed,
    ToWorker,
)

__all__ = (
    "MAX_WAITING_CONNECTIONS",
    "STOP_GRACE_SECONDS",
    "AcceptedConnection",
    "Answer",
    "Observer",
    "PlaceState",
    "Supervisor",
)

Answer = Callable[[NumberName | NameOf], Named]
"""Answers a question of a worker, at once."""

STOP_GRACE_SECONDS: Final = 5.0
"""From the message `stop` until SIGKILL."""

MAX_WAITING_CONNECTIONS: Final = 1024
"""Connections that wait for one worker while it is replaced; each costs a descriptor."""

EXIT_GRACE_SECONDS: Final = 1.0
"""How long a worker may live after it closed its channel."""


@dataclass(frozen=True, slots=True)
class AcceptedConnection:
    """A connection on its way to a worker."""

    message: Connection
    socket: socket.socket


@dataclass(slots=True)
class _Place:
    """One of the workers, through all its replacements."""

    configuration: Configure
    waiting: deque[AcceptedConnection] = field(default_factory=deque)
    arrived: trio.Event = field(default_factory=trio.Event)
    """Set while something waits; replaced by a fresh one when nothing does."""
    is_ready: bool = False
    deaths: int = 0
    closed_connections: int = 0
    """Closed because too many were waiting."""
    is_overflowing: bool = False
    process: WorkerProcess | None = None
    """The one that serves now."""


@dataclass(frozen=True, slots=True)
class PlaceState:
    """One of the workers, for whoever watches."""

    worker: int
    pid: int | None
    is_ready: bool
    deaths: int
    closed_connections: int


class Observer(Protocol):
    """Who watches workers. Nothing here waits or fails."""

    def changed(self) -> None:
        """A worker is ready, or has died."""

    def died(self, worker: int) -> None:
        """A worker's process has ended; nothing more comes from it."""

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """A worker told something; its descriptors are closed when this returns."""


class Supervisor:
    """The workers of one side. Run `run` in a task; it ends after `stop`.

    Args:
        launch: starts one worker.
        configurations: what each worker is told; there are as many workers.
        document: the descriptor of the document that goes with that.
        listeners: descriptors of the listeners, if it is the workers that accept.
        answer: answers what workers ask of this process; None if they have nothing to ask.
        log: gets one line for each death.
        observer: hears of deaths, and gets what workers report.
        kind: what the log calls these processes.
    """

    def __init__(
        self,
        *,
        launch: Launcher,
        configurations: Sequence[Configure],
        document: int,
        listeners: Sequence[int] = (),
        answer: Answer | None = None,
        log: EventLog,
        observer: Observer | None = None,
        kind: Literal["worker", "service"] = "worker",
    ) -> None:
        self._observer = observer
        self._kind = kind
        self._launch = launch
        self._document = document
        self._listeners = tuple(listeners)
        self._answer = answer
        self._log = log
        self._places = [_Place(each) for each in configurations]
        self._stop_requested = trio.Event()
        self.all_ready = trio.Event()
        """Set once every worker has been ready at some time."""
        self.refused_connections = 0
        """Connections that were closed because their CID may not connect."""
        self.has_ended = trio.Event()
        """Set when `run` is over."""

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self._places)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_requested.is_set()

    @property
    def states(self) -> list[PlaceState]:
        """How each worker does."""
        return [
            PlaceState(
                place.configuration.worker,
                place.process.pid if place.process is not None else None,
                place.process is not None,
                place.deaths,
                place.closed_connections,
            )
            for place in self._places
        ]

    def tell(self, worker: int, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        """Tell a worker something, if it serves and that can be done at once; whether it was."""
        process = self._places[worker].process
        return process is not None and process.try_send(message, descriptors)

    async def run(self) -> None:
        """Keep the workers running until `stop`; then end them and return."""
        try:
            async with trio.open_nursery() as nursery:
                for place in self._places:
                    nursery.start_soon(self._keep_running, place)
        finally:
            self.has_ended.set()
            for place in self._places:
                while place.waiting:
                    place.waiting.popleft().socket.close()

    def stop(self) -> None:
        """Ask every worker to end; those that have not after `STOP_GRACE_SECONDS` are killed."""
        self._stop_requested.set()

    def hand_over(self, worker: int, connection: AcceptedConnection) -> None:
        """Give a connection to a worker, or to its replacement; too many are closed and counted."""
        place = self._places[worker]
        if len(place.waiting) >= MAX_WAITING_CONNECTIONS:
            connection.socket.close()
            place.closed_connections += 1
            if not place.is_overflowing:
                self._log.write("error", "connections_closed", _counters(place))
            place.is_overflowing = True
            return
        place.waiting.append(connection)
        place.arrived.set()

    async def _keep_running(self, place: _Place) -> None:
        delay = RestartDelay()
        while not self._stop_requested.is_set():
            started_at = trio.current_time()
            try:
                process = self._launch()
            except OSError as error:
                end = f"could not be started: {os.strerror(error.errno or 0)}"
            else:
                end = _describe_end(await self._run_worker(place, process))
            if self._stop_requested.is_set():
                return
            place.deaths += 1
            delay_seconds = delay.after_death(trio.current_time() - started_at)
            fields = {"ended": end, "restart_after": delay_seconds, **_counters(place)}
            self._log.write("error", f"{self._kind}_died", fields)
            if self._observer is not None:
                self._observer.died(_index(place))
            with trio.move_on_after(delay_seconds):
                await self._stop_requested.wait()

    async def _run_worker(self, place: _Place, process: WorkerProcess) -> int:
        """Serve one process until its end; its wait status."""
        has_ended = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._converse, place, process)
                nursery.start_soon(self._end_when_asked, process, has_ended)
                status = await process.wait()
                has_ended.set()
                nursery.cancel_scope.cancel()
        finally:
            place.process = None
            # If this task is cancelled, nobody may be left behind.
            process.kill()
            process.close()
        return status

    async def _end_when_asked(self, process: WorkerProcess, has_ended: trio.Event) -> None:
        await self._stop_requested.wait()
        with trio.move_on_after(STOP_GRACE_SECONDS):
            with suppress(ChannelClosed):  # it is ending already
                await process.send(Stop())
            await has_ended.wait()
        process.kill()

    async def _converse(self, place: _Place, process: WorkerProcess) -> None:
        """Configure a worker, then pass messages both ways; kill it if it breaks the rules."""
        is_serving = False
        try:
            async with trio.open_nursery() as nursery:
                await process.send(place.configuration, [self._document])
                for first in range(0, len(self._listeners), MAX_DESCRIPTORS):
                    await process.send(
                        Listeners(), self._listeners[first : first + MAX_DESCRIPTORS]
                    )
                while True:
                    message, descriptors = await process.receive()
                    with _closing(descriptors):
                        match message:
                            case Ready() if not is_serving:
                                is_serving = True
                                place.process = process
                                self._mark_ready(place)
                                nursery.start_soon(self._deliver, place, process)
                            case Heartbeat() | Stopped():
                                pass
                            case NumberName() | NameOf() if self._answer is not None:
                                await process.send(self._answer(message))
                            case Statistics() | StreamsListed() | ListStreams() | RegionKnown() if (
                                self._observer
                            ):
                                self._observer.received(_index(place), message, descriptors)
                            case _:
                                raise MessageError(f"unexpected {type(message).__name__}")
        except* ChannelClosed:
            await trio.sleep(EXIT_GRACE_SECONDS)
        except* MessageError as group:
            text = str(group.exceptions[0])
            self._log.write("error", "worker_message_broken", {"text": text, **_counters(place)})
        process.kill()

    def _mark_ready(self, place: _Place) -> None:
        place.is_ready = True
        if all(each.is_ready for each in self._places):
            self.all_ready.set()
        if self._observer is not None:
            self._observer.changed()

    async def _deliver(self, place: _Place, process: WorkerProcess) -> None:
        while True:
            while not place.waiting:
                place.arrived = trio.Event()
                await place.arrived.wait()
            # It stays first in the queue until it is sent: if the worker dies, the next has it.
            # What a worker had taken is lost with it, as all its connections are.
            connection = place.waiting[0]
            await process.send(connection.message, [connection.socket.fileno()])
            place.waiting.popleft()
            place.is_overflowing = False
            connection.socket.close()


@contextmanager
def _closing(descriptors: Iterable[int]) -> Iterator[None]:
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _index(place: _Place) -> int:
    return place.configuration.worker


def _counters(place: _Place) -> dict[str, object]:
    return {
        "worker": place.configuration.worker,
        "deaths": place.deaths,
        "waiting_connections": len(place.waiting),
        "closed_connections": place.closed_connections,
    }


def _describe_end(wait_status: int) -> str:
    code = os.waitstatus_to_exitcode(wait_status)
    if code >= 0:
        return f"status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
