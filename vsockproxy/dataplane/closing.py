"""How local sockets are ended: a clean end and a cut must look different to the program."""

import contextlib
import socket
import struct

_LINGER_ZERO = struct.pack("ii", 1, 0)


def reset_socket(sock: socket.socket) -> None:
    """Close so that the program on the other end sees a reset, never an end of file.

    On TCP this is SO_LINGER with zero seconds (RST). Unix and vsock sockets have no reset: there
    the program sees an end of file, or ECONNRESET where bytes it sent were still unread.
    """
    with contextlib.suppress(OSError):
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()


def finish_socket(sock: socket.socket) -> bool:
    """Send no more (FIN); False when the connection is gone already."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True
