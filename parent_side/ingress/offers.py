"""The enclaves that offer services: this worker's, and what other workers say of theirs."""

from typing import Final

from parent_side.enclave import Enclave
from parent_side.enclaves import Enclaves
from parent_side.ingress.balance import Balance
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.loop import Event, call_later, now
from vsockproxy.dataplane.questions import Say, SupervisorBusy
from vsockproxy.worker_messages import Offer

__all__ = ("Offers",)

PUBLISH_SECONDS: Final = 0.001
"""The least time between two messages about all that has changed."""


class Offers:
    """Keeps the balance up to date, and tells the other workers.

    Args:
        enclaves: those that are connected to this worker.
        tell: sends messages to the supervisor; SupervisorBusy if that cannot be now.
        worker: the index of this worker.
        workers: how many there are.
    """

    def __init__(self, enclaves: Enclaves, tell: Say, worker: int, workers: int) -> None:
        self.balance = Balance()
        self.own: dict[int, Enclave] = {}
        """Enclaves of this worker with a link that takes streams, by CID."""
        self.came = Event()
        """Set when an enclave has come, or has changed; whoever waits clears it."""
        self.worker = worker
        self._tell = tell
        self._is_alone = workers == 1
        self._unpublished: set[int] = set()
        self._is_timed = False
        """`_publish` will be called soon."""
        enclaves.watch(self._enclave_changed)

    def offered(self, message: Offer) -> None:
        """What an enclave of another worker offers."""
        if message.cid in self.own:
            return  # it has links to this worker now
        if not message.services:
            self.balance.remove(message.cid)
            return
        known = self.balance.services_of(message.cid)
        self.balance.put(
            message.cid,
            message.worker,
            message.services,
            name=message.name,
            streams=message.streams,
            rests=message.rests,
        )
        if known != self.balance.services_of(message.cid):
            self.came.set()  # not for each stream: many may wait

    def changed(self, cid: int) -> None:
        """Something about an enclave of this worker is new: tell the others.

        Each chooses by what it was told last; what it hands over meanwhile it counts itself.
        """
        if not self._is_alone:
            self._unpublished.add(cid)
            if not self._is_timed:
                self._publish()

    def _publish(self) -> None:
        self._is_timed = bool(self._unpublished)
        if self._is_timed:
            call_later(PUBLISH_SECONDS, self._publish)
        while self._unpublished:
            cid = self._unpublished.pop()
            offer = Offer(cid, self.worker)
            if cid in self.own:
                candidate = self.balance[cid]
                offer = Offer(
                    cid,
                    self.worker,
                    services=list(candidate.services),
                    name=candidate.name,
                    streams=candidate.streams,
                    rests=candidate.rests(now()),
                )
            try:
                self._tell(offer)
            except SupervisorBusy:
                self._unpublished.add(cid)
                return

    def _enclave_changed(self, cid: int, enclave: Enclave | None) -> None:
        if enclave is None or not any(map(_is_open, enclave.links)):
            if self.own.pop(cid, None) is not None:
                self.balance.remove(cid)
                self.changed(cid)
            return
        if self.own.get(cid) is not enclave:
            self.balance.remove(cid)  # another life: its streams and failures were not this one's
        self.own[cid] = enclave
        self.balance.put(cid, self.worker, enclave.services, name=enclave.name)
        self.changed(cid)
        self.came.set()


def _is_open(link: Link) -> bool:
    return not link.is_closed and not link.session.is_going_away
