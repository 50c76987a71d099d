import pytest

from vsockproxy.control.restarts import RestartDelay


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
