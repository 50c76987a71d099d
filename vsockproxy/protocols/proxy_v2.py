"""The header of the PROXY protocol, version 2: whose connection a load balancer passes on.

HAProxy's doc/proxy-protocol.txt, section 2.2. Version 1, the line of text, is not taken: its reader
cannot tell a header from data before the line has ended. UDP is not, since streams carry none.

Whoever sends a header is believed: read it only from peers that nobody but the balancer can be.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self

from vsockproxy.addresses import AddressError, IpAddress, parse_destination
from vsockproxy.protocols.errors import ProxyHeaderError

__all__ = ("MAX_HEADER_BYTES", "ProxyHeader", "ProxyHeaderReader", "SocketAddress")

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

MAX_HEADER_BYTES: Final = 16 + 4096
"""Real ones have 28 to 536 bytes; what may come behind the addresses (certificates, tokens) is
skipped, and not waited for without end."""

_FIXED: Final = struct.Struct("!12sBBH")
_IPV4: Final = struct.Struct("!4s4sHH")
_IPV6: Final = struct.Struct("!16s16sHH")
_UNIX_BYTES: Final = 216
_TLV: Final = struct.Struct("!BH")

_LOCAL: Final = 0x20
_PROXY: Final = 0x21

_VERSION_1: Final = b"PROXY"


class _Family(IntEnum):
    """Address family and transport, one byte (section 2.2)."""

    UNSPECIFIED = 0x00
    TCP4 = 0x11
    TCP6 = 0x21
    UNIX_STREAM = 0x31


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """One end of a TCP connection."""

    address: IpAddress
    port: int

    @classmethod
    def of(cls, address: object) -> Self | None:
        """The value of what getpeername and getsockname report; None of other families."""
        match address:
            case (str(host), int(port), *_):
                try:
                    # Without the zone of a link-local address, which is a name of ours.
                    return cls(ip_address(host.partition("%")[0]), port)
                except ValueError:
                    return None
        return None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The value of `ADDRESS:PORT`; None if it is something else."""
        try:
            destination = parse_destination(text)
        except AddressError:
            return None
        address = destination.host.address
        return None if address is None else cls(address, destination.port)

    def __str__(self) -> str:
        if self.address.version == 6:
            return f"[{self.address}]:{self.port}"
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What a header says; both ends or neither.

    Without them the connection is the balancer's own (a health check), or its client has no
    address of these families.
    """

    client: SocketAddress | None = None
    """Who connected."""
    server: SocketAddress | None = None
    """What it connected to."""

    def encode(self) -> bytes:
        """The header, ready to be sent; LOCAL without addresses, or with two families."""
        client, server = self.client, self.server
        if client is None or server is None or client.address.version != server.address.version:
            return _FIXED.pack(SIGNATURE, _LOCAL, _Family.UNSPECIFIED, 0)
        layout, family = (
            (_IPV4, _Family.TCP4) if client.address.version == 4 else (_IPV6, _Family.TCP6)
        )
        addresses = layout.pack(
            client.address.packed, server.address.packed, client.port, server.port
        )
        return _FIXED.pack(SIGNATURE, _PROXY, family, len(addresses)) + addresses


class ProxyHeaderReader:
    """Reads one header, in whatever pieces it comes.

    After a value was returned, `rest` holds the bytes that followed it.
    """

    __slots__ = ("_received", "rest")

    def __init__(self) -> None:
        self._received = bytearray()
        self.rest = b""

    def receive(self, data: bytes) -> ProxyHeader | None:
        """Take the next bytes; returns the header, or None while it is incomplete.

        Call it no more after a result or an error.

        Raises:
            ProxyHeaderError: this is no header of version 2, or one for something else than TCP.
        """
        received = self._received
        received += data
        beginning = bytes(received[: len(SIGNATURE)])
        if not SIGNATURE.startswith(beginning) and not _may_be_version_1(beginning):
            raise ProxyHeaderError(_what_begins_with(beginning))
        if len(received) > len(SIGNATURE):
            _check_command(received[len(SIGNATURE)])
        if len(received) < _FIXED.size:
            return None
        _, command, family, length = _FIXED.unpack_from(received)
        end = _FIXED.size + length
        if end > MAX_HEADER_BYTES:
            raise ProxyHeaderError(f"a PROXY header of {end} bytes, more than {MAX_HEADER_BYTES}")
        if len(received) < end:
            return None
        self.rest = bytes(received[end:])
        content = bytes(received[_FIXED.size : end])
        # Of LOCAL the receiver must discard the addresses, whatever they are (section 2.2).
        return ProxyHeader() if command == _LOCAL else _parse(family, content)


def _may_be_version_1(beginning: bytes) -> bool:
    """Whether the error has to wait: it names version 1."""
    return len(beginning) < len(_VERSION_1) and _VERSION_1.startswith(beginning)


def _what_begins_with(beginning: bytes) -> str:
    if beginning.startswith(_VERSION_1):
        return "PROXY protocol version 1: set the balancer to version 2"
    return "no PROXY protocol header: is the client the balancer, and is it set to send one?"


def _check_command(command: int) -> None:
    if command >> 4 != 2:
        raise ProxyHeaderError(f"PROXY protocol version {command >> 4}: only version 2 is taken")
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"command {command & 0xF} of the PROXY protocol is unknown")


def _parse(family: int, content: bytes) -> ProxyHeader:
    header = ProxyHeader()
    match family:
        case _Family.TCP4:
            header, size_bytes = _addresses(_IPV4, content), _IPV4.size
        case _Family.TCP6:
            header, size_bytes = _addresses(_IPV6, content), _IPV6.size
        case _Family.UNIX_STREAM:
            if len(content) < _UNIX_BYTES:
                raise ProxyHeaderError("a PROXY header that is too short for its addresses")
            size_bytes = _UNIX_BYTES
        case _Family.UNSPECIFIED:
            return header  # what follows is of no known form
        case _:
            raise ProxyHeaderError(f"a PROXY header for something else than TCP: {family:#04x}")
    _check_extensions(content[size_bytes:])
    return header


def _addresses(layout: struct.Struct, content: bytes) -> ProxyHeader:
    if len(content) < layout.size:
        raise ProxyHeaderError("a PROXY header that is too short for its addresses")
    source, destination, source_port, destination_port = layout.unpack_from(content)
    return ProxyHeader(
        SocketAddress(_ip(source), source_port), SocketAddress(_ip(destination), destination_port)
    )


def _ip(packed: bytes) -> IpAddress:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def _check_extensions(content: bytes) -> None:
    """Check the lengths of the type-length-value fields; what they say is not used."""
    position = 0
    while position < len(content):
        if len(content) - position < _TLV.size:
            raise ProxyHeaderError("a PROXY header with a field that is cut short")
        _, length = _TLV.unpack_from(content, position)
        position += _TLV.size + length
    if position != len(content):
        raise ProxyHeaderError("a PROXY header with a field that is longer than the header")
