"""A SOCKS 5 client by hand (RFC 1928), for tests that look at each byte of the answers."""

import ipaddress
import socket

GREETING = b"\x05\x01\x00"
"""Offers no authentication, and nothing else."""

CHOSEN = b"\x05\x00"
REPLY_BYTES = 10
"""With an IPv4 address, as our proxy replies."""

SUCCEEDED = 0
LOOPBACK = "127.0.0.1"
SECONDS = 30.0


def request_for(host: str, port: int) -> bytes:
    """CONNECT to a name, or to a literal as the address that it is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        return b"\x05\x01\x00\x03" + bytes((len(name),)) + name + port.to_bytes(2)
    kind = 1 if address.version == 4 else 4
    return b"\x05\x01\x00" + bytes((kind,)) + address.packed + port.to_bytes(2)


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes; fewer where the connection ends before."""
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def ask(proxy_port: int, host: str, port: int, trailing: bytes = b"") -> tuple[socket.socket, int]:
    """Ask for a tunnel; the connection, and what the reply says.

    Args:
        proxy_port: where the proxy listens, on 127.0.0.1.
        host: a name or a literal.
        port: of the destination.
        trailing: sent with the request, before its reply.
    """
    sock = socket.create_connection((LOOPBACK, proxy_port), SECONDS)
    try:
        sock.sendall(GREETING)
        chosen = receive_exactly(sock, len(CHOSEN))
        assert chosen == CHOSEN, f"the proxy chose {chosen!r}"
        sock.sendall(request_for(host, port) + trailing)
        reply = receive_exactly(sock, REPLY_BYTES)
        assert len(reply) == REPLY_BYTES, f"the proxy replied {reply!r}"
        assert reply == bytes((5, reply[1], 0, 1, 0, 0, 0, 0, 0, 0))
    except BaseException:
        sock.close()
        raise
    return sock, reply[1]


def connect(proxy_port: int, host: str, port: int) -> socket.socket:
    """A tunnel; its reply has been read."""
    sock, reply = ask(proxy_port, host, port)
    if reply != SUCCEEDED:
        sock.close()
        raise AssertionError(f"the proxy replied {reply}")
    return sock
