"""What the configuration's values can tell besides what the file says."""

import pytest

from vsockproxy.config.model import BUDGET_RESERVE_BYTES, FIRST_WINDOW_BYTES, Limits


@pytest.mark.parametrize("workers", [1, 2, 3, 7, 256])
def test_workers_share_streams_and_budget_and_each_can_still_hold_its_streams(workers: int) -> None:
    limits = Limits()
    share = limits.share_of(workers)
    assert share.streams * workers >= limits.streams
    assert (share.streams - 1) * workers < limits.streams
    assert share.receive_budget * workers >= limits.receive_budget
    assert share.receive_budget >= share.streams * FIRST_WINDOW_BYTES
    assert (share.connect, share.link_wait) == (limits.connect, limits.link_wait)
    assert limits.receive_budget >= limits.streams * FIRST_WINDOW_BYTES + BUDGET_RESERVE_BYTES
