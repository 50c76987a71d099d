"""One accepted connection of a unix socket of packets (SOCK_SEQPACKET), on which a peer asks."""

import asyncio
import socket
import struct
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vsockproxy.dataplane.sockets import receive

__all__ = ("PacketConnection", "PeerGone")

_CREDENTIALS = struct.Struct("iII")
"""struct ucred: process, user, group."""


class PeerGone(ConnectionResetError):
    """The peer gave up before it had its answer.

    Args:
        has_spoken: it did so by sending another packet, which nobody asked for.
    """

    def __init__(self, has_spoken: bool) -> None:
        super().__init__("the peer gave up before it had its answer")
        self.has_spoken = has_spoken


class PacketConnection:
    """A connection of packets.

    Args:
        sock: non-blocking and connected; owned from now on.
    """

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @property
    def peer_user(self) -> int:
        """The effective user of who connected, or made the pair (SO_PEERCRED, unix(7))."""
        credentials = self._sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        user: int = _CREDENTIALS.unpack(credentials)[1]
        return user

    async def receive(self, most_bytes: int) -> bytes:
        """The next packet, empty if the peer has gone; of a longer one, one byte too many.

        Raises:
            OSError: the connection failed.
        """
        return await receive(self._sock, most_bytes + 1)

    def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send a packet, and with it duplicates of descriptors.

        Raises:
            OSError: the peer has gone, or never receives; or too many descriptors are on their way
                to peers that do not (ETOOMANYREFS, unix(7)).
        """
        rights = array("i", descriptors).tobytes()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        self._sock.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)

    @contextmanager
    def while_peer_waits(self) -> Iterator[None]:
        """Run a block for as long as the peer is there and silent.

        Raises:
            PeerGone: it is not, and the block was cancelled.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # only a coroutine can wait
        descriptor = self._sock.fileno()
        cancelled_before = task.cancelling()
        is_gone = False

        def on_readable() -> None:
            nonlocal is_gone
            loop.remove_reader(descriptor)  # once: a second time would cancel the cleaning up
            is_gone = True
            task.cancel()

        loop.add_reader(descriptor, on_readable)
        try:
            yield
        except asyncio.CancelledError:
            if is_gone and task.uncancel() <= cancelled_before:
                raise PeerGone(self._has_packet()) from None
            raise
        finally:
            if not is_gone:
                loop.remove_reader(descriptor)

    def _has_packet(self) -> bool:
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close it; what was sent is delivered."""
        self._sock.close()
