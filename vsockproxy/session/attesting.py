"""Attestation in the opening exchange (WIRE_FORMAT.md, "Attestation"), in the words of RFC 9334.

An acceptor that demands it sends a challenge with its hello. The initiator answers with evidence:
an attestation document made for this very exchange, or why it has none. The acceptor's result ends
the exchange. What a document says is not this module's to judge; what it has to hold is.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Final

from vsockproxy.session.errors import ErrorCode, LocalProtocolError, PeerProtocolError
from vsockproxy.session.frames import MAX_TEXT_BYTES
from vsockproxy.session.messages import MAX_REASON_BYTES, Fields, encode_map, printable
from vsockproxy.session.opening import (
    FEATURE_ATTESTATION,
    LENGTH,
    MAX_ATTESTATION_BYTES,
    Hello,
)

__all__ = (
    "ATTESTATION_REQUIRED",
    "MAX_EVIDENCE_BYTES",
    "MAX_RESULT_BYTES",
    "SESSION_LABEL",
    "Evidence",
    "MapReader",
    "Result",
    "demands_attestation",
    "session_nonce",
    "session_user_data",
)

MAX_EVIDENCE_BYTES: Final = 16 * 1024
"""A document, or a text of at most 512 bytes."""

MAX_RESULT_BYTES: Final = 1024

ATTESTATION_REQUIRED: Final = "attestation_required"
"""The reason of an acceptor that demands what its peer cannot or does not do."""

SESSION_LABEL: Final = b"vsockproxy session\n"
"""Begins the user data, so that a document that was made for anything else attests no session: a
web server's document for whoever asks has a nonce that the asker chose. Our API for programs gives
no document that begins so."""

NO_CID: Final = 0xFFFF_FFFF
"""VMADDR_CID_ANY of linux/vm_sockets.h, in the user data: the link is no vsock."""

_CID: Final = struct.Struct(">I")


def demands_attestation(initiator: Hello, acceptor: Hello) -> bool:
    """Whether evidence and result follow the hellos: both name the feature.

    Raises:
        PeerProtocolError: the acceptor demands it and has sent no challenge.
    """
    if FEATURE_ATTESTATION not in initiator.features & acceptor.features:
        return False
    if acceptor.challenge is None:
        raise PeerProtocolError(ErrorCode.PROTOCOL, "the hello demands attestation, unchallenged")
    return True


def session_nonce(initiator_hello: bytes, acceptor_hello: bytes) -> bytes:
    """The nonce of the document for one exchange: SHA-256 of a label and both hellos.

    Each end has put random bytes into its hello, so no two exchanges have the same.

    Args:
        initiator_hello: as it was sent, from its magic to the end of its map.
        acceptor_hello: likewise.
    """
    return hashlib.sha256(SESSION_LABEL + initiator_hello + acceptor_hello).digest()


def session_user_data(cid: int | None) -> bytes:
    """The user data of a document for an exchange: a label, and the CID of the initiator.

    Args:
        cid: what the initiator's own machine says; None where the link is no vsock.
    """
    return SESSION_LABEL + _CID.pack(NO_CID if cid is None else cid)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The initiator's answer to a challenge: a document, or why there is none."""

    document: bytes | None = None
    refusal: str = ""

    def encode(self) -> bytes:
        """Length and map, ready to be sent.

        Raises:
            LocalProtocolError: it has neither or both, or the document is too long.
        """
        if (self.document is None) == (not self.refusal):
            raise LocalProtocolError("evidence is a document, or says why there is none")
        if self.document is None:
            return _with_length({2: printable(self.refusal)})
        if not 0 < len(self.document) <= MAX_ATTESTATION_BYTES:
            raise LocalProtocolError(f"an attestation document of {len(self.document)} bytes")
        return _with_length({1: self.document})

    @classmethod
    def decode(cls, body: bytes) -> "Evidence":
        """The value of its map.

        Raises:
            PeerProtocolError: a field is out of bounds, or there is not one of both.
        """
        fields = Fields(body, "the evidence")
        document = fields.octets(1, 1, MAX_ATTESTATION_BYTES)
        refusal = fields.text(2, MAX_TEXT_BYTES, "")
        if (document is None) == (not refusal):
            text = "the evidence has not one of document and text"
            raise PeerProtocolError(ErrorCode.PROTOCOL, text)
        return cls(document, refusal)


@dataclass(frozen=True, slots=True)
class Result:
    """What the acceptor makes of the evidence; without a reason the session begins."""

    reason: str = ""
    text: str = ""

    def encode(self) -> bytes:
        """Length and map, ready to be sent; the text is made printable, and shortened."""
        fields: dict[int, Any] = {}
        if self.reason:
            fields[1] = self.reason
        if self.text:
            fields[2] = printable(self.text)
        return _with_length(fields)

    @classmethod
    def decode(cls, body: bytes) -> "Result":
        """The value of its map.

        Raises:
            PeerProtocolError: a field is out of bounds.
        """
        fields = Fields(body, "the result")
        return cls(fields.text(1, MAX_REASON_BYTES, ""), fields.text(2, MAX_TEXT_BYTES, ""))


class MapReader:
    """Reads one map with its length in front, in whatever pieces it comes.

    After a value was returned, `rest` holds the bytes that followed it.

    Args:
        most_bytes: the longest map.
        what: the name of the message, for the error.
    """

    __slots__ = ("_buffer", "_most_bytes", "_what", "rest")

    def __init__(self, most_bytes: int, what: str) -> None:
        self._buffer = bytearray()
        self._most_bytes = most_bytes
        self._what = what
        self.rest = b""

    def receive(self, data: bytes | memoryview) -> bytes | None:
        """Take bytes; returns the map once it is complete, None while more is needed.

        Raises:
            PeerProtocolError: the length is out of bounds.
        """
        self._buffer += data
        if len(self._buffer) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._buffer)
        if not 0 < length <= self._most_bytes:
            raise PeerProtocolError(ErrorCode.PROTOCOL, f"{self._what} of {length} bytes")
        end = LENGTH.size + length
        if len(self._buffer) < end:
            return None
        self.rest = bytes(self._buffer[end:])
        return bytes(self._buffer[LENGTH.size : end])


def _with_length(fields: dict[int, Any]) -> bytes:
    body = encode_map(fields)
    return LENGTH.pack(len(body)) + body
