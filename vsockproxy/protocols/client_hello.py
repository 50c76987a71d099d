"""Reads the name a TLS client asks for (SNI) from its first bytes, without a TLS library.

Record layer (RFC 8446, section 5.1), handshake message (section 4), ClientHello (section 4.1.2),
server_name (RFC 6066, section 3). Every length is checked against the bytes it has to fit in
before it is used, and a vector has to fill its container exactly.

What this does not see: with Encrypted ClientHello (RFC 9849) the name that counts here is the outer
one, in clear; the inner one is known to the far end alone. And nothing stops the far end from
serving other names than that in SNI. This finds clients that talk to the wrong place, or without
TLS; it does not stop a program that hides on purpose.
"""

import re
from dataclasses import dataclass
from typing import Final

from vsockproxy.addresses import AddressError, Host, normalise_host
from vsockproxy.protocols.errors import NotTls, SniMismatch

__all__ = ("ClientHello", "ClientHelloReader", "check_server_name")

MAX_HELLO_BYTES: Final = 5 + 16 * 1024
"""Of all records together, their headers included: one record of the largest size.

Real ones have 200 bytes to 2 KiB; post-quantum keys, session tickets and ECH may add some more.
nginx (ssl_preread) and HAProxy stop at 16 KiB as well. OpenSSL, as a server, takes 128 KiB."""

_RECORD_HEADER_BYTES: Final = 5
_MAX_FRAGMENT_BYTES: Final = 16 * 1024
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0

_NAME = re.compile(rb"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")
"""Letters, digits, hyphens, the underscores that hosts may have; a dot at the end, as some send."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What the client asks for."""

    server_name: str | None
    """As sent, ASCII; None without the extension."""


class ClientHelloReader:
    """Reads one ClientHello, in one or several records.

    It keeps what it is given: `received` is to be sent on once the hello is accepted.
    """

    __slots__ = ("_message", "_position", "_received")

    def __init__(self) -> None:
        self._received = bytearray()
        self._message = bytearray()
        """The handshake message, as far as whole records have brought it."""
        self._position = 0
        """Where the next record begins in `_received`."""

    @property
    def received(self) -> bytes:
        """Every byte so far, in order, those behind the ClientHello included."""
        return bytes(self._received)

    def receive(self, data: bytes) -> ClientHello | None:
        """Take the next bytes; returns the ClientHello, or None while it is incomplete.

        Call it no more after a result or an error.

        Raises:
            NotTls: the bytes are no beginning of a ClientHello.
        """
        self._received += data
        while (fragment := self._next_fragment()) is not None:
            self._message += fragment
            message = self._message
            if message[0] != _CLIENT_HELLO:
                raise NotTls(f"TLS begins with handshake message {message[0]}, not a ClientHello")
            if len(message) < 4:
                continue
            size_bytes = 4 + int.from_bytes(message[1:4])
            if size_bytes > MAX_HELLO_BYTES:
                raise NotTls(f"a ClientHello of more than {MAX_HELLO_BYTES} bytes")
            if len(message) > size_bytes:
                raise NotTls("handshake bytes follow the ClientHello")
            if len(message) == size_bytes:
                return _parse_hello(bytes(message[4:]))
        return None

    def _next_fragment(self) -> bytes | None:
        """The content of the next record if it is whole; checks what is there of its header."""
        header = self._received[self._position : self._position + _RECORD_HEADER_BYTES]
        if header and header[0] != _HANDSHAKE:
            raise NotTls(_what_begins_with(header[0], is_first=self._position == 0))
        # RFC 5246, appendix E.1: any {03,XX} is a record version that a server has to accept here.
        if len(header) > 1 and header[1] != 3:
            raise NotTls(f"a record of version {header[1]}, not of TLS")
        if len(header) < _RECORD_HEADER_BYTES:
            return None
        length = int.from_bytes(header[3:])
        if not 0 < length <= _MAX_FRAGMENT_BYTES:
            raise NotTls(f"a handshake record of {length} bytes")
        end = self._position + _RECORD_HEADER_BYTES + length
        if end > MAX_HELLO_BYTES:
            raise NotTls(f"a ClientHello of more than {MAX_HELLO_BYTES} bytes")
        if len(self._received) < end:
            return None
        fragment = bytes(self._received[self._position + _RECORD_HEADER_BYTES : end])
        self._position = end
        return fragment


def check_server_name(hello: ClientHello, host: Host) -> None:
    """Check that `hello` asks for `host`: by that name, or by none if `host` is a literal.

    Raises:
        SniMismatch: it does not.
    """
    if hello.server_name is None:
        if host.address is None:
            raise SniMismatch(f"the ClientHello names no host, {host} was asked for")
        return
    try:
        named = normalise_host(hello.server_name)
    except AddressError as error:
        raise SniMismatch(f"the ClientHello's host name is malformed: {error}") from None
    if host.address is not None or named != host:
        raise SniMismatch(f"the ClientHello names {named}, {host} was asked for")


def _what_begins_with(first: int, *, is_first: bool) -> str:
    if not is_first:
        return f"record type {first} inside a ClientHello"
    if first & 0x80:
        return f"not TLS: the first byte is {first:#04x}; SSL 2.0 begins so"
    return f"not TLS: the first byte is {first:#04x}, TLS begins with 0x16"


class _Vector:
    """A cursor over bytes whose lengths come from a stranger."""

    __slots__ = ("_data", "_position", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._position = 0
        self._what = what

    @property
    def has_more(self) -> bool:
        return self._position < len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        if len(taken) < count:
            raise NotTls(f"{self._what} is cut short")
        self._position += count
        return taken

    def number(self, size_bytes: int) -> int:
        return int.from_bytes(self.take(size_bytes))

    def vector(
        self, length_bytes: int, what: str, least: int = 0, most: int = 0xFFFF, step: int = 1
    ) -> "_Vector":
        length = self.number(length_bytes)
        if not least <= length <= most or length % step:
            raise NotTls(f"{what} of {length} bytes")
        return _Vector(self.take(length), what)

    def finish(self) -> None:
        if self.has_more:
            raise NotTls(f"bytes follow inside {self._what}")


def _parse_hello(body: bytes) -> ClientHello:
    hello = _Vector(body, "the ClientHello")
    version = hello.number(2)
    if not 0x0301 <= version <= 0x03FF:
        raise NotTls(f"a ClientHello of version {version:#06x}; TLS begins at 0x0301")
    hello.take(32)  # random
    hello.vector(1, "a session id", most=32)
    hello.vector(2, "a list of cipher suites", least=2, step=2)
    hello.vector(1, "a list of compression methods", least=1)
    if not hello.has_more:  # TLS 1.2 and before may leave out the whole block.
        return ClientHello(None)
    extensions = hello.vector(2, "the extensions")
    hello.finish()
    server_name: str | None = None
    seen: set[int] = set()
    while extensions.has_more:
        kind = extensions.number(2)
        extension = extensions.vector(2, f"extension {kind}")
        if kind in seen:
            raise NotTls(f"extension {kind} twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            server_name = _parse_server_name(extension)
    return ClientHello(server_name)


def _parse_server_name(extension: _Vector) -> str:
    names = extension.vector(2, "the list of server names", least=1)
    extension.finish()
    kind = names.number(1)
    if kind != _HOST_NAME:
        raise NotTls(f"a server name of type {kind}")
    name = names.take(names.number(2))
    if names.has_more:
        raise NotTls("more than one server name")
    if not _NAME.fullmatch(name):
        raise NotTls("a server name with other characters than letters, digits, '-', '_', '.'")
    return name.decode("ascii")
