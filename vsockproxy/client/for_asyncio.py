"""For programs on asyncio, on any of its loops.

`open_stream` and `listen` are for streams, `attestation_document` and `kms` for trust.
"""

import asyncio
import ssl as tls
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from vsockproxy.client import blocking
from vsockproxy.client.kms_calls import Result
from vsockproxy.client.kms_client import AsyncKms
from vsockproxy.client.kms_errors import KmsError
from vsockproxy.client.kms_exchange import CALL_SECONDS, READ_BYTES, Exchange
from vsockproxy.client.location import stream_socket_path
from vsockproxy.client.opening import Opening
from vsockproxy.client.waiting import Accepting, Waits, connect, finish

__all__ = (
    "Connection",
    "Kms",
    "Listener",
    "attestation_document",
    "kms",
    "listen",
    "open_stream",
)


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
    connection = await connect(stream_socket_path(path), _WAITS)
    stream = await finish(Opening(connection, host, port, dedicated=dedicated), _WAITS)
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
    accepting = Accepting(service, stream_socket_path(path), _WAITS)
    await accepting.start()
    return Listener(accepting)


class Listener:
    """Gives the connections of a service; made by `listen`.

    Close it, or use it with `async with`. Of several programs that listen, each gets its turn.
    """

    def __init__(self, accepting: Accepting) -> None:
        self._accepting = accepting

    async def accept(self) -> Connection:
        """Wait for the next connection. A worker that was replaced is found again.

        Raises:
            StreamRefused, StreamSocketMissing, OpeningCut, PacketError: as `listen` says, where
                that had to be done again.
            OSError: EMFILE, no descriptor is left; the connection is lost.
        """
        accepted = await self._accepting.accept()
        try:
            reader, writer = await asyncio.open_connection(sock=accepted.socket)
        except BaseException:
            accepted.socket.close()
            raise
        return Connection(reader, writer, accepted.client, accepted.server)

    def close(self) -> None:
        """Listen no more; connections that were not taken are reset."""
        self._accepting.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


_WAITS = Waits(asyncio.sleep, _readable)


async def attestation_document(
    *,
    user_data: bytes | None = None,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
    device: str | None = None,
) -> bytes:
    """As `blocking.attestation_document`, in a thread; cancelled, it is left behind there."""
    return await asyncio.to_thread(
        blocking.attestation_document,
        user_data=user_data,
        nonce=nonce,
        public_key=public_key,
        device=device,
    )


class Kms(AsyncKms):
    """KMS on asyncio; arguments are those of `AsyncKms`."""

    async def _carry_out(self, exchange: Exchange[Result]) -> Result:
        proxy = exchange.proxy
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._exchange(exchange)
        except KmsError:
            raise  # some are of the next kinds too
        except TimeoutError as error:
            if error.errno is not None:  # the kernel's, of a connection that nobody answered
                raise proxy.lost(error) from error
            raise proxy.silent(CALL_SECONDS) from None
        except OSError as error:
            raise proxy.lost(error) from error

    async def _exchange(self, exchange: Exchange[Result]) -> Result:
        reader, writer = await asyncio.open_connection(exchange.proxy.host, exchange.proxy.port)
        try:
            writer.write(exchange.request)
            await writer.drain()
            while True:
                received = exchange.receive(await reader.read(READ_BYTES))
                if received is not None:
                    return received.result
        finally:
            writer.close()
            with suppress(OSError):  # it is of no use any more
                await writer.wait_closed()


kms = Kms()
"""KMS as the environment says, at the time of each call."""
