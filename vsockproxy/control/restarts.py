"""How long to wait before a dead worker is replaced. Pure."""

from typing import Final

__all__ = ("FIRST_DELAY_SECONDS", "LONGEST_DELAY_SECONDS", "QUICK_DEATH_SECONDS", "RestartDelay")

QUICK_DEATH_SECONDS: Final = 1.0
"""A worker that lived less than this may die of its start: the next one is delayed."""
FIRST_DELAY_SECONDS: Final = 0.05
LONGEST_DELAY_SECONDS: Final = 1.0


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
