"""For programs on trio: `open_stream` and `listen`, `attestation_document` and `kms`."""

import socket
from dataclasses import dataclass
from functools import partial
from typing import Self

import trio

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
    "open_service",
    "open_stream",
)

_WAITS = Waits(trio.sleep, trio.lowlevel.wait_readable)


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
    await trio.lowlevel.checkpoint()
    connection = await connect(stream_socket_path(path), _WAITS)
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
    return _as_stream(await finish(opening, _WAITS))


def _as_stream(sock: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


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
    await trio.lowlevel.checkpoint()
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
        await trio.lowlevel.checkpoint()
        accepted = await self._accepting.accept()
        return Connection(_as_stream(accepted.socket), accepted.client, accepted.server)

    def close(self) -> None:
        """Listen no more; connections that were not taken are reset."""
        self._accepting.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


async def attestation_document(
    *,
    user_data: bytes | None = None,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
    device: str | None = None,
) -> bytes:
    """As `blocking.attestation_document`, in a thread; cancelled, it is left behind there."""
    ask = partial(
        blocking.attestation_document,
        user_data=user_data,
        nonce=nonce,
        public_key=public_key,
        device=device,
    )
    return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)


class Kms(AsyncKms):
    """KMS on trio; arguments are those of `AsyncKms`."""

    async def _carry_out(self, exchange: Exchange[Result]) -> Result:
        proxy = exchange.proxy
        try:
            with trio.fail_after(CALL_SECONDS):
                async with await trio.open_tcp_stream(proxy.host, proxy.port) as stream:
                    await stream.send_all(exchange.request)
                    while True:
                        received = exchange.receive(bytes(await stream.receive_some(READ_BYTES)))
                        if received is not None:
                            return received.result
        except trio.TooSlowError:
            raise proxy.silent(CALL_SECONDS) from None
        except KmsError:
            raise  # some are of the next kind too
        except OSError as error:
            raise proxy.lost(error) from error
        except trio.BrokenResourceError as error:
            raise proxy.lost() from error


kms = Kms()
"""KMS as the environment says, at the time of each call."""
