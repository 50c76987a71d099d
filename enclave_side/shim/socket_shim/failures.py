"""What the program is told of a refusal: the error that the system would raise, with our reason."""

import errno
import os
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vsockproxy.client.errors import OpeningCut, StreamRefused, StreamSocketMissing
from vsockproxy.client.messages import PacketError

__all__ = ("connect_error", "lookup_error", "plain_error")

_LOOKUP_TEXTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        socket.EAI_NONAME: "Name or service not known",
        socket.EAI_AGAIN: "Temporary failure in name resolution",
        socket.EAI_NODATA: "No address associated with hostname",
    }
)
"""As gai_strerror(3) has them."""


def plain_error(number: int) -> OSError:
    """An error without more to say; its class is that of its number."""
    return OSError(number, os.strerror(number))


def connect_error(error: Exception) -> OSError:
    """What connect() raises for what became of an opening; `OSError`s of the system stay."""
    match error:
        case StreamRefused():
            # A name that is gone since it was looked up: connect() knows no errors of lookups.
            number = error.errno if error.errno and error.errno > 0 else errno.EHOSTUNREACH
        case StreamSocketMissing():
            number = errno.ENETUNREACH
        case OpeningCut():
            number = errno.ECONNRESET
        case PacketError():
            number = errno.EPROTO
        case OSError():
            return error
        case _:
            number = errno.EINVAL
    return OSError(number, f"{os.strerror(number)} ({error})")


def lookup_error(number: int, text: str = "") -> socket.gaierror:
    """What getaddrinfo() raises.

    Args:
        number: one of EAI_NONAME, EAI_AGAIN and EAI_NODATA.
        text: what was refused, and why.
    """
    what = _LOOKUP_TEXTS[number]
    return socket.gaierror(number, f"{what} ({text})" if text else what)
