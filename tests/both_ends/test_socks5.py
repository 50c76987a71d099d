"""SOCKS 5 from a program to its destination: each reply, both ends of file, every kind of cut."""

import os
import signal
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

import pytest

from tests.support.observation import plain_lines
from tests.support.pair import Line, Pair, Side, echo, free_port, is_reset, serving
from tests.support.refused_destinations import refused_destinations, rule
from tests.support.socks5_client import LOOPBACK, SUCCEEDED, ask, connect, receive_exactly
from tests.vsockproxy.protocols import hellos

CONNECT_SECONDS = 0.3
SECONDS = 60.0
LITERAL_V6 = "fd00::5"
LITERAL_V4 = "10.9.8.7"


class Rig:
    """A pair with a SOCKS proxy."""

    def __init__(self, pair: Pair, port: int) -> None:
        self.pair = pair
        self.port = port

    @property
    def enclave(self) -> Side:
        """The enclave's side."""
        assert self.pair.enclave is not None
        return self.pair.enclave

    @property
    def parent(self) -> Side:
        """The parent's side."""
        assert self.pair.parent is not None
        return self.pair.parent

    def refusal(self, host: str) -> Line:
        """The enclave's line that refuses `host`."""
        return self.enclave.wait_for_event("decision", host=host, allowed=False)


@contextmanager
def rig_with(rules: list[dict[str, Any]], **more: Any) -> Iterator[Rig]:
    port = free_port()
    shim = {"http_proxy": None, "socks5": f"{LOOPBACK}:{port}"}
    enclave = {"shim": shim, **more.pop("enclave", {})}
    with Pair("unix", rules, enclave=enclave, **more) as pair:
        rig = Rig(pair, port)
        yield rig
        for side in (rig.parent, rig.enclave):
            assert plain_lines(side) == []


# ---------------------------------------------------------------- replies

REPLIES: dict[str, tuple[str, int, str, int, str]] = {
    "a host that neither side lists": ("unlisted.test", 443, "not_listed", 2, "enclave"),
    "a literal that neither side lists": ("203.0.113.9", 443, "not_listed", 2, "enclave"),
    "an IPv6 literal that neither lists": ("2001:db8::9", 443, "not_listed", 2, "enclave"),
    "a port that is not listed": ("refusing.test", 444, "port_not_listed", 2, "enclave"),
    "a host that the denylist names": ("denied.test", 443, "denied", 2, "enclave"),
    "a host that only the enclave lists": ("enclave-only.test", 443, "not_listed", 2, "parent"),
    "a host that the parent's denylist names": ("parent-denied.test", 443, "denied", 2, "parent"),
    "a private address": ("private.test", 443, "address_private", 2, "parent"),
    "a metadata address": ("metadata.test", 443, "address_metadata", 2, "parent"),
    "a reserved address": ("reserved.test", 443, "address_reserved", 2, "parent"),
    "a name that does not exist": ("missing.test", 443, "no_such_name", 4, "parent"),
    "a lookup that fails": ("unanswered.test", 443, "lookup_failed", 4, "parent"),
    "a dial that nobody answers": ("full.test", 443, "dial_timeout", 4, "parent"),
    "a destination that refuses the dial": ("refusing.test", 443, "dial_refused", 5, "parent"),
}


@pytest.fixture(scope="module")
def refusing() -> Iterator[Rig]:
    with refused_destinations() as refused, rig_with(**refused.keywords) as rig:
        yield rig


@pytest.mark.parametrize("name", REPLIES)
def test_a_refusal_is_one_reply_a_clean_end_and_one_line(refusing: Rig, name: str) -> None:
    host, port, reason, expected, side = REPLIES[name]
    after = len(refusing.enclave.lines)
    sock, reply = ask(refusing.port, host, port, trailing=b"for the tunnel alone" * 5_000)
    with sock:
        assert reply == expected
        assert sock.makefile("rb").read() == b""  # an end of file, not a reset
    line = refusing.enclave.wait_for_event("decision", after=after, host=host, port=port)
    assert (line["allowed"], line["reason"], line["side"]) == (False, reason, side)
    assert line["way"] == "socks5"


