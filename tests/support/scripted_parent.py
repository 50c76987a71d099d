"""The two whom an enclave's DNS server asks: a parent that answers by script, and a supervisor.

Names that have no script exist. Each question is recorded, and can be held back.
"""

from ipaddress import IPv4Address

from enclave_side.shim.names.port_sets import PortSets
from enclave_side.shim.names.table import AddressTable
from vsockproxy.addresses import normalise_host
from vsockproxy.dataplane.loop import Event
from vsockproxy.errors import Refused
from vsockproxy.session import Resolved

__all__ = ("EXISTS", "Said", "ScriptedParent", "ScriptedSupervisor")

EXISTS = Resolved(records=(b"\xc0\x00\x02\x01",), ttl_seconds=60)
"""What a parent says of a name with the address 192.0.2.1."""

Said = Resolved | Refused | OSError


class ScriptedParent:
    """What an enclave's DNS server takes for its parent.

    Args:
        is_recording: whether questions are kept; a million of them are too many.

    Attributes:
        asked: name and type of each question, in order.
    """

    def __init__(self, *, is_recording: bool = True) -> None:
        self.asked: list[tuple[str, int]] = []
        self._is_recording = is_recording
        self._script: dict[str, Said] = {}
        self._held: dict[str, Event] = {}

    def set(self, name: str, said: Said) -> None:
        """What is said of a name from now on."""
        self._script[name] = said

    def hold(self, name: str) -> Event:
        """Answer for `name` once the event is set."""
        return self._held.setdefault(name, Event())

    async def resolve(self, name: str, record_type: int) -> Resolved:
        if self._is_recording:
            self.asked.append((name, record_type))
        if name in self._held:
            await self._held[name].wait()
        said = self._script.get(name, EXISTS)
        if isinstance(said, Exception):
            raise said
        return said


class ScriptedSupervisor:
    """Numbers names in a table of its own.

    Args:
        port_sets: which names have addresses.
        table: the addresses.
        is_recording: whether questions are kept.

    Attributes:
        asked: the names that were to be numbered, in order.
        trouble: raised in place of an answer.
    """

    def __init__(
        self, port_sets: PortSets, table: AddressTable, *, is_recording: bool = True
    ) -> None:
        self._port_sets = port_sets
        self._is_recording = is_recording
        self.table = table
        self.asked: list[str] = []
        self.trouble: Exception | None = None

    async def number(self, name: str) -> IPv4Address | None:
        if self._is_recording:
            self.asked.append(name)
        if self.trouble is not None:
            raise self.trouble
        index = self._port_sets.of_name(normalise_host(name))
        return None if index is None else self.table.number(name, index)

    async def name_of(self, address: IPv4Address) -> str | None:
        if self.trouble is not None:
            raise self.trouble
        return self.table.name_of(address)
