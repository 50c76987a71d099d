"""A program's plain socket, seen from a relay as the TLS records of its bytes.

What a relay reads from it are the records of what the program sent; what a relay writes to it are
records, and the program gets what is in them. So a stream, shared or dedicated, is relayed as if
the program spoke TLS itself: same turns, same credit, same ends.

- A program's end of file becomes a close_notify, and then an end of file. The peer's close_notify
  becomes an end of file to the program; an end of file without one is a truncation (RFC 8446,
  section 6.1), and the program sees a reset.
- Records count as written when the program's socket has taken what was in them. Until then they are
  not reported, and so offered again; they are known and skipped. So credit is granted for nothing
  that the program has not taken, and at most one chunk waits here, decrypted.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from vsockproxy.dataplane.local_socket import LocalFault
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.dataplane.tls_records import (
    CHUNK_BYTES,
    RECORD_BYTES,
    RECORD_OVERHEAD_BYTES,
    TlsRecords,
)

__all__ = ("ENDED_TLS_FAILED", "ENDED_TLS_TRUNCATED", "TlsSocket")

ENDED_TLS_FAILED: Final = "tls_failed"
ENDED_TLS_TRUNCATED: Final = "tls_truncated"

CAUTIOUS_BYTES: Final = 4 * 1024
"""Fed at once after records that were mostly overhead: 180 of one byte each, under a millisecond;
then the rest of the loop has its turn."""

# Shared by all connections of the process: nothing in them outlives a call.
_plaintext: Final = memoryview(bytearray(CHUNK_BYTES))
_decrypted: Final = memoryview(bytearray(CHUNK_BYTES + 2 * RECORD_BYTES))


class TlsSocket:
    """A `LocalSocket` in front of a program's socket.

    Args:
        sock: the program's, connected and non-blocking; owned from now on.
        records: of a connection whose handshake is complete.
        failed: called once with a line when the peer breaks the connection's rules.
        closed: called once, when the socket is closed.
    """

    __slots__ = (
        "_ahead",
        "_closed",
        "_failed",
        "_has_said_end",
        "_is_cut",
        "_records",
        "_sock",
        "_stride",
        "_unsent",
    )

    def __init__(
        self,
        sock: socket.socket,
        records: TlsRecords,
        failed: Callable[[str], None],
        closed: Callable[[], None] | None = None,
    ) -> None:
        self._sock = sock
        self._records = records
        self._failed = failed
        self._closed = closed
        self._unsent = b""
        """Plaintext that the program's socket did not take."""
        self._ahead = 0
        """Bytes of the chunk that it came from: decrypted, not yet reported as written."""
        self._stride = CHUNK_BYTES
        self._has_said_end = False
        self._is_cut = False
        """The program's connection was reset, and a write took the error that told."""
        if records.has_peer_ended:
            self._end_of_peer()

    @property
    def family(self) -> int:
        """The family of the program's socket."""
        return self._sock.family

    def fileno(self) -> int:
        """The descriptor of the program's socket."""
        return self._sock.fileno()

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        """Set an option of the program's socket."""
        self._sock.setsockopt(level, name, value)

    def close(self) -> None:
        """Close the program's socket."""
        self._sock.close()
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()

    # ------------------------------------------------------------- to the peer

    def recv_into(self, buffer: memoryview, /) -> int:
        """Records of what the program sent, as `recvmsg_into`."""
        return self.recvmsg_into((buffer,))[0]

    def recvmsg_into(self, buffers: Sequence[memoryview], /) -> tuple[int, list[Any], int, Any]:
        """Records of what the program sent; 0 bytes when it sends no more and that is said.

        What does not fit is left over, and then the buffers are full.

        Raises:
            OSError: as `recv` does, BlockingIOError included.
            LocalFault: TLS failed.
        """
        records = self._records
        room = sum(map(len, buffers))
        if not records.has_output and not self._read(room):
            return 0, [], 0, None
        data = memoryview(records.take(room))
        start = 0
        for buffer in buffers:
            piece = data[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            start += len(piece)
            if start == len(data):
                break
        return len(data), [], 0, None

    def _read(self, room: int) -> bool:
        """Make records of what the program sent; False when nothing follows."""
        if self._has_said_end:
            return False
        overhead = RECORD_OVERHEAD_BYTES * (room // RECORD_BYTES + 1)
        length = self._sock.recv_into(_plaintext[: max(1, room - overhead)])
        if length:
            try:
                self._records.encrypt(_plaintext[:length])
            except TlsFailed as error:
                self._fail(error)
        elif self._is_cut:
            return False  # no end of file but what a reset leaves: nothing is to look clean
        else:
            self._has_said_end = True
            self._records.close_notify()
        return True

    # ---------------------------------------------------------- to the program

    def send(self, data: memoryview, /) -> int:
        """Records for the program, as `sendmsg`."""
        return self.sendmsg((data,))

    def sendmsg(self, views: Sequence[memoryview], /) -> int:
        """Records for the program.

        Returns:
            How many bytes of them are done with, for good; the rest is to be offered again.

        Raises:
            OSError: as `send` does, BlockingIOError included, when none are.
            LocalFault: TLS failed.
        """
        taken = 0
        for view in views:
            count = self._write(view)
            taken += count
            if count < len(view):
                break
        if not taken:
            raise BlockingIOError(errno.EAGAIN, "the program takes no more")
        return taken

    def _write(self, view: memoryview) -> int:
        records = self._records
        position = 0
        if self._ahead:
            if not self._flush():
                return 0
            position = self._ahead
            self._ahead = 0
        while position < len(view):
            if records.has_peer_ended:
                return len(view)
            chunk = view[position : position + self._stride]
            try:
                records.feed(chunk)
                length = records.decrypt(_decrypted)
            except TlsFailed as error:
                self._fail(error)
            if length and not self._pass_on(length):
                self._ahead = len(chunk)
                return position
            if records.has_peer_ended:
                self._end_of_peer()
            position += len(chunk)
            if 2 * length < len(chunk):
                self._stride = CAUTIOUS_BYTES
                break
            self._stride = CHUNK_BYTES
        return position

    def _pass_on(self, length: int) -> bool:
        """Offer the program what was decrypted; whether it took all."""
        sent = self._offer(_decrypted[:length])
        if sent < length:
            self._unsent = bytes(_decrypted[sent:length])
            return False
        return True

    def _flush(self) -> bool:
        """Offer the program what it did not take; whether it has taken all."""
        sent = self._offer(memoryview(self._unsent))
        self._unsent = self._unsent[sent:]
        if self._unsent:
            return False
        if self._records.has_peer_ended:
            self._end_of_peer()
        return True

    def _offer(self, data: memoryview) -> int:
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._is_cut = error.errno != errno.EPIPE
            raise

    def _end_of_peer(self) -> None:
        with suppress(OSError):  # whoever is gone is found by the next read
            self._sock.shutdown(socket.SHUT_WR)

    def shutdown(self, how: int, /) -> None:
        """The records end here: the program has got its end of file, if the peer said so.

        Raises:
            LocalFault: the peer did not: something is missing.
        """
        del how  # a relay ends writing only
        if not self._records.has_peer_ended:
            raise LocalFault(ENDED_TLS_TRUNCATED, "an end of file without close_notify")

    def _fail(self, error: TlsFailed) -> None:
        self._failed(error.text)
        raise LocalFault(ENDED_TLS_FAILED, error.text) from None
