"""The addresses that the shim gives to names, each for the life of the process.

A number is made of its name, so that processes that never spoke of a name agree on it all the same:
an address that one of them passes on means the same name to the others, or none. Where two names
have one number, the later one takes the next that is free.
"""

import zlib
from ipaddress import IPv4Address, IPv4Network
from typing import Final

__all__ = ("BLOCK", "AddressBook")

BLOCK: Final = IPv4Network("198.18.0.0/15")
"""For tests between networks (RFC 2544): no program has a reason to mean one of these itself."""

_RESERVED: Final = 3
"""The block's first addresses, which the names way in uses for itself."""


class AddressBook:
    """Names and their addresses; threads may use it at once, without a lock that a fork could keep.

    Args:
        block: where addresses are taken from.
    """

    def __init__(self, block: IPv4Network = BLOCK) -> None:
        self._first = int(block[_RESERVED])
        self._count = block.num_addresses - _RESERVED - 1  # the last one is for broadcasts
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def address_of(self, name: str) -> str | None:
        """The address of a name in normal form, the same ever after; None if all are taken."""
        known = self._addresses.get(name)
        if known is not None:
            return known
        start = zlib.crc32(name.encode())
        for step in range(self._count):
            address = str(IPv4Address(self._first + (start + step) % self._count))
            # One step for the interpreter: of two threads, the second finds the first one's name.
            if self._names.setdefault(address, name) == name:
                self._addresses[name] = address
                return address
        return None

    def name_of(self, address: str) -> str | None:
        """The name that has an IPv4 address, in its usual form."""
        return self._names.get(address)
