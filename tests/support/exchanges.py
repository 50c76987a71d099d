"""Exchanges that are checked at both ends: so many bytes each way at once, and how each end went.

The program says in a head who it is and how much it wants; then both ends send what they have to,
finish their direction, and read to the end. What arrives is compared with what must arrive.
"""

import contextlib
import hashlib
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

HEAD = struct.Struct(">QQQ")
"""Number of the exchange, bytes that the program sends, bytes that it wants."""

PIECE_BYTES = 64 * 1024
SECONDS = 60.0
"""An exchange that takes longer hangs."""

_BLOCK_BYTES = 1 << 20


class End(Enum):
    """How an exchange looked from one end."""

    COMPLETE = auto()
    """Every byte and then an end of file, and all was sent."""
    RESET = auto()
    """A reset, whatever had arrived by then."""
    TRUNCATED = auto()
    """An end of file before the last byte: the one thing that must never be."""
    ALTERED = auto()
    """Bytes other than those that were sent."""
    HUNG = auto()
    """Neither the last byte nor an end within `SECONDS`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one end of an exchange saw."""

    end: End
    received_bytes: int


class Content:
    """Bytes that differ from exchange to exchange and from place to place.

    Args:
        seed: makes them; printed by whoever chooses it.
    """

    def __init__(self, seed: int) -> None:
        block = random.Random(seed).randbytes(_BLOCK_BYTES)
        self._twice = memoryview(block + block)

    def pieces(self, number: int, total_bytes: int) -> Iterator[memoryview]:
        """The bytes of one direction of exchange `number`."""
        turn = 0
        while total_bytes > 0:
            length = min(total_bytes, PIECE_BYTES)
            offset = (number * 104_729 + turn * 7919) % _BLOCK_BYTES
            yield self._twice[offset : offset + length]
            total_bytes -= length
            turn += 1

    def digest(self, number: int, total_bytes: int) -> bytes:
        """The hash of these bytes."""
        digest = hashlib.sha256()
        for piece in self.pieces(number, total_bytes):
            digest.update(piece)
        return digest.digest()


class Exchange:
    """One end of one exchange, on a connected socket, in both directions at once.

    Args:
        sock: stays the caller's.
        sent: pieces to send.
        received_bytes: how many bytes must arrive.
        digest: gives their hash; asked when they have all arrived.
    """

    def __init__(
        self,
        sock: socket.socket,
        sent: Iterator[memoryview],
        received_bytes: int,
        digest: Callable[[], bytes],
    ) -> None:
        self._sock = sock
        self._sent = sent
        self._piece = memoryview(b"")
        self._wanted_bytes = received_bytes
        self._wanted_digest = digest
        self._digest = hashlib.sha256()
        self._buffer = memoryview(bytearray(PIECE_BYTES))
        self.received_bytes = 0
        self.progressed: Callable[[], None] | None = None
        """Called when bytes have arrived."""

    def run(self, seconds: float = SECONDS) -> Outcome:
        """Send and receive to the end."""
        deadline = time.monotonic() + seconds
        self._sock.setblocking(False)
        poller = select.poll()
        poller.register(self._sock, select.POLLIN | select.POLLOUT)
        is_sending = is_receiving = True
        try:
            while is_sending or is_receiving:
                left = deadline - time.monotonic()
                if left <= 0 or not poller.poll(left * 1000):
                    return Outcome(End.HUNG, self.received_bytes)
                if is_sending and not self._send_on():
                    is_sending = False
                    poller.modify(self._sock, select.POLLIN)
                if is_receiving and not self._receive_on():
                    is_receiving = False
                    if self.received_bytes < self._wanted_bytes:
                        return Outcome(End.TRUNCATED, self.received_bytes)
                    poller.modify(self._sock, select.POLLOUT)
        except OSError:  # ENOTCONN too: shutdown after a reset
            return Outcome(End.RESET, self.received_bytes)
        is_equal = self._digest.digest() == self._wanted_digest()
        return Outcome(End.COMPLETE if is_equal else End.ALTERED, self.received_bytes)

    def _send_on(self) -> bool:
        """Send until the kernel takes no more; whether something is left."""
        with contextlib.suppress(BlockingIOError):
            while True:
                if not self._piece:
                    piece = next(self._sent, None)
                    if piece is None:
                        self._sock.shutdown(socket.SHUT_WR)
                        return False
                    self._piece = piece
                self._piece = self._piece[self._sock.send(self._piece) :]
        return True

    def _receive_on(self) -> bool:
        """Receive what is there; whether more may come."""
        with contextlib.suppress(BlockingIOError):
            while length := self._sock.recv_into(self._buffer):
                self._digest.update(self._buffer[:length])
                self.received_bytes += length
                if self.progressed is not None:
                    self.progressed()
            return False
        return True


