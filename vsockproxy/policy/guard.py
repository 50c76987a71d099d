"""The address guard: the classes that an address belongs to, and those that a rule leaves closed.

The tables are our own: `ipaddress.is_global` passes 6to4, NAT64, IPv4-compatible and other forms
that carry a private or metadata IPv4 address, and it changes with the version of Python.
Sources: the IANA registries of special-purpose IPv4 and IPv6 addresses (RFC 6890) and of the IPv6
address space, and the Amazon EC2 user guide for the instance's own services (169.254.169.254,
.253, .123 and fd00:ec2::254, ::253, ::123).
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, ip_network
from typing import Final

from vsockproxy.addresses import IpAddress
from vsockproxy.config.patterns import IpNetwork
from vsockproxy.policy.embedded import embedded_ipv4
from vsockproxy.policy.reasons import MOST_SEVERE_FIRST, Reason

__all__ = ("AddressClass", "Finding", "closed", "closed_class", "findings")


class AddressClass(Enum):
    """What an address is for, as refusals say it."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    SHARED = "carrier-grade NAT"
    METADATA = "instance metadata (link-local)"
    LINK_LOCAL = "link-local"
    UNSPECIFIED = "unspecified"
    MULTICAST = "multicast"
    DOCUMENTATION = "for documentation"
    BENCHMARKS = "for benchmarks"
    RESERVED = "reserved"


_OPENED_BY_PRIVATE: Final = frozenset(
    {AddressClass.PRIVATE, AddressClass.LOOPBACK, AddressClass.SHARED}
)
_OPENED_BY_METADATA: Final = frozenset({AddressClass.METADATA})


@dataclass(frozen=True, slots=True)
class Finding:
    """One class of an address: of itself, or of the IPv4 `address` inside it."""

    address: IpAddress
    address_class: AddressClass

    @property
    def reason(self) -> Reason:
        """The reason of a refusal for this class, if it is not public."""
        if self.address_class in _OPENED_BY_PRIVATE:
            return Reason.ADDRESS_PRIVATE
        if self.address_class in (AddressClass.METADATA, AddressClass.LINK_LOCAL):
            return Reason.ADDRESS_METADATA
        return Reason.ADDRESS_RESERVED


_Table = tuple[tuple[int, int, AddressClass], ...]


def _table(bits: int, *rows: tuple[str, AddressClass]) -> _Table:
    """Rows of (bits to shift away, what then remains, class) for addresses of `bits` bits."""
    compiled = []
    for text, address_class in rows:
        network = ip_network(text)
        shift = bits - network.prefixlen
        compiled.append((shift, int(network.network_address) >> shift, address_class))
    return tuple(compiled)


# The first row that fits decides; the last one fits everything.

_IPV4_CLASSES: Final = _table(
    32,
    ("0.0.0.0/8", AddressClass.UNSPECIFIED),
    ("10.0.0.0/8", AddressClass.PRIVATE),
    ("100.64.0.0/10", AddressClass.SHARED),
    ("127.0.0.0/8", AddressClass.LOOPBACK),
    ("169.254.0.0/16", AddressClass.METADATA),
    ("172.16.0.0/12", AddressClass.PRIVATE),
    ("192.0.0.0/24", AddressClass.RESERVED),  # IETF protocol assignments
    ("192.0.2.0/24", AddressClass.DOCUMENTATION),
    ("192.88.99.0/24", AddressClass.RESERVED),  # 6to4 relays, deprecated by RFC 7526
    ("192.168.0.0/16", AddressClass.PRIVATE),
    ("198.18.0.0/15", AddressClass.BENCHMARKS),
    ("198.51.100.0/24", AddressClass.DOCUMENTATION),
    ("203.0.113.0/24", AddressClass.DOCUMENTATION),
    ("224.0.0.0/4", AddressClass.MULTICAST),
    ("240.0.0.0/4", AddressClass.RESERVED),  # class E, and the broadcast address
    ("0.0.0.0/0", AddressClass.PUBLIC),
)

_IPV6_CLASSES: Final = _table(
    128,
    # Nothing of their own to judge, the IPv4 inside decides; 6to4 is one of 2000::/3.
    ("::ffff:0:0/96", AddressClass.PUBLIC),
    ("64:ff9b::/96", AddressClass.PUBLIC),
    ("64:ff9b:1::/48", AddressClass.PUBLIC),
    ("2001::/32", AddressClass.PUBLIC),
    ("::/128", AddressClass.UNSPECIFIED),
    ("::1/128", AddressClass.LOOPBACK),
    ("fd00:ec2::/32", AddressClass.METADATA),
    ("fc00::/7", AddressClass.PRIVATE),
    ("fe80::/10", AddressClass.LINK_LOCAL),
    ("ff00::/8", AddressClass.MULTICAST),
    ("2001:2::/48", AddressClass.BENCHMARKS),
    ("2001::/23", AddressClass.RESERVED),  # IETF protocol assignments
    ("2001:db8::/32", AddressClass.DOCUMENTATION),
    ("3fff::/20", AddressClass.DOCUMENTATION),
    ("2000::/3", AddressClass.PUBLIC),  # all the global unicast space that IANA gives out
    ("::/0", AddressClass.RESERVED),
)


def findings(address: IpAddress) -> tuple[Finding, ...]:
    """The class of `address`, then those of each IPv4 address inside it; all of them count."""
    judged = (address, *embedded_ipv4(address))
    return tuple(Finding(part, _class_of(part)) for part in judged)


@lru_cache(1024)
def closed(address: IpAddress, *, private: bool, metadata: bool) -> tuple[Finding, ...]:
    """What forbids dialling `address`, most severe first; empty if it may be dialled.

    Args:
        address: the address to be dialled.
        private: opens RFC 1918, ULA, carrier-grade NAT and loopback.
        metadata: opens 169.254.0.0/16 and fd00:ec2::/32; the caller has made sure that the rule
            that says so is this very literal. (Other link-local addresses need a zone, which
            destinations do not have.)
    """
    opened = {AddressClass.PUBLIC}
    if private:
        opened |= _OPENED_BY_PRIVATE
    if metadata:
        opened |= _OPENED_BY_METADATA
    shut = [finding for finding in findings(address) if finding.address_class not in opened]
    return tuple(sorted(shut, key=lambda finding: MOST_SEVERE_FIRST.index(finding.reason)))


def closed_class(network: IpNetwork, *, private: bool) -> AddressClass | None:
    """The class of a network whose addresses are all of one that stays closed, else None.

    What is inside the addresses (NAT64, 6to4 and the like) does not count here: of a whole network
    it is all kinds of things.

    Args:
        network: that of a rule which is for more than one address.
        private: whether the rule has `private: true`; `metadata: true` it cannot have.
    """
    table = _IPV4_CLASSES if network.version == 4 else _IPV6_CLASSES
    size = network.max_prefixlen - network.prefixlen
    value = int(network.network_address)
    for shift, prefix, address_class in table:
        if shift >= size and value >> shift == prefix:
            opened = {AddressClass.PUBLIC, *(_OPENED_BY_PRIVATE if private else ())}
            return None if address_class in opened else address_class
        if shift < size and prefix << shift >> size == value >> size:
            return None  # Only a part of it is of this class.
    raise AssertionError("the last row fits everything")


def _class_of(address: IpAddress) -> AddressClass:
    table = _IPV4_CLASSES if isinstance(address, IPv4Address) else _IPV6_CLASSES
    value = int(address)
    return next(address_class for shift, prefix, address_class in table if value >> shift == prefix)
