"""Streams for programs on trio: `open_stream`, `listen`."""

import socket
from dataclasses import dataclass
from typing import Self

import trio

from vsockproxy.client.errors import OpeningCut
from vsockproxy.client.listening import ServiceListener
from vsockproxy.client.location import stream_socket_path
from vsockproxy.client.opening import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    Opening,
    try_to_connect,
)

__all__ = ("Connection", "Listener", "listen", "open_service", "open_stream")


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


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection from outside to a service.

    Args:
        stream: the connection. One that is cut raises trio.BrokenResourceError.
        client: `ADDRESS:PORT` of the client, as the parent says; empty if it did not.
        server: the address that it connected to, likewise.
    """

    stream: trio.SocketStream
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
                    await trio.lowlevel.wait_readable(listener.fileno())
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
        await trio.lowlevel.checkpoint()
        while True:
            listener = self._listener or await self.start()
            try:
                accepted = listener.receive()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(listener.fileno())
            except OpeningCut:
                self.close()
            else:
                assert accepted is not None  # it listens already
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted.socket))
                return Connection(stream, accepted.client, accepted.server)

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
    await trio.lowlevel.checkpoint()
    pause = FIRST_RETRY_SECONDS
    while True:
        try:
            return try_to_connect(path)
        except BlockingIOError:
            await trio.sleep(pause)
        pause = min(2 * pause, MOST_RETRY_SECONDS)
