import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.credentials.rotation import next_fetch, retry_delay

HOUR = 3600.0


@pytest.mark.parametrize(
    ("left", "chance", "expected"),
    [
        pytest.param(6 * HOUR, 0.0, 6 * HOUR - 900, id="15 minutes before, at the earliest"),
        pytest.param(6 * HOUR, 1.0, 6 * HOUR - 600, id="10 minutes before, at the latest"),
        pytest.param(900.0, 0.5, 60.0, id="the old ones again: every minute"),
        pytest.param(120.0, 0.5, 30.0, id="sooner and sooner"),
        pytest.param(2.0, 0.5, 0.5, id="credentials that live for seconds"),
        pytest.param(0.1, 0.5, 0.25, id="but never without a pause"),
        pytest.param(-5.0, 0.5, 0.25, id="ones that have expired"),
    ],
)
def test_when_credentials_are_fetched_again(left: float, chance: float, expected: float) -> None:
    assert next_fetch(1_000_000.0 + left, 1_000_000.0, chance) == pytest.approx(expected)


@given(st.floats(1.0, 12 * HOUR), st.floats(0.0, 0.999))
def test_it_is_always_before_they_expire(left: float, chance: float) -> None:
    assert 0 < next_fetch(left, 0.0, chance) < left


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(1, 0.5, 1.0), (2, 1.0, 2.0), (6, 15.0, 30.0), (99, 15.0, 30.0)]
)
def test_failures_are_followed_by_longer_and_longer_pauses(
    failures: int, least: float, most: float
) -> None:
    assert retry_delay(failures, 0.0) == least
    assert retry_delay(failures, 1.0) == most
