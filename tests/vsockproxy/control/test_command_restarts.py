import pytest

from vsockproxy.control.command_restarts import (
    LONG_LIFE_SECONDS,
    LONGEST_DELAY_SECONDS,
    MOST_SHORT_LIVES,
    CommandRestarts,
    RestartPolicy,
)

ENDS: dict[str, tuple[RestartPolicy, int, bool]] = {
    "never, after success": ("never", 0, False),
    "never, after a failure": ("never", 1, False),
    "on-failure, after success": ("on-failure", 0, False),
    "on-failure, after a failure": ("on-failure", 3, True),
    "on-failure, after a signal": ("on-failure", 137, True),
    "always, after success": ("always", 0, True),
    "always, after a failure": ("always", 1, True),
}


@pytest.mark.parametrize(("policy", "code", "is_restarted"), ENDS.values(), ids=ENDS)
def test_whether_it_is_started_again(policy: RestartPolicy, code: int, is_restarted: bool) -> None:
    restarts = CommandRestarts(policy)
    assert (restarts.after_end(code, LONG_LIFE_SECONDS) is not None) == is_restarted
    assert not restarts.has_given_up


def test_delays_double_up_to_a_limit_and_then_it_is_given_up() -> None:
    restarts = CommandRestarts("always")
    delays = [restarts.after_end(1, 0.0) for _ in range(MOST_SHORT_LIVES)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert all(each is None or each <= LONGEST_DELAY_SECONDS for each in delays)
    assert delays[-2] is not None
    assert delays[-1] is None
    assert restarts.has_given_up


def test_a_long_life_begins_anew() -> None:
    restarts = CommandRestarts("on-failure")
    for _ in range(MOST_SHORT_LIVES - 1):
        restarts.after_end(1, 0.0)
    assert restarts.after_end(1, LONG_LIFE_SECONDS) == 0.1
    assert restarts.after_end(1, 0.0) == 0.1
