"""One TLS connection of ours over a stream, between a plain program and a peer that is OpenSSL's.

    program === TlsSocket - near end ~~~ link ~~~ far end === peer

Program and peer are blocking sockets of TCP, so that resets can be seen, and act in threads.
"""

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import TypeVar

from tests.support.linked_streams import LinkedStreams
from vsockproxy.dataplane.carriers import UNIX, Carrier
from vsockproxy.dataplane.loop import run, timeout
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.tls_connection import TlsConnection
from vsockproxy.dataplane.tls_records import TlsRecords

SECONDS = 30
PIECE_BYTES = 256 * 1024

T = TypeVar("T")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets, both blocking with a time limit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    for sock in (dialled, accepted):
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dialled, accepted


class TlsScene:
    """Within a running loop: a stream whose far end is attached to the peer's connection.

    Args:
        ours: our context.
        server_side: whether our end is the server.
        carrier: sizes of the links.
    """

    def __init__(
        self,
        ours: ssl.SSLContext,
        *,
        server_side: bool = False,
        carrier: Carrier = UNIX,
    ) -> None:
        self._ours = ours
        self._server_side = server_side
        self._server_name = None if server_side else "peer.test"
        self._streams = LinkedStreams(carrier)
        self.program, self.local = tcp_pair()
        self.raw_peer, self._destination = tcp_pair()
        self.failures: list[str] = []
        """What `failed` was called with."""
        self._is_open = asyncio.Event()
        self.closed = asyncio.Event()
        """Set when nothing of our end of the stream is left."""
        self.near: StreamEnd
        self.far: StreamEnd
        self.connection: TlsConnection

    async def open(self) -> None:
        """Open the stream; no TLS yet."""
        for sock in (self.local, self._destination):
            sock.setblocking(False)
        self.near, self.far = await self._streams.open()
        self.near.when_closed(lambda end: self.closed.set())
        self.far.attach(self._destination)
        records = TlsRecords(
            self._ours, server_side=self._server_side, server_name=self._server_name
        )
        self.connection = TlsConnection(self.near.read, self.near.write, records)
        self._is_open.set()

    async def handshake(self) -> None:
        """Our handshake, as soon as the stream is open."""
        await self._is_open.wait()
        await self.connection.handshake(SECONDS)

    def attach(self) -> None:
        """Relay to the program."""
        self.connection.attach(self.near, self.local, self.failures.append)

    async def start(self, peer: ssl.SSLContext) -> ssl.SSLSocket:
        """Open the stream, and complete the peer's handshake; ours is to run meanwhile."""
        await self.open()
        return await asyncio.to_thread(
            peer.wrap_socket,
            self.raw_peer,
            server_side=not self._server_side,
            server_hostname="peer.test" if self._server_side else None,
            suppress_ragged_eofs=False,
        )

    async def join(self, peer: ssl.SSLContext) -> ssl.SSLSocket:
        """Open, complete the handshake with a peer of this context, and relay to the program."""
        made = asyncio.create_task(self.start(peer))
        await self.handshake()
        sock = await made
        self.attach()
        return sock

    def close(self) -> None:
        """Close all that is left."""
        self._streams.close()
        for sock in (self.program, self.raw_peer, self.local, self._destination):
            sock.close()


def play(main: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run a coroutine function on a new loop, with a time limit."""

    async def limited() -> T:
        async with timeout(4 * SECONDS):
            return await main()

    return run(limited())


def send_pattern(sock: socket.socket, total_bytes: int) -> str:
    """Send so many bytes; their SHA-256."""
    digest = hashlib.sha256()
    piece = bytes(range(251)) * (PIECE_BYTES // 251)
    left = total_bytes
    while left:
        data = piece[: min(left, len(piece))]
        sock.sendall(data)
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def receive_all(sock: socket.socket) -> str:
    """Read to the end of file; the SHA-256 of what came."""
    digest = hashlib.sha256()
    while data := sock.recv(PIECE_BYTES):
        digest.update(data)
    return digest.hexdigest()
