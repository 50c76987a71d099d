"""Lookups of the `socket` module: the worker says which names there are, the shim gives addresses.

Literals, services, families, flags and this machine's own names are the C library's business, which
is asked for those without a question to any server. A name that is allowed is answered as the C
library answers one with a single IPv4 address.
"""

import errno
import socket
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import MappingProxyType
from typing import Any, Final

from enclave_side.shim.socket_shim.address_book import AddressBook
from enclave_side.shim.socket_shim.failures import EAI_NODATA, lookup_error
from enclave_side.shim.socket_shim.local_names import HOSTS_FILE, HostsFile
from enclave_side.shim.socket_shim.stderr_lines import StderrLines
from vsockproxy.addresses import AddressError, normalise_host
from vsockproxy.client.errors import OpeningCut, StreamSocketMissing, errno_for
from vsockproxy.client.messages import PacketError
from vsockproxy.client.opening import resolve

__all__ = ("LOOKUP_SECONDS", "Lookups", "inner_address")

LOOKUP_SECONDS: Final = 15.0
"""For an answer; a worker gives its own after 10 s at most."""

_TYPE_A: Final = 1
_HOST_NOT_FOUND: Final = 1
"""Of netdb.h; the text is that of hstrerror(3)."""

_LOOKUP_ERRORS: Final[Mapping[int, int]] = MappingProxyType(
    {
        errno.EACCES: socket.EAI_NONAME,
        socket.EAI_NONAME: socket.EAI_NONAME,
        socket.EAI_AGAIN: socket.EAI_AGAIN,
    }
)
"""By the error number of a reason, what a lookup fails with; for others the name has an address."""

_Found = list[tuple[Any, Any, int, str, Any]]

_real_getaddrinfo: Final[Callable[..., _Found]] = socket.getaddrinfo
_real_gethostbyname_ex: Final = socket.gethostbyname_ex
_real_gethostbyaddr: Final = socket.gethostbyaddr
_real_getnameinfo: Final = socket.getnameinfo


