"""Many bytes, each checked: a cheap pattern, hashed where it leaves and where it arrives."""

import hashlib
import random
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

BLOCK_BYTES = 4 * 1024 * 1024
MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE

T = TypeVar("T")


class Pattern:
    """Bytes that differ at every place: a random block, sent from a new offset each time round.

    Args:
        seed: makes the block; printed by the tests that use it.
    """

    def __init__(self, seed: int) -> None:
        block = random.Random(seed).randbytes(BLOCK_BYTES)
        self._twice = memoryview(block + block)

    def at(self, offset: int, length: int) -> memoryview:
        """Bytes from `offset` on, which is less than BLOCK_BYTES, as is `length`."""
        return self._twice[offset : offset + length]

    def pieces(self, total_bytes: int) -> "list[tuple[int, int]]":
        """Offsets into the doubled block and lengths that add up to `total_bytes`."""
        found = []
        turn = 0
        while total_bytes > 0:
            length = min(total_bytes, MEBIBYTE)
            found.append(((turn * 7919) % BLOCK_BYTES, length))
            total_bytes -= length
            turn += 1
        return found

    def send(self, sock: socket.socket, total_bytes: int) -> str:
        """Send, then finish the direction; returns the hash of what was sent."""
        digest = hashlib.sha256()
        for offset, length in self.pieces(total_bytes):
            piece = self._twice[offset : offset + length]
            digest.update(piece)
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        return digest.hexdigest()


def receive_all(sock: socket.socket) -> tuple[int, str]:
    """Read to the end; returns the number of bytes and their hash."""
    digest = hashlib.sha256()
    buffer = bytearray(MEBIBYTE)
    view = memoryview(buffer)
    total = 0
    while length := sock.recv_into(buffer):
        digest.update(view[:length])
        total += length
    return total, digest.hexdigest()


def start(work: Callable[[], T]) -> "Future[T]":
    """Run `work` in a thread of its own."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
