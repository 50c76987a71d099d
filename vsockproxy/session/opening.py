"""The opening exchange on a new connection (WIRE_FORMAT.md, "Opening").

The initiator sends its hello first, the acceptor answers with its own; both then know the version,
the features and the limits. A connection that carries a dedicated stream presents its token
instead. Both readers end in a value, in None for "more", or in PeerProtocolError.
"""

import struct
from dataclasses import dataclass
from typing import Any

from vsockproxy.session.errors import ErrorCode, PeerProtocolError, SessionRefused
from vsockproxy.session.frames import MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES, SEQUENCE_MODULUS
from vsockproxy.session.messages import (
    TOKEN_BYTES,
    Fields,
    encode_map,
    is_printable,
    printable,
)

SESSION_MAGIC = b"vsockpx\n"
DEDICATED_MAGIC = b"vsockpd\n"
MAGIC_BYTES = 8
LENGTH = struct.Struct(">H")
MAX_HELLO_BYTES = 16 * 1024
"""An attestation document takes some 5 KiB, services up to 2 KiB, the rest under 200 bytes."""

INSTANCE_BYTES = 16
LOWEST_VERSION = 1
HIGHEST_VERSION = 1
FEATURE_CRC32 = "crc32"
FEATURE_ATTESTATION = "attestation"
"""The initiator can attest, or the acceptor demands it (`attesting`)."""
MAX_FEATURES = 64
MAX_FEATURE_BYTES = 32
MAX_ATTESTATION_BYTES = 12 * 1024
MAX_SERVICES = 32
MAX_SERVICE_BYTES = 64
CHALLENGE_BYTES = 32
LEAST_PAYLOAD_BYTES = 1024
LARGEST_FIRST_WINDOW_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Hello:
    """What one end says of itself."""

    instance: bytes
    """128 random bits, the same on every link of one enclave's life, or of one parent worker's."""
    first_sequence: int
    """The sequence number of this end's first frame."""
    first_window_bytes: int
    """Credit that every stream of this end starts with, in bytes that the other end may send."""
    max_streams: int
    """Streams that the other end may open at once in this session."""
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    """Largest payload of a DATA frame that this end takes."""
    features: frozenset[str] = frozenset()
    lowest_version: int = LOWEST_VERSION
    highest_version: int = HIGHEST_VERSION
    attestation: bytes | None = None
    refusal: str = ""
    """Not empty: this end does not want the session, and says why."""
    services: frozenset[str] = frozenset()
    """Names of what the other end may open streams to, with OPEN {service}."""
    challenge: bytes | None = None
    """Random bytes of an acceptor that demands attestation; good for this connection alone."""

    def encode(self) -> bytes:
        """Magic, length and map, ready to be sent."""
        fields: dict[int, Any] = {
            1: [self.lowest_version, self.highest_version],
            2: sorted(self.features),
            3: {1: self.first_window_bytes, 2: self.max_streams, 3: self.max_payload_bytes},
            4: self.instance,
            5: self.first_sequence,
        }
        if self.attestation is not None:
            fields[6] = self.attestation
        if self.refusal:
            fields[7] = printable(self.refusal)
        if self.services:
            fields[8] = sorted(self.services)
        if self.challenge is not None:
            fields[9] = self.challenge
        body = encode_map(fields)
        return SESSION_MAGIC + LENGTH.pack(len(body)) + body

    @classmethod
    def decode(cls, body: bytes) -> "Hello":
        """The value of a hello's map.

        Raises:
            PeerProtocolError: when a field is missing or out of bounds.
        """
        fields = Fields(body, "the hello")
        versions = fields.items(1, 2)
        if (
            len(versions) != 2
            or not all(type(version) is int and 0 < version < 2**16 for version in versions)
            or versions[0] > versions[1]
        ):
            raise PeerProtocolError(ErrorCode.PROTOCOL, "the hello has no range of versions")
        features = fields.items(2, MAX_FEATURES)
        if not all(isinstance(name, str) and len(name) <= MAX_FEATURE_BYTES for name in features):
            raise PeerProtocolError(ErrorCode.PROTOCOL, "the hello has a feature that is no name")
        services = fields.items(8, MAX_SERVICES)
        if not all(name and is_printable(name, MAX_SERVICE_BYTES) for name in services):
            raise PeerProtocolError(ErrorCode.PROTOCOL, "the hello has a service that is no name")
        limits = fields.inner(3)
        instance = fields.octets(4, INSTANCE_BYTES, INSTANCE_BYTES)
        if instance is None:
            raise PeerProtocolError(ErrorCode.PROTOCOL, "the hello has no instance")
        return cls(
            instance=instance,
            first_sequence=fields.integer(5, 0, SEQUENCE_MODULUS - 1),
            first_window_bytes=limits.integer(1, 0, LARGEST_FIRST_WINDOW_BYTES),
            max_streams=limits.integer(2, 0, 2**32),
            max_payload_bytes=limits.integer(3, LEAST_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES),
            features=frozenset(features),
            lowest_version=versions[0],
            highest_version=versions[1],
            attestation=fields.octets(6, 1, MAX_ATTESTATION_BYTES),
            refusal=fields.text(7, MAX_TEXT_BYTES, ""),
            services=frozenset(services),
            challenge=fields.octets(9, CHALLENGE_BYTES, CHALLENGE_BYTES),
        )


