from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.certificates.acme_messages import AcmeError, Trouble
from vsockproxy.certificates.acme_timing import next_order_at, seconds_to_retry

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=90)
HOUR = 3600.0

ORDERED = {
    "at once": (timedelta(hours=1), 60.0),
    "by a clock that is ahead": (timedelta(days=70), 100.0),
    "by a clock that is behind": (timedelta(days=-3000), 60.0),
}


@pytest.mark.parametrize("case", ORDERED)
def test_the_next_one_is_ordered_with_a_third_left_and_never_in_a_loop(case: str) -> None:
    ordered_after, days = ORDERED[case]
    assert next_order_at(BEGIN, END, BEGIN + ordered_after) == BEGIN + timedelta(days=days)


def waits(trouble: Trouble, retry_after: float | None = None) -> list[float]:
    """The longest where nobody counts, and else the shortest."""
    error = AcmeError("", trouble, retry_after_seconds=retry_after)
    chance = 1.0 if trouble == "unreachable" else 0.0
    return [seconds_to_retry(error, failures, chance) for failures in range(1, 9)]


WAITS: dict[str, tuple[list[float], list[float]]] = {
    "nobody answers": (waits("unreachable"), [2, 4, 8, 16, 32, 64, 128, 256]),
    "refused": (waits("refused"), [120, 240, 480, 960, 1920, HOUR, HOUR, HOUR]),
    "a limit": (waits("rate_limited"), [HOUR] * 8),
    "a limit with a time": (waits("rate_limited", 7200.0), [7200.0] * 8),
    "refused with a time": (waits("refused", 300.0), [300, 300, 480, 960, 1920, HOUR, HOUR, HOUR]),
}


@pytest.mark.parametrize("case", WAITS)
def test_failures_are_waited_for_longer_each_time(case: str) -> None:
    found, expected = WAITS[case]
    assert found == expected


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_bounded_and_never_short(failures: int, chance: float) -> None:
    seconds = seconds_to_retry(AcmeError("", "refused"), failures, chance)
    assert 120 <= seconds <= 1.5 * HOUR


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=20, max_size=20))
def test_no_hour_has_more_than_five_attempts(chances: list[float]) -> None:
    at = [0.0]
    for failures, chance in enumerate(chances, 1):
        at.append(at[-1] + seconds_to_retry(AcmeError("", "refused"), failures, chance))
    assert all(at[index + 5] - at[index] > HOUR for index in range(len(at) - 5))


@given(st.floats(0, 1, exclude_max=True))
def test_refusals_stay_within_five_and_five_in_an_hour(chance: float) -> None:
    """A bucket of 5 that gets one more each 12 minutes, as Let's Encrypt counts failed proofs."""
    tokens = 5.0
    for failures in range(1, 50):
        tokens -= 1
        assert tokens >= 0
        seconds = seconds_to_retry(AcmeError("", "refused"), failures, chance)
        tokens = min(5.0, tokens + seconds / 720)
