"""Listening sockets for every kind of endpoint, without a loop.

They are non-blocking, and made before any worker: whoever owns them outlives the workers.
"""

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass
from typing import Final

from vsockproxy.addresses import Endpoint, TcpAddress, UnixAddress, VsockAddress
from vsockproxy.errors import VsockproxyError

__all__ = (
    "ACCEPT_PAUSE_SECONDS",
    "BACKLOG",
    "DEFAULT_MODE",
    "EXHAUSTED",
    "OF_THE_LISTENER",
    "VSOCK_BUFFER_BYTES",
    "ListenError",
    "Listener",
    "open_listener",
    "set_vsock_buffer",
)

BACKLOG: Final = 4096
"""Connections the kernel keeps for us while no worker accepts; net.core.somaxconn may cut it."""

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept(2) where this process or the machine has run out of something."""
ACCEPT_PAUSE_SECONDS: Final = 0.1
"""The rest after one of them: to try at once would spin."""

OF_THE_LISTENER: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP})
"""Errors of accept(2) that are a fault of ours; all others are of one connection."""

VSOCK_BUFFER_BYTES: Final = 2 * 1024 * 1024
"""Receive buffer of a vsock connection: what the peer may send before we read. The kernel's 256 KiB
is read to the end before the sender is woken, so a large buffer keeps the sender from stopping. It
is taken from the listener when a connection arrives, and the maximum has to be raised before the
size (net/vmw_vsock/af_vsock.c)."""

DEFAULT_MODE: Final = 0o600
"""Of a unix socket whose endpoint does not say."""
_UMASK_BITS: Final = 0o777


class ListenError(VsockproxyError):
    """A listener that cannot be made; the text names its address, the cause and the mend."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and what it was made from.

    `identity` is device and inode of a unix socket, so that `close` removes only its own.
    """

    endpoint: Endpoint
    socket: socket.socket
    identity: tuple[int, int] | None = None

    @property
    def is_in_place(self) -> bool:
        """Whether whoever connects to the endpoint comes here: a unix socket may be removed."""
        if self.identity is None or not isinstance(self.endpoint, UnixAddress):
            return True
        try:
            return _identity(self.endpoint.path) == self.identity
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket, and remove the unix socket's name unless somebody replaced it."""
        self.socket.close()
        if self.identity is not None and isinstance(self.endpoint, UnixAddress):
            with contextlib.suppress(FileNotFoundError):
                if _identity(self.endpoint.path) == self.identity:
                    os.unlink(self.endpoint.path)


def open_listener(
    endpoint: Endpoint,
    *,
    backlog: int = BACKLOG,
    is_of_packets: bool = False,
) -> Listener:
    """Bind `endpoint` and listen on it.

    Args:
        endpoint: where.
        backlog: connections that wait in the kernel.
        is_of_packets: whether a unix socket is of packets (SOCK_SEQPACKET), not of bytes.

    Raises:
        ListenError: it cannot be bound.
    """
    try:
        match endpoint:
            case VsockAddress():
                listening = _bind_vsock(endpoint)
            case UnixAddress():
                listening = _bind_unix(endpoint, is_of_packets=is_of_packets)
            case TcpAddress():
                listening = _bind_tcp(endpoint)
    except OSError as error:
        raise ListenError(f"cannot listen on {endpoint}: {_explain(endpoint, error)}") from error
    try:
        listening.setblocking(False)
        listening.listen(backlog)
        identity = _identity(endpoint.path) if isinstance(endpoint, UnixAddress) else None
    except OSError as error:
        listening.close()
        raise ListenError(f"cannot listen on {endpoint}: {_explain(endpoint, error)}") from error
    return Listener(endpoint, listening, identity)


def set_vsock_buffer(sock: socket.socket) -> None:
    """Set the receive buffer of a vsock connection yet to be made, or accepted by a listener.

    Raises:
        OSError: it is no vsock socket.
    """
    for option in (socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE, socket.SO_VM_SOCKETS_BUFFER_SIZE):
        sock.setsockopt(socket.AF_VSOCK, option, VSOCK_BUFFER_BYTES)


def _bind_vsock(endpoint: VsockAddress) -> socket.socket:
    if not hasattr(socket, "AF_VSOCK"):
        raise ListenError(
            f"cannot listen on {endpoint}: this Python was built without AF_VSOCK: use one that "
            "was built with the kernel's linux/vm_sockets.h"
        )
    listening = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        set_vsock_buffer(listening)
        listening.bind((endpoint.cid, endpoint.port))
    except BaseException:
        listening.close()
        raise
    return listening


def _bind_unix(endpoint: UnixAddress, *, is_of_packets: bool) -> socket.socket:
    kind = socket.SOCK_SEQPACKET if is_of_packets else socket.SOCK_STREAM
    listening = socket.socket(socket.AF_UNIX, kind)
    # The mode has to be right from the first moment, so it comes from the umask, not from chmod.
    mode = DEFAULT_MODE if endpoint.mode is None else endpoint.mode
    former_umask = os.umask(_UMASK_BITS & ~mode)
    try:
        try:
            listening.bind(endpoint.path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(endpoint)
            listening.bind(endpoint.path)
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(former_umask)
    return listening


def _remove_stale(endpoint: UnixAddress) -> None:
    """Remove a socket that nobody listens on any more; anything else stays and is an error."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(endpoint.path).st_mode):
            raise ListenError(
                f"cannot listen on {endpoint}: {endpoint.path} exists and is no socket: remove it, "
                "or write another path"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(endpoint.path) != errno.ECONNREFUSED:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        os.unlink(endpoint.path)


def _bind_tcp(endpoint: TcpAddress) -> socket.socket:
    host = "127.0.0.1" if endpoint.host == "localhost" else endpoint.host
    is_ipv6 = ":" in host
    listening = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_ipv6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, endpoint.port))
    except BaseException:
        listening.close()
        raise
    return listening


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


_CAUSES: Final = {
    errno.EADDRINUSE: "it is in use: stop who listens there, or write another address",
    errno.EACCES: "not permitted: write a port from 1024 on or a directory that may be written to, "
    "or run as a user who may",
    errno.ENOENT: "its directory does not exist: make it",
    errno.ENOTDIR: "its directory is no directory: write another path",
    errno.EROFS: "its directory is read-only: write another path",
}
_VSOCK_CAUSES: Final = {
    errno.EAFNOSUPPORT: "the kernel has no vsock: load its module (modprobe vsock)",
    errno.EADDRNOTAVAIL: "that CID is not this machine's: write any",
}


def _explain(endpoint: Endpoint, error: OSError) -> str:
    """Translate an OS error, once, into what it means for a listener and what to do."""
    number = error.errno or 0
    if isinstance(endpoint, VsockAddress) and number in _VSOCK_CAUSES:
        return _VSOCK_CAUSES[number]
    if isinstance(endpoint, TcpAddress) and number == errno.EADDRNOTAVAIL:
        return "this machine has no such address: write one that it has, or bring up its interface"
    return _CAUSES.get(number, os.strerror(number))
