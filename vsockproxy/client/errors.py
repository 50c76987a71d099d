"""What a program is told when a stream is not to be: by reason, and by errno; or a document.

StreamRefused(Refused, OSError)        any reason; the base of the next six
├── NotAllowed(PermissionError)        policy of either side says no
├── NoSuchName(socket.gaierror)        the parent's resolver knows no such name
├── LookupFailed(socket.gaierror)      the parent's resolver could not find out
├── DialRefused(ConnectionRefusedError)
├── DialTimedOut(TimeoutError)
└── ParentAway(ConnectionError)        no link to the parent
StreamSocketMissing(ConnectionError)   the stream socket is not named, or nobody listens on it
OpeningCut(ConnectionResetError)       the worker ended before it had answered

All are `vsockproxy.errors.VsockproxyError` and OSError, so that code which was written for sockets
catches them.

What a call to KMS ends with is in `kms_errors`. For attestation documents there is NsmError, whose
classes are listed in `vsockproxy.attestation.nsm_errors`; they stand here for programs.
"""

import errno
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from vsockproxy.addresses import Destination, Host
from vsockproxy.attestation.nsm_errors import (
    NsmError,
    NsmFailed,
    NsmMissing,
    NsmRefused,
    NsmRequestError,
    NsmResponseError,
    NsmTimedOut,
)
from vsockproxy.errors import Refused, VsockproxyError

__all__ = (
    "ERRNO_BY_REASON",
    "ERRNO_WHEN_CUT",
    "DialRefused",
    "DialTimedOut",
    "LookupFailed",
    "NoSuchName",
    "NotAllowed",
    "NsmError",
    "NsmFailed",
    "NsmMissing",
    "NsmRefused",
    "NsmRequestError",
    "NsmResponseError",
    "NsmTimedOut",
    "OpeningCut",
    "ParentAway",
    "StreamRefused",
    "StreamSocketMissing",
    "errno_for",
    "refused",
)

ERRNO_BY_REASON: Final[Mapping[str, int]] = MappingProxyType(
    {
        "not_listed": errno.EACCES,
        "attestation_required": errno.EACCES,
        "port_not_listed": errno.EACCES,
        "denied": errno.EACCES,
        "address_private": errno.EACCES,
        "address_metadata": errno.EACCES,
        "address_reserved": errno.EACCES,
        "not_tls": errno.EACCES,
        "sni_mismatch": errno.EACCES,
        "tls_failed": errno.EPROTO,
        "no_such_name": socket.EAI_NONAME,
        "lookup_failed": socket.EAI_AGAIN,
        "dial_refused": errno.ECONNREFUSED,
        "dial_timeout": errno.ETIMEDOUT,
        "limit": errno.ENOBUFS,
        "parent_away": errno.ENETUNREACH,
    }
)
"""The error number for each reason (`vsockproxy.policy.reasons.Reason`) that refuses; those of
getaddrinfo(3) are negative, all others are errno(3)."""

ERRNO_WHEN_CUT: Final = errno.ECONNRESET
"""A stream that was cut, before its answer or after."""


def errno_for(reason: str) -> int:
    """The error number for `reason`.

    A reason we do not know comes from a newer other side, and is a "no" like any other: EACCES.
    """
    return ERRNO_BY_REASON.get(reason, errno.EACCES)


class StreamRefused(Refused, OSError):
    """A stream was refused; `errno` is that of its reason.

    Args:
        reason: one of the reasons of `vsockproxy.policy.reasons.Reason`, as text.
        text: one line that says what to do.
        host: what was asked for.
        port: the port that was asked for.
    """

    def __init__(self, reason: str, text: str, host: str, port: int) -> None:
        asked = Destination(Host(host, None), port) if port else host  # a service has no port
        OSError.__init__(self, errno_for(reason), f"{reason}: {asked}: {text}")
        self.reason = reason
        self.text = text
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.text, self.host, self.port)


class NotAllowed(StreamRefused, PermissionError):
    """Policy of either side says no; the text says what to add where."""


class NoSuchName(StreamRefused, socket.gaierror):
    """The parent's resolver knows no such name."""


class LookupFailed(StreamRefused, socket.gaierror):
    """The parent's resolver could not find out; it may be worth trying again."""


class DialRefused(StreamRefused, ConnectionRefusedError):
    """The destination refused the connection."""


class DialTimedOut(StreamRefused, TimeoutError):
    """The destination did not answer in time."""


class ParentAway(StreamRefused, ConnectionError):
    """There was no link to the parent, for as long as `limits.link_wait` says."""


_TYPES: Final[Mapping[int, type[StreamRefused]]] = MappingProxyType(
    {
        errno.EACCES: NotAllowed,
        socket.EAI_NONAME: NoSuchName,
        socket.EAI_AGAIN: LookupFailed,
        errno.ECONNREFUSED: DialRefused,
        errno.ETIMEDOUT: DialTimedOut,
        errno.ENETUNREACH: ParentAway,
    }
)


def refused(reason: str, text: str, host: str, port: int) -> StreamRefused:
    """The exception for a refusal."""
    return _TYPES.get(errno_for(reason), StreamRefused)(reason, text, host, port)


class StreamSocketMissing(VsockproxyError, ConnectionError):
    """The stream socket is not named, or nobody listens on it; the text says what to do."""

    def __init__(self, number: int, text: str) -> None:
        OSError.__init__(self, number, text)

    def __str__(self) -> str:
        return str(self.strerror)


class OpeningCut(VsockproxyError, ConnectionResetError):
    """The worker ended, or was stopped, before it had answered; it is worth trying again."""

    def __init__(self) -> None:
        OSError.__init__(self, ERRNO_WHEN_CUT, "the worker ended before it had answered")

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
