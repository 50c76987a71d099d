"""Listening for a service of the enclave: connect, say for which, take the connections.

With a loop, `for_asyncio` and `for_trio` do the waiting. What a program gets is an ordinary TCP
socket for each connection, and where the connection comes from.
"""

import socket
import struct
from dataclasses import dataclass
from typing import Final

from vsockproxy.client.errors import refused
from vsockproxy.client.messages import Incoming, Listen, Listening, PacketError
from vsockproxy.client.opening import receive_answer, send_request
from vsockproxy.session.messages import Refusal

__all__ = ("Accepted", "ServiceListener")

_LINGER_OFF: Final = struct.pack("ii", 0, 0)
"""struct linger of <sys/socket.h>."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection from outside.

    Args:
        socket: the stream's, connected and blocking; whoever gets it closes it.
        client: `ADDRESS:PORT` of who connected, as the parent says; empty if it did not.
        server: the address that it connected to, likewise.
    """

    socket: socket.socket
    client: str
    server: str


class ServiceListener:
    """A program's listening on the stream socket.

    Args:
        connection: to the stream socket, and nothing was sent on it; owned from now on. Whether
            and how long `receive` waits is what `settimeout` says of it.
        service: the service's name in `ingress` of the enclave's file.

    Raises:
        ValueError: no service can have that name.
    """

    __slots__ = ("_connection", "is_listening", "service")

    def __init__(self, connection: socket.socket, service: str) -> None:
        self._connection = connection
        self.service = service
        self.is_listening = False
        """Whether the worker has said that connections may come."""
        try:
            send_request(connection, Listen(service))
        except BaseException:
            connection.close()
            raise

    def fileno(self) -> int:
        """The connection's descriptor: readable when there is something to `receive`."""
        return self._connection.fileno()

    def receive(self) -> Accepted | None:
        """Take one packet: a connection, or None for the worker's word that it listens.

        Raises:
            BlockingIOError: none has arrived, on a connection that does not block.
            TimeoutError: none has arrived within the connection's timeout.
            StreamRefused: the file has no such service for programs.
            OpeningCut: the worker is gone; listen again.
            PacketError: it said what is no answer to LISTEN.
            OSError: EMFILE, this process has no descriptor left for the connection.
        """
        answer, stream = receive_answer(self._connection)
        match answer:
            case Listening() if not self.is_listening:
                self.is_listening = True
                return None
            case Incoming() if self.is_listening and stream is not None:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
                return Accepted(stream, answer.client, answer.server)
            case Refusal():
                raise refused(answer.reason, answer.text, self.service, 0)
        if stream is not None:
            stream.close()
        raise PacketError(f"{type(answer).__name__} is no answer to LISTEN here")

    def close(self) -> None:
        """Listen no more; connections that were not taken are reset."""
        self._connection.close()
