"""Passes on what workers report of themselves to a process of services.

The supervisor looks at no report but the last one of a worker that has died: its totals are kept
here, so that no counter ever goes backwards. What the services do not take at once is dropped; the
next report has it again, and a process of services that hangs holds nobody up.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import trio

from vsockproxy import metrics
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.log import Log
from vsockproxy.metrics import Counters
from vsockproxy.worker_messages import (
    FromWorker,
    ListStreams,
    MessageError,
    Statistics,
    StreamsListed,
    SupervisionChanged,
    WorkerStatistics,
)
from vsockproxy.worker_reports import (
    ListenerState,
    Report,
    Supervision,
    WorkerState,
    read_report,
    report_descriptor,
)

__all__ = ("REPORT_SECONDS", "ServicesObserver", "Watching")

REPORT_SECONDS: Final = 1.0
"""How often the services hear of the supervisor, where nothing changes."""


class Watching:
    """Stands between the workers of one side and its services; observes the workers.

    Args:
        listeners: what is listened on, for the reports.
        log: of this process; its counters are reported too.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        listeners: Sequence[ListenerState],
        log: Log,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._listeners = list(listeners)
        self._log = log
        self._started_at = wall_clock()
        self._gone = Counters()
        self._deaths: dict[int, int] = {}
        self._latest: dict[int, int] = {}
        """The descriptor of each worker's latest report."""
        self._workers: Supervisor | None = None
        self._services: Supervisor | None = None

    def attach(self, workers: Supervisor, services: Supervisor) -> None:
        """Say who is watched, and who wants to know."""
        self._workers = workers
        self._services = services

    async def run(self) -> None:
        """Tell the services of the supervisor, until cancelled."""
        try:
            while True:
                self.changed()
                await trio.sleep(REPORT_SECONDS)
        finally:
            for descriptor in self._latest.values():
                os.close(descriptor)
            self._latest.clear()

    def introduce(self) -> None:
        """The services have just begun: tell them everything that is known."""
        self.changed()
        for worker, descriptor in self._latest.items():
            self._pass_on(worker, descriptor)

    def ask_workers(self, question: ListStreams) -> None:
        """A question of the services, for every worker."""
        if self._workers is not None:
            for worker in range(self._workers.workers):
                self._workers.tell(worker, question)

    # ----------------------------------------------------- what is heard of workers

    def changed(self) -> None:
        """Something about the workers is new: tell the services."""
        if self._services is None:
            return
        descriptor = report_descriptor(self._supervision())
        try:
            self._services.tell(0, SupervisionChanged(), [descriptor])
        finally:
            os.close(descriptor)

    def died(self, worker: int) -> None:
        """A worker is gone: what it had counted is kept."""
        self._deaths[worker] = self._deaths.get(worker, 0) + 1
        self._log.activity.counters.add(metrics.WORKER_RESTARTS, (str(worker),))
        descriptor = self._latest.pop(worker, None)
        if descriptor is not None:
            try:
                series = metrics.unpack(read_report(descriptor, Report).series)
                self._gone.add_series(each for each in series if each.metric.kind != "gauge")
            except (MessageError, ValueError) as error:
                text = f"the last report of worker {worker} is lost: {error}"
                self._log.write("warning", "report_broken", {"text": text})
            finally:
                os.close(descriptor)
        self.changed()

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """A report of a worker, or its answer: pass it on."""
        match message:
            case Statistics():
                (descriptor,) = descriptors
                former = self._latest.get(worker)
                self._latest[worker] = os.dup(descriptor)
                if former is not None:
                    os.close(former)
                self._pass_on(worker, descriptor)
            case StreamsListed() if self._services is not None:
                self._services.tell(0, StreamsListed(message.request, worker), descriptors)

    def _pass_on(self, worker: int, descriptor: int) -> None:
        if self._services is not None:
            message = WorkerStatistics(worker, self._deaths.get(worker, 0))
            self._services.tell(0, message, [descriptor])

    def _supervision(self) -> Supervision:
        counters = Counters()
        counters.add_series(self._gone.series())
        counters.add_series(self._log.activity.counters.series())
        counters.add(metrics.LOG_LINES_DROPPED, (), self._log.dropped_lines)
        states = self._workers.states if self._workers is not None else []
        closed = sum(state.closed_connections for state in states)
        counters.add(metrics.CONNECTIONS_CLOSED, (), closed)
        refused = self._workers.refused_connections if self._workers is not None else 0
        counters.add(metrics.CONNECTIONS_REFUSED, (), refused)
        return Supervision(
            pid=os.getpid(),
            started_at=self._started_at,
            is_stopping=self._workers is not None and self._workers.is_stopping,
            workers=[
                WorkerState(each.worker, each.pid, each.is_ready, each.deaths) for each in states
            ],
            listeners=self._listeners,
            series=counters.packed(),
        )


class ServicesObserver:
    """Hears what a process of services tells its supervisor.

    Args:
        watching: gets its questions.
    """

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    def changed(self) -> None:
        """It is ready, and knows nothing yet."""
        self._watching.introduce()

    def died(self, worker: int) -> None:
        """It will be replaced; nothing is lost with it but the history and latest refusals."""
        del worker

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """A question for the workers."""
        del worker, descriptors
        if isinstance(message, ListStreams):
            self._watching.ask_workers(message)
