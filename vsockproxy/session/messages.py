"""The CBOR maps inside frames and in the opening exchange (WIRE_FORMAT.md, "Maps").

A map is in the deterministic encoding of RFC 8949 §4.2.1: shortest forms, definite lengths, sorted
and unique keys. That is checked by encoding the value again, so duplicate keys and trailing bytes,
which the decoder lets pass, are refused too. Keys are unsigned integers; unknown keys are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Never

import cbor2

from vsockproxy.session.errors import ErrorCode, LocalProtocolError, PeerProtocolError
from vsockproxy.session.frames import MAX_TEXT_BYTES

MAX_DEPTH = 4
"""Nesting of maps and lists; ours need two levels."""

MAX_INTEGER = 2**64 - 1

MAX_HOST_BYTES = 255
MAX_REASON_BYTES = 64
MAX_ADDRESS_BYTES = 64
MAX_RECORDS = 256
MAX_RECORD_BYTES = 1024
TOKEN_BYTES = 16
MAX_TTL_SECONDS = 2**31 - 1
"""RFC 2181 §8."""

REMEMBERED: Final = 256
"""Payloads of each kind that are kept, as most streams lead where others have led; under 1 KiB."""


class _NoTags(dict[int, Any]):
    """Tells the decoder what to do with each tag: to refuse it.

    Dates, regular expressions, mail and all others would be parsed by their own modules first.
    """

    def __missing__(self, tag: int) -> Never:
        raise ValueError(f"tag {tag}")


_NO_TAGS = _NoTags()


def encode_map(value: Mapping[int, Any]) -> bytes:
    """A map in the deterministic encoding."""
    return cbor2.dumps(dict(value), canonical=True)


def decode_map(data: bytes, what: str) -> dict[Any, Any]:
    """Decode one map.

    Args:
        data: the whole payload; its length was bounded by the caller.
        what: the name of the message, for the error.

    Raises:
        PeerProtocolError: when it is not one map in the deterministic encoding, of plain values.
    """
    try:
        value = cbor2.loads(data, max_depth=MAX_DEPTH, semantic_decoders=_NO_TAGS)
        is_deterministic = _is_plain(value) and cbor2.dumps(value) == data
    except (cbor2.CBORError, ValueError, TypeError) as error:
        raise PeerProtocolError(ErrorCode.PROTOCOL, f"{what} is no CBOR: {error}") from error
    if not is_deterministic or not isinstance(value, dict):
        raise PeerProtocolError(
            ErrorCode.PROTOCOL, f"{what} is not one map in deterministic CBOR (RFC 8949 §4.2.1)"
        )
    return value


def _is_plain(value: object, depth: int = MAX_DEPTH) -> bool:
    """Whether there are none but plain values, and keys that are unsigned integers in order."""
    if isinstance(value, dict):
        highest = -1
        for key, item in value.items():
            # Unsigned keys in order are the order of RFC 8949, byte by byte.
            if type(key) is not int or not highest < key <= MAX_INTEGER:
                return False
            if not _is_plain(item, depth - 1):
                return False
            highest = key
        return depth > 0
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    return value is None or isinstance(value, int | str | bytes)


class Fields:
    """Typed, bounded access to the fields of a received map."""

    __slots__ = ("_map", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._map = decode_map(data, what)
        self._what = what

    @classmethod
    def of(cls, value: Mapping[Any, Any], what: str) -> "Fields":
        """Fields of a map inside another one."""
        fields = cls.__new__(cls)
        fields._map = dict(value)
        fields._what = what
        return fields

    def has(self, key: int) -> bool:
        """Whether the field is there."""
        return key in self._map

    def integer(self, key: int, least: int, most: int, default: int | None = None) -> int:
        """An integer field within bounds."""
        value = self._map.get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(key, f"an integer from {least} to {most}")
        return value

    def boolean(self, key: int) -> bool:
        """A boolean field; absent means false."""
        value = self._map.get(key, False)
        if type(value) is not bool:
            raise self._wrong(key, "true or false")
        return value

    def text(self, key: int, most_bytes: int, default: str | None = None) -> str:
        """A text field of bounded length without control characters; empty only by default."""
        if default is not None and key not in self._map:
            return default
        value = self._map.get(key)
        if not is_printable(value, most_bytes) or not value:
            raise self._wrong(key, f"printable text of 1 to {most_bytes} bytes")
        return str(value)

    def octets(self, key: int, least: int, most: int) -> bytes | None:
        """A byte string field of bounded length, or None where it is absent."""
        if key not in self._map:
            return None
        value = self._map[key]
        if not isinstance(value, bytes) or not least <= len(value) <= most:
            raise self._wrong(key, f"{least} to {most} bytes")
        return value

    def items(self, key: int, most: int) -> list[Any]:
        """A list field of bounded length; absent means empty."""
        value = self._map.get(key, [])
        if not isinstance(value, list) or len(value) > most:
            raise self._wrong(key, f"a list of at most {most} items")
        return value

    def inner(self, key: int) -> "Fields":
        """A map inside this one; absent means empty."""
        value = self._map.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "a map")
        return Fields.of(value, f"{self._what}, field {key}")

    def _wrong(self, key: int, wanted: str) -> PeerProtocolError:
        return PeerProtocolError(
            ErrorCode.PROTOCOL, f"field {key} of {self._what} must be {wanted}"
        )


@dataclass(frozen=True, slots=True)
class Open:
    """OPEN: where a stream shall lead.

    `service` names a service of the other end and replaces `host` and `port`.
    """

    host: str = ""
    port: int = 0
    dedicated: bool = False
    service: str = ""
    client: str = ""
    """For a service: where the connection behind the stream comes from, `ADDRESS:PORT`."""
    server: str = ""
    """For a service: the address that the client connected to, likewise."""

    @lru_cache(REMEMBERED)  # noqa: B019  # what it keeps are values, and few
    def encode(self) -> bytes:
        """The payload of OPEN.

        Raises:
            LocalProtocolError: when a field is out of bounds, as the peer would end the session.
        """
        fields: dict[int, Any] = {}
        if self.service:
            fields[4] = _checked(self.service, MAX_HOST_BYTES, "the service of OPEN")
            if self.client:
                fields[5] = _checked(self.client, MAX_ADDRESS_BYTES, "the client of OPEN")
            if self.server:
                fields[6] = _checked(self.server, MAX_ADDRESS_BYTES, "the server of OPEN")
        else:
            fields[1] = _checked(self.host, MAX_HOST_BYTES, "the host of OPEN")
            fields[2] = _checked_number(self.port, "the port of OPEN")
        if self.dedicated:
            fields[3] = True
        return encode_map(fields)

    @classmethod
    @lru_cache(REMEMBERED)
    def decode(cls, data: bytes) -> "Open":
        """The value of an OPEN payload."""
        fields = Fields(data, "OPEN")
        dedicated = fields.boolean(3)
        if fields.has(4):
            if fields.has(1) or fields.has(2):
                raise PeerProtocolError(ErrorCode.PROTOCOL, "OPEN names a service and a host")
            return cls(
                dedicated=dedicated,
                service=fields.text(4, MAX_HOST_BYTES),
                client=fields.text(5, MAX_ADDRESS_BYTES, ""),
                server=fields.text(6, MAX_ADDRESS_BYTES, ""),
            )
        return cls(
            host=fields.text(1, MAX_HOST_BYTES),
            port=fields.integer(2, 1, 0xFFFF),
            dedicated=dedicated,
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """OPENED: the destination was reached."""

    address: str = ""
    """The address that was dialled, for the audit line."""
    token: bytes | None = None
    """For a dedicated stream: what the new connection presents first."""
    window_bytes: int | None = None
    """Credit from the start, instead of the hello's: bytes that may be sent to the sender of
    OPENED. Whoever accepts asks for it; on the wire stands what the budget had left."""

    @lru_cache(REMEMBERED)  # noqa: B019  # what it keeps are values, and few
    def encode(self) -> bytes:
        """The payload of OPENED.

        Raises:
            LocalProtocolError: when a field is out of bounds.
        """
        fields: dict[int, Any] = {}
        if self.address:
            fields[1] = _checked(self.address, MAX_ADDRESS_BYTES, "the address of OPENED")
        if self.token is not None:
            fields[2] = self.token
        if self.window_bytes is not None:
            fields[3] = self.window_bytes
        return encode_map(fields)

    @classmethod
    @lru_cache(REMEMBERED)
    def decode(cls, data: bytes) -> "Opened":
        """The value of an OPENED payload."""
        fields = Fields(data, "OPENED")
        return cls(
            address=fields.text(1, MAX_ADDRESS_BYTES, ""),
            token=fields.octets(2, TOKEN_BYTES, TOKEN_BYTES),
            window_bytes=fields.integer(3, 0, MAX_INTEGER) if fields.has(3) else None,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """REFUSED: the stream is not to be, and why."""

    reason: str
    text: str = ""

    def encode(self) -> bytes:
        """The payload of REFUSED; a longer text is shortened, control characters become spaces.

        Raises:
            LocalProtocolError: when the reason is out of bounds.
        """
        fields = {1: _checked(self.reason, MAX_REASON_BYTES, "the reason of REFUSED")}
        if self.text:
            fields[2] = printable(self.text)
        return encode_map(fields)

    @classmethod
    def decode(cls, data: bytes) -> "Refusal":
        """The value of a REFUSED payload."""
        fields = Fields(data, "REFUSED")
        return cls(reason=fields.text(1, MAX_REASON_BYTES), text=fields.text(2, MAX_TEXT_BYTES, ""))


@dataclass(frozen=True, slots=True)
class Resolve:
    """RESOLVE: a question for the parent's resolver; `record_type` is a DNS type number."""

    name: str
    record_type: int

    def encode(self) -> bytes:
        """The payload of RESOLVE.

        Raises:
            LocalProtocolError: when a field is out of bounds.
        """
        return encode_map(
            {
                1: _checked(self.name, MAX_HOST_BYTES, "the name of RESOLVE"),
                2: _checked_number(self.record_type, "the type of RESOLVE"),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> "Resolve":
        """The value of a RESOLVE payload."""
        fields = Fields(data, "RESOLVE")
        return cls(name=fields.text(1, MAX_HOST_BYTES), record_type=fields.integer(2, 1, 0xFFFF))


@dataclass(frozen=True, slots=True)
class Resolved:
    """RESOLVED: the answer; `reason` is empty when the name exists and policy allows it."""

    reason: str = ""
    text: str = ""
    records: tuple[bytes, ...] = ()
    """Record data in DNS wire format, uncompressed."""
    ttl_seconds: int = 0

    @property
    def has_bounded_records(self) -> bool:
        """Whether the peer takes so many records, of such a length."""
        return len(self.records) <= MAX_RECORDS and all(
            len(record) <= MAX_RECORD_BYTES for record in self.records
        )

    def encode(self) -> bytes:
        """The payload of RESOLVED; the text is treated as that of REFUSED.

        Raises:
            LocalProtocolError: when the reason is out of bounds.
        """
        fields: dict[int, Any] = {}
        if self.reason:
            fields[1] = _checked(self.reason, MAX_REASON_BYTES, "the reason of RESOLVED")
        if self.text:
            fields[2] = printable(self.text)
        if self.records:
            fields[3] = list(self.records)
        fields[4] = max(0, min(self.ttl_seconds, MAX_TTL_SECONDS))
        return encode_map(fields)

    @classmethod
    def decode(cls, data: bytes) -> "Resolved":
        """The value of a RESOLVED payload."""
        fields = Fields(data, "RESOLVED")
        records = fields.items(3, MAX_RECORDS)
        if not all(isinstance(item, bytes) and len(item) <= MAX_RECORD_BYTES for item in records):
            raise PeerProtocolError(
                ErrorCode.PROTOCOL, f"RESOLVED has a record of over {MAX_RECORD_BYTES} bytes"
            )
        return cls(
            reason=fields.text(1, MAX_REASON_BYTES, ""),
            text=fields.text(2, MAX_TEXT_BYTES, ""),
            records=tuple(records),
            ttl_seconds=fields.integer(4, 0, MAX_TTL_SECONDS, 0),
        )


def is_printable(text: object, most_bytes: int) -> bool:
    """Whether a text field may hold it: no control characters, no lone surrogates."""
    return isinstance(text, str) and text.isprintable() and len(text.encode()) <= most_bytes


def _checked(text: str, most_bytes: int, what: str) -> str:
    if not text or not is_printable(text, most_bytes):
        raise LocalProtocolError(f"{what} must be printable text of 1 to {most_bytes} bytes")
    return text


def _checked_number(number: int, what: str) -> int:
    if not 0 < number <= 0xFFFF:
        raise LocalProtocolError(f"{what} must be a number from 1 to 65535")
    return number


def printable(text: str) -> str:
    """`text` as a text field may hold it: printable, at most `MAX_TEXT_BYTES` long."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean.encode(errors="replace")[:MAX_TEXT_BYTES].decode(errors="ignore")
