"""What lookups came to, and for how long it may be used again. Pure: `now` is an argument."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Literal

from vsockproxy.addresses import IpAddress

__all__ = ("Answer", "Failure", "LookupCache", "Outcome", "lifetime_seconds")

MOST_ENTRIES: Final = 10_000

LONGEST_ANSWER_SECONDS: Final = 300
"""A cap on TTLs: a name that moves is followed within five minutes, whatever its zone promised."""
NO_SUCH_NAME_SECONDS: Final = 5
LOOKUP_FAILED_SECONDS: Final = 1
"""Short, so that a server's recovery is noticed; long enough to break a storm on a dead name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, at least one, and the least TTL on the way to them."""

    addresses: tuple[IpAddress, ...]
    ttl_seconds: int


@dataclass(frozen=True, slots=True)
class Failure:
    """No addresses: the name has none (`no_such_name`), or that could not be found out."""

    kind: Literal["no_such_name", "lookup_failed"]
    text: str


Outcome = Answer | Failure


def lifetime_seconds(outcome: Outcome) -> int:
    """How long an outcome may be used after it came; 0 is not at all."""
    match outcome:
        case Answer(_, ttl_seconds):
            return max(0, min(ttl_seconds, LONGEST_ANSWER_SECONDS))
        case Failure("no_such_name", _):
            return NO_SUCH_NAME_SECONDS
        case Failure():
            return LOOKUP_FAILED_SECONDS


@dataclass(frozen=True, slots=True)
class _Entry:
    outcome: Outcome
    expires: float


class LookupCache:
    """Outcomes by enclave and name, at most `capacity` in all.

    Enclaves share the room, not the entries: what one has looked up is neither visible nor of use
    to another. When the room is used up, the enclave that holds most of it loses its oldest entry;
    so one that looks up random names pushes out its own.
    """

    def __init__(self, capacity: int = MOST_ENTRIES) -> None:
        self._capacity = capacity
        self._size = 0
        self._enclaves: dict[Hashable, dict[str, _Entry]] = {}

    def __len__(self) -> int:
        return self._size

    def get(self, enclave: Hashable, host: str, now: float) -> Outcome | None:
        """What is known of `host`, unless it is too old."""
        entry = self._enclaves.get(enclave, {}).get(host)
        if entry is None:
            return None
        if now >= entry.expires:
            self._discard(enclave, host)
            return None
        return entry.outcome

    def put(self, enclave: Hashable, host: str, outcome: Outcome, now: float) -> None:
        """Remember an outcome that came at `now`; replaces what was known."""
        self._discard(enclave, host)
        lifetime = lifetime_seconds(outcome)
        if not lifetime:
            return
        if self._size >= self._capacity:
            largest = max(self._enclaves, key=lambda key: len(self._enclaves[key]))
            self._discard(largest, next(iter(self._enclaves[largest])))
        self._enclaves.setdefault(enclave, {})[host] = _Entry(outcome, now + lifetime)
        self._size += 1

    def _discard(self, enclave: Hashable, host: str) -> None:
        entries = self._enclaves.get(enclave)
        if entries is None or entries.pop(host, None) is None:
            return
        self._size -= 1
        if not entries:
            del self._enclaves[enclave]
