"""Carries what a program has set on its socket over to the one that takes its place."""

import os
import socket
import struct
from contextlib import suppress
from typing import Final

__all__ = ("keep_options",)

_NUMBERS: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.SOL_SOCKET, socket.SO_OOBINLINE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_CORK),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    (socket.IPPROTO_IP, socket.IP_TOS),
)
"""Without TCP_NOTSENT_LOWAT, by which the worker holds a stream back until it stands."""

_TIMES: Final = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)
_TIME_BYTES: Final = struct.calcsize("@ll")

_LINGER: Final = struct.Struct("@ii")
_RESET_ON_CLOSE: Final = _LINGER.pack(1, 0)
"""Of SO_LINGER, only this is kept: to wait for acknowledgements means nothing where they come from
a worker of the same machine, which has the stream open too at first and would have to wait."""

_SO_BUF_LOCK: Final = 72
"""Which buffers the program has set (include/uapi/asm-generic/socket.h, since Linux 5.14)."""

_BUFFERS: Final = ((1, socket.SO_SNDBUF), (2, socket.SO_RCVBUF))
"""By bit of SO_BUF_LOCK (SOCK_SNDBUF_LOCK and SOCK_RCVBUF_LOCK)."""


def keep_options(old: socket.socket, new: socket.socket) -> None:
    """Set on `new` what is set on `old`: options that TCP has, and whether it blocks."""
    for level, option in _NUMBERS:
        with suppress(OSError):  # of another family, or unknown to this kernel
            value = old.getsockopt(level, option)
            if value != new.getsockopt(level, option):
                new.setsockopt(level, option, value)
    for option in _TIMES:
        content = old.getsockopt(socket.SOL_SOCKET, option, _TIME_BYTES)
        if content != new.getsockopt(socket.SOL_SOCKET, option, _TIME_BYTES):
            new.setsockopt(socket.SOL_SOCKET, option, content)
    if old.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size) == _RESET_ON_CLOSE:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    with suppress(OSError):
        locked = old.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK)
        for bit, option in _BUFFERS:
            if locked & bit:
                # The kernel doubles what is set, and tells what it made of it (socket(7)).
                value = old.getsockopt(socket.SOL_SOCKET, option) // 2
                new.setsockopt(socket.SOL_SOCKET, option, value)
    # On the descriptor: what Python's object says of timeouts is the program's, and stays there.
    os.set_blocking(new.fileno(), os.get_blocking(old.fileno()))
