"""Many sockets that send and receive at once in one thread: a crowd costs no context switches."""

import contextlib
import hashlib
import selectors
import socket
from dataclasses import dataclass, field

from tests.support.traffic import BLOCK_BYTES, MEBIBYTE, Pattern

PIECE_BYTES = 64 * 1024


@dataclass
class Member:
    """One socket: what it still has to send, and the hashes of both directions."""

    sock: socket.socket
    to_send: int
    offset: int
    sent: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    received: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    received_bytes: int = 0
    is_finished: bool = False


class Crowd:
    """Moves bytes on all its sockets until each has sent what it has to and seen the end.

    Args:
        pattern: where the bytes come from.
    """

    def __init__(self, pattern: Pattern) -> None:
        self._pattern = pattern
        self._selector = selectors.DefaultSelector()
        self._buffer = bytearray(MEBIBYTE)
        self.members: list[Member] = []

    def add(self, sock: socket.socket, to_send: int) -> Member:
        """Take a connected socket that sends `to_send` bytes, then finishes its direction."""
        sock.setblocking(False)
        member = Member(sock, to_send, (len(self.members) * 7919) % BLOCK_BYTES)
        self.members.append(member)
        self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, member)
        return member

    def run(self, seconds: float) -> None:
        """Move bytes until every member is done; nothing for `seconds` is a failure."""
        with self._selector:
            while self._selector.get_map():
                ready = self._selector.select(seconds)
                assert ready, f"nothing moved for {seconds} s"
                for key, events in ready:
                    self._serve(key.data, events)

    def _serve(self, member: Member, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._send(member)
        if events & selectors.EVENT_READ:
            self._receive(member)
        waiting = 0 if member.is_finished else selectors.EVENT_READ
        waiting |= selectors.EVENT_WRITE if member.to_send >= 0 else 0
        if waiting:
            self._selector.modify(member.sock, waiting, member)
        else:
            self._selector.unregister(member.sock)

    def _send(self, member: Member) -> None:
        if member.to_send == 0:
            member.sock.shutdown(socket.SHUT_WR)
            member.to_send = -1
        elif member.to_send > 0:
            piece = self._pattern.at(member.offset, min(member.to_send, PIECE_BYTES))
            with contextlib.suppress(BlockingIOError):
                count = member.sock.send(piece)
                member.sent.update(piece[:count])
                member.to_send -= count
                member.offset = (member.offset + count) % BLOCK_BYTES

    def _receive(self, member: Member) -> None:
        with contextlib.suppress(BlockingIOError):
            count = member.sock.recv_into(self._buffer)
            member.received.update(memoryview(self._buffer)[:count])
            member.received_bytes += count
            member.is_finished = not count
