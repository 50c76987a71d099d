"""The packets of the stream socket: what a program and a worker of the enclave say to each other.

The stream socket is a unix socket of type SOCK_SEQPACKET. One connection is for one stream or one
lookup, one packet is one message: a byte that is the kind, then a CBOR map of
`vsockproxy/session/messages.cddl`. An empty packet is an end of file.

| kind     | number | to      | after the kind | descriptors       |
|----------|--------|---------|----------------|-------------------|
| OPEN     | 1      | worker  | open           |                   |
| PENDING  | 64     | program | nothing        | the stream's, one |
| OPENED   | 2      | program | opened         |                   |
| REFUSED  | 3      | program | refused        |                   |
| RESOLVE  | 10     | worker  | resolve        |                   |
| RESOLVED | 11     | program | resolved       |                   |
| LISTEN   | 65     | worker  | {1: service}   |                   |
| LISTENING| 66     | program | nothing        |                   |
| INCOMING | 67     | program | {? 1: client,  | the stream's, one |
|          |        |         | ? 2: server}   |                   |

To OPEN the worker says PENDING at once, and OPENED or REFUSED when the parent has answered. Where
it has no room for the stream, REFUSED stands in place of PENDING. The descriptor is a connected TCP
socket that is neither readable nor writable, until it is writable with SO_ERROR 0 after OPENED, or
reset after REFUSED: so a program may wait for it as for a non-blocking connect. To RESOLVE the
worker says RESOLVED. After the last answer the connection has no more meaning; who closes it before
gives the request up, and the stream is reset.

To LISTEN the worker says LISTENING, or REFUSED where the enclave's file does not offer the service
with `to: streams`; then INCOMING for each connection, until the program closes. Its descriptor is a
connected TCP socket as above, and open. Whoever takes it turns its SO_LINGER off (socket(7)): until
then its close is a reset, so that a connection in the queue of a program that ends is seen as cut.

The only services that OPEN may name are those of the parent, whose names begin with `vsockproxy.`.
They are for processes of ours: a worker refuses them to a peer that is another user.
"""

from dataclasses import dataclass
from typing import Final

from vsockproxy.errors import VsockproxyError
from vsockproxy.session.errors import LocalProtocolError, PeerProtocolError
from vsockproxy.session.frames import PAYLOAD_LIMITS, FrameType
from vsockproxy.session.messages import (
    MAX_ADDRESS_BYTES,
    Fields,
    Open,
    Opened,
    Refusal,
    Resolve,
    Resolved,
    encode_map,
    is_printable,
)
from vsockproxy.session.opening import MAX_SERVICE_BYTES

__all__ = (
    "MAX_ANSWER_BYTES",
    "MAX_REQUEST_BYTES",
    "PARENT_SERVICE_PREFIX",
    "PENDING",
    "Answer",
    "Incoming",
    "Listen",
    "Listening",
    "Message",
    "PacketError",
    "Pending",
    "Request",
    "pack",
    "unpack_answer",
    "unpack_request",
)

PENDING: Final = 64
"""Beyond every type of frame: this message is never on a link."""

PARENT_SERVICE_PREFIX: Final = "vsockproxy."
"""What the names of the parent's services begin with."""

LISTEN: Final = 65
LISTENING: Final = 66
INCOMING: Final = 67

MAX_REQUEST_BYTES: Final = 1 + PAYLOAD_LIMITS[FrameType.OPEN][1]
MAX_ANSWER_BYTES: Final = 1 + PAYLOAD_LIMITS[FrameType.RESOLVED][1]
"""Longest packets; to be received with room for one byte more, so that a longer one shows."""


class PacketError(VsockproxyError):
    """A packet that is none of the table; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """PENDING: the stream's descriptor came with it, and the answer is to come."""


