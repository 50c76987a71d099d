"""The multiplexer: one link, many streams. Pure; WIRE_FORMAT.md is its specification."""

from vsockproxy.session.credit import ReceiveBudget
from vsockproxy.session.errors import (
    ErrorCode,
    LocalProtocolError,
    PeerProtocolError,
    SessionError,
    SessionRefused,
)
from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved
from vsockproxy.session.opening import DedicatedPreface, Hello, PrefaceReader, agree_on_version
from vsockproxy.session.session import Session
from vsockproxy.session.stream import Stream

__all__ = (
    "DedicatedPreface",
    "ErrorCode",
    "Hello",
    "LocalProtocolError",
    "Open",
    "Opened",
    "PeerProtocolError",
    "PrefaceReader",
    "ReceiveBudget",
    "Refusal",
    "Resolve",
    "Resolved",
    "Session",
    "SessionError",
    "SessionRefused",
    "Stream",
    "agree_on_version",
)
