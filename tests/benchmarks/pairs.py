"""The pairs that are compared: TCP in, a unix socket between two processes, TCP out to the origin.

Every pair runs with the defaults of its programs. What is set is what the work needs: addresses,
time limits beyond the length of a run, `nodelay` and half-close for socat.
"""

import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.load import connections
from tests.benchmarks.processes import ProcessTree, started

READY_SECONDS = 15.0
MOST_DEDICATED = 1100
"""More than the idle streams and those at once; the default is 64."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A running pair.

    Args:
        port: where programs connect, on 127.0.0.1.
        processes: both its halves.
    """

    port: int
    processes: ProcessTree | None
    """None where there is no pair."""


Start = Callable[[int, Path], AbstractContextManager[Pair]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the things that are compared.

    Args:
        name: as tables say it.
        start: starts it for an origin's port, with an empty directory of its own.
        missing: why it cannot be started; empty if it can.
    """

    name: str
    start: Start
    missing: str = ""
    has_processes: bool = True


def vsockproxy(name: str, carrier: str, tree: Path | None = None) -> Subject:
    """Both sides as their commands start them; audit lines are written, and discarded.

    Args:
        name: as tables say it.
        carrier: `shared` or `dedicated`.
        tree: another checkout, whose code is run; None for this one.
    """

    @contextmanager
    def start(origin: int, directory: Path) -> Iterator[Pair]:
        with reserved_port() as port, ExitStack() as stack:
            enclave = _ENCLAVE.format(
                directory=directory, port=port, carrier=carrier, dedicated=MOST_DEDICATED
            )
            roots = start_sides(stack, directory, origin, enclave, tree)
            yield ready(name, port, roots)

    return Subject(name, start)


def start_sides(
    stack: ExitStack, directory: Path, origin: int, enclave: str, tree: Path | None = None
) -> list[int]:
    """Start a parent that leads origin.test:9 to the origin, and an enclave; their process ids.

    Args:
        stack: ends them.
        directory: for their files, and the link.
        origin: a port.
        enclave: its file.
        tree: another checkout, whose code is run; None for this one.
    """
    values = {"directory": directory, "origin": origin, "dedicated": MOST_DEDICATED}
    roots = []
    for side, text in {"parent": _PARENT.format(**values), "enclave": enclave}.items():
        file = directory / f"{side}.yaml"
        file.write_text(text)
        command = [sys.executable, "-P", "-c", _MAIN, side, "--config", str(file)]
        environment = {"PYTHONPATH": str(tree)} if tree is not None else {}
        roots.append(stack.enter_context(started(command, environment=environment)))
    return roots


_MAIN = "from vsockproxy.cli import main; main()"

_PARENT = """\
listen: unix://{directory}/link.sock?cid=16
allowlist:
  - {{address: origin.test, port: 9, dial: "127.0.0.1:{origin}", private: true}}
limits: {{dedicated: {dedicated}}}
"""

_ENCLAVE = """\
parent: unix://{directory}/link.sock
allowlist:
  - {{address: origin.test, port: 9, private: true, require_tls: false}}
shim: {{http_proxy: null, streams: null}}
forwards:
  - {{listen: "tcp://127.0.0.1:{port}", to: "origin.test:9", carrier: {carrier}}}
limits: {{dedicated: {dedicated}}}
"""


def haproxy() -> Subject:
    """HAProxy, which uses as many threads as there are processors."""

    @contextmanager
    def start(origin: int, directory: Path) -> Iterator[Pair]:
        with reserved_port() as port, ExitStack() as stack:
            link = f"unix@{directory}/link.sock"
            roots = []
            for number, (bind, server) in enumerate(
                [(link, f"127.0.0.1:{origin}"), (f"127.0.0.1:{port}", link)]
            ):
                file = directory / f"{number}.cfg"
                file.write_text(_HAPROXY.format(bind=bind, server=server))
                roots.append(stack.enter_context(started(["haproxy", "-db", "-f", str(file)])))
            yield ready("HAProxy", port, roots)

    return Subject("HAProxy", start, missing("haproxy"))


_HAPROXY = """\
global
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen pair
  bind {bind}
  server next {server}
"""


def socat() -> Subject:
    """Socat with 64 KiB buffers; it starts a process for each connection."""

    @contextmanager
    def start(origin: int, directory: Path) -> Iterator[Pair]:
        with reserved_port() as port, ExitStack() as stack:
            link = f"{directory}/link.sock"
            roots = []
            for listen, connect in (
                (f"UNIX-LISTEN:{link}", f"TCP:127.0.0.1:{origin},nodelay"),
                (f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,nodelay", f"UNIX-CONNECT:{link}"),
            ):
                # -t: how long the other direction may go on after one has ended.
                command = ["socat", "-b", "65536", "-t", "60", f"{listen},fork,backlog=1024"]
                roots.append(stack.enter_context(started([*command, connect])))
            yield ready("socat", port, roots)

    return Subject("socat", start, missing("socat"))


def direct() -> Subject:
    """No pair: the program connects to the origin; how fast the load itself could go."""

    @contextmanager
    def start(origin: int, directory: Path) -> Iterator[Pair]:
        del directory
        yield Pair(origin, None)

    return Subject("direct, no pair", start, has_processes=False)


def missing(program: str) -> str:
    """Why a program cannot be started; empty if it can."""
    return "" if shutil.which(program) else f"{program} is not installed"


def ready(name: str, port: int, roots: list[int]) -> Pair:
    """The pair, once a byte has travelled there and back.

    Raises:
        TimeoutError: none did.
    """
    limit = time.monotonic() + READY_SECONDS
    while True:
        try:
            connections(port, 1)
        except OSError as error:
            if time.monotonic() > limit:
                raise TimeoutError(f"{name} is not ready after {READY_SECONDS:g} s") from error
            time.sleep(0.02)
        else:
            return Pair(port, ProcessTree(roots))


@contextmanager
def listening_origin() -> Iterator[int]:
    """The origin, a process of its own, while the body runs; gives its port."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=4096)) as listener:
        listener.setblocking(False)
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "tests.benchmarks.origin", str(descriptor)]
        with started(command, passed=[descriptor]):
            yield listener.getsockname()[1]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given while the body runs.

    The socket that holds it never listens, so a server with SO_REUSEADDR may bind the port too.
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
