"""When an ACME server is asked: for the next certificate, and again after a failure.

Servers count. Let's Encrypt takes 5 failed validations of a name in an hour, and gives 5 times in a
week a certificate for the same names; who asks on gets none at all. So a failure that the server
has seen makes us wait for two minutes at least, and the wait doubles to an hour.
"""

from datetime import datetime
from typing import Final

from vsockproxy.certificates.acme_messages import AcmeError
from vsockproxy.certificates.renewal import MOST_RETRY_SECONDS, renewal_time, retry_seconds

__all__ = ("next_order_at", "seconds_to_retry")

REFUSED_SECONDS: Final = 120.0
"""The first wait after a refusal, at the least. Doubled each time, five of them make 3,720 s: no
hour has more than 5 attempts."""

LIMITED_SECONDS: Final = 3600.0
"""The least wait where the server said that it was too often."""


def next_order_at(not_before: datetime, not_after: datetime, ordered_at: datetime) -> datetime:
    """When the certificate after this one is to be ordered: with a third of its time left.

    Never before a third of its time has passed since it was ordered, whatever our clock says of its
    dates: a clock that is wrong would order without end.

    Args:
        not_before: when it begins to hold,
        not_after: and ends.
        ordered_at: when it came.
    """
    return max(renewal_time(not_before, not_after), ordered_at + (not_after - not_before) / 3)


def seconds_to_retry(error: AcmeError, failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row.

    Args:
        error: the last one.
        failures: 1 or more.
        chance: a random number from 0 up to 1.
    """
    if error.trouble == "unreachable":
        return retry_seconds(failures, chance)
    shortest = min(REFUSED_SECONDS * 2.0 ** min(failures - 1, 20), MOST_RETRY_SECONDS)
    least = LIMITED_SECONDS if error.trouble == "rate_limited" else 0.0
    return max(shortest * (1.0 + chance / 2), least, error.retry_after_seconds or 0.0)
