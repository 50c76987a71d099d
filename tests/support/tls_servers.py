"""TLS servers on loopback for tests: one thread for each connection, OpenSSL's own TLS."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

from tests.support.pair import serving

SECONDS = 60.0


@contextlib.contextmanager
def tls_serving(context: ssl.SSLContext, handler: Callable[[ssl.SSLSocket], None]) -> Iterator[int]:
    """A server that gives each connection to `handler` once its handshake is complete; its port.

    Args:
        context: the server's.
        handler: says close_notify itself, with `unwrap`, where it wants a clean end.
    """

    def serve(connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        tls = context.wrap_socket(
            connection,
            server_side=True,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        with tls:
            try:
                tls.do_handshake()
            except ssl.SSLError:
                # A close with bytes unread is a reset, which may overtake the alert.
                with socket.socket(fileno=tls.detach()) as raw, contextlib.suppress(OSError):
                    raw.shutdown(socket.SHUT_WR)
                    while raw.recv(65_536):
                        pass
                return
            handler(tls)

    with serving(serve) as port:
        yield port


def tls_echo(connection: ssl.SSLSocket) -> None:
    """Send back what comes, to the client's close_notify, then say ours."""
    while data := connection.recv(65_536):
        connection.sendall(data)
    with contextlib.suppress(OSError):
        connection.unwrap()
