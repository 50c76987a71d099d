"""Where an instance metadata service may be: at an address that no network leads to.

Whoever answers there is believed, so a name or an address elsewhere is refused.
"""

import re
from ipaddress import ip_address
from typing import Final

from vsockproxy.addresses import AddressError, TcpAddress

__all__ = ("METADATA_URL", "demand_metadata_address", "parse_metadata_url")

METADATA_URL: Final = "http://169.254.169.254"
"""Of EC2's; it speaks no TLS."""

_IPV6_SERVICE: Final = "fd00:ec2::254"
"""Of EC2's over IPv6, a unique local address (AWS, "Use IMDS")."""

_URL: Final = re.compile(
    r"http://(?P<host>[0-9.]{1,15}|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])(:(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)

_WRITE: Final = (
    f"write {METADATA_URL}, or http://ADDRESS[:PORT] with a link-local or loopback address"
)


def demand_metadata_address(host: str) -> None:
    """Check that a metadata service may be at `host`.

    Raises:
        AddressError: it is no IP address, or one that may be another machine's.
    """
    try:
        literal = ip_address(host)
    except ValueError:
        raise AddressError(f"{host!r} is no IP address", _WRITE) from None
    if not (literal.is_loopback or literal.is_link_local or str(literal) == _IPV6_SERVICE):
        raise AddressError(f"{literal} is no address of this machine's metadata service", _WRITE)


def parse_metadata_url(text: str) -> TcpAddress:
    """Parse `http://ADDRESS[:PORT]`; the port is 80 unless it says another.

    Raises:
        AddressError: it is none, or the address may be another machine's.
    """
    shown = repr(text if len(text) <= 80 else f"{text[:80]}…")
    if text.lower().startswith("https://"):
        raise AddressError(f"{shown}: the metadata service speaks no TLS", _WRITE)
    if not (found := _URL.fullmatch(text)):
        raise AddressError(f"{shown} is no http:// URL of an IP address and nothing more", _WRITE)
    port = int(found["port"] or 80)
    if not 1 <= port <= 65_535:
        raise AddressError(f"{port} is no port", "write one in 1-65535")
    host = found["ipv6"] or found["host"]
    demand_metadata_address(host)
    return TcpAddress(str(ip_address(host)), port)
