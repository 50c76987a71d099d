"""The first bytes of a connection from outside: whose it is, and which server it asks for."""

import socket
from dataclasses import dataclass

from vsockproxy.dataplane.loop import timeout
from vsockproxy.dataplane.sockets import receive
from vsockproxy.errors import Refused
from vsockproxy.protocols.client_hello import ClientHello, ClientHelloReader
from vsockproxy.protocols.errors import NotTls, ProxyHeaderError
from vsockproxy.protocols.proxy_v2 import ProxyHeader, ProxyHeaderReader

__all__ = ("Beginning", "read_beginning")

READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Beginning:
    """What was read.

    Args:
        header: whose connection it is.
        hello: the ClientHello; None if it was not wanted, or is none.
        first_bytes: what is to be sent on.
    """

    header: ProxyHeader
    hello: ClientHello | None = None
    first_bytes: bytes = b""


async def read_beginning(
    sock: socket.socket,
    header: ProxyHeader,
    *,
    reads_header: bool,
    reads_hello: bool,
    hello_is_required: bool,
    seconds: float,
) -> Beginning:
    """Read what has to be known before a service can be found.

    Args:
        sock: the connection.
        header: whose it is as far as the kernel knows.
        reads_header: whether a PROXY header has to come first.
        reads_hello: whether a ClientHello is looked for.
        hello_is_required: whether there has to be one.
        seconds: for all of it.

    Raises:
        Refused: something else came, or nothing in time.
        ConnectionError: the client has gone before it was all there.
    """
    if not (reads_header or reads_hello):
        return Beginning(header)
    first_bytes = b""
    waits_for = "PROXY header"
    try:
        async with timeout(seconds):
            if reads_header:
                said, first_bytes = await _read_header(sock)
                # The balancer's own connections (LOCAL) come from where the kernel says.
                header = header if said.client is None else said
            if not reads_hello:
                return Beginning(header, first_bytes=first_bytes)
            waits_for = "ClientHello"
            reader = ClientHelloReader()
            try:
                hello = reader.receive(first_bytes) if first_bytes else None
                while hello is None:
                    hello = reader.receive(await _receive(sock))
            except NotTls as error:
                if hello_is_required:
                    raise Refused("not_tls", error.text) from error
                hello = None
            return Beginning(header, hello, reader.received)
    except ProxyHeaderError as error:
        raise Refused("denied", error.text) from error
    except TimeoutError as error:
        reason = "not_tls" if waits_for == "ClientHello" else "denied"
        raise Refused(reason, f"no {waits_for} for {seconds:g} s") from error


async def _read_header(sock: socket.socket) -> tuple[ProxyHeader, bytes]:
    reader = ProxyHeaderReader()
    while (said := reader.receive(await _receive(sock))) is None:
        pass
    return said, reader.rest


async def _receive(sock: socket.socket) -> bytes:
    data = await receive(sock, READ_BYTES)
    if not data:
        raise ConnectionResetError("the client closed before its first bytes were all there")
    return data