@dataclass(frozen=True, slots=True)
class Listen:
    """LISTEN: the program wants the connections of a service."""

    service: str

    def encode(self) -> bytes:
        """The map of LISTEN.

        Raises:
            LocalProtocolError: no service can have that name.
        """
        if not self.service or not is_printable(self.service, MAX_SERVICE_BYTES):
            text = f"a service must be printable text of 1 to {MAX_SERVICE_BYTES} bytes"
            raise LocalProtocolError(text)
        return encode_map({1: self.service})


@dataclass(frozen=True, slots=True)
class Listening:
    """LISTENING: connections may come from now on."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """INCOMING: a connection; its descriptor came with it."""

    client: str = ""
    """`ADDRESS:PORT` of who connected; empty if the parent did not say."""
    server: str = ""
    """The address that it connected to, likewise."""

    def encode(self) -> bytes:
        """The map of INCOMING."""
        return encode_map({key: text for key, text in ((1, self.client), (2, self.server)) if text})


Request = Open | Resolve | Listen
Answer = Pending | Opened | Refusal | Resolved | Listening | Incoming
Message = Request | Answer


def pack(message: Message) -> bytes:
    """The packet of a message.

    Raises:
        LocalProtocolError: a field is out of bounds.
    """
    match message:
        case Pending():
            return bytes([PENDING])
        case Listening():
            return bytes([LISTENING])
        case Listen():
            return bytes([LISTEN]) + message.encode()
        case Incoming():
            return bytes([INCOMING]) + message.encode()
        case Open():
            kind = FrameType.OPEN
        case Opened():
            kind = FrameType.OPENED
        case Refusal():
            kind = FrameType.REFUSED
        case Resolve():
            kind = FrameType.RESOLVE
        case Resolved():
            kind = FrameType.RESOLVED
    return bytes([kind]) + message.encode()


def unpack_request(packet: bytes) -> Request:
    """What a program asks for.

    Raises:
        PacketError: it asks for nothing of the table.
    """
    kind, payload = _split(packet, MAX_REQUEST_BYTES)
    try:
        if kind == FrameType.OPEN:
            opening = Open.decode(payload)
            if opening.service and not opening.service.startswith(PARENT_SERVICE_PREFIX):
                raise PacketError(
                    f"OPEN names a service that is none of the parent's ({PARENT_SERVICE_PREFIX}*)"
                )
            return opening
        if kind == LISTEN:
            return Listen(Fields(payload, "LISTEN").text(1, MAX_SERVICE_BYTES))
        if kind == FrameType.RESOLVE:
            return Resolve.decode(payload)
    except PeerProtocolError as error:
        raise PacketError(error.text) from error
    raise PacketError(f"a packet of kind {kind}, which is no request")


def unpack_answer(packet: bytes) -> Answer:
    """What a worker answers.

    Raises:
        PacketError: it is no answer of the table.
    """
    kind, payload = _split(packet, MAX_ANSWER_BYTES)
    try:
        if kind == PENDING and not payload:
            return Pending()
        if kind == LISTENING and not payload:
            return Listening()
        if kind == INCOMING:
            fields = Fields(payload, "INCOMING")
            return Incoming(
                fields.text(1, MAX_ADDRESS_BYTES, ""), fields.text(2, MAX_ADDRESS_BYTES, "")
            )
        if kind == FrameType.OPENED:
            return Opened.decode(payload)
        if kind == FrameType.REFUSED:
            return Refusal.decode(payload)
        if kind == FrameType.RESOLVED:
            return Resolved.decode(payload)
    except PeerProtocolError as error:
        raise PacketError(error.text) from error
    raise PacketError(f"a packet of kind {kind} and {len(packet)} bytes, which is no answer")


def _split(packet: bytes, most_bytes: int) -> tuple[int, bytes]:
    if not packet:
        raise PacketError("an empty packet")
    if len(packet) > most_bytes:
        raise PacketError(f"a packet of more than {most_bytes} bytes")
    return packet[0], packet[1:]
