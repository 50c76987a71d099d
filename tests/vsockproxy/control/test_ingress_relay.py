"""What the parent's workers tell each other of ingress."""

import os
import socket
from collections.abc import Iterator

import pytest
import trio

from vsockproxy.control.ingress_relay import IngressRelay
from vsockproxy.control.supervisor import AcceptedConnection
from vsockproxy.worker_messages import Offer, Routed, ToWorker


class Workers:
    """Three workers that note what they are told."""

    workers = 3

    def __init__(self) -> None:
        self.told: list[tuple[int, ToWorker]] = []
        self.handed: list[tuple[int, AcceptedConnection]] = []
        self.busy: set[int] = set()

    def tell(self, worker: int, message: ToWorker) -> bool:
        if worker in self.busy:
            return False
        self.told.append((worker, message))
        return True

    def hand_over(self, worker: int, connection: AcceptedConnection) -> None:
        self.handed.append((worker, connection))

    def take(self) -> list[tuple[int, ToWorker]]:
        told, self.told = self.told, []
        return told


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def relay(workers: Workers) -> IngressRelay:
    made = IngressRelay()
    made.attach(workers)
    return made


@pytest.fixture
def routed() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket() as ours, socket.socket() as theirs:
        yield ours, theirs


def route(worker: int) -> Routed:
    return Routed(16, worker, "web", None, "f:1", 443, "192.0.2.1:5", "", b"", [])


def test_an_offer_goes_to_the_others(relay: IngressRelay, workers: Workers) -> None:
    offer = Offer(16, 0, ["web"], 3, {"web": 5.0})
    relay.received(0, offer, ())
    assert workers.take() == [(1, offer), (2, offer)]
    gone = Offer(16, 0)
    relay.received(0, gone, ())
    assert workers.take() == [(1, gone), (2, gone)]
    relay.received(0, gone, ())
    assert workers.take() == [], "it was gone already"


def test_a_worker_speaks_for_itself_alone(relay: IngressRelay, workers: Workers) -> None:
    relay.received(2, Offer(16, 0, ["web"]), ())
    assert workers.take() == [(0, Offer(16, 2, ["web"])), (1, Offer(16, 2, ["web"]))]


def test_the_enclaves_of_a_dead_worker_are_gone(relay: IngressRelay, workers: Workers) -> None:
    relay.received(0, Offer(16, 0, ["web"]), ())
    relay.received(1, Offer(17, 1, ["web"]), ())
    workers.take()
    relay.died(0)
    assert workers.take() == [(1, Offer(16, 0)), (2, Offer(16, 0))]


def test_an_enclave_that_has_moved_is_not_gone(relay: IngressRelay, workers: Workers) -> None:
    relay.received(0, Offer(16, 0, ["web"]), ())
    relay.received(1, Offer(16, 1, ["web"]), ())
    workers.take()
    relay.received(0, Offer(16, 0), ())
    relay.died(0)
    assert workers.take() == []


def test_a_worker_that_begins_is_told_everything(relay: IngressRelay, workers: Workers) -> None:
    workers.busy.add(2)
    one, two = Offer(16, 0, ["web"]), Offer(17, 1, ["web"], 2)
    relay.received(0, one, ())
    relay.received(1, two, ())
    workers.take()
    workers.busy.clear()
    relay.changed()
    assert [message for worker, message in workers.take() if worker == 2] == [one, two]


async def test_a_busy_worker_is_told_the_latest_later(
    relay: IngressRelay, workers: Workers, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        workers.busy.add(1)
        for streams in range(5):
            relay.received(0, Offer(16, 0, ["web"], streams), ())
        assert all(worker == 2 for worker, _ in workers.take())
        await trio.sleep(1)
        assert workers.take() == []
        workers.busy.clear()
        await trio.sleep(1)
        assert workers.take() == [(1, Offer(16, 0, ["web"], 4))]
        await trio.sleep(1)
        assert workers.take() == []
        nursery.cancel_scope.cancel()


def test_a_connection_goes_to_its_worker(
    relay: IngressRelay, workers: Workers, routed: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = routed
    relay.received(0, route(2), (ours.fileno(),))
    ((worker, connection),) = workers.handed
    with connection.socket as handed:
        assert worker == 2
        assert connection.message == route(2)
        assert handed.fileno() != ours.fileno()
        assert os.path.sameopenfile(handed.fileno(), ours.fileno())


def test_a_connection_for_a_worker_that_there_is_not(
    relay: IngressRelay, workers: Workers, routed: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = routed
    before = len(os.listdir("/proc/self/fd"))
    relay.received(0, route(3), (ours.fileno(),))
    assert workers.handed == []
    assert len(os.listdir("/proc/self/fd")) == before
