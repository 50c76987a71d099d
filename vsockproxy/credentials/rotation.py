"""When to fetch credentials again: well before they expire, and sooner and sooner if that fails.

Times are seconds on any one clock; what is random comes in as a number from 0 up to 1.
"""

from typing import Final

__all__ = ("next_fetch", "refusal_delay", "retry_delay")

EARLIEST_SECONDS: Final = 15 * 60.0
LATEST_SECONDS: Final = 10 * 60.0
"""New credentials are asked for within this time before the old ones expire. SDKs do the same: they
begin to ask for others at 15 minutes (botocore), and wait for them from 10 minutes on."""

POLL_SECONDS: Final = 60.0
"""The metadata service may still have the old ones then: it promises new ones only five minutes
before the old ones expire."""

LEAST_POLL_SECONDS: Final = 0.25

FIRST_RETRY_SECONDS: Final = 1.0
MOST_RETRY_SECONDS: Final = 30.0
_LEAST_RETRY_SHARE: Final = 0.5


def next_fetch(expires_at: float, now: float, chance: float) -> float:
    """Seconds until the next fetch, after one that succeeded.

    Args:
        expires_at: when what was fetched expires.
        now: the time.
        chance: from 0 up to 1; spreads what begins together.
    """
    left = expires_at - now
    margin = EARLIEST_SECONDS - (EARLIEST_SECONDS - LATEST_SECONDS) * chance
    if left > EARLIEST_SECONDS:
        return left - margin
    return max(min(POLL_SECONDS, left / 4), LEAST_POLL_SECONDS)


def retry_delay(failures: int, chance: float) -> float:
    """Seconds until the next fetch, after `failures` in a row (from 1 on): doubling, with jitter.

    Args:
        failures: how many there have been since the last success.
        chance: from 0 up to 1.
    """
    most = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10), MOST_RETRY_SECONDS)
    return most * (_LEAST_RETRY_SHARE + (1 - _LEAST_RETRY_SHARE) * chance)


def refusal_delay(chance: float) -> float:
    """Seconds until the next fetch after a refusal, which only a change of a file ends.

    Args:
        chance: from 0 up to 1.
    """
    return MOST_RETRY_SECONDS * (_LEAST_RETRY_SHARE + (1 - _LEAST_RETRY_SHARE) * chance)
