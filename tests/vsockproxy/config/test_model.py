"""What the configuration's values can tell besides what the file says."""

from vsockproxy.config.model import BUDGET_RESERVE_BYTES, FIRST_WINDOW_BYTES, Limits


def test_the_usual_budget_holds_the_usual_streams() -> None:
    limits = Limits()
    assert limits.receive_budget >= limits.streams * FIRST_WINDOW_BYTES + BUDGET_RESERVE_BYTES
