"""What lookups came to, and for how long it may be used again. Pure: `now` is an argument."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Literal

from vsockproxy.addresses import IpAddress

__all__ = (
    "ABSENT_SECONDS",
    "LONGEST_ANSWER_SECONDS",
    "LOOKUP_FAILED_SECONDS",
    "Answer",
    "Failure",
    "LookupCache",
    "Outcome",
    "Question",
    "RecordType",
    "Records",
    "lifetime_seconds",
)

MOST_PLACES: Final = 10_000
PLACE_BYTES: Final = 1024
"""An outcome takes one place, and one more for each KiB of records."""
RECORD_OVERHEAD_BYTES: Final = 64
"""What Python adds to each record."""

LONGEST_ANSWER_SECONDS: Final = 300
"""A cap on TTLs: a name that moves is followed within five minutes, whatever its zone promised."""
ABSENT_SECONDS: Final = 5
"""For a name, or records of one type, that a server says are not there."""
LOOKUP_FAILED_SECONDS: Final = 1
"""Short, so that a server's recovery is noticed; long enough to break a storm on a dead name."""


class RecordType(IntEnum):
    """Types of records that are looked up as they are, by their numbers in the DNS."""

    MX = 15
    TXT = 16
    SRV = 33


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked up: the records of one type, or with None the addresses of both families.

    Args:
        name: in the normal form of `vsockproxy.addresses.normalise_host`.
        record_type: the type.
    """

    name: str
    record_type: RecordType | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, at least one, and the least TTL on the way to them."""

    addresses: tuple[IpAddress, ...]
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Records:
    """Record data in DNS wire format, and the least TTL on the way to it.

    Without records the name exists, or is said to, and has none of this type.
    """

    records: tuple[bytes, ...]
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Nothing: there is no such name or address, or that could not be found out."""

    kind: Literal["no_such_name", "lookup_failed"]
    text: str


Outcome = Answer | Records | Failure


def lifetime_seconds(outcome: Outcome) -> int:
    """How long an outcome may be used after it came; 0 is not at all."""
    match outcome:
        case Answer(_, ttl_seconds) | Records(_, ttl_seconds):
            return max(0, min(ttl_seconds, LONGEST_ANSWER_SECONDS))
        case Failure("no_such_name", _):
            return ABSENT_SECONDS
        case Failure():
            return LOOKUP_FAILED_SECONDS


def _places(outcome: Outcome) -> int:
    if not isinstance(outcome, Records):
        return 1
    held = sum(len(record) + RECORD_OVERHEAD_BYTES for record in outcome.records)
    return 1 + held // PLACE_BYTES


@dataclass(frozen=True, slots=True)
class _Entry:
    outcome: Outcome
    expires: float
    places: int


class _Share:
    """The entries of one enclave, oldest first; exists while there are any."""

    __slots__ = ("entries", "places")

    def __init__(self) -> None:
        self.entries: dict[Question, _Entry] = {}
        self.places = 0


class LookupCache:
    """Outcomes by enclave and question, in at most `capacity` places.

    Enclaves share the room, not the entries: what one has looked up is neither visible nor of use
    to another. When the room is used up, the enclave that holds most of it loses its oldest
    entries; so one that looks up random names pushes out its own.
    """

    def __init__(self, capacity: int = MOST_PLACES) -> None:
        self._capacity = capacity
        self._places = 0
        self._shares: dict[Hashable, _Share] = {}

    def __len__(self) -> int:
        return sum(len(share.entries) for share in self._shares.values())

    def get(self, enclave: Hashable, question: Question, now: float) -> Outcome | None:
        """What is known, unless it is too old; a TTL is what is left of it, in whole seconds."""
        share = self._shares.get(enclave)
        entry = share.entries.get(question) if share is not None else None
        if entry is None:
            return None
        if now >= entry.expires:
            self._discard(enclave, question)
            return None
        if isinstance(entry.outcome, Failure):
            return entry.outcome
        return replace(entry.outcome, ttl_seconds=int(entry.expires - now))

    def put(self, enclave: Hashable, question: Question, outcome: Outcome, now: float) -> None:
        """Remember an outcome that came at `now`; replaces what was known."""
        self._discard(enclave, question)
        lifetime = lifetime_seconds(outcome)
        places = _places(outcome)
        if not lifetime or places > self._capacity:
            return
        while self._places + places > self._capacity:
            largest = max(self._shares, key=lambda key: self._shares[key].places)
            self._discard(largest, next(iter(self._shares[largest].entries)))
        share = self._shares.get(enclave)
        if share is None:
            share = self._shares[enclave] = _Share()
        share.entries[question] = _Entry(outcome, now + lifetime, places)
        share.places += places
        self._places += places

    def _discard(self, enclave: Hashable, question: Question) -> None:
        share = self._shares.get(enclave)
        entry = share.entries.pop(question, None) if share is not None else None
        if share is None or entry is None:
            return
        share.places -= entry.places
        self._places -= entry.places
        if not share.entries:
            del self._shares[enclave]
