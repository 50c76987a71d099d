"""Streams for programs on asyncio, on any of its loops: `open_stream`."""

import asyncio
import socket
import ssl as tls

from vsockproxy.client.location import stream_socket_path
from vsockproxy.client.opening import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    Opening,
    try_to_connect,
)

__all__ = ("open_stream",)


async def open_stream(
    host: str,
    port: int,
    *,
    ssl: tls.SSLContext | None = None,
    dedicated: bool = False,
    path: str | None = None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream to a host of the allowlist.

    Use it like `asyncio.open_connection`. It takes as long as the connection takes to be made, or
    the limits of the file: `asyncio.timeout` ends it sooner, and the stream with it.

    Args:
        host: a name or an IP literal.
        port: a TCP port.
        ssl: to speak TLS with `host` on the stream, which the enclave's file requires by default.
        dedicated: whether the stream has a vsock connection of its own, for bulk.
        path: of the stream socket, where VSOCKPROXY_STREAMS does not name it.

    Returns:
        The stream's two halves. A stream that is cut raises ConnectionResetError.

    Raises:
        StreamRefused: by either side; its class and its `reason` say why.
        StreamSocketMissing: the stream socket is not named, or nobody listens on it.
        OpeningCut: the worker ended before it had answered.
        PacketError: what listens is no worker.
        ValueError: host or port cannot be asked for.
        ssl.SSLError: TLS could not be agreed on with the host.
    """
    opening = Opening(await _connect(stream_socket_path(path)), host, port, dedicated=dedicated)
    try:
        while not opening.is_open:
            try:
                opening.receive()
            except BlockingIOError:
                await _readable(opening.fileno())
    except BaseException:
        opening.close()
        raise
    stream = opening.detach()
    return await asyncio.open_connection(
        sock=stream, ssl=ssl, server_hostname=host if ssl is not None else None
    )


async def _connect(path: str) -> socket.socket:
    pause = FIRST_RETRY_SECONDS
    while True:
        try:
            return try_to_connect(path)
        except BlockingIOError:
            await asyncio.sleep(pause)
        pause = min(2 * pause, MOST_RETRY_SECONDS)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
