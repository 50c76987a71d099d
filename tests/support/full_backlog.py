"""A destination that is there and never answers, as a blackhole is, on loopback."""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """The port of a listener that takes no more connections: SYNs to it are dropped."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listener.getsockname()[1]
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        yield port
