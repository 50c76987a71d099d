"""Dialling: one endpoint (`connect`), or the checked addresses of a destination (`dial`).

Everything is dialled by hand: a non-blocking connect, readiness to write, SO_ERROR. uvloop's own
`sock_connect` and transports do not take AF_VSOCK, and a relay wants the raw socket anyway.

Only literals are dialled here: the address that policy has checked is the one that is connected
to, and `dial` verifies that with getpeername(2).
"""

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

from vsockproxy.addresses import (
    Destination,
    Endpoint,
    Host,
    IpAddress,
    TcpAddress,
    UnixAddress,
    VsockAddress,
    format_ip,
)
from vsockproxy.errors import VsockproxyError
from vsockproxy.listening import set_vsock_buffer

__all__ = (
    "DialError",
    "DialResult",
    "SourceAddresses",
    "connect",
    "connect_socket",
    "dial",
    "interleave",
    "peer_fault",
    "tune_tcp",
)

STAGGER_SECONDS: Final = 0.25
"""Connection Attempt Delay (RFC 8305, section 8)."""

MOST_ATTEMPTS_AT_ONCE: Final = 8
"""Descriptors that one dial may hold; the oldest attempt gives way to the next address."""

KEEPALIVE_IDLE_SECONDS: Final = 60
KEEPALIVE_INTERVAL_SECONDS: Final = 30
USER_TIMEOUT_SECONDS: Final = 600
"""TCP_USER_TIMEOUT (tcp(7)): how long sent bytes or keepalive probes may go unacknowledged. Linux
cuts a connection whose peer has kept its window closed for as long too, although that peer is
alive: so this bounds how long a program may stop reading, and is not short."""

NOT_SENT_BYTES: Final = 128 * 1024
"""TCP_NOTSENT_LOWAT (tcp(7)): the kernel takes no more once this much waits to be sent. So a reader
that has stopped is felt after some 200 KiB rather than after megabytes in the kernel's queue."""

IP_BIND_ADDRESS_NO_PORT: Final = 24
"""include/uapi/linux/in.h: bind(2) takes an address, and connect(2) a port that is free towards
that destination. Otherwise each bound socket would have one of 28,000 ports to itself."""

_UNIX_RETRY_SECONDS: Final = 0.01
_UNIX_RETRY_MOST_SECONDS: Final = 0.1

Kind = Literal["refused", "timed_out", "unreachable"]
SourceAddresses = Mapping[Literal[4, 6], IpAddress]
"""What sockets are bound to, by IP version; a version without one is not dialled."""
Socket = socket.socket
SocketAddress = tuple[int | str, int] | str

_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK

_KINDS: Final[dict[int, Kind]] = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "refused",
    errno.ENOENT: "refused",
    errno.ETIMEDOUT: "timed_out",
}
"""Everything else is `unreachable`: no route, no such device, no address of ours, no descriptor."""

_STRONGEST_FIRST: Final[tuple[Kind, ...]] = ("refused", "timed_out", "unreachable")
"""Of several errors, the one from farthest away says most: an answer, silence, our own network."""


