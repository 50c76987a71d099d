"""From a program's connection to a relayed stream, for the ways in that have this in common.

A client of HTTP's or SOCKS's CONNECT is told of its tunnel; one that has simply connected is not.
"""

import socket

from enclave_side.opener import Destined, Opener
from vsockproxy.addresses import Destination
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.sockets import send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.tls_client import TlsClient
from vsockproxy.errors import Refused
from vsockproxy.session import ErrorCode

__all__ = ("relay_announced", "serve_silently", "serve_tunnel")


async def serve_tunnel(
    opener: Opener,
    sock: socket.socket,
    asked: Destination,
    way: str,
    *,
    announcement: bytes,
    trailing: bytes,
) -> None:
    """Open a stream, tell the client, then relay; where a refusal comes too late, reset.

    Args:
        opener: decides and opens the stream.
        sock: the client's; owned by the relay, or closed, when this returns.
        asked: where the tunnel leads.
        way: how the client came in, for the audit lines.
        announcement: tells the client that the tunnel stands; sent when the destination has been
            reached, not before.
        trailing: what the client sent behind its request; it goes into the tunnel and nowhere else.

    Raises:
        Refused: before the announcement: the client is still to be answered, and closed.
        OSError: the client is gone; its socket is still to be closed.
    """
    destined = opener.decide(asked.host.text, asked.port, way)
    end = await opener.open(destined, is_final=not opener.requires_tls(destined))
    try:
        await send_all(sock, announcement)
    except BaseException:
        end.reset(ErrorCode.CUT)
        raise
    await relay_announced(opener, destined, end, sock, trailing)


async def relay_announced(
    opener: Opener, destined: Destined, end: StreamEnd, sock: socket.socket, trailing: bytes = b""
) -> None:
    """Relay a stream that the program knows to stand: a refusal comes too late, and is a reset.

    Args:
        opener: opened the stream.
        destined: where it leads.
        end: the stream; reset where this raises.
        sock: the program's; owned by the relay, or closed, when this returns.
        trailing: what the program has sent already.

    Raises:
        OSError: the program is gone; its socket is still to be closed.
    """
    try:
        first_bytes = trailing
        if opener.requires_tls(destined):
            first_bytes = await opener.read_client_hello(destined, sock, trailing)
        await opener.relay(destined, end, sock, first_bytes)
    except Refused as refused:
        # The stream stands: a reset is all that can be said.
        end.reset(ErrorCode.NOT_TLS if refused.reason == "not_tls" else ErrorCode.CANCELLED)
        reset_socket(sock)
    except BaseException:
        end.reset(ErrorCode.CUT)
        raise


async def serve_silently(
    opener: Opener,
    sock: socket.socket,
    host: str,
    port: int,
    way: str,
    *,
    is_dedicated: bool = False,
    client: TlsClient | None = None,
) -> None:
    """Open a stream and relay; a refusal is a reset.

    Nothing else is left to say: the connection stood before anybody could be asked.

    Args:
        opener: decides and opens the stream.
        sock: the program's; owned by the relay, or closed, when this returns.
        host: where the connection leads, as it is to be decided about.
        port: the port there.
        way: how the program came in, for the audit lines.
        is_dedicated: whether the stream has a connection of its own.
        client: speaks TLS with the destination; None where the program does, or nobody.
    """
    try:
        destined = opener.decide(host, port, way)
        first_bytes = b""
        if client is None and opener.requires_tls(destined):
            first_bytes = await opener.read_client_hello(destined, sock)
        end = await opener.open(destined, is_dedicated=is_dedicated, is_final=client is None)
    except (Refused, OSError):
        reset_socket(sock)
        return
    except BaseException:
        reset_socket(sock)
        raise
    try:
        if client is None:
            await opener.relay(destined, end, sock, first_bytes)
        else:
            await opener.relay_tls(destined, end, sock, client)
    except Refused:
        end.reset(ErrorCode.CANCELLED)
        reset_socket(sock)
    except BaseException:
        end.reset(ErrorCode.CANCELLED)
        reset_socket(sock)
        raise
