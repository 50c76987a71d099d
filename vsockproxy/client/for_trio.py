"""Streams for programs on trio: `open_stream`."""

import socket

import trio

from vsockproxy.client.location import stream_socket_path
from vsockproxy.client.opening import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    Opening,
    try_to_connect,
)

__all__ = ("open_service", "open_stream")


async def open_stream(
    host: str, port: int, *, dedicated: bool = False, path: str | None = None
) -> trio.SocketStream:
    """Open a stream to a host of the allowlist.

    Use it like `trio.open_tcp_stream`; `trio.SSLStream(stream, context, server_hostname=host)`
    speaks TLS on it, which the enclave's file requires by default. It takes as long as the
    connection takes to be made, or the limits of the file: a cancel scope ends it sooner, and the
    stream with it.

    Args:
        host: a name or an IP literal.
        port: a TCP port.
        dedicated: whether the stream has a vsock connection of its own, for bulk.
        path: of the stream socket, where VSOCKPROXY_STREAMS does not name it.

    Returns:
        The stream. One that is cut raises trio.BrokenResourceError.

    Raises:
        StreamRefused: by either side; its class and its `reason` say why.
        StreamSocketMissing: the stream socket is not named, or nobody listens on it.
        OpeningCut: the worker ended before it had answered.
        PacketError: what listens is no worker.
        ValueError: host or port cannot be asked for.
    """
    connection = await _connect(stream_socket_path(path))
    return await _finish(Opening(connection, host, port, dedicated=dedicated))


async def open_service(connection: socket.socket, service: str) -> trio.SocketStream:
    """Open a stream to a service of the parent; for processes of ours.

    Args:
        connection: a non-blocking socket of packets whose other end serves as the stream socket
            does, and on which nothing was sent; closed when this returns.
        service: its name, which begins with `vsockproxy.`.

    Raises:
        StreamRefused: by the parent, which has no such service, or for lack of a link.
        OpeningCut: the worker ended before it had answered.
        PacketError: what the other end says is no answer.
    """
    return await _finish(Opening(connection, "", 0, service=service))


async def _finish(opening: Opening) -> trio.SocketStream:
    try:
        while not opening.is_open:
            try:
                opening.receive()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(opening.fileno())
    except BaseException:
        opening.close()
        raise
    return trio.SocketStream(trio.socket.from_stdlib_socket(opening.detach()))


async def _connect(path: str) -> socket.socket:
    await trio.lowlevel.checkpoint()
    pause = FIRST_RETRY_SECONDS
    while True:
        try:
            return try_to_connect(path)
        except BlockingIOError:
            await trio.sleep(pause)
        pause = min(2 * pause, MOST_RETRY_SECONDS)
