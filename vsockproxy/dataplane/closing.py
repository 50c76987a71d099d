"""How local sockets are ended: a clean end and a cut must look different to the program.

While a socket is relayed it is armed: SO_LINGER with zero seconds makes the kernel send a reset
whoever closes it, a killed process included. Only a clean end disarms it.
"""

import contextlib
import socket
import struct

from vsockproxy.dataplane.local_socket import LocalFault, LocalSocket

_LINGER_ZERO = struct.pack("ii", 1, 0)
_LINGER_OFF = struct.pack("ii", 0, 0)


def _is_tcp(sock: LocalSocket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def arm_reset(sock: LocalSocket) -> None:
    """From now on every close of a TCP socket is a reset (RST), until `close_cleanly`.

    Unix and vsock sockets have no reset: there the program sees an end of file, or ECONNRESET where
    bytes it sent were still unread.
    """
    if _is_tcp(sock):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


def reset_socket(sock: LocalSocket) -> None:
    """Close so that the program on the other end sees a reset, never an end of file."""
    arm_reset(sock)
    sock.close()


def close_cleanly(sock: LocalSocket) -> None:
    """Close after a clean end; what the kernel still holds is delivered."""
    if _is_tcp(sock):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    sock.close()


def finish_socket(sock: LocalSocket) -> bool:
    """Send no more (FIN); False when the connection is gone already.

    Raises:
        LocalFault: this is no end that the program may be told of.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
    except LocalFault:
        raise
    except OSError:
        return False
    return True
