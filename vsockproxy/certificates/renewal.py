"""When a certificate is due for its next one."""

from datetime import datetime
from typing import Final

__all__ = ("FIRST_RETRY_SECONDS", "MOST_RETRY_SECONDS", "renewal_time", "retry_seconds")

FIRST_RETRY_SECONDS: Final = 2.0
MOST_RETRY_SECONDS: Final = 3600.0
"""Until the next attempt, which doubles: an authority counts failed ones."""


def renewal_time(not_before: datetime, not_after: datetime) -> datetime:
    """When two thirds of the time that a certificate holds have passed."""
    return not_before + (not_after - not_before) * 2 / 3


def retry_seconds(failures: int, chance: float) -> float:
    """How long to rest after so many failures in a row.

    Args:
        failures: 1 or more.
        chance: a random number from 0 up to 1, so that many enclaves do not ask at once.
    """
    longest = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20), MOST_RETRY_SECONDS)
    return longest * (0.5 + chance / 2)
