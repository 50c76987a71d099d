"""Puts the shim in place, once in a process; `for_children/sitecustomize.py` calls it."""

import os

from enclave_side.shim.socket_shim.address_book import AddressBook
from enclave_side.shim.socket_shim.connecting import Connector
from enclave_side.shim.socket_shim.connection import Connections
from enclave_side.shim.socket_shim.lookups import Lookups
from enclave_side.shim.socket_shim.methods import replacements
from enclave_side.shim.socket_shim.passing_by import watch_imports
from enclave_side.shim.socket_shim.stderr_lines import StderrLines
from vsockproxy.client.location import VARIABLE

__all__ = ("install",)


def install() -> None:
    """Lead this process's sockets over the stream socket that its environment names now."""
    path = os.environ.get(VARIABLE)
    lines = StderrLines()
    lookups = Lookups(AddressBook(), lines, path)
    connections = Connections(lines)
    connector = Connector(lookups, connections, lines, path)
    for owner, name, value in list(replacements(connector, connections, lookups)):
        setattr(owner, name, value)
    watch_imports()
