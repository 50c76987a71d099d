"""What a refused program sees: each failure by each way in (docs/operations.md has the table)."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.names.machines import HOSTS, Machine, NoAnswer, hosts, machine
from tests.support.dns_server import DnsServer
from tests.support.full_backlog import full_backlog
from tests.support.pair import free_port, serving

WAYS = ("http", "socks", "names", "forward")
OTHER_PORT = 9
"""Listed for another name."""

RST = "ECONNRESET"

FAILURES = {
    "not listed": ("nobody.test", "403", "2", "EAI_NONAME", RST),
    "a literal that is not listed": ("192.0.2.7", "403", "2", "ECONNREFUSED", RST),
    "port not listed": ("other.test", "403", "2", "ECONNREFUSED", RST),
    "the parent says no": ("only-here.test", "403", "2", "EAI_NONAME", RST),
    "a guarded address": ("guarded.test", "403", "2", "EAI_NONAME", RST),
    "no such name": ("missing.test", "502", "4", "EAI_NONAME", RST),
    "dial refused": ("closed.test", "502", "5", RST, RST),
    "dial timed out": ("silent.test", "504", "4", RST, RST),
}
"""The host, and what a program sees by each of `WAYS`."""

PARENT_AWAY = ("503", "1", RST, RST)
STANDING = {"http": "200", "socks": "0"}


@dataclass(frozen=True, slots=True)
class Ways:
    """A sandbox with every way in; `forwards` has the local port that leads to each host."""

    machine: Machine
    port: int
    forwards: dict[str, int]

    def open(self, way: str, host: str) -> list[Any]:
        """Connect; the connection's number, and the answer."""
        where: tuple[object, object] = (host, self.port)
        if way == "forward":
            where = ("127.0.0.1", self.forwards[host])
        opened: list[Any] = self.machine.ask("open_by", way, *where)
        return opened

    def see(self, way: str, host: str) -> str:
        """The first thing that a program learns: an answer that refuses, or an error."""
        try:
            number, answer = self.open(way, host)
            if answer == STANDING.get(way, "connected"):
                return str(self.machine.ask("end_of", number))
        except NoAnswer as error:
            return error.symbol
        return str(answer)


@contextmanager
def all_ways(directory: Path) -> Iterator[Ways]:
    with (
        hosts() as port,
        full_backlog() as silent,
        DnsServer() as dns,
        serving(hold) as held,
    ):

        def rule(host: str, rule_port: int = port, **more: object) -> dict[str, Any]:
            return {"address": host, "port": rule_port, "private": True, **more}

        listed = [
            rule("open.test", dial=f"{HOSTS[0]}:{port}"),
            rule("held.test", dial=f"127.0.0.1:{held}"),
            rule("other.test", OTHER_PORT, dial=f"{HOSTS[0]}:{port}"),
            rule("missing.test"),
            rule("closed.test", dial=f"127.0.0.1:{free_port()}"),
            rule("silent.test", dial=f"127.0.0.1:{silent}"),
        ]
        asked = ["open.test", "held.test", *(failure[0] for failure in FAILURES.values())]
        forwards = {host: 2000 + number for number, host in enumerate(asked)}
        parent = {
            "allowlist": [*listed, {"address": "guarded.test", "port": port}],
            "resolver": {"servers": [dns.address], "hosts": {"guarded.test": [HOSTS[0]]}},
            "limits": {"connect": 0.3},
        }
        enclave = {
            "allowlist": [*listed, rule("only-here.test"), rule("guarded.test")],
            "shim": {"socks5": "127.0.0.1:1080"},
            "limits": {"link_wait": 0.5},
            "forwards": [
                {"listen": f"tcp://127.0.0.1:{local}", "to": f"{host}:{port}"}
                for host, local in forwards.items()
            ],
        }
        with machine(directory, parent, enclave) as running:
            yield Ways(running, port, forwards)


def hold(connection: socket.socket) -> None:
    """Say a word, and stay until the other end goes."""
    connection.sendall(b"held")
    with suppress(ConnectionError):
        while connection.recv(65_536):
            pass


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    with all_ways(tmp_path_factory.mktemp("ways")) as opened:
        yield opened


@pytest.mark.parametrize("way", WAYS)
def test_what_is_allowed_works(ways: Ways, way: str) -> None:
    number, answer = ways.open(way, "open.test")
    assert answer == STANDING.get(way, "connected")
    assert ways.machine.ask("end_of", number) == "end"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure(ways: Ways, failure: str, way: str) -> None:
    host, *expected = FAILURES[failure]
    assert ways.see(way, host) == expected[WAYS.index(way)]


def test_a_cut_in_the_middle_and_a_parent_that_is_away(tmp_path: Path) -> None:
    with all_ways(tmp_path) as ways:
        numbers = {}
        for way in WAYS:
            numbers[way], answer = ways.open(way, "held.test")
            assert answer == STANDING.get(way, "connected")
        ways.machine.lose_parent()
        ends = {way: ways.machine.error("end_of", number) for way, number in numbers.items()}
        assert ends == dict.fromkeys(WAYS, RST)
        seen = {way: ways.see(way, "open.test") for way in WAYS}
        assert seen == dict(zip(WAYS, PARENT_AWAY, strict=True))
