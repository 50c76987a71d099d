"""Keeps a number of workers running, and hands accepted connections to them."""

import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import trio

from vsockproxy.control.logs import EventLog
from vsockproxy.control.observing import Observer, PlaceState, closing_descriptors
from vsockproxy.control.places import (
    HUNG_SECONDS,
    START_SECONDS,
    AcceptedConnection,
    Place,
    Reloading,
    describe_end,
)
from vsockproxy.control.restarts import RestartDelay
from vsockproxy.control.worker_process import Launcher, WorkerProcess
from vsockproxy.log_lines import Level
from vsockproxy.worker_messages import (
    DRAIN_SECONDS,
    MAX_DESCRIPTORS,
    Certificate,
    CertificateWanted,
    ChannelClosed,
    Configure,
    Listeners,
    ListenerSummary,
    ListStreams,
    MessageError,
    Named,
    NameOf,
    NumberName,
    Offer,
    Ready,
    RegionKnown,
    RegionMissing,
    Reload,
    Reloaded,
    Routed,
    Sockets,
    SocketsWanted,
    Statistics,
    Stop,
    StreamsListed,
    ToWorker,
)

__all__ = (
    "HUNG_SECONDS",
    "MAX_WAITING_CONNECTIONS",
    "RELOAD_SECONDS",
    "START_SECONDS",
    "STOP_GRACE_SECONDS",
    "AcceptedConnection",
    "Answer",
    "MakeSockets",
    "ReloadResult",
    "Supervisor",
    "SupervisorStatus",
)

Answer = Callable[[NumberName | NameOf], Named]
"""Answers a question of a worker, at once."""

MakeSockets = Callable[[SocketsWanted], list[socket.socket]]
"""Makes unconnected sockets in the command's network, at once."""

STOP_GRACE_SECONDS: Final = 5.0
"""From the end of the time that open streams have to end until SIGKILL."""

RELOAD_SECONDS: Final = 15.0
"""How long a worker may take to change over to a new document."""

LOOK_SECONDS: Final = 1.0
LATE_SECONDS: Final = 3.0
"""How often workers are looked at. A look that is later than that says nothing of them: it is
this process, or the whole machine, that did not run."""

MAX_WAITING_CONNECTIONS: Final = 1024
"""Connections that wait for one worker while it is replaced; each costs a descriptor."""

