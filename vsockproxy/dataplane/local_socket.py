"""What a relay asks of the local socket behind a stream.

A socket has it all; `tls_socket.TlsSocket` stands in front of one and has it too.
"""

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ("LocalFault", "LocalSocket")


class LocalFault(OSError):
    """Not the program's connection failed, but what stands in front of it: both directions end.

    Args:
        ended: how the stream ended, as its close line says it.
        text: what happened.
    """

    def __init__(self, ended: str, text: str) -> None:
        super().__init__(text)
        self.ended = ended


class LocalSocket(Protocol):
    """A connected, non-blocking socket, as far as a relay uses it; see `socket.socket`."""

    @property
    def family(self) -> int:
        """The socket's family."""

    def fileno(self) -> int:
        """The descriptor whose readiness says when to read and write."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read into a buffer; 0 at the end of file."""

    def recvmsg_into(self, buffers: Sequence[memoryview], /) -> tuple[int, list[Any], int, Any]:
        """Read into several buffers; the first of the results is how many bytes."""

    def send(self, data: memoryview, /) -> int:
        """Write; how many bytes were taken. What was not is offered again, and first."""

    def sendmsg(self, views: Sequence[memoryview], /) -> int:
        """Write from several buffers."""

    def shutdown(self, how: int, /) -> None:
        """No more is written."""

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option."""

    def close(self) -> None:
        """Close the descriptor."""
