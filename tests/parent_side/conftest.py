"""Fixtures of the resolver's tests."""

from collections.abc import Iterator

import pytest

from tests.support.dns_server import DnsServer


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server
