"""What goes wrong in a session, with the code that travels on the wire for it.

SessionError
├── LocalProtocolError      our own code used the session against its rules; never the peer's fault
└── PeerProtocolError       the peer broke the wire format; ends the session with its code
    └── SessionRefused      it kept to the format, and does not want the session
"""

from enum import IntEnum

from vsockproxy.errors import VsockproxyError


class ErrorCode(IntEnum):
    """Codes of GOAWAY, RESET and STOP (WIRE_FORMAT.md, "Codes"); unknown ones stay numbers."""

    NONE = 0
    """GOAWAY: an orderly end. RESET, STOP: no particular reason."""
    PROTOCOL = 1
    """A frame that the format does not allow."""
    SEQUENCE = 2
    """A sequence number other than the next: bytes were lost or repeated below us."""
    FLOW_CONTROL = 3
    """More data than was granted."""
    STREAM_LIMIT = 4
    """More streams opened than MAX_STREAMS allows."""
    STREAM_STATE = 5
    """A frame that the stream's state does not allow."""
    CHECKSUM = 6
    """A payload that does not match its CRC-32."""
    ABUSE = 7
    """Frames that are allowed one by one, in numbers that only do harm."""
    KEEPALIVE = 8
    """Nothing was heard for the dead time."""
    CANCELLED = 16
    """The program closed its connection before the stream was answered."""
    CUT = 17
    """The connection behind this stream ended without a clean end."""
    LINK_LOST = 18
    """The link under the session ended (never sent: there is no link left to send it on)."""
    NOT_TLS = 19
    """The first bytes were refused by a side that requires TLS for the asked host."""
    TIMED_OUT = 20
    """A time limit of the stream was reached."""
    SHUTDOWN = 21
    """The process that carries the stream ends."""


class SessionError(VsockproxyError):
    """Base of the session's errors; `code` is what the wire says."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class LocalProtocolError(SessionError):
    """A caller asked the session for something its state does not allow: a bug on this side."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.PROTOCOL, text)


class PeerProtocolError(SessionError):
    """The peer sent what the wire format forbids; the session is over."""


class SessionRefused(PeerProtocolError):
    """The peer does not want the session, or is not wanted; nobody broke the format.

    Args:
        text: why.
        reason: a slug for it, where there is one.
        has_cost: whether the other end had to work for it, so that it should not be asked again
            at once.
    """

    def __init__(self, text: str, *, reason: str = "", has_cost: bool = False) -> None:
        super().__init__(ErrorCode.NONE, text)
        self.reason = reason
        self.has_cost = has_cost