@dataclass(frozen=True, slots=True)
class DedicatedPreface:
    """The first bytes of a connection that carries one dedicated stream."""

    token: bytes

    def encode(self) -> bytes:
        """Magic and token, ready to be sent."""
        return DEDICATED_MAGIC + self.token


class PrefaceReader:
    """Reads the first bytes of a connection, in whatever pieces they come.

    After a value was returned, `message` holds the bytes that it was read from, and `rest` those
    that followed it.
    """

    __slots__ = ("_buffer", "_may_be_dedicated", "message", "rest")

    def __init__(self, *, may_be_dedicated: bool) -> None:
        self._buffer = bytearray()
        self._may_be_dedicated = may_be_dedicated
        self.message = b""
        self.rest = b""

    def receive(self, data: bytes | memoryview) -> Hello | DedicatedPreface | None:
        """Take bytes; returns the preface once it is complete, None while more is needed.

        Raises:
            PeerProtocolError: when this is no peer of ours, or its hello breaks the format.
        """
        self._buffer += data
        buffer = self._buffer
        magic = bytes(buffer[:MAGIC_BYTES])
        if SESSION_MAGIC.startswith(magic):
            if len(buffer) < MAGIC_BYTES + LENGTH.size:
                return None
            (length,) = LENGTH.unpack_from(buffer, MAGIC_BYTES)
            if not 0 < length <= MAX_HELLO_BYTES:
                raise PeerProtocolError(ErrorCode.PROTOCOL, f"a hello of {length} bytes")
            end = MAGIC_BYTES + LENGTH.size + length
            if len(buffer) < end:
                return None
            hello = Hello.decode(bytes(buffer[MAGIC_BYTES + LENGTH.size : end]))
            self._split(end)
            return hello
        if self._may_be_dedicated and DEDICATED_MAGIC.startswith(magic):
            end = MAGIC_BYTES + TOKEN_BYTES
            if len(buffer) < end:
                return None
            self._split(end)
            return DedicatedPreface(bytes(buffer[MAGIC_BYTES:end]))
        raise PeerProtocolError(ErrorCode.PROTOCOL, "the connection does not begin with our magic")

    def _split(self, end: int) -> None:
        self.message, self.rest = bytes(self._buffer[:end]), bytes(self._buffer[end:])


def agree_on_version(local: Hello, remote: Hello) -> int:
    """The highest version that both speak.

    Raises:
        PeerProtocolError: when there is none, or when the peer refused the session.
    """
    if remote.refusal:
        raise SessionRefused(f"the peer refused the session: {remote.refusal}")
    version = min(local.highest_version, remote.highest_version)
    if version < max(local.lowest_version, remote.lowest_version):
        raise PeerProtocolError(
            ErrorCode.PROTOCOL,
            f"no common version: this side speaks {local.lowest_version} to "
            f"{local.highest_version}, the peer {remote.lowest_version} to "
            f"{remote.highest_version}; update the older of the two",
        )
    return version
