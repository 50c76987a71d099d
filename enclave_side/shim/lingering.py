"""Closing so that a client sees the last answer, whatever it still sends.

A socket that is closed with bytes unread resets the connection, and the reset may overtake the
answer (RFC 9112, section 9.6). So our direction ends first, and what still comes is dropped
unparsed: it was meant for a tunnel that does not stand, and a third party may have chosen it
(RFC 9931).
"""

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from vsockproxy.dataplane.closing import close_cleanly, finish_socket
from vsockproxy.dataplane.loop import timeout
from vsockproxy.dataplane.sockets import receive, send_all

__all__ = ("LINGER_SECONDS", "answer_and_close", "drop_the_rest", "linger_and_close")

LINGER_SECONDS = 2.0
"""How long a client may take to see the end."""

_READ_BYTES = 16 * 1024


async def answer_and_close(sock: socket.socket, answer: bytes) -> None:
    """Send a last answer, which may be empty, and close once the client has had time for it."""
    with suppress(OSError):
        async with timeout(LINGER_SECONDS):
            await send_all(sock, answer)
    await linger_and_close(sock)


async def linger_and_close(sock: socket.socket) -> None:
    """Close once the client has seen the end, or has had the time for it."""
    finish_socket(sock)
    await drop_the_rest(partial(receive, sock, _READ_BYTES))
    close_cleanly(sock)


async def drop_the_rest(read: Callable[[], Awaitable[bytes]]) -> None:
    """Let the other end see what was sent last, while what it still sends is dropped."""
    with suppress(OSError):
        async with timeout(LINGER_SECONDS):
            while await read():
                pass
