"""What the program is told of a refusal: the error that the system would raise, with our reason."""

import errno
import os
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vsockproxy.client.errors import OpeningCut, StreamRefused, StreamSocketMissing
from vsockproxy.client.messages import PacketError

__all__ = ("EAI_NODATA", "connect_error", "failure_text", "lookup_error", "plain_error")

EAI_NODATA: Final[int] = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)
"""A name without an address of the wanted family; not every C library tells that apart."""

_LOOKUP_TEXTS: Final[Mapping[int, str]] = MappingProxyType(
    {
        EAI_NODATA: "No address associated with hostname",
        socket.EAI_NONAME: "Name or service not known",
        socket.EAI_AGAIN: "Temporary failure in name resolution",
    }
)
"""As gai_strerror(3) has them."""


def plain_error(number: int) -> OSError:
    """An error without more to say; its class is that of its number."""
    return OSError(number, os.strerror(number))


def failure_text(error: Exception, target: str) -> str:
    """What became of an opening, in a line that names the target."""
    return str(error) if isinstance(error, StreamRefused) else f"{target}: {error}"


def connect_error(error: Exception, target: str) -> OSError:
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
    return OSError(number, f"{os.strerror(number)} ({failure_text(error, target)})")


def lookup_error(number: int, text: str = "") -> socket.gaierror:
    """What getaddrinfo() raises.

    Args:
        number: one of EAI_NONAME, EAI_AGAIN and EAI_NODATA.
        text: what was refused, and why.
    """
    what = _LOOKUP_TEXTS[number]
    return socket.gaierror(number, f"{what} ({text})" if text else what)
