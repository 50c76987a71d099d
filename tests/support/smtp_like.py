"""A mail server that speaks first (RFC 5321): it greets, and takes one message at a time."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.pair import serving


@contextmanager
def smtp_like() -> Iterator[tuple[int, list[bytes]]]:
    """Serve on loopback; gives the port, and the messages that came."""
    messages: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            connection.sendall(b"220 mail.test ESMTP\r\n")
            while line := lines.readline():
                word = line.split()[0].upper()
                if word == b"DATA":
                    connection.sendall(b"354 go on\r\n")
                    messages.append(b"".join(iter(lines.readline, b".\r\n")))
                if word == b"QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                connection.sendall(b"250 ok\r\n")

    with serving(handle) as port:
        yield port, messages
