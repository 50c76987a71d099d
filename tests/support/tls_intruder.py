"""A parent that ends TLS itself: it has a certificate of its own, and relays what is inside.

It sees and may change every byte, as whoever stands between a client and an enclave could, were it
not for the attested key.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.attesting_server import server_context
from tests.support.pair import serving

__all__ = ("intruding",)

SECONDS = 30.0

Change = Callable[[bytes], bytes]


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

    def relay(connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        with (
            suppress(OSError),
            towards_clients.wrap_socket(connection, server_side=True) as client,
            socket.create_connection(("127.0.0.1", port), SECONDS) as plain,
            towards_server.wrap_socket(plain) as server,
        ):
            back = threading.Thread(target=_copy, args=(server, client, _as_it_is), daemon=True)
            back.start()
            _copy(client, server, to_server, seen)
            back.join(SECONDS)

    with serving(relay) as listening:
        yield listening


def _copy(
    source: ssl.SSLSocket, target: ssl.SSLSocket, change: Change, seen: list[bytes] | None = None
) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            if seen is not None:
                seen.append(data)
            target.sendall(change(data))
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
