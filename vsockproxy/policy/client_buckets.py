"""Token buckets of clients by their addresses, so that none of them takes what is for all."""

from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vsockproxy.policy.token_bucket import TokenBucket

__all__ = ("MOST_CLIENTS", "ClientBuckets")

MOST_CLIENTS: Final = 4096
"""Remembered at once; who has not asked for longest is forgotten first."""

_NETWORK_BYTES: Final = 8
"""Of an IPv6 address: one client has a network of 64 bits, and all of its addresses."""


class ClientBuckets:
    """A bucket for each client that has asked lately."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[bytes, TokenBucket] = {}
        """Who asked last comes last."""

    def take(
        self, client: IPv4Address | IPv6Address, rate: float, burst: float, now: float
    ) -> bool:
        """Take one token of a client's, if there is one.

        Args:
            client: its address.
            rate: tokens that come back in a second.
            burst: tokens that a full bucket has, at least 1.
            now: seconds on a clock that does not go back.
        """
        if isinstance(client, IPv6Address) and client.ipv4_mapped is not None:
            client = client.ipv4_mapped
        key = client.packed if client.version == 4 else client.packed[:_NETWORK_BYTES]
        bucket = self._buckets.pop(key, None) or TokenBucket()
        self._buckets[key] = bucket
        if len(self._buckets) > MOST_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return bucket.take(rate, burst, now)
