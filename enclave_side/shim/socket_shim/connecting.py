"""connect() over the stream socket, as TCP does it: blocking, with a timeout, or not blocking.

A socket of the program keeps its descriptor number. One that blocks waits for the answer on the
stream socket, and gets the stream under its number once it stands. One that does not gets it at
once: the stream's socket becomes writable when the answer is there, so that select(), poll(),
epoll and everything built on them wait as for any connection.
"""

import _socket
import errno
import operator
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from enclave_side.shim.socket_shim.connection import Connection, Connections, inode_of
from enclave_side.shim.socket_shim.epoll import registrations
from enclave_side.shim.socket_shim.failures import connect_error, failure_text, plain_error
from enclave_side.shim.socket_shim.kept_options import keep_options
from enclave_side.shim.socket_shim.lookups import Lookups, inner_address
from enclave_side.shim.socket_shim.stderr_lines import StderrLines
from vsockproxy.addresses import Destination, Host, format_ip
from vsockproxy.client.errors import StreamRefused, StreamSocketMissing
from vsockproxy.client.opening import Opening

__all__ = ("TAKEN_SECONDS", "Connector")

TAKEN_SECONDS: Final = 10.0
"""For a worker to take a request, which it does at once; a crashed one is replaced meanwhile."""

_IPPROTO_MPTCP: Final = 262
_TCP: Final = (0, socket.IPPROTO_TCP, _IPPROTO_MPTCP)
_MOST_PORT: Final = 65_535
_LONGEST_ADDRESS: Final = {socket.AF_INET: 2, socket.AF_INET6: 4}
"""Elements of an address; two are needed."""

