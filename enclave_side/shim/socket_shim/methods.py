"""The functions that take the place of Python's own, by the module or class that they belong to."""

import _socket
import functools
import select
import selectors
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from enclave_side.shim.socket_shim.connecting import Connector
from enclave_side.shim.socket_shim.connection import Connections
from enclave_side.shim.socket_shim.epoll import Epoll
from enclave_side.shim.socket_shim.lookups import Lookups

__all__ = ("Replacement", "replacements")

Replacement = tuple[Any, str, Any]
"""A module or class, the name of an attribute, and its new value."""

_native: Final = _socket.socket

_TRANSFERS: Final = (
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "recvmsg",
    "recvmsg_into",
    "send",
    "sendall",
    "sendmsg",
    "sendto",
)
"""Methods that may be the first to tell that a connection failed."""

_LOOKUPS: Final = (
    "getaddrinfo",
    "gethostbyname",
    "gethostbyname_ex",
    "gethostbyaddr",
    "getnameinfo",
)


def replacements(
    connector: Connector, connections: Connections, lookups: Lookups
) -> Iterator[Replacement]:
    """All that is replaced."""
    yield select, "epoll", Epoll
    yield selectors.EpollSelector, "_selector_cls", Epoll
    for name in _LOOKUPS:
        yield socket, name, functools.wraps(getattr(socket, name))(_function(lookups, name))
    yield socket, "close", _close(connections)
    yield socket, "dup", _dup(connections)
    methods = _socket_methods(connector, connections)
    methods |= {name: _telling(getattr(_native, name), connector) for name in _TRANSFERS}
    for name, method in methods.items():
        yield socket.socket, name, functools.wraps(getattr(socket.socket, name))(method)


def _function(owner: object, name: str) -> Callable[..., Any]:
    """A plain function for a method, as modules have them."""
    method = getattr(owner, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return function


def _socket_methods(connector: Connector, connections: Connections) -> dict[str, Any]:
    real_close = socket.socket._real_close  # type: ignore[attr-defined]  # not in its public types

    def connect(self: socket.socket, address: Any, /) -> None:
        connector.connect(self, address)

    def connect_ex(self: socket.socket, address: Any, /) -> int:
        return connector.connect_ex(self, address)

    def getpeername(self: socket.socket) -> Any:
        return connector.getpeername(self)

    def getsockopt(
        self: socket.socket, level: int, optname: int, buflen: int = 0, /
    ) -> int | bytes:
        if level != socket.SOL_SOCKET or optname != socket.SO_ERROR:
            return _native.getsockopt(self, level, optname, buflen)
        number = connector.so_error(self)
        return struct.pack("@i", number)[:buflen] if buflen else number

    def _real_close(self: socket.socket, *args: Any) -> None:
        connections.closing(self.fileno())
        real_close(self, *args)

    return {
        "connect": connect,
        "connect_ex": connect_ex,
        "getpeername": getpeername,
        "getsockopt": getsockopt,
        "_real_close": _real_close,
    }


def _telling(method: Callable[..., Any], connector: Connector) -> Callable[..., Any]:
    """A method that raises why its connection failed, where that is not yet told."""

    def transfer(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except ConnectionError:
            error = connector.true_error(self)
            if error is None:
                raise
        raise error

    return transfer


def _close(connections: Connections) -> Callable[[int], None]:
    real = socket.close

    @functools.wraps(real)
    def close(fd: int, /) -> None:
        connections.closing(fd)
        real(fd)

    return close


def _dup(connections: Connections) -> Callable[[int], int]:
    real = socket.dup

    @functools.wraps(real)
    def dup(fd: int, /) -> int:
        duplicate = real(fd)
        connections.duplicated(fd, duplicate)
        return duplicate

    return dup
