"""Connections to the addresses of names, and to the literals of the allowlist."""

import socket
from ipaddress import IPv4Address

from enclave_side.opener import Opener
from enclave_side.shim.names.lookups import Numberer
from enclave_side.shim.names.table import AddressTable
from enclave_side.shim.tunnels import serve_silently
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.loop import now, spawn
from vsockproxy.dataplane.questions import SupervisorBusy
from vsockproxy.log import Log

__all__ = ("WAY", "NamesConnections")

WAY = "names"


class NamesConnections:
    """Serves what the command connects to; the address that it dialled tells where it wants to go.

    Args:
        opener: decides and opens the streams.
        table: this worker's addresses of names.
        numberer: the supervisor knows the names that another worker, or one before, has numbered.
        log: for addresses that nobody was given.
    """

    def __init__(self, opener: Opener, table: AddressTable, numberer: Numberer, log: Log) -> None:
        self._opener = opener
        self._table = table
        self._numberer = numberer
        self._log = log

    def accepted(self, sock: socket.socket, address: object) -> None:
        """Serve one connection."""
        del address
        spawn(self._serve(sock), "names")

    async def _serve(self, sock: socket.socket) -> None:
        try:
            dialled, port = sock.getsockname()[:2]
            host = await self._host(dialled)
        except (OSError, SupervisorBusy) as error:
            self._log.warning("connection_dropped", way=WAY, text=str(error))
            reset_socket(sock)
            return
        except BaseException:
            reset_socket(sock)
            raise
        if host is None:
            # An address of the block that no lookup has given: a guess, or one from another life.
            record = StreamRecord(dialled, port, WAY, opened_at=now())
            text = "no name has this address: look the name up"
            record.decide(self._log, allowed=False, reason="not_listed", text=text)
            reset_socket(sock)
            return
        await serve_silently(self._opener, sock, host, port, WAY)

    async def _host(self, dialled: str) -> str | None:
        """The name of a dialled address, or the literal itself where it is no address of names."""
        if ":" in dialled:
            return dialled
        address = IPv4Address(dialled)
        if address not in self._table.block:
            return dialled
        name = self._table.name_of(address)
        if name is None:
            name = await self._numberer.name_of(address)
            if name is not None:
                self._table.learn(name, address)
        return name
