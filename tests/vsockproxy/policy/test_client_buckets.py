"""Who shares a bucket with whom, and that there are so many at most."""

from ipaddress import ip_address

import pytest

from vsockproxy.policy.client_buckets import MOST_CLIENTS, ClientBuckets

PAIRS = {
    "one address": ("192.0.2.1", "192.0.2.1", True),
    "two addresses": ("192.0.2.1", "192.0.2.2", False),
    "one address, written as IPv6": ("192.0.2.1", "::ffff:192.0.2.1", True),
    "two addresses, written as IPv6": ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    "one network of IPv6": ("2001:db8::1", "2001:db8::2:0:0:1", True),
    "two networks of IPv6": ("2001:db8::1", "2001:db8:0:1::1", False),
}


@pytest.mark.parametrize("case", PAIRS)
def test_a_client_takes_its_own_tokens(case: str) -> None:
    first, second, share = PAIRS[case]
    buckets = ClientBuckets()
    assert buckets.take(ip_address(first), 1.0, 2.0, 0.0)
    assert buckets.take(ip_address(first), 1.0, 2.0, 0.0)
    assert not buckets.take(ip_address(first), 1.0, 2.0, 0.0)
    assert buckets.take(ip_address(second), 1.0, 2.0, 0.0) is not share
    assert buckets.take(ip_address(first), 1.0, 2.0, 1.0)


def test_who_has_not_asked_for_longest_is_forgotten_first() -> None:
    buckets = ClientBuckets()
    first, second = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    for client in (first, second, first):
        buckets.take(client, 1.0, 2.0, 0.0)
    for number in range(MOST_CLIENTS - 1):
        assert buckets.take(ip_address(0x0A00_0000 + number), 1.0, 2.0, 0.0)
    assert not buckets.take(first, 1.0, 2.0, 0.0)  # remembered, and spent
    assert buckets.take(second, 1.0, 1.0, 0.0)  # as if it were new
