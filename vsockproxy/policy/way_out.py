"""What the parent reaches through its upstream proxy, and what it dials directly."""

from collections.abc import Sequence
from typing import Final

from vsockproxy.addresses import Destination, Host, IpAddress
from vsockproxy.config.model import UpstreamProxy
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.config.ports import EVERY_PORT
from vsockproxy.policy.rules import Rule, RuleTable

__all__ = ("WayOut",)

_ANY_PORT: Final = EVERY_PORT[0][0]
"""The exceptions have no ports, so they can be asked with any."""


class WayOut:
    """The section `upstream_proxy` of a parent's file.

    Args:
        settings: the section.
    """

    def __init__(self, settings: UpstreamProxy) -> None:
        self.address: Destination = settings.address
        """The proxy's."""
        self.resolves = settings.resolve == "upstream"
        """Whether the proxy looks names up."""
        self._direct = RuleTable(
            Rule(parse_pattern(pattern), EVERY_PORT, "upstream_proxy.except")
            for pattern in settings.except_
        )

    def takes(self, host: Host) -> bool:
        """Whether `host` goes through the proxy, as far as its name or literal says."""
        return self._direct.match(host, _ANY_PORT) is None

    def looks_up(self, host: Host) -> bool:
        """Whether `host` is a name that the proxy looks up: its addresses are not known here."""
        return self.resolves and host.address is None and self.takes(host)

    def direct(self, addresses: Sequence[IpAddress]) -> tuple[IpAddress, ...]:
        """Those of the checked addresses that are dialled directly."""
        return tuple(
            each for each in addresses if self._direct.match_address(each, _ANY_PORT) is not None
        )
