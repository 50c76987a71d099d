"""The patterns of allowlists and denylists: names, wildcards, IP literals, CIDRs.

Any two patterns are disjoint, or one contains the other; `contains` says which.
"""

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from vsockproxy.addresses import AddressError, IpAddress, format_ip, normalise_host

__all__ = (
    "METADATA_NETWORKS",
    "AddressPattern",
    "NameDepth",
    "NamePattern",
    "Pattern",
    "contains",
    "parse_pattern",
)

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PATTERN_CHARACTERS: Final = 256
"""A name's 253, and a wildcard."""

_PREFIX = re.compile(r"[0-9]{1,3}", re.ASCII)

METADATA_NETWORKS: Final[tuple[IpNetwork, ...]] = (
    ipaddress.IPv4Network("169.254.0.0/16"),
    ipaddress.IPv6Network("fd00:ec2::/32"),
)
"""Where EC2 keeps its metadata, DNS and time services (EC2 User Guide, "Instance metadata")."""

_LOOPBACK_NETWORKS: Final[tuple[IpNetwork, ...]] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)


class NameDepth(Enum):
    """How many labels stand in front of a name pattern's name; the value is what is written."""

    EXACT = ""
    ONE_LABEL = "*."
    ANY_DEPTH = "**."


@dataclass(frozen=True, slots=True)
class NamePattern:
    """Names: `name` itself, or what is below it; a wildcard never matches the bare `name`."""

    depth: NameDepth
    name: str

    def __str__(self) -> str:
        return f"{self.depth.value}{self.name}"


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """IP literals; a single address is written without a prefix length."""

    network: IpNetwork

    @property
    def is_literal(self) -> bool:
        """Whether this is one address."""
        return self.network.prefixlen == self.network.max_prefixlen

    @property
    def is_metadata(self) -> bool:
        """Whether all of it lies in `METADATA_NETWORKS`."""
        return any(_is_within(self.network, metadata) for metadata in METADATA_NETWORKS)

    @property
    def is_loopback(self) -> bool:
        """Whether all of it is the machine that dials (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3)."""
        return any(_is_within(self.network, loopback) for loopback in _LOOPBACK_NETWORKS)

    def __str__(self) -> str:
        address = format_ip(self.network.network_address)
        return address if self.is_literal else f"{address}/{self.network.prefixlen}"


Pattern = NamePattern | AddressPattern


def parse_pattern(text: str) -> Pattern:
    """Parse a pattern that has to be in normal form, so that equal patterns have equal text.

    Raises:
        AddressError: it is no pattern, or its normal form differs and is then the mend.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise AddressError(
            f"a pattern of {len(text)} characters is too long",
            f"at most {MAX_PATTERN_CHARACTERS}",
        )
    if "/" in text:
        pattern: Pattern = _parse_network(text)
    elif text.startswith("*"):
        pattern = _parse_wildcard(text)
    elif "*" in text:
        raise AddressError(
            f"{text!r} has a '*' that is no whole leading label",
            "write *.NAME for one label or **.NAME for any depth",
        )
    else:
        host = normalise_host(text)
        pattern = (
            NamePattern(NameDepth.EXACT, host.text)
            if host.address is None
            else AddressPattern(_single(host.address))
        )
    if str(pattern) != text:
        raise AddressError(f"{text!r} is not in normal form", f"write {pattern}")
    return pattern


def contains(outer: Pattern, inner: Pattern) -> bool:
    """Say whether everything that `inner` matches is matched by `outer` too."""
    match outer, inner:
        case AddressPattern(outer_network), AddressPattern(inner_network):
            return _is_within(inner_network, outer_network)
        case NamePattern(depth, name), NamePattern(inner_depth, inner_name):
            if name == inner_name:
                return depth is inner_depth or (
                    depth is NameDepth.ANY_DEPTH and inner_depth is NameDepth.ONE_LABEL
                )
            if depth is NameDepth.EXACT or not inner_name.endswith(f".{name}"):
                return False
            # What is below inner_name is at least two labels below name.
            return depth is NameDepth.ANY_DEPTH or (
                inner_depth is NameDepth.EXACT and "." not in inner_name.removesuffix(f".{name}")
            )
        case _:
            return False


def _parse_wildcard(text: str) -> NamePattern:
    stars, separator, name = text.partition(".")
    if not name:
        raise AddressError(
            f"{text!r} would match every name", "write the names, or *.NAME for those below one"
        )
    if stars not in ("*", "**") or not separator or "*" in name:
        raise AddressError(
            f"{text!r} has a '*' that is no whole leading label",
            "write *.NAME for one label or **.NAME for any depth",
        )
    host = normalise_host(name)
    if host.address is not None:
        raise AddressError(f"{text!r} has a wildcard in an address", "write a CIDR, as 10.0.0.0/8")
    return NamePattern(NameDepth(f"{stars}."), host.text)


def _parse_network(text: str) -> AddressPattern:
    address_text, _, prefix_text = text.partition("/")
    host = normalise_host(address_text)
    if host.address is None:
        raise AddressError(f"{text!r} is no CIDR", "write a network as 10.20.0.0/16, or a name")
    longest = host.address.max_prefixlen
    if not _PREFIX.fullmatch(prefix_text) or int(prefix_text) > longest:
        raise AddressError(
            f"{prefix_text!r} is no prefix length", f"write a number within 0-{longest}"
        )
    network = ipaddress.ip_network((host.address, int(prefix_text)), strict=False)
    if network.network_address != host.address:
        raise AddressError(f"{text!r} has host bits set", f"write {AddressPattern(network)}")
    return AddressPattern(network)


def _single(address: IpAddress) -> IpNetwork:
    return ipaddress.ip_network(address)


def _is_within(inner: IpNetwork, outer: IpNetwork) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
