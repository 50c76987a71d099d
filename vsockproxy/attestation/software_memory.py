"""What a software module must not lose while its process is replaced: CBOR, less than a page. Pure.

    {"root": the root's certificate and key in PEM, "registers": {INDEX: [VALUE, IS_LOCKED]}}

The registers are those from 16 on, none as long as nobody has changed one. Both ends are of one
version, so that only the kind of what is read is checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import cbor2

from vsockproxy.attestation.nsm_messages import PcrState

__all__ = ("MAX_MEMORY_BYTES", "SoftwareMemory")

MAX_MEMORY_BYTES: Final = 4096
"""One page: a process that is killed while it writes has written all of it, or nothing."""


@dataclass(frozen=True, slots=True)
class SoftwareMemory:
    """The memory of a software module."""

    root: bytes = field(repr=False)
    registers: Mapping[int, PcrState] = field(default_factory=dict)

    def encode(self) -> bytes:
        """What `decode` reads.

        Raises:
            ValueError: it is more than `MAX_MEMORY_BYTES`.
        """
        registers = {index: [each.value, each.is_locked] for index, each in self.registers.items()}
        data = cbor2.dumps({"root": self.root, "registers": registers})
        if len(data) > MAX_MEMORY_BYTES:
            raise ValueError(f"a memory of {len(data)} bytes, more than {MAX_MEMORY_BYTES}")
        return data

    @classmethod
    def decode(cls, data: bytes) -> "SoftwareMemory":
        """What `encode` wrote.

        Raises:
            ValueError: it did not.
        """
        try:
            content = cbor2.loads(data)
            registers = {
                int(index): PcrState(bytes(value), bool(is_locked))
                for index, (value, is_locked) in content["registers"].items()
            }
            return cls(bytes(content["root"]), registers)
        except (cbor2.CBORError, LookupError, TypeError, AttributeError) as error:
            raise ValueError("no memory of a software module") from error
