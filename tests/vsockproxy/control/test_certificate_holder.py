"""Who is told of which certificate, and when."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from vsockproxy.control.certificate_holder import CertificateHolder
from vsockproxy.control.observing import PlaceState
from vsockproxy.passed_memory import memory_descriptor, read_memory
from vsockproxy.worker_messages import Certificate, CertificateWanted, NoCertificate, ToWorker


@dataclass
class Processes:
    """Processes that note what they are told."""

    states: list[PlaceState]
    busy: set[int] = field(default_factory=set)
    told: list[tuple[int, ToWorker, bytes]] = field(default_factory=list)

    def tell(self, worker: int, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        if worker in self.busy or not self.states[worker].is_ready:
            return False
        self.told.append((worker, message, b"".join(read_memory(each, 99) for each in descriptors)))
        return True

    def take(self) -> list[tuple[int, ToWorker, bytes]]:
        told, self.told = self.told, []
        return told


def state(worker: int, *, is_ready: bool = True, deaths: int = 0) -> PlaceState:
    return PlaceState(worker, 4711, is_ready, deaths, 0)


def certificate(serial: int, service: str = "web") -> Certificate:
    return Certificate(service, b"key%d" % serial, "generated")


@dataclass
class Case:
    workers: Processes
    source: Processes
    holder: CertificateHolder

    def receive(self, message: Certificate, pem: bytes) -> None:
        descriptor = memory_descriptor("test", pem)
        self.holder.received(0, message, (descriptor,))
        os.close(descriptor)  # as the supervisor does


@pytest.fixture
def case() -> Iterator[Case]:
    workers = Processes([state(0), state(1, is_ready=False)])
    source = Processes([state(0)])
    holder = CertificateHolder({"web", "api"})
    holder.attach(workers, source)
    yield Case(workers, source, holder)
    holder.close()


def test_who_serves_is_told_at_once_and_who_begins_then(case: Case) -> None:
    case.receive(certificate(1), b"one")
    assert case.workers.take() == [(0, certificate(1), b"one")]
    case.workers.states[1] = state(1)
    case.holder.changed()
    assert case.workers.take() == [(1, certificate(1), b"one")]
    case.holder.changed()
    assert case.workers.take() == [], "everybody knows"


def test_a_renewed_one_goes_to_all_and_one_service_does_not_repeat_another(case: Case) -> None:
    case.receive(certificate(1), b"one")
    case.receive(certificate(2, "api"), b"two")
    case.workers.take()
    case.receive(certificate(3), b"three")
    assert case.workers.take() == [(0, certificate(3), b"three")]


def test_a_worker_that_was_replaced_knows_nothing(case: Case) -> None:
    case.receive(certificate(1), b"one")
    case.workers.take()
    case.workers.states[0] = state(0, is_ready=False, deaths=1)
    case.holder.died(0)
    case.holder.changed()
    assert case.workers.take() == []
    case.workers.states[0] = state(0, deaths=1)
    case.holder.changed()
    assert case.workers.take() == [(0, certificate(1), b"one")]


def test_a_services_process_is_answered(case: Case) -> None:
    case.holder.received(0, CertificateWanted("web"), ())
    assert case.source.take() == [(0, NoCertificate("web"), b"")]
    case.receive(certificate(1), b"one")
    case.holder.received(0, CertificateWanted("web"), ())
    assert case.source.take() == [(0, certificate(1), b"one")]


def test_nobody_else_gets_one(case: Case) -> None:
    case.receive(certificate(1, "other"), b"one")
    assert case.workers.take() == []
    case.holder.received(0, CertificateWanted("other"), ())
    assert case.source.take() == [(0, NoCertificate("other"), b"")]


async def test_the_latest_is_told_later_to_who_is_busy(
    case: Case, autojump_clock: MockClock
) -> None:
    del autojump_clock
    case.workers.busy = {0}
    case.receive(certificate(1), b"one")
    case.receive(certificate(2), b"two")
    case.holder.received(0, CertificateWanted("web"), ())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(case.holder.run)
        await trio.sleep(1)
        assert (case.workers.take(), case.source.take()) == ([], [])
        case.workers.busy = set()
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert case.workers.take() == [(0, certificate(2), b"two")]
    assert case.source.take() == [(0, certificate(2), b"two")]


async def test_a_dead_services_process_is_not_answered(
    case: Case, autojump_clock: MockClock
) -> None:
    del autojump_clock
    case.source.busy = {0}
    case.holder.received(0, CertificateWanted("web"), ())
    case.holder.source_died()
    case.source.busy = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(case.holder.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert case.source.take() == []


def test_no_descriptor_stays(case: Case) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for serial in range(5):
        case.receive(certificate(serial), b"x")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    case.holder.close()
    assert len(os.listdir("/proc/self/fd")) == before
