"""How long to wait before a dead worker is replaced, and when its deaths are a crash loop. Pure."""

from collections import deque
from typing import Final

__all__ = (
    "CRASH_LOOP_DEATHS",
    "CRASH_LOOP_SECONDS",
    "FIRST_DELAY_SECONDS",
    "LONGEST_DELAY_SECONDS",
    "QUICK_DEATH_SECONDS",
    "CrashLoop",
    "RestartDelay",
)

QUICK_DEATH_SECONDS: Final = 1.0
"""A worker that lived less than this may die of its start: the next one is delayed."""
FIRST_DELAY_SECONDS: Final = 0.05
LONGEST_DELAY_SECONDS: Final = 1.0
"""Connections wait meanwhile, so it stays short."""

CRASH_LOOP_DEATHS: Final = 5
CRASH_LOOP_SECONDS: Final = 60.0
"""So many deaths within that time are a crash loop, until a worker has lived for as long."""


class RestartDelay:
    """The delays of a worker's replacements: none at first, then doubling while they die early."""

    __slots__ = ("_next_seconds",)

    def __init__(self) -> None:
        self._next_seconds = 0.0

    def after_death(self, lifetime_seconds: float) -> float:
        """Seconds to wait before the replacement of a worker that lived for `lifetime_seconds`."""
        if lifetime_seconds >= QUICK_DEATH_SECONDS:
            self._next_seconds = 0.0
        delay_seconds = self._next_seconds
        doubled = max(FIRST_DELAY_SECONDS, 2 * delay_seconds)
        self._next_seconds = min(doubled, LONGEST_DELAY_SECONDS)
        return delay_seconds


class CrashLoop:
    """Whether a worker and its replacements die again and again. Times are seconds on one clock."""

    __slots__ = ("_deaths", "is_on")

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=CRASH_LOOP_DEATHS)
        self.is_on = False

    def died(self, now: float) -> bool:
        """A worker died; True when this makes it a crash loop."""
        self._deaths.append(now)
        are_many = len(self._deaths) == CRASH_LOOP_DEATHS
        if self.is_on or not are_many or now - self._deaths[0] > CRASH_LOOP_SECONDS:
            return False
        self.is_on = True
        return True

    @property
    def span_seconds(self) -> float:
        """From the first to the last of the latest deaths."""
        return self._deaths[-1] - self._deaths[0] if self._deaths else 0.0

    def lived(self, lifetime_seconds: float) -> bool:
        """A worker has lived for so long; True when that ends a crash loop."""
        if not self.is_on or lifetime_seconds < CRASH_LOOP_SECONDS:
            return False
        self.is_on = False
        self._deaths.clear()
        return True