class Lookups:
    """Answers lookups, and remembers which address is whose.

    Args:
        book: the addresses that were given.
        lines: what is refused is said there.
        path: of the stream socket; None where the environment says it when it is needed.
        seconds: for the answer about one name.
        hosts_file: what it says of this machine is the C library's business.
    """

    def __init__(
        self,
        book: AddressBook,
        lines: StderrLines,
        path: str | None,
        *,
        seconds: float = LOOKUP_SECONDS,
        hosts_file: str = HOSTS_FILE,
    ) -> None:
        self._book = book
        self._lines = lines
        self._path = path
        self._seconds = seconds
        self._hosts = HostsFile(hosts_file)

    def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 — the standard library's own word
        proto: int = 0,
        flags: int = 0,
    ) -> _Found:
        """As `socket.getaddrinfo`."""
        numeric = (flags | socket.AI_NUMERICHOST) & ~int(socket.AI_ADDRCONFIG)
        try:
            # Literals, and everything that is wrong with the other arguments.
            return _real_getaddrinfo(host, port, family, type, proto, numeric)
        except socket.gaierror as error:
            if host is None or flags & socket.AI_NUMERICHOST or error.errno != socket.EAI_NONAME:
                raise
        text = _text_of(host)
        local = self._hosts.local_names().local_name(text)
        if local is not None:
            return _real_getaddrinfo(local, port, family, type, proto, flags)
        literal = self._address_of(text)
        if family == socket.AF_INET6:
            if not flags & socket.AI_V4MAPPED:
                raise lookup_error(EAI_NODATA)
            literal = f"::ffff:{literal}"
        found: _Found = _real_getaddrinfo(literal, port, family, type, proto, numeric)
        if flags & socket.AI_CANONNAME:
            found[0] = (*found[0][:3], text.removesuffix("."), found[0][4])
        return found

    def gethostbyname(self, hostname: str) -> str:
        """As `socket.gethostbyname`."""
        return self.first_address(hostname, socket.AF_INET)

    def gethostbyname_ex(self, hostname: str) -> tuple[str, list[str], list[str]]:
        """As `socket.gethostbyname_ex`."""
        address = self.first_address(hostname, socket.AF_INET)
        if self._book.name_of(address) is None:  # a literal, or a name of this machine
            return _real_gethostbyname_ex(hostname)
        return _text_of(hostname).removesuffix("."), [], [address]

    def gethostbyaddr(self, ip_address: str) -> tuple[str, list[str], list[str]]:
        """As `socket.gethostbyaddr`, which takes names too."""
        address = self.first_address(ip_address, socket.AF_UNSPEC)
        name = self.name_of(address)
        if name is not None:
            return name, [], [address]
        if address in self._hosts.local_names().addresses:
            return _real_gethostbyaddr(ip_address)
        raise socket.herror(_HOST_NOT_FOUND, "Unknown host")

    def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """As `socket.getnameinfo`."""
        if flags & socket.NI_NUMERICHOST:
            return _real_getnameinfo(sockaddr, flags)
        numeric = (flags | socket.NI_NUMERICHOST) & ~socket.NI_NAMEREQD
        host, service = _real_getnameinfo(sockaddr, numeric)
        name = self.name_of(host)
        if name is not None:
            return name, service
        if host in self._hosts.local_names().addresses:
            return _real_getnameinfo(sockaddr, flags)
        if flags & socket.NI_NAMEREQD:
            raise lookup_error(socket.EAI_NONAME)
        return host, service

    def first_address(self, host: bytes | str, family: int) -> str:
        """The address that Python's own methods take for a host, `connect` among them.

        Raises:
            socket.gaierror: there is none of that family.
        """
        if not host:  # INADDR_ANY
            return "::" if family == socket.AF_INET6 else "0.0.0.0"
        if host in ("<broadcast>", b"<broadcast>") and family != socket.AF_INET6:
            return "255.255.255.255"
        return str(self.getaddrinfo(host, None, family)[0][4][0])

    def is_local(self, literal: str) -> bool:
        """Whether an address is this machine's: loopback, none at all, or that of its own name."""
        address = inner_address(literal)
        if address.is_loopback or address.is_unspecified:
            return True
        return literal in self._hosts.local_names().addresses

    def name_of(self, literal: str) -> str | None:
        """The name that an address was given to, inside an IPv6 one too."""
        return self._book.name_of(str(inner_address(literal)))

    def _address_of(self, host: str) -> str:
        """Ask whether there is such a name, and give it its address."""
        try:
            normal = normalise_host(host)
        except AddressError as error:
            raise lookup_error(socket.EAI_NONAME, str(error)) from None
        name = normal.text
        number, text = self._ask(name)
        if not number:
            address = self._book.address_of(name)
            if address is not None:
                return address
            number, text = socket.EAI_NONAME, f"limit: {name}: all addresses are given away"
        self._lines.say(text)
        raise lookup_error(number, text)

    def _ask(self, name: str) -> tuple[int, str]:
        """The error of a lookup and its text; 0 where the name has an address.

        Where nobody could say, it has one: connecting to it tells what is wrong.
        """
        try:
            answer = resolve(name, _TYPE_A, path=self._path, timeout=self._seconds)
        except (OpeningCut, StreamSocketMissing, PacketError, TimeoutError):
            return 0, ""
        number = _LOOKUP_ERRORS.get(errno_for(answer.reason), 0) if answer.reason else 0
        return number, ": ".join(filter(None, (answer.reason, name, answer.text)))


def inner_address(literal: str) -> IPv4Address | IPv6Address:
    """The address of a literal, without its zone; of an IPv4-mapped one, that inside."""
    address = ip_address(literal.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _text_of(host: bytes | str | None) -> str:
    """A host as it is asked for, in ASCII; Python sends IDNA to the C library too."""
    assert host is not None  # there is nothing to look up then
    if isinstance(host, str):
        return host.encode("idna").decode("ascii")
    return bytes(host).decode("ascii", "replace")
