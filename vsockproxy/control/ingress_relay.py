"""Passes on what the parent's workers tell each other of ingress.

Each worker knows of every enclave what its own worker says, and chooses by itself. The supervisor
looks at nothing but the numbers of enclaves and workers. What a worker does not take at once waits
here, the latest word of each enclave only.
"""

import os
import socket
from typing import Final, Protocol

import trio

from vsockproxy.control.supervisor import AcceptedConnection
from vsockproxy.worker_messages import FromWorker, Offer, Routed, ToWorker

__all__ = ("IngressRelay", "Workers")

RETRY_SECONDS: Final = 0.02
"""Until a worker that took no message is asked again."""


class Workers(Protocol):
    """What the relay needs of the supervisor."""

    @property
    def workers(self) -> int:
        """How many workers there are."""

    def tell(self, worker: int, message: ToWorker) -> bool:
        """Send a message if that can be done at once; whether it was."""

    def hand_over(self, worker: int, connection: AcceptedConnection) -> None:
        """Give a connection to a worker, or to its replacement."""


class IngressRelay:
    """Stands between the workers; the supervisor tells it what it hears of them."""

    def __init__(self) -> None:
        self._offers: dict[int, Offer] = {}
        self._due: dict[int, dict[int, Offer]] = {}
        """What has yet to be told, by worker and CID."""
        self._is_due = trio.Event()
        self._workers: Workers | None = None

    def attach(self, workers: Workers) -> None:
        """Say whose messages these are."""
        self._workers = workers
        self._due = {worker: {} for worker in range(workers.workers)}

    async def run(self) -> None:
        """Tell workers what they did not take at once, until cancelled."""
        while True:
            await self._is_due.wait()
            await trio.sleep(RETRY_SECONDS)
            self._flush()

    def changed(self) -> None:
        """A worker has begun: it knows nothing yet, and the others forget nothing by it."""
        for worker in self._due:
            self._due[worker] |= {
                cid: offer for cid, offer in self._offers.items() if offer.worker != worker
            }
        self._flush()

    def died(self, worker: int) -> None:
        """A worker is gone, and the links of its enclaves with it."""
        for offer in [each for each in self._offers.values() if each.worker == worker]:
            self._note(Offer(offer.cid, worker))
        self._flush()

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """A worker has told something; the descriptors stay the caller's."""
        match message:
            case Offer():
                self._note(Offer(message.cid, worker, *_rest(message)))
                self._flush()
            case Routed() if self._workers is not None:
                connection = socket.socket(fileno=os.dup(descriptors[0]))
                if message.worker in self._due:
                    accepted = AcceptedConnection(message, connection)
                    self._workers.hand_over(message.worker, accepted)
                else:
                    connection.close()

    def _note(self, offer: Offer) -> None:
        known = self._offers.get(offer.cid)
        if offer.services:
            self._offers[offer.cid] = offer
        elif known is None or known.worker != offer.worker:
            return  # the enclave has links to another worker by now
        else:
            del self._offers[offer.cid]
        for worker, due in self._due.items():
            if worker != offer.worker:
                due[offer.cid] = offer

    def _flush(self) -> None:
        assert self._workers is not None  # attached before anybody speaks
        for worker, due in self._due.items():
            for cid, offer in list(due.items()):
                if not self._workers.tell(worker, offer):
                    break  # busy, or being replaced: `changed` comes then
                del due[cid]
        if any(self._due.values()):
            self._is_due.set()
        elif self._is_due.is_set():
            self._is_due = trio.Event()


def _rest(offer: Offer) -> tuple[list[str], int, dict[str, float], str | None]:
    return offer.services, offer.streams, offer.rests, offer.name