EXIT_GRACE_SECONDS: Final = 1.0
"""How long a worker may live after it closed its channel."""


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What a reload did.

    Args:
        ended_streams: open streams that the new document forbids, and that were ended.
        replaced_workers: indexes of workers that could not change over, and were killed for that.
    """

    ended_streams: int
    replaced_workers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """How the workers are.

    Args:
        workers: how many there are to be.
        serving: how many of them serve.
        crash_looping: indexes of those that die again and again.
        enclaves: how many enclaves are connected to them.
        streams: how many streams are open.
    """

    workers: int
    serving: int
    crash_looping: tuple[int, ...]
    enclaves: int
    streams: int


class Supervisor:
    """The workers of one side. Run `run` in a task; it ends after `stop`.

    Args:
        launch: starts one worker.
        configurations: what each worker is told; there are as many workers.
        document: the descriptor of the document that goes with that. A reload closes it; the field
            `document` has the one that counts, for whoever closes that.
        listeners: descriptors of the listeners, if it is the workers that accept.
        memory: the descriptor of what a process leaves to the one that replaces it, if it does.
        answer: answers what workers ask of this process; None if they have nothing to ask.
        make_sockets: makes sockets of the command's network; None where there is none.
        log: gets one line for each death.
        observer: hears of deaths, and gets what workers report.
        router: likewise, and gets what workers tell each other of ingress.
        kind: what the log calls these processes.
    """

    def __init__(
        self,
        *,
        launch: Launcher,
        configurations: Sequence[Configure],
        document: int,
        listeners: Sequence[int] = (),
        memory: int | None = None,
        answer: Answer | None = None,
        make_sockets: MakeSockets | None = None,
        log: EventLog,
        observer: Observer | None = None,
        router: Observer | None = None,
        kind: Literal["worker", "service"] = "worker",
    ) -> None:
        self._observer = observer
        self._router = router
        self._observers = [each for each in (observer, router) if each is not None]
        self._kind = kind
        self.document = document
        self._launch = launch
        self._listeners = tuple(listeners)
        self._memory = () if memory is None else (memory,)
        self._answer = answer
        self._make_sockets = make_sockets
        self._log = log
        self._places = [Place(each, trio.current_time()) for each in configurations]
        for place in self._places:
            place.may_deliver.set()
        self._requests = 0
        self._stop_requested = trio.Event()
        self._stop_changed = trio.Event()
        self._stops_at = math.inf
        self.all_ready = trio.Event()
        """Set once every worker serves."""
        self.refused_connections = 0
        """Connections that were closed because their CID may not connect."""
        self.has_ended = trio.Event()
        """Set when no worker is left, and none will be started."""

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
                place.index,
                place.process.pid if place.process is not None else None,
                place.is_ready,
                place.deaths,
                place.closed_connections,
            )
            for place in self._places
        ]

    def observe(self, observer: Observer) -> None:
        """Let another one hear of deaths, and of workers that serve."""
        self._observers.append(observer)

    def tell(self, worker: int, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        """Tell a worker something, if it serves and that can be done at once; whether it was."""
        place = self._places[worker]
        if place.process is None or not place.is_ready:
            return False
        return place.process.try_send(message, descriptors)

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

    def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Ask every worker to end; what is said a second time can only shorten it.

        Args:
            drain_seconds: time for open streams to end. Workers that live on `STOP_GRACE_SECONDS`
                after that are killed.
        """
        self._stops_at = min(self._stops_at, trio.current_time() + drain_seconds)
        self._stop_requested.set()
        self._stop_changed.set()
        self._stop_changed = trio.Event()

    @property
    def status(self) -> SupervisorStatus:
        """How the workers are now."""
        return SupervisorStatus(
            workers=len(self._places),
            serving=sum(place.is_ready for place in self._places),
            crash_looping=tuple(place.index for place in self._places if place.crash_loop.is_on),
            enclaves=sum(place.load.enclaves for place in self._places),
            streams=sum(place.load.streams for place in self._places),
        )

    @property
    def is_alive(self) -> bool:
        """Whether every worker was started or heard of not long ago; for systemd's watchdog."""
        now = trio.current_time()
        return all(now - place.alive_at <= place.most_silence for place in self._places)

    async def reload(
        self, document: int, listeners: Sequence[ListenerSummary], log_level: Level
    ) -> ReloadResult:
        """Have every worker, and every later one, serve another document.

        Connections that are handed over from now on meet the new document.

        Args:
            document: its descriptor; this takes it over, and closes the former one.
            listeners: its listeners.
            log_level: the least important level that is written.
        """
        os.close(self.document)
        self.document = document
        self._requests += 1
        message = Reload(self._requests, log_level, list(listeners))
        for place in self._places:
            place.configuration = msgspec.structs.replace(
                place.configuration, listeners=message.listeners, log_level=log_level
            )
            if place.process is not None:
                place.may_deliver = trio.Event()
                place.reloading = Reloading(message.request)
        answers: dict[int, Reloaded] = {}

        async def reload_one(place: Place) -> None:
            answer = await self._change_over(place, message)
            if answer is not None:
                answers[place.index] = answer

        async with trio.open_nursery() as nursery:
            for place in self._places:
                nursery.start_soon(reload_one, place)
        return ReloadResult(
            sum(answer.ended_streams for answer in answers.values()),
            tuple(sorted(worker for worker, answer in answers.items() if answer.error is not None)),
        )

    async def _change_over(self, place: Place, message: Reload) -> Reloaded | None:
        """Tell one worker of the new document; its answer, or None if it dies of itself.

        One that cannot change over, or does not say, is killed: its replacement begins with it.
        """
        process, reloading = place.process, place.reloading
        if process is None or reloading is None:
            return None
        answer: Reloaded | None = None
        with trio.move_on_after(RELOAD_SECONDS) as limit:
            try:
                with self._lent_document() as descriptor:
                    await process.send(message, [descriptor])
            except ChannelClosed:
                return None
            finally:
                place.may_deliver.set()
            await reloading.is_over.wait()
            answer = reloading.answer
        if limit.cancelled_caught:
            answer = Reloaded(message.request, f"no answer for {RELOAD_SECONDS:g} s")
        if answer is not None and answer.error is not None:
            fields = {"text": answer.error, **place.counters}
            self._log.write("error", f"{self._kind}_not_reloaded", fields)
            process.kill()
        return answer

    @contextmanager
    def _lent_document(self) -> Iterator[int]:
        """The document's descriptor for one message; a reload may close our own meanwhile."""
        descriptor = os.dup(self.document)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def hand_over(self, worker: int, connection: AcceptedConnection) -> None:
        """Give a connection to a worker, or to its replacement; too many are closed and counted."""
        place = self._places[worker]
        if place.deliver_at_once(connection):
            connection.socket.close()
            return
        if len(place.waiting) >= MAX_WAITING_CONNECTIONS:
            connection.socket.close()
            place.closed_connections += 1
            if not place.is_overflowing:
                self._log.write("error", "connections_closed", place.counters)
            place.is_overflowing = True
            return
        place.waiting.append(connection)
        place.arrived.set()

    async def _keep_running(self, place: Place) -> None:
        delay = RestartDelay()
        while not self._stop_requested.is_set():
            started_at = place.alive_at = trio.current_time()
            try:
                process = self._launch()
            except OSError as error:
                end = f"could not be started: {os.strerror(error.errno or 0)}"
            else:
                end = describe_end(await self._run_worker(place, process))
            if self._stop_requested.is_set():
                return
            place.alive_at = place.died_at = trio.current_time()
            place.deaths += 1
            delay_seconds = delay.after_death(place.alive_at - started_at)
            fields = {"ended": end, "restart_after": delay_seconds, **place.counters}
            self._log.write("error", f"{self._kind}_died", fields)
            if place.crash_loop.died(place.alive_at):
                fields = {"text": place.describe_crash_loop(end), **place.counters}
                self._log.write("error", "crash_loop", fields)
            for observer in self._observers:
                observer.died(place.index)
            with trio.move_on_after(delay_seconds):
                await self._stop_requested.wait()

    async def _run_worker(self, place: Place, process: WorkerProcess) -> int:
        """Serve one process until its end; its wait status."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._converse, place, process)
                nursery.start_soon(self._watch, place, process)
                nursery.start_soon(self._end_when_asked, process)
                status = await process.wait()
                nursery.cancel_scope.cancel()
        finally:
            # If this task is cancelled, nobody may be left behind.
            process.kill()
            process.close()
            place.leave()
        return status

    async def _end_when_asked(self, process: WorkerProcess) -> None:
        await self._stop_requested.wait()
        while True:
            changed = self._stop_changed
            with trio.move_on_at(self._stops_at + STOP_GRACE_SECONDS) as grace:
                with suppress(ChannelClosed):  # it is ending already
                    await process.send(Stop(max(0.0, self._stops_at - trio.current_time())))
                await changed.wait()
            if grace.cancelled_caught:
                process.kill()
                return

    async def _watch(self, place: Place, process: WorkerProcess) -> None:
        """Kill a worker whose loop does not run any more, and see the end of a crash loop."""
        started_at = looked_at = trio.current_time()
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = trio.current_time()
            if now - looked_at > LATE_SECONDS:
                place.alive_at = now
            looked_at = now
            silent_seconds = now - place.alive_at
            if silent_seconds > place.most_silence:
                fields: dict[str, object] = {"silent_seconds": round(silent_seconds, 1)}
                fields["pid"] = process.pid
                self._log.write("error", f"{self._kind}_hung", {**fields, **place.counters})
                process.kill()
                return
            if place.crash_loop.lived(now - started_at):
                self._log.write("info", "crash_loop_over", place.counters)

    async def _converse(self, place: Place, process: WorkerProcess) -> None:
        """Configure a worker, then pass messages both ways; kill it if it breaks the rules."""
        is_serving = False
        try:
            async with trio.open_nursery() as nursery:
                place.process = process  # before the first wait: a reload has to come behind this
                with self._lent_document() as descriptor:
                    await process.send(place.configuration, [descriptor, *self._memory])
                for first in range(0, len(self._listeners), MAX_DESCRIPTORS):
                    await process.send(
                        Listeners(), self._listeners[first : first + MAX_DESCRIPTORS]
                    )
                while True:
                    message, descriptors = await process.receive()
                    place.alive_at = trio.current_time()
                    with closing_descriptors(descriptors):
                        match message:
                            case Ready() if not is_serving:
                                is_serving = True
                                self._mark_ready(place, process)
                                nursery.start_soon(self._deliver, place, process)
                            case NumberName() | NameOf() if self._answer is not None:
                                await process.send(self._answer(message))
                            case SocketsWanted() if self._make_sockets is not None:
                                await _send_sockets(process, message, self._make_sockets)
                            case Offer() | Routed() if self._router is not None:
                                self._router.received(place.index, message, descriptors)
                            case Statistics() | StreamsListed() | ListStreams() if self._observer:
                                self._observer.received(place.index, message, descriptors)
                            case RegionKnown() | RegionMissing() if self._observer:
                                self._observer.received(place.index, message, descriptors)
                            case Certificate() | CertificateWanted() if self._observer:
                                self._observer.received(place.index, message, descriptors)
                            case _:
                                place.note(message)
        except* ChannelClosed:
            await trio.sleep(EXIT_GRACE_SECONDS)
        except* MessageError as group:
            text = str(group.exceptions[0])
            self._log.write(
                "error", f"{self._kind}_message_broken", {"text": text, **place.counters}
            )
        process.kill()

    def _mark_ready(self, place: Place, process: WorkerProcess) -> None:
        place.is_ready = True
        if place.deaths:
            seconds = round(trio.current_time() - place.died_at, 3)
            fields = {"after": seconds, "pid": process.pid, **place.counters}
            self._log.write("info", f"{self._kind}_replaced", fields)
        if all(each.is_ready for each in self._places):
            self.all_ready.set()
        for observer in self._observers:
            observer.changed()

    async def _deliver(self, place: Place, process: WorkerProcess) -> None:
        while True:
            while not place.waiting:
                place.arrived = trio.Event()
                await place.arrived.wait()
            # It stays first in the queue until it is sent: if the worker dies, the next has it.
            # What a worker had taken is lost with it, as all its connections are.
            connection = place.waiting[0]
            while not place.may_deliver.is_set():
                await place.may_deliver.wait()
            message = place.named_now(connection)
            if message is not None:
                await process.send(message, [connection.socket.fileno()])
            place.waiting.popleft()
            place.is_overflowing = False
            connection.socket.close()


async def _send_sockets(process: WorkerProcess, wanted: SocketsWanted, make: MakeSockets) -> None:
    with ExitStack() as made:
        sockets = [*map(made.enter_context, make(wanted))]
        await process.send(Sockets(wanted.ip_version), [each.fileno() for each in sockets])