class DialError(VsockproxyError):
    """No connection could be made.

    On vsock, `refused` (nobody listens on the port), `unreachable` (no such CID) and `timed_out`
    (the device dropped it) all mean that the peer is not there yet: dial again later.

    Args:
        kind: what happened; of several addresses, to the one that came farthest.
        text: each address with its error.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


@dataclass(frozen=True, slots=True)
class DialResult:
    """A connected, non-blocking TCP socket and the address it is connected to."""

    socket: Socket
    address: IpAddress


async def connect(endpoint: Endpoint, *, timeout_seconds: float) -> Socket:
    """Connect to one endpoint and give the socket, non-blocking, to the caller.

    TCP sockets come tuned (`tune_tcp`), vsock sockets with their buffer (`set_vsock_buffer`).

    Raises:
        DialError: the endpoint did not accept within `timeout_seconds`.
    """
    if isinstance(endpoint, TcpAddress):
        literal = "127.0.0.1" if endpoint.host == "localhost" else endpoint.host
        addresses = [ip_address(literal)]
        return (await dial(addresses, endpoint.port, timeout_seconds=timeout_seconds)).socket
    sock: Socket | None = None
    try:
        sock, socket_address = _open(endpoint)
        await _establish(sock, socket_address, timeout_seconds)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if not isinstance(error, OSError):
            raise
        raise _failure(endpoint, error, timeout_seconds) from None
    return sock


async def connect_socket(
    sock: Socket, address: IpAddress, port: int, *, timeout_seconds: float
) -> None:
    """Connect a TCP socket that the caller has made, and tune it; closing it stays the caller's.

    Raises:
        DialError: the address did not accept within `timeout_seconds`.
    """
    destination = Destination(Host(format_ip(address), address), port)
    try:
        tune_tcp(sock)
        await _establish(sock, (format_ip(address), port), timeout_seconds)
    except OSError as error:
        raise _failure(destination, error, timeout_seconds) from None
    if fault := peer_fault(sock, address, port):
        raise DialError("refused", f"{destination}: {fault}")


async def dial(
    addresses: Sequence[IpAddress],
    port: int,
    *,
    timeout_seconds: float,
    stagger_seconds: float = STAGGER_SECONDS,
    source_addresses: SourceAddresses | None = None,
) -> DialResult:
    """Connect to the first of `addresses` that accepts (happy eyeballs, RFC 8305).

    Families alternate, IPv6 first. An attempt starts when the one before it has failed, or has not
    succeeded for `stagger_seconds`; all others are closed when one has succeeded.

    Args:
        addresses: what is tried.
        port: the port of each.
        timeout_seconds: for all of them together.
        stagger_seconds: the head start of each before the next.
        source_addresses: where from; None leaves it to the kernel.

    Raises:
        DialError: none accepted within `timeout_seconds`.
    """
    race = _Race(port, source_addresses)
    try:
        await race.run(interleave(addresses), stagger_seconds, timeout_seconds)
        return race.take()
    finally:
        race.close()


def interleave(addresses: Iterable[IpAddress]) -> list[IpAddress]:
    """Order addresses for `dial`: no address twice, families alternating, IPv6 first."""
    given = list(addresses)
    if len(given) < 2:
        return given
    unique = dict.fromkeys(given)
    families = (
        deque(address for address in unique if address.version == 6),
        deque(address for address in unique if address.version == 4),
    )
    ordered: list[IpAddress] = []
    while len(ordered) < len(unique):
        ordered.extend(family.popleft() for family in families if family)
    return ordered


def tune_tcp(sock: Socket) -> None:
    """Set what every TCP socket of the byte path has: no delay, keepalive, short queues."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_SECONDS * 1000)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_BYTES)


def peer_fault(sock: Socket, address: IpAddress, port: int) -> str | None:
    """Say why a connected socket is not a connection to `address` and `port`; None if it is.

    The kernel turns the unspecified address into loopback, and a connection to a free local port
    can meet itself (TCP's simultaneous open).
    """
    try:
        peer = sock.getpeername()
        own = sock.getsockname()
    except OSError as error:
        return _error_text(error.errno)
    if peer[1] != port or (peer[0] != str(address) and ip_address(peer[0]) != address):
        return f"connected to {peer[0]} port {peer[1]} instead"
    if own == peer:
        return "connected to itself: nothing listens there"
    return None


