"""IPv4 addresses that IPv6 addresses carry, for whoever must judge them by the IPv4 inside.

    ::ffff:0:0/96      mapped (RFC 4291, section 2.5.5.2)
    ::ffff:0:0:0/96    IPv4-translated (RFC 2765, section 2.1)
    ::/96              IPv4-compatible (RFC 4291, section 2.5.5.1), but not :: and ::1
    64:ff9b::/96       NAT64 (RFC 6052, section 2.1)
    64:ff9b:1::/48     NAT64 for local use (RFC 8215), with any prefix that RFC 6052 permits in it
    2002::/16          6to4 (RFC 3056, section 2)
    2001::/32          Teredo (RFC 4380, section 4): the server, and the client with each bit turned
    …:[02]00:5efe:V4   ISATAP, an interface identifier under any other prefix (RFC 5214, 6.1)

A NAT64 prefix out of a network's own space (RFC 6052, section 2.2) cannot be told from other
addresses; only the operator knows it, and can deny it by a rule.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Final

from vsockproxy.addresses import IpAddress

__all__ = ("embedded_ipv4",)

_LOW_32: Final = 0xFFFF_FFFF

_LOW_WORD_PREFIXES: Final = (0, 0xFFFF << 32, 0xFFFF << 48, 0x0064_FF9B << 96)
"""The /96 prefixes whose last 32 bits are an IPv4 address."""

_LOCAL_NAT64: Final = 0x0064_FF9B_0001
_LOCAL_NAT64_OCTETS: Final = ((12, 13, 14, 15), (6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12))
"""Where RFC 6052, section 2.2, puts the IPv4 address after a prefix of 96, 48, 56, 64 bits."""

_SIX_TO_FOUR: Final = 0x2002
_TEREDO: Final = 0x2001_0000
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


def embedded_ipv4(address: IpAddress) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses inside `address`, several where it can be read in several ways."""
    if isinstance(address, IPv4Address):
        return ()
    value = int(address)
    if value <= 1:
        return ()
    if (value & ~_LOW_32) in _LOW_WORD_PREFIXES:
        return (IPv4Address(value & _LOW_32),)
    if value >> 80 == _LOCAL_NAT64:
        return _local_nat64(address)
    if value >> 96 == _TEREDO:
        return (IPv4Address((value >> 64) & _LOW_32), IPv4Address(~value & _LOW_32))
    inside = []
    if value >> 112 == _SIX_TO_FOUR:
        inside.append(IPv4Address((value >> 80) & _LOW_32))
    if (value >> 32) & _LOW_32 in _ISATAP:
        inside.append(IPv4Address(value & _LOW_32))
    return tuple(inside)


def _local_nat64(address: IPv6Address) -> tuple[IPv4Address, ...]:
    octets = address.packed
    readings = [
        IPv4Address(bytes(octets[index] for index in places)) for places in _LOCAL_NAT64_OCTETS
    ]
    # The readings that are not meant mostly fall among zeros; 0.0.0.0/8 is nobody's destination,
    # so such a reading counts only where there is no other.
    plausible = tuple(reading for reading in readings if reading.packed[0] != 0)
    return plausible or (readings[0],)
