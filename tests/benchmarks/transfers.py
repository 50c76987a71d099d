"""Moving many bytes with so little work that the pair in between is what is timed."""

import socket
import struct

TOTAL = struct.Struct(">Q")
CHUNK_BYTES = 1024 * 1024

_zeros = memoryview(bytes(CHUNK_BYTES))


def send_zeros(sock: socket.socket, length: int) -> None:
    """Send `length` bytes."""
    while length > 0:
        length -= sock.send(_zeros[:length])


def swallow(sock: socket.socket) -> int:
    """Read to the end of file; how many bytes there were.

    MSG_TRUNC: the kernel discards what TCP received instead of copying it (tcp(7)).
    """
    buffer = bytearray(CHUNK_BYTES)
    total = 0
    while length := sock.recv_into(buffer, CHUNK_BYTES, socket.MSG_TRUNC):
        total += length
    return total


def receive_exactly(sock: socket.socket, length: int) -> bytes:
    """Read `length` bytes.

    Raises:
        ConnectionError: the other end closed before.
    """
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise ConnectionError(f"closed after {len(data)} of {length} bytes")
        data += piece
    return data
