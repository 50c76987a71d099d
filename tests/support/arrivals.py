"""A steady stream of new connections, and many that stay."""

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future

from tests.support.exchange_pair import converse
from tests.support.traffic import start

CONNECTIONS_A_SECOND = 200


class Arrivals:
    """New connections at a steady rate, each of which says a word and hears it.

    Args:
        port: where they go.
    """

    def __init__(self, port: int) -> None:
        self.seen: Counter[str] = Counter()
        self._port = port
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._running = start(self._come)

    def _come(self) -> None:
        asking: list[Future[None]] = []
        began_at = time.monotonic()
        while not self._is_over.is_set():
            due = int((time.monotonic() - began_at) * CONNECTIONS_A_SECOND)
            asking += [start(self._ask) for _ in range(due - len(asking))]
            self._is_over.wait(0.01)
        for future in asking:
            future.result(60)

    def _ask(self) -> None:
        what = "served"
        try:
            with socket.create_connection(("127.0.0.1", self._port), 30) as sock:
                try:
                    converse(sock)
                except (ConnectionResetError, BrokenPipeError):
                    what = "reset"
                except AssertionError:
                    what = "end of file"
        except ConnectionRefusedError:
            what = "refused"
        with self._lock:
            self.seen[what] += 1

    def end(self) -> Counter[str]:
        """No more; what became of them all."""
        self._is_over.set()
        self._running.result(90)
        return self.seen


@contextlib.contextmanager
def streams(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Connections that have heard a word each."""
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(number):
            sock = socket.create_connection(("127.0.0.1", port), 60)
            socks.append(stack.enter_context(sock))
            converse(sock)
        yield socks


def wait_for_arrivals(*arrivals: Arrivals) -> None:
    """Wait until the load is there."""
    deadline = time.monotonic() + 60
    while any(each.seen["served"] < CONNECTIONS_A_SECOND for each in arrivals):
        assert time.monotonic() < deadline
        time.sleep(0.05)
