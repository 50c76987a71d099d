"""Whether, and after how long, a command that has ended is started again. Pure."""

from typing import Final, Literal

__all__ = (
    "FIRST_DELAY_SECONDS",
    "LONGEST_DELAY_SECONDS",
    "LONG_LIFE_SECONDS",
    "MOST_SHORT_LIVES",
    "CommandRestarts",
    "RestartPolicy",
)

RestartPolicy = Literal["never", "on-failure", "always"]

FIRST_DELAY_SECONDS: Final = 0.1
LONGEST_DELAY_SECONDS: Final = 30.0
LONG_LIFE_SECONDS: Final = 10.0
"""A command that ran for that long has started well, and its delay begins anew."""
MOST_SHORT_LIVES: Final = 10
"""After so many short lives in a row it is not started again."""


class CommandRestarts:
    """The restarts of one command: each delay is twice the one before, and not for ever.

    Args:
        policy: when it is to be started again.
    """

    __slots__ = ("_policy", "short_lives")

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self.short_lives = 0
        """Short lives in a row."""

    @property
    def has_given_up(self) -> bool:
        """Whether it ends for good because it never lived long."""
        return self.short_lives >= MOST_SHORT_LIVES

    def after_end(self, exit_code: int, lifetime_seconds: float) -> float | None:
        """Seconds until it is started again; None where it is not."""
        if self._policy == "never" or (self._policy == "on-failure" and exit_code == 0):
            self.short_lives = 0
            return None
        is_short = lifetime_seconds < LONG_LIFE_SECONDS
        self.short_lives = self.short_lives + 1 if is_short else 0
        if self.has_given_up:
            return None
        doublings = max(0, self.short_lives - 1)
        return min(FIRST_DELAY_SECONDS * 2.0**doublings, LONGEST_DELAY_SECONDS)
