"""An enclave's SOCKS 5 proxy without a parent: handshakes, and what its own policy says."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.observation import descriptors, plain_lines
from tests.support.pair import Line, Pair, Side, free_port, is_reset
from tests.support.socks5_client import (
    CHOSEN,
    GREETING,
    LOOPBACK,
    REPLY_BYTES,
    SECONDS,
    ask,
    receive_exactly,
    request_for,
)
from tests.vsockproxy.protocols.feeding import byte_by_byte
from tests.vsockproxy.protocols.refused_handshakes import REFUSED_GREETINGS, REFUSED_REQUESTS

GENERAL_FAILURE = 1
NOT_ALLOWED = 2
HANDSHAKE_SECONDS = 1.0
STRANGERS = 100
JUNK = bytes(200_000)
"""More than the proxy reads at once."""


class Proxy:
    """The SOCKS proxy of a running enclave."""

    def __init__(self, enclave: Side, port: int) -> None:
        self.enclave = enclave
        self.port = port

    def dial(self, data: bytes = b"") -> socket.socket:
        """A connection that has sent `data`."""
        sock = socket.create_connection((LOOPBACK, self.port), SECONDS)
        sock.sendall(data)
        return sock

    def complaints(self, after: int) -> list[Line]:
        """The lines about handshakes, from index `after` on."""
        return [line for line in self.enclave.lines[after:] if line["event"] == "bad_request"]


@contextmanager
def proxy_with(**limits: float) -> Iterator[Proxy]:
    port = free_port()
    pair = Pair(
        "unix",
        [
            {"address": "listed.test", "port": 443},
            {"address": "169.254.169.254", "port": 80},
            {"address": "fd00::1", "port": 443},
        ],
        enclave={
            "shim": {"http_proxy": None, "socks5": f"{LOOPBACK}:{port}"},
            "limits": limits,
        },
    )
    try:
        enclave = pair.start_enclave(links=False)
        yield Proxy(enclave, port)
        assert plain_lines(enclave) == []
    finally:
        pair.close()


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with proxy_with(link_wait=0.2) as proxy:
        yield proxy


HANDSHAKES = {
    **{name: (data, answer, text) for name, (data, answer, text) in REFUSED_GREETINGS.items()},
    **{
        name: (GREETING + data, CHOSEN + bytes((5, reply, 0, 1, 0, 0, 0, 0, 0, 0)), text)
        for name, (data, reply, text) in REFUSED_REQUESTS.items()
    },
}


@pytest.mark.parametrize("behind", [b"", JUNK], ids=["alone", "with junk behind it"])
@pytest.mark.parametrize(("data", "answer", "text"), HANDSHAKES.values(), ids=HANDSHAKES)
def test_a_handshake_that_is_none_is_answered_closed_and_logged(
    proxy: Proxy, data: bytes, answer: bytes, text: str, behind: bytes
) -> None:
    after = len(proxy.enclave.lines)
    with proxy.dial(data + behind) as sock:
        assert sock.makefile("rb").read() == answer  # and an end of file, not a reset
    line = proxy.enclave.wait_for_event("bad_request", after=after)
    assert (line["way"], line["level"]) == ("socks5", "warning")
    assert text in line["text"]
    assert len(proxy.complaints(after)) == 1


LITERALS = {
    "a name": "unlisted.test",
    "an IPv4 address": "192.0.2.1",
    "an IPv6 address": "2001:db8::1",
}


@pytest.mark.parametrize("host", LITERALS.values(), ids=LITERALS)
def test_what_is_not_listed_is_reply_2_and_one_decision(proxy: Proxy, host: str) -> None:
    after = len(proxy.enclave.lines)
    sock, reply = ask(proxy.port, host, 8443, JUNK)
    with sock:
        assert reply == NOT_ALLOWED
        assert not is_reset(sock)
    line = proxy.enclave.wait_for_event("decision", after=after, host=host, port=8443)
    assert (line["allowed"], line["reason"], line["way"]) == (False, "not_listed", "socks5")
    assert proxy.complaints(after) == []


def test_a_port_that_is_not_listed_is_reply_2(proxy: Proxy) -> None:
    sock, reply = ask(proxy.port, "listed.test", 444)
    with sock:
        assert reply == NOT_ALLOWED
    line = proxy.enclave.wait_for_event("decision", host="listed.test", port=444)
    assert line["reason"] == "port_not_listed"


GUARDED = {
    "instance metadata": ("169.254.169.254", 80, "address_metadata"),
    "a private IPv6 address": ("fd00::1", 443, "address_private"),
}


@pytest.mark.parametrize(("host", "port", "reason"), GUARDED.values(), ids=GUARDED)
def test_a_listed_literal_that_the_guard_refuses_is_reply_2(
    proxy: Proxy, host: str, port: int, reason: str
) -> None:
    sock, reply = ask(proxy.port, host, port)
    with sock:
        assert reply == NOT_ALLOWED
    assert proxy.enclave.wait_for_event("decision", host=host)["reason"] == reason


def test_while_the_parent_is_away_a_request_waits_link_wait_and_is_reply_1(proxy: Proxy) -> None:
    sock, reply = ask(proxy.port, "listed.test", 443)
    with sock:
        assert reply == GENERAL_FAILURE
        assert not is_reset(sock)
    proxy.enclave.wait_for_event("decision", host="listed.test", reason="parent_away")


def test_a_client_that_sends_each_byte_alone_is_understood(proxy: Proxy) -> None:
    with proxy.dial() as sock:
        for piece in byte_by_byte(GREETING):
            sock.sendall(piece)
        assert receive_exactly(sock, len(CHOSEN)) == CHOSEN
        for piece in byte_by_byte(request_for("slowly.test", 443)):
            sock.sendall(piece)
        assert receive_exactly(sock, REPLY_BYTES)[:2] == bytes((5, NOT_ALLOWED))


def test_a_client_that_sends_all_at_once_is_answered_twice(proxy: Proxy) -> None:
    with proxy.dial(GREETING + request_for("hasty.test", 443) + JUNK) as sock:
        answer = sock.makefile("rb").read()
    assert answer[:4] == CHOSEN + bytes((5, NOT_ALLOWED))
    assert len(answer) == len(CHOSEN) + REPLY_BYTES


BEGINNINGS = {
    "nothing": b"",
    "half a greeting": b"\x05\x02",
    "a greeting": GREETING,
    "half a request": GREETING + b"\x05\x01\x00\x03\x0blisted",
}


@pytest.mark.parametrize("data", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_client_that_leaves_early_is_no_news(proxy: Proxy, data: bytes) -> None:
    after = len(proxy.enclave.lines)
    with proxy.dial(data) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.makefile("rb").read() == (CHOSEN if data.startswith(GREETING) else b"")
    with proxy.dial(b"the next line is about this one") as sock:
        assert sock.makefile("rb").read() == b""
    proxy.enclave.wait_for_event("bad_request", after=after)
    assert len(proxy.complaints(after)) == 1


def test_strangers_leave_nothing_behind_and_harm_nobody(proxy: Proxy) -> None:
    (worker,) = proxy.enclave.workers
    before = descriptors(worker)
    with proxy.dial(GREETING) as patient:
        assert receive_exactly(patient, len(CHOSEN)) == CHOSEN
        for number in range(STRANGERS):
            data, _, _ = list(HANDSHAKES.values())[number % len(HANDSHAKES)]
            with proxy.dial(data + JUNK) as sock:
                sock.makefile("rb").read()
        patient.sendall(request_for("unlisted.test", 443))
        assert receive_exactly(patient, REPLY_BYTES)[:2] == bytes((5, NOT_ALLOWED))
        assert patient.recv(1) == b""
    with proxy.dial(b"\x00") as sock:
        assert sock.recv(1) == b""  # so it has seen the others close
        # It dials its parent meanwhile; one descriptor kept for each stranger would be many more.
        assert descriptors(worker) - before < STRANGERS // 5
    assert proxy.enclave.workers == [worker]


TRICKLES = {
    "within the greeting": (b"\x05\xff", b""),
    "within the request": (
        GREETING + b"\x05\x01\x00\x03\xff",
        CHOSEN + bytes((5, GENERAL_FAILURE, 0, 1, 0, 0, 0, 0, 0, 0)),
    ),
}


@pytest.mark.alone
@pytest.mark.parametrize(("data", "answer"), TRICKLES.values(), ids=TRICKLES)
def test_a_handshake_that_comes_by_the_byte_has_a_time_for_the_whole(
    data: bytes, answer: bytes
) -> None:
    with proxy_with(handshake=HANDSHAKE_SECONDS) as proxy:
        with proxy.dial(data) as sock:
            heard = receive_exactly(sock, len(CHOSEN)) if answer else b""
            began = time.monotonic()
            while not select.select([sock], [], [], 0.05)[0]:
                sock.sendall(b"\x01")
            assert time.monotonic() - began < 10 * HANDSHAKE_SECONDS
            assert heard + sock.makefile("rb").read() == answer
        line = proxy.enclave.wait_for_event("bad_request", way="socks5")
        assert line["text"] == f"no whole request in {HANDSHAKE_SECONDS:g} s"
