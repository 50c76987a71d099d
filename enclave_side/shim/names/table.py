"""The address of each name, and the name of each address, for as long as the machine is up. Pure.

A block of addresses is split into equal parts, a power of two of them, one for each port set: so an
address tells the ports that it has. Exact names are numbered in file order when the table is made,
so that every process comes to the same; names under wildcards get numbers as they are asked for,
from the supervisor's table alone, and each worker's table learns them. No number is ever given to a
second name: a program may keep an address for as long as it likes.
"""

from ipaddress import IPv4Address, IPv4Network
from typing import Final

from enclave_side.shim.names.port_sets import PortSets

__all__ = ("MOST_NAMES", "AddressTable", "command_address", "server_address")

MOST_NAMES: Final = 131_072
"""Names of one table, as many as 198.18.0.0/15 has addresses: a program that asks for made-up names
under a wildcard costs the supervisor, and each worker, at most some 60 MB."""

_RESERVED: Final = 3
"""The block's first addresses: the network's, the DNS server's, the command's own."""


def server_address(block: IPv4Network) -> IPv4Address:
    """Where the DNS server of a block listens."""
    return block[1]


def command_address(block: IPv4Network) -> IPv4Address:
    """The address of the command itself."""
    return block[2]


class AddressTable:
    """Names and their addresses.

    Args:
        port_sets: which ports the names of the allowlist have.
        block: the addresses; at least 16 for each set.
        most_names: how many names at most; addresses may run out before.
    """

    def __init__(
        self, port_sets: PortSets, block: IPv4Network, most_names: int = MOST_NAMES
    ) -> None:
        self.block = block
        self.sub_blocks = _split(block, len(port_sets.sets))
        """The addresses of each port set, the reserved ones of the block included."""
        self._most_names = most_names
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._first = int(block[_RESERVED])
        self._last = int(block.broadcast_address) - 1
        self._next = [max(int(part[0]), self._first) for part in self.sub_blocks]
        for name, index in port_sets.exact_names:
            self.number(name, index)

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, name: str, port_set: int) -> IPv4Address | None:
        """Give `name` an address that has the ports of `port_set`; the same one ever after.

        Args:
            name: in normal form.
            port_set: index of its set; without effect on a name that has an address.

        Returns:
            None when the addresses of the set are used up.
        """
        known = self.address_of(name)
        if known is not None:
            return known
        number = self._next[port_set]
        while number in self._names:  # learned
            number += 1
        last = min(int(self.sub_blocks[port_set][-1]), self._last)
        if number > last or len(self._numbers) >= self._most_names:
            return None
        self._next[port_set] = number + 1
        self._numbers[name] = number
        self._names[number] = name
        return IPv4Address(number)

    def learn(self, name: str, address: IPv4Address) -> None:
        """Take over what another process's table has numbered.

        Raises:
            ValueError: it cannot be so: the address is none for names, or one of the two belongs
                to another already.
        """
        number = int(address)
        if not self._first <= number <= self._last:
            raise ValueError(f"{address} is no address for names of {self.block}")
        if self._names.get(number, name) != name:
            raise ValueError(f"{address} belongs to {self._names[number]}, not to {name}")
        if self._numbers.get(name, number) != number:
            raise ValueError(f"{name} has {self.address_of(name)}, not {address}")
        self._numbers[name] = number
        self._names[number] = name

    def address_of(self, name: str) -> IPv4Address | None:
        """The address of a name in normal form, if it has one."""
        number = self._numbers.get(name)
        return None if number is None else IPv4Address(number)

    def name_of(self, address: IPv4Address) -> str | None:
        """The name that an address belongs to."""
        return self._names.get(int(address))


def _split(block: IPv4Network, parts: int) -> tuple[IPv4Network, ...]:
    """The first `parts` of as many equal parts as the next power of two says."""
    doublings = max(parts - 1, 0).bit_length()
    return tuple(block.subnets(prefixlen_diff=doublings))[:parts]
