"""What joins the command's network namespace to ours: devices, addresses and routes. Pure.

In ours every address is local, so whatever the command dials arrives there and nowhere else. Each
set of ports has a pair of devices of its own: our listeners are bound to our end of the pair, and
the command's routes lead to its own end. So the kernel itself refuses a port that the dialled
address does not have, and the last pair, which has no listeners, refuses all other addresses.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

__all__ = (
    "COMMAND_IPV6",
    "GATEWAY_IPV6",
    "NEIGHBOUR_IPV6",
    "DevicePair",
    "NetworkPlan",
    "make_plan",
)

IpNetwork = IPv4Network | IPv6Network

COMMAND_IPV6: Final = IPv6Address("fd76:736f:636b::2")
"""The command's own IPv6 address, from a local block (RFC 4193) that spells `vsock`."""

GATEWAY_IPV6: Final = IPv6Address("fe80::1")
NEIGHBOUR_IPV6: Final = IPv6Address("fe80::2")
"""Our end and the command's end of each pair (RFC 4291, section 2.5.6)."""

EVERYTHING: Final[tuple[IpNetwork, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@dataclass(frozen=True, slots=True)
class DevicePair:
    """One veth pair.

    Args:
        ours: the name of our end, which listeners are bound to.
        theirs: the name of the command's end.
        networks: what the command reaches through it; the narrowest network decides.
    """

    ours: str
    theirs: str
    networks: tuple[IpNetwork, ...]


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The whole set-up.

    Args:
        server: our address, on which the DNS server listens and through which all routes lead.
        command: the command's own address.
        pairs: one for each set of ports; the last is for everything else.
    """

    server: IPv4Address
    command: IPv4Address
    pairs: tuple[DevicePair, ...]

    def to_json(self) -> str:
        """The plan as text, for the process that carries it out."""
        return json.dumps(
            {
                "server": str(self.server),
                "command": str(self.command),
                "pairs": [
                    [pair.ours, pair.theirs, [str(network) for network in pair.networks]]
                    for pair in self.pairs
                ],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan that `to_json` wrote."""
        content = json.loads(text)
        server, command = (ip_address(content[key]) for key in ("server", "command"))
        assert isinstance(server, IPv4Address)
        assert isinstance(command, IPv4Address)
        pairs = tuple(
            DevicePair(ours, theirs, tuple(map(ip_network, networks)))
            for ours, theirs, networks in content["pairs"]
        )
        return cls(server, command, pairs)


def make_plan(
    server: IPv4Address,
    command: IPv4Address,
    networks: Sequence[Sequence[IpNetwork]],
    refused: Sequence[IpNetwork] = (),
) -> NetworkPlan:
    """A plan with one pair for each entry of `networks`, and one for everything else.

    Args:
        server: our address.
        command: the command's.
        networks: what leads to the listeners of each set of ports. One of them may be the whole of
            IPv4 or IPv6.
        refused: what lies within `networks` and leads to no listener all the same.
    """
    pairs = [
        DevicePair(f"vsp{index}", f"vsc{index}", tuple(each)) for index, each in enumerate(networks)
    ]
    taken = {network for pair in pairs for network in pair.networks}
    rest = tuple(network for network in EVERYTHING if network not in taken)
    pairs.append(DevicePair("vsp-rest", "vsc-rest", (*rest, *refused)))
    return NetworkPlan(server, command, tuple(pairs))
