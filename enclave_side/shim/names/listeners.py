"""The listening sockets of names, in our own network namespace."""

import socket
from collections.abc import Iterator

from enclave_side.shim.names.planning import DNS_PORT, Names
from vsockproxy.addresses import TcpAddress
from vsockproxy.listening import BACKLOG, Listener, ListenError
from vsockproxy.worker_messages import ListenerKind

__all__ = ("open_names_listeners",)


def open_names_listeners(names: Names) -> Iterator[tuple[str, ListenerKind, Listener]]:
    """Open the DNS server's sockets, and one for each port of each set, bound to its device.

    Raises:
        ListenError: one cannot be bound.
    """
    server = TcpAddress(str(names.network.server), DNS_PORT)
    yield "shim.names.dns", "dns_udp", _open(server, socket.SOCK_DGRAM)
    yield "shim.names.dns", "dns_tcp", _open(server, socket.SOCK_STREAM)
    for index, (pair, ports) in enumerate(names.pairs):
        hosts = ["0.0.0.0"]
        if any(network.version == 6 for network in pair.networks):
            hosts.append("::")
        for port in ports:
            for host in hosts:
                listener = _open(TcpAddress(host, port), socket.SOCK_STREAM, pair.ours)
                yield f"shim.names[{index}]", "names", listener


def _open(address: TcpAddress, kind: socket.SocketKind, device: str = "") -> Listener:
    is_ipv6 = ":" in address.host
    sock = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, kind)
    try:
        if is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.setblocking(False)
        sock.bind((address.host, address.port))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{address} on {device}" if device else str(address)
        raise ListenError(f"names cannot listen on {where}: {error.strerror}") from error
    return Listener(address, sock)
