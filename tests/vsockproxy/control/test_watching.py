"""Reports on their way from the workers to the services; the workers have no processes."""

import os
from collections.abc import Sequence
from contextlib import suppress

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.supervision import ProcesslessWorker, RecordingLog
from vsockproxy import metrics
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.control.watching import REPORT_SECONDS, ServicesObserver, Watching
from vsockproxy.log import Log
from vsockproxy.metrics import Counters
from vsockproxy.passed_descriptors import memory_descriptor
from vsockproxy.worker_messages import (
    Configure,
    ListStreams,
    Message,
    MessageError,
    Statistics,
    StreamsListed,
    SupervisionChanged,
    ToWorker,
    WorkerStatistics,
)
from vsockproxy.worker_reports import Report, Supervision, read_report, report_descriptor


class Watched(ProcesslessWorker):
    """A worker whose messages may carry descriptors, and whose own are read as they come."""

    def __init__(self) -> None:
        super().__init__(beats=True)
        self.reports: list[Supervision | Report] = []
        self.passed: list[int] = []
        self.takes = True

    def try_send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        if not self.takes:
            return False
        with suppress(MessageError):
            match message:
                case SupervisionChanged():
                    self.reports.append(read_report(descriptors[0], Supervision))
                case WorkerStatistics():
                    self.reports.append(read_report(descriptors[0], Report))
        return super().try_send(message, descriptors)

    async def receive(self) -> tuple[Message, tuple[int, ...]]:
        message, _ = await super().receive()
        if isinstance(message, Statistics | StreamsListed):
            return message, (self.passed.pop(0),)
        return message, ()

    def report(self, sent: int) -> None:
        counters = Counters()
        counters.add(metrics.STREAM_BYTES, ("16", "out"), sent)
        counters.add(metrics.STREAMS_OPEN, ("16",), 1)
        self.passed.append(report_descriptor(Report(counters.packed(), [], 0, [], 0)))
        self.say(Statistics())


class Rig:
    """Two workers and a process of services, watched."""

    def __init__(self) -> None:
        self.log = Log("parent", "json", "info", os.open(os.devnull, os.O_WRONLY))
        self.watching = Watching([], self.log, lambda: 7.0)
        self.workers: list[Watched] = []
        self.services: list[Watched] = []
        self.supervisor = self._supervisor(self.workers, 2, self.watching)
        observer = ServicesObserver(self.watching)
        self.services_supervisor = self._supervisor(self.services, 1, observer)
        self.watching.attach(self.supervisor, self.services_supervisor)

    @staticmethod
    def _supervisor(
        made: list[Watched], number: int, observer: Watching | ServicesObserver
    ) -> Supervisor:
        def launch() -> Watched:
            made.append(Watched())
            return made[-1]

        return Supervisor(
            launch=launch,
            configurations=[
                Configure(index, bytes(16), "json", "info", []) for index in range(number)
            ],
            document=os.open(os.devnull, os.O_RDONLY),
            log=RecordingLog(),
            observer=observer,
        )

    def worker(self, index: int) -> Watched:
        """The process that is worker `index` now; they start in any order."""
        (*_, last) = (
            each
            for each in self.workers
            if isinstance(each.received[0], Configure) and each.received[0].worker == index
        )
        return last

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.supervisor.run)
            nursery.start_soon(self.services_supervisor.run)
            nursery.start_soon(self.watching.run)

    def told(self) -> Supervision:
        """What the services heard last of the supervisor."""
        (*_, last) = (each for each in self.services[-1].reports if isinstance(each, Supervision))
        return last

    def kept(self) -> float:
        """Bytes of workers that are gone, as the services know."""
        total = Counters()
        total.add_series(metrics.unpack(self.told().series))
        return total.value(metrics.STREAM_BYTES, ("16", "out"))


async def test_reports_are_passed_on_with_worker_and_incarnation(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await wait_all_tasks_blocked()
        rig.worker(1).report(5)
        await wait_all_tasks_blocked()
        assert WorkerStatistics(1, 0) in rig.services[0].received
        rig.worker(1).die(9)
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        rig.worker(1).report(1)
        await wait_all_tasks_blocked()
        assert WorkerStatistics(1, 1) in rig.services[0].received
        nursery.cancel_scope.cancel()


async def test_the_totals_of_dead_workers_are_kept(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await wait_all_tasks_blocked()
        rig.worker(0).report(100)
        rig.worker(0).report(250)
        await wait_all_tasks_blocked()
        assert rig.kept() == 0
        rig.worker(0).die(9)
        await trio.sleep(0.5)
        assert rig.kept() == 250
        assert [state.deaths for state in rig.told().workers] == [1, 0]
        gauges = {name for name, _, _ in rig.told().series}
        assert metrics.STREAMS_OPEN.name not in gauges, "what was open is gone"
        nursery.cancel_scope.cancel()


async def test_services_that_begin_anew_are_told_everything(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await wait_all_tasks_blocked()
        rig.worker(0).report(100)
        await wait_all_tasks_blocked()
        rig.services[0].die(9)
        await trio.sleep(0.5)
        assert len(rig.services) == 2
        assert WorkerStatistics(0, 0) in rig.services[1].received
        assert rig.told().pid == os.getpid()
        nursery.cancel_scope.cancel()


async def test_services_that_take_nothing_hold_nobody_up(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await wait_all_tasks_blocked()
        rig.services[0].takes = False
        before = len(os.listdir("/proc/self/fd"))
        for number in range(50):
            rig.worker(0).report(number)
            await trio.sleep(REPORT_SECONDS)
        assert len(os.listdir("/proc/self/fd")) - before <= 1
        rig.services[0].takes = True
        rig.worker(0).report(1000)
        await wait_all_tasks_blocked()
        assert isinstance(rig.services[0].reports[-1], Report)
        nursery.cancel_scope.cancel()


async def test_a_question_goes_to_every_worker_and_answers_come_back(
    autojump_clock: MockClock,
) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await wait_all_tasks_blocked()
        rig.services[0].say(ListStreams(7, 100))
        await wait_all_tasks_blocked()
        assert all(ListStreams(7, 100) in worker.received for worker in rig.workers)
        rig.worker(1).passed.append(memory_descriptor("test", b""))
        rig.worker(1).say(StreamsListed(7))
        await wait_all_tasks_blocked()
        assert StreamsListed(7, 1) in rig.services[0].received
        nursery.cancel_scope.cancel()


async def test_a_broken_last_report_is_lost_with_a_line(autojump_clock: MockClock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.run)
        await wait_all_tasks_blocked()
        rig.worker(0).passed.append(memory_descriptor("test", b"\xff"))
        rig.worker(0).say(Statistics())
        await wait_all_tasks_blocked()
        rig.worker(0).die(9)
        await trio.sleep(0.5)
        assert rig.kept() == 0
        assert [state.deaths for state in rig.told().workers] == [1, 0]
        nursery.cancel_scope.cancel()
