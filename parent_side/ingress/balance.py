"""Which enclave gets the next stream of a service. Pure: `now` is an argument.

Every worker has one, with its own enclaves in it and, where there are several workers, those of the
others as their last message describes them. So each decides by itself, and counts what it hands
over until the next message says it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ("MOST_REST_SECONDS", "Balance", "Candidate")

FIRST_REST_SECONDS: Final = 1.0
MOST_REST_SECONDS: Final = 30.0
"""How long a service of an enclave is put aside after a failure; doubles with each in a row."""


@dataclass(slots=True)
class _Service:
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0


@dataclass(slots=True)
class Candidate:
    """One enclave that is connected.

    Args:
        cid: its CID.
        worker: the worker that has its links.
        name: its configured name.
    """

    cid: int
    worker: int
    name: str | None = None
    streams: int = 0
    """Streams of ingress that are open, or being opened."""
    services: dict[str, _Service] = field(default_factory=dict)
    turn: int = 0
    """When it was chosen last, among equals."""

    def rests(self, now: float) -> dict[str, float]:
        """The services that are put aside, and until when."""
        return {
            name: service.rests_until
            for name, service in self.services.items()
            if service.rests_until > now
        }


class Balance:
    """The enclaves that are connected, what they offer, and how they do."""

    def __init__(self) -> None:
        self._candidates: dict[int, Candidate] = {}
        self._turns = 0

    def __contains__(self, cid: int) -> bool:
        return cid in self._candidates

    def __getitem__(self, cid: int) -> Candidate:
        return self._candidates[cid]

    def services_of(self, cid: int) -> frozenset[str]:
        """What an enclave offers; nothing if it is not connected."""
        candidate = self._candidates.get(cid)
        return frozenset() if candidate is None else frozenset(candidate.services)

    def put(
        self,
        cid: int,
        worker: int,
        services: Collection[str],
        *,
        name: str | None = None,
        streams: int | None = None,
        rests: Mapping[str, float] | None = None,
    ) -> None:
        """An enclave is connected, or something about it has changed.

        Args:
            cid: the enclave.
            worker: the worker that has its links.
            services: what it offers.
            name: its configured name.
            streams: how many it has; None leaves what was counted.
            rests: services that are put aside, and until when; None leaves what was found out.
        """
        candidate = self._candidates.get(cid)
        if candidate is None or candidate.worker != worker:
            candidate = self._candidates[cid] = Candidate(cid, worker)
        candidate.name = name
        known = candidate.services
        candidate.services = {name: known.get(name, _Service()) for name in services}
        if streams is not None:
            candidate.streams = streams
        if rests is not None:
            for name, service in candidate.services.items():
                service.rests_until = rests.get(name, 0.0)

    def remove(self, cid: int) -> None:
        """An enclave is gone."""
        self._candidates.pop(cid, None)

    def choose(
        self,
        service: str,
        now: float,
        *,
        cids: Collection[int] | None = None,
        name: str | None = None,
        tried: Collection[int] = (),
    ) -> int | None:
        """The CID of the enclave for the next stream; None if there is none.

        Of those that offer the service, the one with the fewest streams, and of equals the one that
        was not chosen for longest. One that has failed lately comes after all others.

        Args:
            service: the service's name.
            now: seconds, on the clock of every other call.
            cids: the only enclaves that may be chosen; None for all.
            name: what the only ones are called that may be chosen; None for all.
            tried: those that may not.
        """
        chosen = min(
            (
                candidate
                for candidate in self._candidates.values()
                if service in candidate.services
                and (cids is None or candidate.cid in cids)
                and (name is None or candidate.name == name)
                and candidate.cid not in tried
            ),
            key=lambda each: (
                each.services[service].rests_until > now,
                each.streams,
                each.turn,
            ),
            default=None,
        )
        if chosen is None:
            return None
        self._turns += 1
        chosen.turn = self._turns
        return chosen.cid

    def opening(self, cid: int) -> None:
        """A stream to an enclave is being opened, or handed to the worker that has it."""
        if cid in self._candidates:
            self._candidates[cid].streams += 1

    def closed(self, cid: int) -> None:
        """A stream of an enclave has ended, or was not to be."""
        candidate = self._candidates.get(cid)
        if candidate is not None and candidate.streams:
            candidate.streams -= 1

    def succeeded(self, cid: int, service: str) -> bool:
        """A service has accepted; whether it had failed before."""
        found = self._service(cid, service)
        if found is None or not found.failures:
            return False
        found.failures, found.rests_until = 0, 0.0
        return True

    def failed(self, cid: int, service: str, now: float) -> float:
        """A service has not accepted; for how many seconds it is put aside."""
        found = self._service(cid, service)
        if found is None:
            return 0.0
        if found.rests_until <= now:  # those that were on their way say nothing new
            found.failures += 1
            rest = min(FIRST_REST_SECONDS * 2.0 ** min(found.failures - 1, 9), MOST_REST_SECONDS)
            found.rests_until = now + rest
            return rest
        return 0.0

    def _service(self, cid: int, service: str) -> _Service | None:
        candidate = self._candidates.get(cid)
        return candidate.services.get(service) if candidate is not None else None