_native: Final = _socket.socket
"""The methods of the C library, which the shim's own stand in front of."""


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a connection leads."""

    host: str
    """What is asked for: a name, or a literal."""
    port: int
    peer: tuple[Any, ...]
    """What getpeername() says of it."""

    def __str__(self) -> str:
        return str(Destination(Host(self.host, None), self.port))


class Connector:
    """Makes the connections of a process.

    Args:
        lookups: for hosts that are names.
        connections: those that were made.
        lines: what is refused is said there.
        path: of the stream socket; None where the environment says it when it is needed.
        taken_seconds: for a worker to take a request.
    """

    def __init__(
        self,
        lookups: Lookups,
        connections: Connections,
        lines: StderrLines,
        path: str | None,
        *,
        taken_seconds: float = TAKEN_SECONDS,
    ) -> None:
        self._lookups = lookups
        self._connections = connections
        self._lines = lines
        self._path = path
        self._taken_seconds = taken_seconds

    def connect(self, sock: socket.socket, address: Any) -> None:
        """As `socket.socket.connect`."""
        target = self._target(sock, address)
        if target is None:
            _native.connect(sock, address)
            return
        sys.audit("socket.connect", sock, address)
        self._connect(sock, target)

    def connect_ex(self, sock: socket.socket, address: Any) -> int:
        """As `socket.socket.connect_ex`: errors of the connection are returned by number."""
        target = self._target(sock, address)
        if target is None:
            return _native.connect_ex(sock, address)
        sys.audit("socket.connect", sock, address)
        try:
            self._connect(sock, target)
        except OSError as error:
            return error.errno or errno.EWOULDBLOCK  # without a number: the timeout is over
        return 0

    def getpeername(self, sock: socket.socket) -> Any:
        """As `socket.socket.getpeername`: what the program connected to."""
        connection = self._connections.find(sock.fileno())
        if connection is not None and (connection.is_pending or connection.has_failed):
            raise plain_error(errno.ENOTCONN)
        real = _native.getpeername(sock)  # raises where the connection is gone
        return real if connection is None else connection.peer

    def so_error(self, sock: socket.socket) -> int:
        """As `getsockopt` with SO_ERROR: why the connection failed, told once."""
        # In this order: the worker says why before it resets.
        real = _native.getsockopt(sock, socket.SOL_SOCKET, socket.SO_ERROR)
        connection = self._connections.find(sock.fileno())
        if connection is None:
            return real
        if real and connection.is_pending:  # it could not say why
            connection.fail(None)
            return real
        if connection.has_failed:
            error = connection.take_error()
            return (error.errno or 0) if error is not None else 0
        return real

    def true_error(self, sock: socket.socket) -> OSError | None:
        """Why the connection failed, if that is news: in place of the reset that the system saw."""
        connection = self._connections.find(sock.fileno())
        return None if connection is None else connection.take_error()

    def _target(self, sock: socket.socket, address: Any) -> _Target | None:
        """Where a connection leads; None if the C library is to make it, or to find it wrong.

        Raises:
            socket.gaierror: the host is a name that must not be, or is none.
        """
        longest = _LONGEST_ADDRESS.get(sock.family)
        if longest is None or not isinstance(address, tuple) or not 2 <= len(address) <= longest:
            return None
        host, port = address[0], _integer(address[1])
        rest = tuple(_integer(value) for value in address[2:])
        if isinstance(host, bytearray):
            host = bytes(host)
        if not isinstance(host, str | bytes) or port is None or None in rest:
            return None
        literal = self._lookups.first_address(host, sock.family)
        if self._lookups.is_local(literal):
            return None
        is_long = sock.family == socket.AF_INET6
        if not 0 <= port <= _MOST_PORT:
            _native.connect(sock, ("::1" if is_long else "127.0.0.1", port))  # raises OverflowError
        padding = (0,) * (2 - len(rest)) if is_long else ()
        host = self._lookups.name_of(literal) or format_ip(inner_address(literal))
        return _Target(host, port, (literal, port, *rest, *padding))

    def _connect(self, sock: socket.socket, target: _Target) -> None:
        if sock.type != socket.SOCK_STREAM or sock.proto not in _TCP:
            self._lines.say(f"{target}: only TCP goes through the socket shim")
            raise plain_error(errno.ENETUNREACH)
        timeout = sock.gettimeout()
        if timeout is None and not os.get_blocking(sock.fileno()):
            timeout = 0.0
        if self._is_made(sock, timeout):
            return
        if not target.port:
            raise plain_error(errno.ECONNREFUSED)  # as TCP answers
        if timeout == 0:
            self._begin_to_connect(sock, target)
        else:
            self._connect_and_wait(sock, target, timeout)

    def _is_made(self, sock: socket.socket, timeout: float | None) -> bool:
        """Whether an earlier connect() has made the connection, which this one waits for.

        Raises:
            OSError: it failed, or takes longer, or this was told before.
        """
        connection = self._connections.find(sock.fileno())
        if connection is None:
            if _is_in_use(sock):
                raise plain_error(errno.EISCONN)
            return False
        if connection.is_pending and timeout != 0:
            connection.wait(timeout)
            self._connections.find(sock.fileno())
        if connection.is_pending:
            raise plain_error(errno.EALREADY) if timeout == 0 else _timed_out()
        was_told, connection.is_told = connection.is_told, True
        if connection.has_failed and was_told:  # the program tries again
            self._connections.forget(connection)
            return False
        if connection.has_failed:
            raise connection.take_error() or plain_error(errno.ECONNABORTED)
        if was_told:
            raise plain_error(errno.EISCONN)
        return True

    def _begin_to_connect(self, sock: socket.socket, target: _Target) -> NoReturn:
        inode = inode_of(sock.fileno())
        opening = self._begin(target, None)
        try:
            assert opening.socket is not None  # it has begun
            new_inode = _replace(sock, inode, opening.socket)
        except BaseException:
            opening.close()
            raise
        opening.setblocking(False)
        connection = Connection(new_inode, sock.fileno(), target.peer, str(target), opening)
        connection.ends_with(sock, self._connections.forget_if_dead)
        self._connections.add(connection)
        raise plain_error(errno.EINPROGRESS)

    def _connect_and_wait(
        self, sock: socket.socket, target: _Target, timeout: float | None
    ) -> None:
        ends_at = None if timeout is None else time.monotonic() + timeout
        inode = inode_of(sock.fileno())
        opening = self._begin(target, timeout)
        try:
            opening.wait(None if ends_at is None else ends_at - time.monotonic())
        except BaseException as error:
            opening.close()
            if isinstance(error, Exception):
                raise self._said(error, target) from None
            raise
        new_inode = _replace(sock, inode, opening.detach())
        connection = Connection(new_inode, sock.fileno(), target.peer, str(target), None)
        self._connections.add(connection)

    def _begin(self, target: _Target, timeout: float | None) -> Opening:
        """Ask for a stream, and wait until a worker has taken the request."""
        limit = self._taken_seconds
        seconds = limit if timeout is None else min(timeout, limit)
        try:
            return Opening.begin(target.host, target.port, path=self._path, timeout=seconds)
        except Exception as error:
            if _is_timeout(error) and seconds != timeout:
                text = f"no worker took the request in {seconds:g} s"
                error = StreamSocketMissing(errno.ENETUNREACH, text)
            raise self._said(error, target) from None

    def _said(self, error: Exception, target: _Target) -> OSError:
        """The error that the program gets; a line says why."""
        if _is_timeout(error):
            return _timed_out()
        self._lines.say(failure_text(error, str(target)))
        return connect_error(error, str(target))


def _replace(sock: socket.socket, inode: int | None, stream: socket.socket) -> int:
    """Put a stream under the descriptor of `sock`; the inode that it has there.

    Raises:
        OSError: another thread has closed the socket with that inode meanwhile.
    """
    with stream:
        descriptor = sock.fileno()
        if inode is None or inode_of(descriptor) != inode:
            raise plain_error(errno.EBADF)
        new_inode = inode_of(stream.fileno())
        assert new_inode is not None  # it is open
        keep_options(sock, stream)
        registered = registrations(descriptor)
        os.dup2(stream.fileno(), descriptor, os.get_inheritable(descriptor))
        for epoll, mask in registered:
            with suppress(OSError, ValueError):  # another thread has closed it
                epoll.register(descriptor, mask)
    return new_inode


def _is_in_use(sock: socket.socket) -> bool:
    """Whether the system knows the socket as connected, or as a listener."""
    if _native.getsockopt(sock, socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return True
    try:
        _native.getpeername(sock)
    except OSError:
        return False
    return True


def _is_timeout(error: Exception) -> bool:
    """Whether the program's own time is over, not that of a dial."""
    return isinstance(error, TimeoutError) and not isinstance(error, StreamRefused)


def _timed_out() -> TimeoutError:
    """What Python raises for a timeout of a socket: it has no number."""
    return TimeoutError("timed out")


def _integer(value: object) -> int | None:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what has none raises TypeError
    except TypeError:
        return None