class Origin:
    """The far end: serves exchanges and keeps what it saw of each. For `pair.serving`.

    Args:
        seed: as for `Program`.
    """

    def __init__(self, seed: int) -> None:
        self._asked = Content(seed)
        self._given = Content(seed + 1)
        self._changed = threading.Condition()
        self._outcomes: dict[int, Outcome] = {}
        self._running: set[Exchange] = set()
        self.handler: Callable[[socket.socket], None] = self.exchange
        """What is done with connections; exchanges, unless a test wants something else."""
        self.connections = 0
        """How many came, whatever became of them."""
        self.ended = 0
        """How many of them are over."""

    def serve(self, connection: socket.socket) -> None:
        """Serve one connection."""
        with self._changed:
            self.connections += 1
        try:
            self.handler(connection)
        finally:
            with self._changed:
                self.ended += 1
                self._changed.notify_all()

    def exchange(self, connection: socket.socket) -> None:
        """Serve one exchange, and keep its outcome."""
        connection.settimeout(SECONDS)
        head = b""
        while len(head) < HEAD.size:
            piece = connection.recv(HEAD.size - len(head))
            if not piece:
                return
            head += piece
        number, sent, wanted = HEAD.unpack(head)
        digest = partial(self._asked.digest, number, sent)
        exchange = Exchange(connection, self._given.pieces(number, wanted), sent, digest)
        exchange.progressed = self._progressed
        with self._changed:
            self._running.add(exchange)
        outcome = exchange.run()
        with self._changed:
            self._running.discard(exchange)
            self._outcomes[number] = outcome

    def _progressed(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for_bytes(self, exchanges: int, least_bytes: int) -> None:
        """Wait until so many exchanges under way have received so many bytes each."""

        def are_under_way() -> bool:
            received = [exchange.received_bytes for exchange in self._running]
            return sum(length >= least_bytes for length in received) >= exchanges

        with self._changed:
            assert self._changed.wait_for(are_under_way, SECONDS), "the exchanges do not go on"

    def take(self, number: int, seconds: float) -> Outcome | None:
        """What became of an exchange, once; None if it is not over in time."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._outcomes, seconds)
            return self._outcomes.pop(number, None)

    def wait_for_all(self) -> dict[int, Outcome]:
        """All outcomes, once every connection is over; those of before are forgotten."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.ended == self.connections, SECONDS):
                raise AssertionError(f"{self.connections - self.ended} connections never ended")
            outcomes, self._outcomes = self._outcomes, {}
            return outcomes


class Program:
    """The near end: begins exchanges on sockets that lead to an `Origin` with the same seed."""

    def __init__(self, seed: int) -> None:
        self._asked = Content(seed)
        self._given = Content(seed + 1)

    def exchange(
        self, sock: socket.socket, number: int, sent_bytes: int, received_bytes: int
    ) -> Outcome:
        """Run one exchange; closes the socket."""
        with sock:
            return self.begin(sock, number, sent_bytes, received_bytes).run()

    def begin(
        self, sock: socket.socket, number: int, sent_bytes: int, received_bytes: int
    ) -> Exchange:
        """An exchange that is yet to run."""

        def pieces() -> Iterator[memoryview]:
            yield memoryview(HEAD.pack(number, sent_bytes, received_bytes))
            yield from self._asked.pieces(number, sent_bytes)

        digest = partial(self._given.digest, number, received_bytes)
        return Exchange(sock, pieces(), received_bytes, digest)
