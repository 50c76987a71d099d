"""Every test of the public API leaves no socket open, whatever goes wrong in it."""

from collections.abc import Iterator

import pytest

from tests.support.observation import open_sockets, wait_for_sockets


@pytest.fixture(autouse=True)
def _no_socket_is_left() -> Iterator[None]:
    before = open_sockets()
    yield
    wait_for_sockets(before)
