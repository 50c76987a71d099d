import pytest

from vsockproxy.control.restarts import (
    CRASH_LOOP_DEATHS,
    CRASH_LOOP_SECONDS,
    CrashLoop,
    RestartDelay,
)


@pytest.mark.parametrize(
    ("lifetimes", "delays"),
    [
        pytest.param([5.0], [0.0], id="the first death is mended at once"),
        pytest.param([0.0], [0.0], id="even an early one"),
        pytest.param([0.1] * 4, [0.0, 0.05, 0.1, 0.2], id="early deaths double the delay"),
        pytest.param([0.1] * 9, [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0], id="up to 1 s"),
        pytest.param([0.1, 0.1, 1.0, 0.1], [0.0, 0.05, 0.0, 0.05], id="a life of 1 s starts over"),
    ],
)
def test_delays(lifetimes: list[float], delays: list[float]) -> None:
    delay = RestartDelay()
    assert [delay.after_death(lifetime) for lifetime in lifetimes] == delays


@pytest.mark.parametrize(
    ("deaths", "begins"),
    [
        pytest.param([0.0, 1.0, 2.0, 3.0], [], id="four deaths are none"),
        pytest.param([0.0, 1.0, 2.0, 3.0, 4.0], [4.0], id="five within a minute are one"),
        pytest.param([0.0, 15.0, 30.0, 45.0, 60.0], [60.0], id="in just a minute, too"),
        pytest.param([0.0, 16.0, 31.0, 46.0, 61.0], [], id="five in more than a minute are none"),
        pytest.param([0.0, 50.0, 51.0, 52.0, 53.0, 54.0], [53.0], id="it begins once"),
        pytest.param([0.0, 70.0, 71.0, 72.0, 73.0, 74.0], [74.0], id="old deaths do not count"),
    ],
)
def test_crash_loops(deaths: list[float], begins: list[float]) -> None:
    loop = CrashLoop()
    assert [now for now in deaths if loop.died(now)] == begins
    assert loop.is_on == bool(begins)


def test_a_crash_loop_ends_with_a_worker_that_lives() -> None:
    loop = CrashLoop()
    for now in range(CRASH_LOOP_DEATHS):
        loop.died(now)
    assert loop.span_seconds == CRASH_LOOP_DEATHS - 1
    assert not loop.lived(CRASH_LOOP_SECONDS - 1)
    assert loop.lived(CRASH_LOOP_SECONDS)
    assert not loop.is_on
    assert not loop.lived(CRASH_LOOP_SECONDS), "it ends once"
    assert not loop.died(100.0), "and begins anew"
