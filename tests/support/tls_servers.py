"""TLS servers on loopback for tests: one thread for each connection, OpenSSL's own TLS."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

from tests.support.pair import serving

SECONDS = 60.0


@contextlib.contextmanager
def tls_serving(
    context: ssl.SSLContext,
    handler: Callable[[ssl.SSLSocket], None],
    *,
    failed: Callable[[str], None] | None = None,
) -> Iterator[int]:
    """A server that gives each connection to `handler` once its handshake is complete; its port.

    Args:
        context: the server's.
        handler: says close_notify itself, with `unwrap`, where it wants a clean end.
        failed: called with the reason of a handshake that was not completed.
    """

    def serve(connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        try:
            tls = context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
        except ssl.SSLError as error:
            if failed is not None:
                failed(error.reason or str(error))
            return
        with tls:
            handler(tls)

    with serving(serve) as port:
        yield port


def tls_echo(connection: ssl.SSLSocket) -> None:
    """Send back what comes, to the client's close_notify, then say ours."""
    while data := connection.recv(65_536):
        connection.sendall(data)
    with contextlib.suppress(OSError):
        connection.unwrap()
