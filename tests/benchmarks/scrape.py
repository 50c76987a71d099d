"""What watching costs: `python -m tests.benchmarks.scrape [--streams 10000]`.

Two parents, one with an admin endpoint and one without, each with as many open streams of one
enclave. How long a scrape of /metrics takes; and round trips on one more stream of each parent, in
turns so short that whatever else the machine does falls on both, while the first is scraped four
times a second.
"""

import argparse
import contextlib
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.support import session_frames as wire
from tests.support.admin_client import AdminClient
from tests.support.hostile_peer import RawPeer
from tests.support.pair import Side
from vsockproxy.processes import raise_descriptor_limit

SCRAPES = 40
SCRAPES_PER_SECOND = 4
ROUND_TRIPS = 200
REPETITIONS = 60
BATCH = 250
PAYLOAD = bytes(512)
MOST_SCRAPE_SECONDS = 0.050
MOST_RATIO = 1.10

_SCRAPER = """
import sys, time
from tests.support.admin_client import AdminClient
client, pause = AdminClient(sys.argv[1]), float(sys.argv[2])
while True:
    client.ask("/metrics")
    time.sleep(pause)
"""


@dataclass
class Parent:
    """A parent with many streams, and one to converse on."""

    peer: RawPeer
    stream: int
    admin: AdminClient | None
    sent: int = 0

    def round_trip_seconds(self) -> float:
        began = time.perf_counter()
        self.peer.send(self.peer.frame(wire.DATA, self.stream, PAYLOAD))
        heard = 0
        while heard < len(PAYLOAD):
            heard += len(self.peer.wait_for(wire.DATA, self.stream).payload)
        taken = time.perf_counter() - began
        self.sent += heard
        self.peer.send(self.peer.frame(wire.CREDIT, self.stream, wire.total(self.sent + 16_384)))
        return taken


def main() -> int:
    """Measure and print; 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--echo", action="store_true", help="be the destination of one parent")
    options = parser.parse_args()
    raise_descriptor_limit()
    if options.echo:
        return echo()
    streams = options.streams
    with ExitStack() as stack:
        ports = [stack.enter_context(echoing()) for _ in range(2)]
        watched = stack.enter_context(parent(ports[0], streams, is_watched=True))
        # A session on which nothing arrives is given up after 15 s.
        alive = watched.round_trip_seconds
        plain = stack.enter_context(parent(ports[1], streams, is_watched=False, meanwhile=alive))
        assert watched.admin is not None
        admin = watched.admin
        admin.wait_until(lambda: admin.metrics().of("streams_open", enclave="16") == streams + 1)
        scrapes = [seconds_of(lambda: admin.ask("/metrics")) for _ in range(SCRAPES)]
        pages = [seconds_of(lambda: admin.streams(10_000)) for _ in range(5)]
        ratios, base = measure(watched, plain)
    scrape, page = statistics.median(scrapes), statistics.median(pages)
    ratio = statistics.median(ratios)
    print(f"{streams} streams are open:")
    print(f"scrape of /metrics   {scrape * 1e3:6.1f} ms, the longest {max(scrapes) * 1e3:.1f} ms")
    print(f"all of /streams      {page * 1e3:6.1f} ms")
    low, _, high = statistics.quantiles(ratios, n=4)
    print(f"round trip           {base * 1e6:6.0f} us, of a parent that nobody watches")
    print(f"watched, scraped     {ratio:6.2f} times that, quartiles {low:.2f} and {high:.2f}")
    return int(scrape > MOST_SCRAPE_SECONDS or ratio > MOST_RATIO)


def measure(watched: Parent, plain: Parent) -> tuple[list[float], float]:
    """Ratios of the medians of round trips, and a round trip of the plain parent."""
    assert watched.admin is not None
    ratios, plain_seconds = [], []
    with scraping(watched.admin):
        for number in range(REPETITIONS):
            medians = {}
            for each in (watched, plain) if number % 2 else (plain, watched):
                taken = [each.round_trip_seconds() for _ in range(ROUND_TRIPS)]
                medians[each is watched] = statistics.median(taken)
            ratios.append(medians[True] / medians[False])
            plain_seconds.append(medians[False])
    return ratios, statistics.median(plain_seconds)


@contextlib.contextmanager
def scraping(admin: AdminClient) -> Iterator[None]:
    """Somebody scrapes, in a process of its own."""
    pause = str(1 / SCRAPES_PER_SECOND)
    scraper = subprocess.Popen([sys.executable, "-c", _SCRAPER, admin.path, pause])
    try:
        time.sleep(1)  # until it has started up
        yield
    finally:
        scraper.kill()
        scraper.wait()


@contextlib.contextmanager
def parent(
    port: int, streams: int, *, is_watched: bool, meanwhile: Callable[[], object] = int
) -> Iterator[Parent]:
    """A parent with so many open streams, and one more."""
    with tempfile.TemporaryDirectory(prefix="vsockproxy-scrape-") as directory:
        path = Path(directory)
        admin = f"admin: {{listen: 'unix://{path}/admin.sock'}}\n" if is_watched else ""
        config = path / "parent.yaml"
        config.write_text(
            f"listen: unix://{path}/link.sock?cid=16\n{admin}"
            "log: {format: json, level: error}\n"
            f"allowlist: [{{address: 127.0.0.1, port: {port}, private: true}}]\n"
        )
        side = Side("parent", config)
        try:
            client = AdminClient(path / "admin.sock") if is_watched else None
            deadline = time.monotonic() + 30
            while not (path / "link.sock").exists():
                assert time.monotonic() < deadline, side.raw
                time.sleep(0.05)
            with RawPeer.dial(str(path / "link.sock")) as peer:
                peer.greet()
                last = 2 * streams + 1
                for number in range(1, last + 1, 2):
                    peer.open(number, "127.0.0.1", port)
                    if number % (2 * BATCH) == 1 or number == last:
                        peer.wait_for(wire.OPENED, number)
                        meanwhile()
                yield Parent(peer, last, client)
        finally:
            side.kill()


@contextlib.contextmanager
def echoing() -> Iterator[int]:
    """The destination of one parent, in a process of its own; its port."""
    command = [sys.executable, "-m", "tests.benchmarks.scrape", "--echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def echo() -> int:
    """Send back what comes, on any number of connections, until killed."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listener,
        selectors.DefaultSelector() as selector,
        ExitStack() as stack,
    ):
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                with contextlib.suppress(OSError):
                    if sock is listener:
                        connection, _ = listener.accept()
                        stack.enter_context(connection)
                        selector.register(connection, selectors.EVENT_READ)
                    elif data := sock.recv(65_536):
                        sock.sendall(data)
                    else:
                        selector.unregister(sock)
                        sock.close()


def seconds_of(act: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
