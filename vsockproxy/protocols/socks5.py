"""SOCKS 5 (RFC 1928), as a proxy speaks it: reads greeting and request, builds the answers.

    client  05 NMETHODS METHODS…                greeting (section 3)
    proxy   05 METHOD                           00: no authentication; FF: none of these
    client  05 CMD 00 ATYP DST.ADDR DST.PORT    request (section 4)
    proxy   05 REP 00 01 BND.ADDR BND.PORT      reply (section 6); after REP 00 the tunnel begins

No method but "no authentication" is ever chosen, and CONNECT is the only command. A greeting has
at most 257 bytes, a request at most 262: one byte says how long, so no length can be larger.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from vsockproxy.addresses import AddressError, Destination, Host, format_ip, normalise_host
from vsockproxy.protocols.errors import SocksError

__all__ = (
    "NO_AUTHENTICATION_CHOSEN",
    "REPLY_BY_REASON",
    "GreetingReader",
    "Reply",
    "RequestReader",
    "SocksRequest",
    "encode_reply",
    "reply_for",
)

VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0x00
_NO_ACCEPTABLE_METHOD: Final = 0xFF

NO_AUTHENTICATION_CHOSEN: Final = bytes((VERSION, _NO_AUTHENTICATION))
"""The answer to a greeting that was read."""

_NOTHING_CHOSEN: Final = bytes((VERSION, _NO_ACCEPTABLE_METHOD))

_CONNECT: Final = 1
_OTHER_COMMANDS: Final[Mapping[int, str]] = MappingProxyType({2: "BIND", 3: "UDP ASSOCIATE"})

_IPV4: Final = 1
_NAME: Final = 3
_IPV6: Final = 4
_ADDRESS_BYTES: Final[Mapping[int, int]] = MappingProxyType({_IPV4: 4, _IPV6: 16})

_HEAD_BYTES: Final = 4
"""VER, CMD, RSV and ATYP; the byte behind them is a name's length, or an address's first."""
_PORT_BYTES: Final = 2


class Reply(IntEnum):
    """What REP says (RFC 1928, section 6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


REPLY_BY_REASON: Final[Mapping[str, Reply]] = MappingProxyType(
    {
        "not_listed": Reply.NOT_ALLOWED,
        "attestation_required": Reply.NOT_ALLOWED,
        "port_not_listed": Reply.NOT_ALLOWED,
        "denied": Reply.NOT_ALLOWED,
        "address_private": Reply.NOT_ALLOWED,
        "address_metadata": Reply.NOT_ALLOWED,
        "address_reserved": Reply.NOT_ALLOWED,
        "not_tls": Reply.NOT_ALLOWED,
        "sni_mismatch": Reply.NOT_ALLOWED,
        "tls_failed": Reply.GENERAL_FAILURE,
        "no_such_name": Reply.HOST_UNREACHABLE,
        "lookup_failed": Reply.HOST_UNREACHABLE,
        "dial_refused": Reply.CONNECTION_REFUSED,
        "dial_timeout": Reply.HOST_UNREACHABLE,
        "limit": Reply.GENERAL_FAILURE,
        "parent_away": Reply.GENERAL_FAILURE,
    }
)
"""The reply for each reason (`vsockproxy.policy.reasons.Reason`) that refuses."""


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """A tunnel is asked for."""

    destination: Destination
    trailing: bytes
    """What the client sent behind the request; it waits for success, and is dropped without."""


class GreetingReader:
    """Reads the methods that a client offers; the reader of a connection's first bytes."""

    __slots__ = ("_received",)

    def __init__(self) -> None:
        self._received = bytearray()

    def receive(self, data: bytes) -> bytes | None:
        """Take the next bytes; returns those behind the greeting, or None while it is incomplete.

        The answer to the greeting is `NO_AUTHENTICATION_CHOSEN`; what is returned is the
        `RequestReader`'s. Call it no more after a result or an error.

        Raises:
            SocksError: it is no greeting, or offers no method that we have.
        """
        received = self._received
        received += data
        if received and received[0] != VERSION:
            raise SocksError(b"", _what_begins_with(received[0]))
        if len(received) < 2:
            return None
        end = 2 + received[1]
        if len(received) < end:
            return None
        if _NO_AUTHENTICATION not in received[2:end]:
            raise SocksError(
                _NOTHING_CHOSEN,
                "the client does not go without authentication, which this proxy has not: "
                "give it neither user name nor password",
            )
        return bytes(received[end:])


class RequestReader:
    """Reads the one request of a client whose greeting was answered."""

    __slots__ = ("_received",)

    def __init__(self) -> None:
        self._received = bytearray()

    def receive(self, data: bytes) -> SocksRequest | None:
        """Take the next bytes; returns the request, or None while it is incomplete.

        Call it no more after a request or an error. Each byte is judged as it comes, so that a
        command or a type of address that is unknown needs no more of them.

        Raises:
            SocksError: it is no request that this proxy carries out.
        """
        received = self._received
        received += data
        _check_head(received)
        if len(received) <= _HEAD_BYTES:
            return None
        kind = received[3]
        begin = _HEAD_BYTES if kind in _ADDRESS_BYTES else _HEAD_BYTES + 1
        end = begin + _ADDRESS_BYTES.get(kind, received[_HEAD_BYTES])
        behind = end + _PORT_BYTES
        if len(received) < behind:
            return None
        try:
            host = _parse_host(kind, bytes(received[begin:end]))
            port = int.from_bytes(received[end:behind])
            if port == 0:
                raise AddressError("port 0 cannot be connected to", "ask for one within 1-65535")
        except AddressError as error:
            raise _refused(Reply.GENERAL_FAILURE, str(error)) from None
        return SocksRequest(Destination(host, port), bytes(received[behind:]))


def reply_for(reason: str) -> Reply:
    """The reply that answers `reason`.

    A reason we do not know comes from a newer other side, and is a "no" like any other.
    """
    return REPLY_BY_REASON.get(reason, Reply.NOT_ALLOWED)


def encode_reply(reply: Reply) -> bytes:
    """The answer to a request.

    BND is 0.0.0.0:0: which address the parent dials from is not told to programs in the enclave.
    """
    return bytes((VERSION, reply, 0, _IPV4)) + bytes(_ADDRESS_BYTES[_IPV4] + _PORT_BYTES)


def _refused(reply: Reply, text: str) -> SocksError:
    return SocksError(encode_reply(reply), text)


def _what_begins_with(first: int) -> str:
    if first == 4:
        return "SOCKS 4: this proxy speaks SOCKS 5, write its URL with socks5h://"
    return f"this proxy speaks SOCKS 5, whose first byte is 0x05; {first:#04x} arrived"


def _check_head(received: bytearray) -> None:
    """Check what is there of VER, CMD, RSV and ATYP, in their order."""
    size_bytes = len(received)
    if size_bytes > 0 and received[0] != VERSION:
        raise _refused(Reply.GENERAL_FAILURE, f"a request of version {received[0]}, not 5")
    if size_bytes > 1 and received[1] != _CONNECT:
        command = _OTHER_COMMANDS.get(received[1], f"command {received[1]}")
        raise _refused(
            Reply.COMMAND_NOT_SUPPORTED, f"{command} is asked for: this proxy has only CONNECT"
        )
    if size_bytes > 2 and received[2] != 0:
        raise _refused(Reply.GENERAL_FAILURE, f"the reserved byte is {received[2]:#04x}, not 0x00")
    if size_bytes > 3 and received[3] != _NAME and received[3] not in _ADDRESS_BYTES:
        raise _refused(
            Reply.ADDRESS_TYPE_NOT_SUPPORTED,
            f"an address of type {received[3]}: neither IPv4 (1), a name (3) nor IPv6 (4)",
        )


def _parse_host(kind: int, data: bytes) -> Host:
    if kind in _ADDRESS_BYTES:
        address = ipaddress.ip_address(data)  # its length says which version it has
        return Host(format_ip(address), address)
    if not data.isascii():
        raise AddressError("a name that is not ASCII", "send its A-labels (xn--…)")
    return normalise_host(data.decode("ascii"))
