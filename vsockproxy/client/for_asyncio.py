"""Streams for programs on asyncio, on any of its loops: `open_stream`, `listen`."""

import asyncio
import socket
import ssl as tls
from dataclasses import dataclass
from typing import Self

from vsockproxy.client.errors import OpeningCut
from vsockproxy.client.listening import ServiceListener
from vsockproxy.client.location import stream_socket_path
from vsockproxy.client.opening import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    Opening,
    try_to_connect,
)

__all__ = ("Connection", "Listener", "listen", "open_stream")


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


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection from outside to a service.

    Args:
        reader: what the client sends. A stream that is cut raises ConnectionResetError.
        writer: what the client gets.
        client: `ADDRESS:PORT` of the client, as the parent says; empty if it did not.
        server: the address that it connected to, likewise.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    client: str
    server: str


async def listen(service: str, *, path: str | None = None) -> "Listener":
    """Listen for a service of the enclave's file that has `to: streams`.

    Args:
        service: its name there.
        path: of the stream socket, where VSOCKPROXY_STREAMS does not name it.

    Raises:
        StreamRefused: the file has no such service for programs.
        StreamSocketMissing: the stream socket is not named, or nobody listens on it.
        OpeningCut: the worker ended before it had answered.
        PacketError: what listens is no worker.
        ValueError: no service can have that name.
    """
    listener = Listener(service, stream_socket_path(path))
    await listener.start()
    return listener


class Listener:
    """Gives the connections of a service; made by `listen`.

    Close it, or use it with `async with`. Of several programs that listen, each gets its turn.
    """

    def __init__(self, service: str, path: str) -> None:
        self._service = service
        self._path = path
        self._listener: ServiceListener | None = None

    async def start(self) -> ServiceListener:
        """Listen; `listen` has done so. Raises what that does."""
        listener = ServiceListener(await _connect(self._path), self._service)
        try:
            while not listener.is_listening:
                try:
                    listener.receive()
                except BlockingIOError:
                    await _readable(listener.fileno())
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        return listener

    async def accept(self) -> Connection:
        """Wait for the next connection. A worker that was replaced is found again.

        Raises:
            StreamRefused, StreamSocketMissing, OpeningCut, PacketError: as `listen` says, where
                that had to be done again.
            OSError: EMFILE, no descriptor is left; the connection is lost.
        """
        while True:
            listener = self._listener or await self.start()
            try:
                accepted = listener.receive()
            except BlockingIOError:
                await _readable(listener.fileno())
            except OpeningCut:
                self.close()
            else:
                assert accepted is not None  # it listens already
                try:
                    reader, writer = await asyncio.open_connection(sock=accepted.socket)
                except BaseException:
                    accepted.socket.close()
                    raise
                return Connection(reader, writer, accepted.client, accepted.server)

    def close(self) -> None:
        """Listen no more; connections that were not taken are reset."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


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
