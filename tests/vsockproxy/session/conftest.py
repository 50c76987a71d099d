"""What tests of windows share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="class")
def small_windows_grow() -> Iterator[None]:
    """Windows need not be earned: some bytes stand for many MiB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vsockproxy.session.credit.PROVEN_FACTOR", 0)
        yield