def test_one_stream_too_many_is_reply_1() -> None:
    with (
        serving(echo) as port,
        rig_with(
            [rule("origin.test")],
            parent_rules=[rule("origin.test", dial=f"{LOOPBACK}:{port}")],
            parent={"limits": {"streams": 1}},
        ) as rig,
        connect(rig.port, "origin.test", 443) as sock,
    ):
        sock.sendall(b"one")
        assert receive_exactly(sock, 3) == b"one"
        refused, reply = ask(rig.port, "origin.test", 443)
        with refused:
            assert reply == 1
        assert rig.refusal("origin.test")["reason"] == "limit"


# ---------------------------------------------------------------- tunnels

NAMES = ("origin.test", LITERAL_V4, LITERAL_V6)

Handler = Callable[[socket.socket], None]


@contextmanager
def rig_to(handler: Handler, *, require_tls: bool = False, **more: Any) -> Iterator[Rig]:
    """A rig whose every destination is an origin that `handler` serves."""
    with serving(handler) as port:
        rules = [rule(name, require_tls=require_tls) for name in NAMES]
        dialled = [rule(name, dial=f"{LOOPBACK}:{port}") for name in NAMES]
        with rig_with(rules, parent_rules=dialled, **more) as rig:
            yield rig


@pytest.fixture(scope="module")
def echoing() -> Iterator[Rig]:
    with rig_to(echo) as rig:
        yield rig


DESTINATIONS = {
    "a name": ("origin.test", "origin.test"),
    "a name in capitals with a dot": ("ORIGIN.test.", "origin.test"),
    "an IPv4 address": (LITERAL_V4, LITERAL_V4),
    "an IPv6 address": (LITERAL_V6, LITERAL_V6),
}


@pytest.mark.parametrize(("asked", "logged"), DESTINATIONS.values(), ids=DESTINATIONS)
def test_bytes_go_both_ways(echoing: Rig, asked: str, logged: str) -> None:
    after = len(echoing.enclave.lines)
    with connect(echoing.port, asked, 443) as sock:
        sock.sendall(b"x" * 300_000)
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").read() == b"x" * 300_000
    line = echoing.enclave.wait_for_event("close", after=after, host=logged)
    assert (line["way"], line["ended"]) == ("socks5", "finished")
    assert (line["bytes_out"], line["bytes_in"]) == (300_000, 300_000)


def test_what_was_sent_behind_the_request_comes_first(echoing: Rig) -> None:
    sock, reply = ask(echoing.port, "origin.test", 443, trailing=b"early, ")
    with sock:
        assert reply == SUCCEEDED
        sock.sendall(b"late")
        assert receive_exactly(sock, 11) == b"early, late"


def test_a_client_that_half_closes_gets_the_full_answer() -> None:
    def origin(connection: socket.socket) -> None:
        request = b""
        while data := connection.recv(65_536):
            request += data
        connection.sendall(b"got " + request + b"x" * 1_000_000)

    with rig_to(origin) as rig, connect(rig.port, "origin.test", 443) as sock:
        sock.sendall(b"request")
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").read() == b"got request" + b"x" * 1_000_000


def test_an_origin_that_half_closes_first_still_gets_the_request() -> None:
    received: Queue[bytes] = Queue()

    def origin(connection: socket.socket) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        received.put(connection.makefile("rb").read())

    with rig_to(origin) as rig:
        with connect(rig.port, "origin.test", 443) as sock:
            assert sock.makefile("rb").read() == b"greeting"
            sock.sendall(b"y" * 500_000)
            sock.shutdown(socket.SHUT_WR)
        assert received.get(timeout=SECONDS) == b"y" * 500_000


