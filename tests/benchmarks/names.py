"""Lookups of one worker's DNS server: `python -m tests.benchmarks.names`.

The server is a process of its own on loopback, before a parent that answers at once, so what is
measured is ours. The loads are limited in count: names that were asked for before, and new names
under a wildcard, each of which is asked of the parent and numbered; 2,000 a second, which is what
is promised, and as fast as they are answered.
"""

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import quantiles

from tests.support.names_server import HOST
from tests.vsockproxy.protocols.dns_messages import header, question

NAMES = 100
LOOKUPS = 10_000
PACED_PER_SECOND = 2000
IN_FLIGHT = 16
"""Queries without an answer at one time, where the server sets the pace."""
ANSWER_SECONDS = 5.0

_START_SECONDS = 30.0

NameOf = Callable[[int], bytes]
"""The name of the n-th question, in wire format."""


@contextmanager
def names_server() -> Iterator[int]:
    """The port of a server, for as long as the block runs."""
    command = [sys.executable, "-m", "tests.support.names_server", str(NAMES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate(timeout=_START_SECONDS)


class Client:
    """Asks over UDP and takes the time of each answer.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.connect((HOST, port))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._sock, selectors.EVENT_READ)
        self._sent_at: dict[int, float] = {}
        self.seconds: list[float] = []
        """From each question to its answer."""
        self.lost = 0

    def close(self) -> None:
        self._selector.close()
        self._sock.close()

    @property
    def waiting(self) -> int:
        """Questions without an answer."""
        return len(self._sent_at)

    def ask(self, number: int, name: bytes) -> None:
        """Send a question for the A record of a name in wire format."""
        query_id = number & 0xFFFF
        message = query_id.to_bytes(2) + header()[2:] + question(name)
        self._sent_at[query_id] = time.perf_counter()
        self._sock.send(message)

    def receive(self, seconds: float) -> None:
        """Take what answers there are, and wait for one for at most `seconds`."""
        if not self._selector.select(max(seconds, 0)):
            return
        while True:
            try:
                answer = self._sock.recv(2048)
            except BlockingIOError:
                return
            sent_at = self._sent_at.pop(int.from_bytes(answer[:2]), None)
            if sent_at is not None:
                self.seconds.append(time.perf_counter() - sent_at)
            if answer[3] & 0xF or answer[6:8] != b"\x00\x01":
                raise RuntimeError(f"an answer without an address: {answer.hex()}")

    def wait(self, most_waiting: int) -> None:
        """Wait until fewer are under way; what is not answered in time counts as lost."""
        ends = time.perf_counter() + ANSWER_SECONDS
        while self.waiting > most_waiting:
            left = ends - time.perf_counter()
            if left <= 0:
                self.lost += self.waiting
                self._sent_at.clear()
            self.receive(left)


def known_name(number: int) -> bytes:
    return _wire(f"n{number % NAMES}.names.test")


def new_name(number: int) -> bytes:
    return _wire(f"n{number}.wild.test")


def newer_name(number: int) -> bytes:
    return _wire(f"m{number}.wild.test")


def _wire(name: str) -> bytes:
    labels = (bytes((len(label),)) + label.encode() for label in name.split("."))
    return b"".join(labels) + b"\x00"


def paced(client: Client, name: NameOf, count: int = LOOKUPS) -> None:
    """Questions at a steady rate, whatever the answers do."""
    began = time.perf_counter()
    for number in range(count):
        due = began + number / PACED_PER_SECOND
        while (left := due - time.perf_counter()) > 0:
            client.receive(left)
        client.ask(number, name(number))
        client.receive(0)
    client.wait(0)


def unpaced(client: Client, name: NameOf) -> None:
    """Questions as fast as they are answered."""
    for number in range(LOOKUPS):
        client.ask(number, name(number))
        client.wait(IN_FLIGHT - 1)
    client.wait(0)


LOADS: dict[str, tuple[Callable[[Client, NameOf], None], NameOf]] = {
    f"known names, {PACED_PER_SECOND} a second": (paced, known_name),
    f"known names, {IN_FLIGHT} at a time": (unpaced, known_name),
    f"new names, {PACED_PER_SECOND} a second": (paced, new_name),
    f"new names, {IN_FLIGHT} at a time": (unpaced, newer_name),
}


def report(label: str, client: Client, seconds: float) -> float:
    """Print a line, and give the p99 in seconds."""
    percentiles = quantiles(client.seconds, n=100)
    print(
        f"{label:>26}: {len(client.seconds) / seconds:7.0f} lookups/s, "
        f"p50 {percentiles[49] * 1000:.3f} ms, p99 {percentiles[98] * 1000:.3f} ms, "
        f"most {max(client.seconds) * 1000:.3f} ms, {client.lost} lost",
        flush=True,
    )
    return percentiles[98]


def measure(port: int) -> dict[str, float]:
    """All loads, one after the other; the p99 of each in seconds."""
    found = {}
    for label, (load, name) in LOADS.items():
        client = Client(port)
        try:
            began = time.perf_counter()
            load(client, name)
            found[label] = report(label, client, time.perf_counter() - began)
        finally:
            client.close()
    return found


def main() -> None:
    """Print what was measured."""
    with names_server() as port:
        measure(port)


if __name__ == "__main__":
    main()
