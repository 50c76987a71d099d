"""What names needs before anything runs: the address table, and the command's network for it. Pure.

The supervisor and each worker work this out from the same file, and come to the same.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from enclave_side.network_plan import DevicePair, NetworkPlan, make_plan
from enclave_side.shim.names.port_sets import PortSets
from enclave_side.shim.names.table import AddressTable, command_address, server_address
from vsockproxy.addresses import Host
from vsockproxy.config.document import Document
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.policy import Policy
from vsockproxy.worker_messages import Named, NameOf, NumberName

__all__ = ("DNS_PORT", "Names", "plan_names")

DNS_PORT: Final = 53


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one enclave's file.

    Args:
        port_sets: which name has which ports.
        table: the addresses; in the supervisor, the one from which all others learn.
        network: the command's network namespace.
    """

    port_sets: PortSets
    table: AddressTable
    network: NetworkPlan

    @property
    def pairs(self) -> tuple[tuple[DevicePair, tuple[int, ...]], ...]:
        """The device pairs that have listeners, and their ports."""
        return tuple(zip(self.network.pairs, self.port_sets.sets, strict=False))

    def answer(self, question: NumberName | NameOf) -> Named:
        """What the supervisor says to a worker's question."""
        match question:
            case NumberName(request, name):
                index = self.port_sets.of_name(Host(name, None))
                address = self.table.number(name, index) if index is not None else None
                return Named(request, name, int(address) if address is not None else None)
            case NameOf(request, number):
                return Named(request, self.table.name_of(IPv4Address(number)), number)


def plan_names(document: Document, policy: Policy) -> Names:
    """Work out the names of an enclave's file.

    Args:
        document: the file.
        policy: what `Policy.compile` made of it.

    Raises:
        TooManyPorts: `check` refuses such a file.
    """
    config = document.config
    assert isinstance(config, EnclaveConfig)
    block = IPv4Network(config.shim.names_block)
    port_sets = PortSets.compile(policy, block)
    table = AddressTable(port_sets, block)
    network = make_plan(
        server_address(block),
        command_address(block),
        [
            (sub_block, *port_sets.networks_of(index))
            for index, sub_block in enumerate(table.sub_blocks)
        ],
        refused=port_sets.networks_of(None),
    )
    return Names(port_sets, table, network)
