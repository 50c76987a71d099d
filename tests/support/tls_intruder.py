"""A parent that ends TLS itself: it has a certificate of its own, and relays what is inside.

It sees and may change every byte, as whoever stands between a client and an enclave could, were it
not for the attested key. Both directions are tasks of one thread: an SSL object of OpenSSL must not
be read and written by two threads at once.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import trio

from tests.support.attesting_server import server_context
from tests.support.pair import serving

__all__ = ("intruding",)

SECONDS = 30.0

Change = Callable[[bytes], bytes]
Secured = trio.SSLStream[trio.SocketStream]


def _as_it_is(data: bytes) -> bytes:
    return data


@contextmanager
def intruding(
    port: int,
    *,
    to_server: Change = _as_it_is,
    seen: list[bytes] | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Relay between clients and the server on `port` while the body runs; where to connect.

    Args:
        port: of the true server.
        to_server: changes what clients send, one read at a time.
        seen: gets what clients send, in the clear.
        context: what clients are met with; by default a self-signed certificate.
    """
    towards_clients = context or server_context()
    towards_server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    towards_server.check_hostname = False
    towards_server.verify_mode = ssl.CERT_NONE

    async def relay(connection: socket.socket) -> None:
        with trio.move_on_after(SECONDS):
            met = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
            plain = await trio.open_tcp_stream("127.0.0.1", port)
            async with (
                trio.SSLStream(met, towards_clients, server_side=True) as client,
                trio.SSLStream(plain, towards_server) as server,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(_copy, server, client, _as_it_is, None)
                nursery.start_soon(_copy, client, server, to_server, seen)

    with serving(lambda connection: trio.run(relay, connection.dup())) as listening:
        yield listening


async def _copy(source: Secured, target: Secured, change: Change, seen: list[bytes] | None) -> None:
    """Relay one direction; when it ends, however it does, both connections end."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            if seen is not None:
                seen.append(bytes(data))
            await target.send_all(change(bytes(data)))
    await trio.aclose_forcefully(source)
    await trio.aclose_forcefully(target)
