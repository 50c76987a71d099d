"""The names of this machine, which the C library answers for; all others are asked for.

They are those that its hosts file says of itself. Other entries do not count: a name of the
allowlist leads to the parent, whatever that file says.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Self

__all__ = ("HOSTS_FILE", "HostsFile", "LocalNames")

HOSTS_FILE: Final = "/etc/hosts"

_MOST_BYTES: Final = 1024 * 1024
"""Of the file; what comes after is not looked at."""

_LOCALHOST: Final = "localhost"


@dataclass(frozen=True, slots=True)
class LocalNames:
    """Names and addresses of this machine.

    Args:
        names: in lower case, without a final dot.
        addresses: as texts.
    """

    names: frozenset[str]
    addresses: frozenset[str]

    @classmethod
    def parse(cls, text: str, own_name: str) -> Self:
        """Those of a hosts file (hosts(5)): lines of a loopback address, or with `own_name`."""
        names: set[str] = set()
        addresses: set[str] = set()
        for address, line_names in _entries(text):
            if _is_loopback(address) or own_name.lower() in line_names:
                names |= line_names
                addresses.add(address)
        return cls(frozenset(names), frozenset(addresses))

    def local_name(self, name: str) -> str | None:
        """What the C library may be asked in place of `name`; None if that is not this machine."""
        lower = name.lower().removesuffix(".")
        if lower in self.names:
            return name
        if lower == _LOCALHOST or lower.endswith(f".{_LOCALHOST}"):  # RFC 6761, section 6.3
            return _LOCALHOST
        return None


class HostsFile:
    """The names of this machine, as its hosts file has them now.

    Args:
        path: of the file.
    """

    def __init__(self, path: str = HOSTS_FILE) -> None:
        self._path = path
        self._read: tuple[object, LocalNames] | None = None

    def local_names(self) -> LocalNames:
        """Those of now: the file is read again when it has changed; without it there are none."""
        version: object = None
        data = b""
        try:
            status = os.stat(self._path)
            version = status.st_ino, status.st_size, status.st_mtime_ns
            if self._read is not None and self._read[0] == version:
                return self._read[1]
            with open(self._path, "rb") as file:
                data = file.read(_MOST_BYTES)
        except OSError:
            version = None
        names = LocalNames.parse(data.decode(errors="replace"), socket.gethostname())
        self._read = version, names
        return names


def _entries(text: str) -> Iterator[tuple[str, set[str]]]:
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if names:
            yield address, {name.lower().removesuffix(".") for name in names}


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False