def reset_on_close(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_an_origin_that_resets_resets_the_program() -> None:
    def origin(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"z" * 100_000)
        reset_on_close(connection)

    with rig_to(origin) as rig, connect(rig.port, "origin.test", 443) as sock:
        sock.sendall(b"request")
        assert is_reset(sock)


def test_a_program_that_resets_resets_the_origin() -> None:
    outcomes: Queue[bool] = Queue()

    def origin(connection: socket.socket) -> None:
        connection.sendall(b"heard")
        outcomes.put(is_reset(connection))

    with rig_to(origin) as rig:
        with connect(rig.port, "origin.test", 443) as sock:
            sock.sendall(b"half a request")
            assert receive_exactly(sock, 5) == b"heard"
            reset_on_close(sock)
        assert outcomes.get(timeout=SECONDS) is True


@pytest.mark.parametrize("victim", ["parent", "enclave"])
def test_a_killed_worker_resets_both_programs_and_the_next_one_serves(victim: str) -> None:
    outcomes: Queue[bool] = Queue()

    def origin(connection: socket.socket) -> None:
        connection.sendall(b"half")
        outcomes.put(is_reset(connection))

    with rig_to(origin) as rig:
        with connect(rig.port, "origin.test", 443) as sock:
            assert receive_exactly(sock, 4) == b"half"
            side = rig.parent if victim == "parent" else rig.enclave
            (worker,) = side.workers
            os.kill(worker, signal.SIGKILL)
            assert is_reset(sock)
            with connect(rig.port, "origin.test", 443) as again:
                assert receive_exactly(again, 4) == b"half"
        assert outcomes.get(timeout=SECONDS) is True


# ---------------------------------------------------------------- where TLS is required


@pytest.fixture(scope="module")
def strict() -> Iterator[Rig]:
    with rig_to(echo, require_tls=True, enclave={"limits": {"handshake": 2}}) as rig:
        yield rig


def hello_for(name: str | None) -> bytes:
    return hellos.openssl_hello(name, ssl.TLSVersion.TLSv1_3)


HELLOS = {
    "for the name": ("origin.test", "origin.test"),
    "without a name, to an IPv4 address": (LITERAL_V4, None),
    "without a name, to an IPv6 address": (LITERAL_V6, None),
}


@pytest.mark.parametrize("is_early", [False, True], ids=["after the reply", "behind the request"])
@pytest.mark.parametrize(("host", "name"), HELLOS.values(), ids=HELLOS)
def test_a_client_hello_passes_as_it_is(
    strict: Rig, host: str, name: str | None, is_early: bool
) -> None:
    hello = hello_for(name)
    sock, reply = ask(strict.port, host, 443, trailing=hello if is_early else b"")
    with sock:
        assert reply == SUCCEEDED
        if not is_early:
            for start in range(0, len(hello), 100):
                sock.sendall(hello[start : start + 100])
        assert receive_exactly(sock, len(hello)) == hello


PLAIN: dict[str, tuple[str, bytes, str]] = {
    "plain HTTP": ("origin.test", b"GET / HTTP/1.1\r\n\r\n", "not_tls"),
    "nothing for as long as a handshake may take": ("origin.test", b"", "not_tls"),
    "a hello for another name": ("origin.test", hello_for("other.test"), "sni_mismatch"),
    "a hello without a name": ("origin.test", hello_for(None), "sni_mismatch"),
    "a hello with a name to a literal": (LITERAL_V6, hello_for("origin.test"), "sni_mismatch"),
}


@pytest.mark.parametrize(("host", "data", "reason"), PLAIN.values(), ids=PLAIN)
def test_first_bytes_that_must_not_pass_reset_the_program(
    strict: Rig, host: str, data: bytes, reason: str
) -> None:
    after = len(strict.enclave.lines)
    with connect(strict.port, host, 443) as sock:
        sock.sendall(data)
        assert is_reset(sock)
    line = strict.enclave.wait_for_event("decision", after=after, host=host)
    assert (line["allowed"], line["reason"], line["way"]) == (False, reason, "socks5")
