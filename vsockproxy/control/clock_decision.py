"""What is done about a clock that is wrong: nothing, a step, a slew, or a refusal. Pure.

Whoever is asked may lie. A clock is put forward once, at the start, by at most the setting's
`max_step`; afterwards, and backwards, it only runs a little faster or slower (adjtime(3): by 500
parts in a million), so that it never shows a time twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = (
    "MOST_ROUND_TRIP_NS",
    "MOST_SLEW_NS",
    "TOLERANCE_NS",
    "Keep",
    "Refuse",
    "Sample",
    "Slew",
    "Step",
    "choose_sample",
    "decide",
)

TOLERANCE_NS: Final = 1_000_000
"""Differences up to this are left alone."""

MOST_ROUND_TRIP_NS: Final = 500_000_000
"""An answer that took longer says too little."""

MOST_SLEW_NS: Final = 10_000_000_000
"""What is made up for by running faster or slower: it takes 2,000 times as long."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at another clock, in nanoseconds.

    Args:
        offset_ns: what has to be added to ours; true within half of the round trip.
        round_trip_ns: from the question to its answer.
    """

    offset_ns: int
    round_trip_ns: int

    @classmethod
    def of(cls, their_time_ns: int, our_time_ns: int, round_trip_ns: int) -> "Sample":
        """The sample of a question.

        Args:
            their_time_ns: the answer.
            our_time_ns: our clock when it came.
            round_trip_ns: from the question to its answer, by a clock that is never set.
        """
        return cls(their_time_ns + round_trip_ns // 2 - our_time_ns, round_trip_ns)


@dataclass(frozen=True, slots=True)
class Keep:
    """The clock is right, as far as can be told."""


@dataclass(frozen=True, slots=True)
class Step:
    """It is put forward."""

    forward_ns: int


@dataclass(frozen=True, slots=True)
class Slew:
    """It runs faster (or slower, for a negative number) until it has made up for so much."""

    offset_ns: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """It stays as it is."""

    text: str


def choose_sample(samples: Sequence[Sample]) -> Sample:
    """The best of some samples: the one with the shortest round trip, which is the most exact."""
    return min(samples, key=lambda sample: sample.round_trip_ns)


def decide(sample: Sample, *, max_step_ns: int, is_first: bool) -> Keep | Step | Slew | Refuse:
    """Decide on a sample.

    Args:
        sample: the best one.
        max_step_ns: how far the clock may be put forward.
        is_first: whether nothing has been decided before; only then it may be put forward.
    """
    offset_ns = sample.offset_ns
    if sample.round_trip_ns > MOST_ROUND_TRIP_NS:
        return Refuse(f"the answer took {_seconds(sample.round_trip_ns)} s")
    if abs(offset_ns) <= max(TOLERANCE_NS, sample.round_trip_ns // 2):
        return Keep()
    if is_first and 0 < offset_ns <= max_step_ns:
        return Step(offset_ns)
    if abs(offset_ns) <= MOST_SLEW_NS:
        return Slew(offset_ns)
    if offset_ns < 0:
        return Refuse(f"our clock is {_seconds(-offset_ns)} s ahead, and never goes backwards")
    if is_first:
        return Refuse(f"our clock is {_seconds(offset_ns)} s behind, more than max_step")
    return Refuse(f"our clock is {_seconds(offset_ns)} s behind, and is put forward at first only")


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.3f}"
