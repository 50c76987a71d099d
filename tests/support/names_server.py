"""An enclave's DNS server on loopback, in a thread, before a scripted parent and supervisor.

    with NamesServer(policy) as served:
        ... ask served.host, served.port ...

`python -m tests.support.names_server NAMES` serves that many names alone, for benchmarks: it prints
its port, and ends when its standard input does.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable
from ipaddress import IPv4Network
from typing import Self, TypeVar

from enclave_side.shim.names.dns_server import DnsServer
from enclave_side.shim.names.lookups import LookupCounts, Lookups
from enclave_side.shim.names.port_sets import PortSets
from enclave_side.shim.names.table import AddressTable
from tests.support.scripted_parent import ScriptedParent, ScriptedSupervisor
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.dataplane import loop
from vsockproxy.log import Log
from vsockproxy.policy import Lists, Policy, Rule

__all__ = ("BLOCK", "NamesServer", "policy_for")

T = TypeVar("T")

BLOCK = IPv4Network("198.18.0.0/15")
HOST = "127.0.0.1"
SECONDS = 30.0
MOST_BIND_ATTEMPTS = 50


def policy_for(*patterns: str) -> Policy:
    """An enclave's policy that allows port 443 of each pattern."""
    rules = tuple(
        Rule(parse_pattern(text), ((443, 443),), f"enclave.yaml:{number}")
        for number, text in enumerate(patterns, 1)
    )
    return Policy(Lists(rules, (), "allowlist in enclave.yaml"))


class NamesServer:
    """Serves between `__enter__` and `__exit__`.

    Args:
        policy: the enclave's.
        log_descriptor: where the lines go; nowhere by default.

    Attributes:
        port: of UDP and TCP.
        parent: answers by script.
    """

    host = HOST

    def __init__(self, policy: Policy, log_descriptor: int | None = None) -> None:
        port_sets = PortSets.compile(policy, BLOCK)
        self._policy = policy
        self._port_sets = port_sets
        self._nowhere = os.open(os.devnull, os.O_WRONLY)
        self._log = Log(
            "enclave", "json", "info", self._nowhere if log_descriptor is None else log_descriptor
        )
        self.parent = ScriptedParent()
        self.supervisor = ScriptedSupervisor(port_sets, AddressTable(port_sets, BLOCK))
        self._udp, self._tcp = bind_both()
        self.port: int = self._udp.getsockname()[1]
        self._started = threading.Event()
        self._calls: list[Callable[[], None]] = []
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK)
        self._thread = threading.Thread(target=lambda: loop.run(self._serve()), name="names server")
        self._server: DnsServer | None = None

    @property
    def counts(self) -> LookupCounts:
        """The server's own."""
        assert self._server is not None
        return self._server.counts

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(SECONDS):
            raise TimeoutError("the names server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake_write)
        self._thread.join(SECONDS)
        os.close(self._wake_read)
        os.close(self._nowhere)

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the server's thread."""
        results: list[T] = []
        done = threading.Event()

        def run() -> None:
            try:
                results.append(function())
            finally:
                done.set()

        self._calls.append(run)
        os.write(self._wake_write, b"x")
        if not done.wait(SECONDS):
            raise TimeoutError("the names server does not run")
        return results[0]

    async def _serve(self) -> None:
        lookups = Lookups(
            self._policy,
            self._port_sets,
            AddressTable(self._port_sets, BLOCK),
            self.parent,
            self.supervisor,
            self._log,
        )
        server = self._server = DnsServer(self._udp, self._tcp, lookups)
        stopped = loop.Event()

        def woken() -> None:
            if not os.read(self._wake_read, 4096):
                loop.remove_reader(self._wake_read)
                stopped.set()
            while self._calls:
                self._calls.pop(0)()

        loop.add_reader(self._wake_read, woken)
        self._started.set()
        await stopped.wait()
        server.close()
        server.close()


def bind_both() -> tuple[socket.socket, socket.socket]:
    """A UDP socket and a TCP listener on the same free port, non-blocking."""
    for _ in range(MOST_BIND_ATTEMPTS):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp.bind((HOST, 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen()
        udp.setblocking(False)
        tcp.setblocking(False)
        return udp, tcp
    raise OSError("no port is free for both UDP and TCP")


def main() -> None:
    """Serve until standard input ends."""
    count = int(sys.argv[1])
    names = [f"n{number}.names.test" for number in range(count)]
    with NamesServer(policy_for(*names, "**.wild.test")) as served:
        print(served.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