class _Race:
    """The attempts of one dial: sockets that wait to become writable, and errors."""

    def __init__(self, port: int, source_addresses: SourceAddresses | None) -> None:
        self._port = port
        self._source_addresses = source_addresses
        self._loop = asyncio.get_running_loop()
        self._changed: asyncio.Future[None] = self._loop.create_future()
        self._waiting: deque[IpAddress] = deque()
        self._pending: dict[Socket, IpAddress] = {}
        self._failures: dict[IpAddress, tuple[Kind, str]] = {}
        self._winner: DialResult | None = None

    async def run(
        self, addresses: Iterable[IpAddress], stagger_seconds: float, timeout_seconds: float
    ) -> None:
        self._waiting.extend(addresses)
        deadline = self._loop.call_later(timeout_seconds, self._expire, timeout_seconds)
        try:
            while self._winner is None and (self._waiting or self._pending):
                if self._waiting:
                    self._start(self._waiting.popleft())
                timer: asyncio.TimerHandle | None = None
                if self._waiting:
                    timer = self._loop.call_later(stagger_seconds, self._wake)
                try:
                    await self._changed
                finally:
                    if timer is not None:
                        timer.cancel()
                self._changed = self._loop.create_future()
        finally:
            deadline.cancel()

    def _wake(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)

    def _expire(self, timeout_seconds: float) -> None:
        """Give up the attempts under way, and those to come."""
        if self._winner is None:
            self._waiting.clear()
            for sock in list(self._pending):
                self._drop(sock, "timed_out", _silence(timeout_seconds))
            self._wake()

    def take(self) -> DialResult:
        """Hand over the connected socket, or raise what went wrong."""
        if self._winner is None:
            raise self._error()
        result, self._winner = self._winner, None
        return result

    def close(self) -> None:
        """Close every socket that was not taken."""
        for sock in self._pending:
            self._loop.remove_writer(sock.fileno())
            sock.close()
        self._pending.clear()
        if self._winner is not None:
            self._winner.socket.close()

    def _start(self, address: IpAddress) -> None:
        if len(self._pending) == MOST_ATTEMPTS_AT_ONCE:
            self._drop(
                next(iter(self._pending)), "timed_out", "no answer yet, gave way to the next"
            )
        try:
            sock = _open_tcp(address, self._source_addresses)
        except _SourceError as error:
            self._failures[address] = ("unreachable", str(error))
            self._wake()
            return
        except OSError as error:
            self._failures[address] = (_kind(error.errno), _error_text(error.errno))
            self._wake()
            return
        self._pending[sock] = address
        code = sock.connect_ex((format_ip(address), self._port))
        if code == errno.EINPROGRESS:
            self._loop.add_writer(sock.fileno(), self._writable, sock)
        else:
            self._settle(sock, code)

    def _writable(self, sock: Socket) -> None:
        self._settle(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _settle(self, sock: Socket, code: int) -> None:
        address = self._pending[sock]
        if code:
            self._fail(sock, _kind(code), _error_text(code))
        elif fault := peer_fault(sock, address, self._port):
            self._fail(sock, "refused", fault)
        elif self._winner is None:
            self._loop.remove_writer(sock.fileno())
            del self._pending[sock]
            self._winner = DialResult(sock, address)
            self._wake()

    def _fail(self, sock: Socket, kind: Kind, text: str) -> None:
        self._drop(sock, kind, text)
        self._wake()

    def _drop(self, sock: Socket, kind: Kind, text: str) -> None:
        self._loop.remove_writer(sock.fileno())
        sock.close()
        self._failures[self._pending.pop(sock)] = (kind, text)

    def _error(self) -> DialError:
        kinds = {kind for kind, _ in self._failures.values()}
        kind: Kind = next((kind for kind in _STRONGEST_FIRST if kind in kinds), "unreachable")
        text = "; ".join(
            f"{Destination(Host(format_ip(address), address), self._port)}: {text}"
            for address, (_, text) in self._failures.items()
        )
        return DialError(kind, text or f"port {self._port}: there is no address to dial")


def _open(endpoint: UnixAddress | VsockAddress) -> tuple[Socket, SocketAddress]:
    if isinstance(endpoint, VsockAddress):
        return _open_vsock(), (endpoint.cid, endpoint.port)
    return socket.socket(socket.AF_UNIX, _STREAM), endpoint.path


class _SourceError(Exception):
    """There is nothing to dial from, or it cannot be bound to."""


def _open_tcp(address: IpAddress, sources: SourceAddresses | None) -> Socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    if sources is not None and address.version not in sources:
        raise _SourceError(f"not dialled: source_address has no IPv{address.version} address")
    sock = socket.socket(family, _STREAM)
    try:
        tune_tcp(sock)
        if sources is not None:
            _bind(sock, sources[address.version])
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: Socket, source: IpAddress) -> None:
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)  # for IPv6 sockets as well
    try:
        sock.bind((format_ip(source), 0))
    except OSError as error:
        text = f"cannot be dialled from {source} (source_address): {_error_text(error.errno)}"
        raise _SourceError(text) from None


def _open_vsock() -> Socket:
    if not hasattr(socket, "AF_VSOCK"):  # some builds of Python were compiled without it
        raise OSError(errno.EAFNOSUPPORT, "")
    sock = socket.socket(socket.AF_VSOCK, _STREAM)
    try:
        set_vsock_buffer(sock)  # before connect
    except BaseException:
        sock.close()
        raise
    return sock


async def _establish(sock: Socket, address: SocketAddress, timeout_seconds: float) -> None:
    code = sock.connect_ex(address)
    if code in (errno.EAGAIN, errno.EINPROGRESS):
        async with asyncio.timeout(timeout_seconds):
            code = await _connected(sock, address, code)
    if code:
        raise OSError(code, os.strerror(code))


async def _connected(sock: Socket, address: SocketAddress, code: int) -> int:
    """Wait for the end of an attempt to connect; its error, 0 if there was none."""
    delay_seconds = _UNIX_RETRY_SECONDS
    # A unix socket whose listener has a full backlog cannot be waited for: connect says EAGAIN.
    while code == errno.EAGAIN:
        await asyncio.sleep(delay_seconds)
        delay_seconds = min(2 * delay_seconds, _UNIX_RETRY_MOST_SECONDS)
        code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        await _writable(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return code


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)


def _failure(whom: Endpoint | Destination, error: OSError, timeout_seconds: float) -> DialError:
    if error.errno is None:  # TimeoutError is an OSError; ours, not the kernel's ETIMEDOUT
        return DialError("timed_out", f"{whom}: {_silence(timeout_seconds)}")
    return DialError(_kind(error.errno), f"{whom}: {_error_text(error.errno)}")


def _kind(code: int | None) -> Kind:
    return _KINDS.get(code or 0, "unreachable")


def _error_text(code: int | None) -> str:
    return os.strerror(code) if code else "unknown error"


def _silence(timeout_seconds: float) -> str:
    return f"no answer in {timeout_seconds:g} s"
