"""The opening exchange on a connected socket, on both sides."""

import secrets
import socket

from vsockproxy.dataplane.carriers import UNIX, VSOCK, Carrier
from vsockproxy.dataplane.sockets import receive, send_all
from vsockproxy.session import DedicatedPreface, Hello, PrefaceReader, agree_on_version

READ_BYTES = 16 * 1024


def carrier_of(sock: socket.socket) -> Carrier:
    """Sizes for the socket's family."""
    return VSOCK if sock.family == socket.AF_VSOCK else UNIX


def make_hello(
    instance: bytes,
    *,
    first_window_bytes: int,
    max_streams: int,
    refusal: str = "",
    services: frozenset[str] = frozenset(),
) -> Hello:
    """A hello with a fresh first sequence number."""
    return Hello(
        instance=instance,
        first_sequence=secrets.randbits(32),
        first_window_bytes=first_window_bytes,
        max_streams=max_streams,
        refusal=refusal,
        services=services,
    )


async def read_preface(
    sock: socket.socket, *, may_be_dedicated: bool
) -> tuple[Hello | DedicatedPreface, bytes]:
    """The peer's first bytes, and what followed them.

    Raises:
        PeerProtocolError: when they break the format.
        OSError: when the connection ended or failed first.
    """
    reader = PrefaceReader(may_be_dedicated=may_be_dedicated)
    while True:
        data = await receive(sock, READ_BYTES)
        if not data:
            raise ConnectionResetError("the connection ended within the opening exchange")
        preface = reader.receive(data)
        if preface is not None:
            return preface, reader.rest


async def greet(sock: socket.socket, hello: Hello) -> tuple[Hello, bytes]:
    """The initiator's half of the exchange; returns the peer's hello and what followed it.

    Raises:
        PeerProtocolError: when the peer refused, speaks no common version, or broke the format.
        OSError: when the connection ended or failed.
    """
    await send_all(sock, hello.encode())
    preface, rest = await read_preface(sock, may_be_dedicated=False)
    assert isinstance(preface, Hello)  # the reader was told to take nothing else
    agree_on_version(hello, preface)
    return preface, rest
