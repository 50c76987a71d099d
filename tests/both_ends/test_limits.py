"""Every limit is reached: what is refused says so, and everybody else goes on."""

import contextlib
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from parent_side.enclaves import GREETINGS_AT_ONCE
from parent_side.resolver import LOOKUPS_AT_ONCE
from tests.support import session_frames as wire
from tests.support.dns_server import Addresses, DnsServer, Silent
from tests.support.exchange_pair import HOST, PORT, ExchangePair, converse
from tests.support.full_backlog import full_backlog
from tests.support.hostile_peer import RawPeer
from tests.support.observation import descriptors, plain_lines
from tests.support.pair import Side, echo, is_refused
from vsockproxy.session import ErrorCode

OTHER_CID = 17
STREAMS = 3
"""Of an enclave, as the parent allows them."""

OWN_STREAMS = LOOKUPS_AT_ONCE + 16
"""As the enclave allows itself."""

DEDICATED = 2
CONNECT_SECONDS = 0.3
GREETING_SECONDS = 1
SPARE_DESCRIPTORS = 8
SECONDS = 30.0


def rule(address: str, **more: Any) -> dict[str, Any]:
    return {"address": address, "port": PORT, "private": True, "require_tls": False, **more}


@pytest.fixture(scope="module")
def narrow() -> Iterator[ExchangePair]:
    """A parent that allows little."""
    limits = {
        "streams": STREAMS,
        "dedicated": DEDICATED,
        "connect": CONNECT_SECONDS,
        "handshake": GREETING_SECONDS,
    }
    with (
        full_backlog() as port,
        ExchangePair(
            "unix",
            parent={"limits": limits},
            enclave={"links": 2, "limits": {"handshake": GREETING_SECONDS}},
            rules=[rule("full.test", dial=f"127.0.0.1:{port}")],
            other_cid=OTHER_CID,
        ) as rig,
    ):
        rig.origin.handler = echo
        yield rig
        for side in (rig.parent, rig.enclave):
            assert plain_lines(side) == []


@pytest.fixture(scope="module")
def wide() -> Iterator[tuple[ExchangePair, DnsServer]]:
    """A parent with the usual limits, whose DNS server answers as tests want."""
    with (
        DnsServer() as dns,
        ExchangePair(
            "unix",
            parent={"resolver": {"servers": [dns.address], "timeout": 1}},
            enclave={"limits": {"streams": OWN_STREAMS}},
            rules=[rule("*.slow.test"), rule("quick.test")],
            other_cid=OTHER_CID,
        ) as rig,
    ):
        rig.origin.handler = echo
        dns.set("*.slow.test", Silent())
        dns.set("quick.test", Addresses("127.0.0.1"))
        yield rig, dns
        for side in (rig.parent, rig.enclave):
            assert plain_lines(side) == []


def tunnels(rig: ExchangePair, number: int) -> ExitStack:
    """Open so many tunnels, through which an echo is heard."""
    with ExitStack() as stack:
        for _ in range(number):
            converse(stack.enter_context(rig.pair.connect(HOST, PORT)))
        return stack.pop_all()


def ask(rig: ExchangePair, host: str) -> tuple[bytes, str]:
    """Ask for a tunnel that is refused: the head and the line of the answer."""
    sock, head = rig.pair.ask(f"CONNECT {host}:{PORT} HTTP/1.1\r\nHost: {host}:{PORT}\r\n\r\n")
    with sock:
        return head, sock.makefile("rb").read().decode()


def test_one_stream_too_many_for_the_parent_is_refused_with_limit(narrow: ExchangePair) -> None:
    narrow.wait_until_closed()
    after = len(narrow.enclave.lines)
    with tunnels(narrow, STREAMS):
        head, text = ask(narrow, HOST)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert text.startswith(f"limit: {HOST}:{PORT}: {STREAMS} streams ")
        line = narrow.enclave.wait_for_event("decision", after=after, reason="limit")
        assert line["side"] == "parent"
    narrow.wait_until_closed()
    with tunnels(narrow, STREAMS):
        pass


def test_where_the_parent_allows_no_more_on_any_link_the_refusal_is_limit_too() -> None:
    limits = {"limits": {"streams": 2}}
    with ExchangePair("unix", parent=limits, enclave={"links": 1}) as rig:
        rig.origin.handler = echo
        with tunnels(rig, 2):
            head, text = ask(rig, HOST)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert text.startswith(f"limit: {HOST}:{PORT}: the parent allows no more streams")


def test_one_stream_too_many_for_the_enclave_itself_is_refused_with_limit(
    wide: tuple[ExchangePair, DnsServer],
) -> None:
    rig, _ = wide
    rig.wait_until_closed()
    after = len(rig.enclave.lines)
    with tunnels(rig, OWN_STREAMS):
        head, text = ask(rig, HOST)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert text.startswith(f"limit: {HOST}:{PORT}: {OWN_STREAMS} streams ")
        line = rig.enclave.wait_for_event("decision", after=after, reason="limit")
        assert line["side"] == "enclave"
    rig.wait_until_closed()
    with tunnels(rig, 1):
        pass


def test_one_dedicated_stream_too_many_is_refused_with_limit(narrow: ExchangePair) -> None:
    narrow.wait_until_closed()
    marks = {side: len(side.lines) for side in (narrow.parent, narrow.enclave)}
    with ExitStack() as stack:
        for _ in range(DEDICATED):
            converse(stack.enter_context(narrow.connect("dedicated")))
        assert is_refused(narrow.ports["dedicated"])
        with tunnels(narrow, 1):  # a shared stream still has room
            pass
    for side, after in marks.items():
        line = side.wait_for_event("decision", after=after, reason="limit")
        assert line["side"] == "parent"
        assert line["text"] == f"{DEDICATED} dedicated streams are open"
    narrow.wait_until_closed()
    with narrow.connect("dedicated") as sock:
        converse(sock)


def test_a_dedicated_stream_whose_connection_never_comes_is_reset(narrow: ExchangePair) -> None:
    after = len(narrow.parent.lines)
    with RawPeer.dial(narrow.other_path) as peer:
        peer.greet().open(1, HOST, PORT, dedicated=True)
        peer.wait_for(wire.OPENED, 1)
        reset = peer.wait_for(wire.RESET, 1)
        assert reset.payload[:4] == ErrorCode.TIMED_OUT.to_bytes(4)
        line = narrow.parent.wait_for_event("close", after=after, cid=OTHER_CID)
    assert line["ended"] == "timed_out"


def test_a_dial_that_nobody_answers_ends_in_its_time(narrow: ExchangePair) -> None:
    began = time.monotonic()
    head, text = ask(narrow, "full.test")
    assert time.monotonic() - began >= CONNECT_SECONDS
    assert head.startswith(b"HTTP/1.1 504 ")
    assert text.startswith(f"dial_timeout: full.test:{PORT}: ")
    assert f"no answer in {CONNECT_SECONDS:g} s" in text


def test_connections_without_a_hello_are_limited_in_number_and_time(narrow: ExchangePair) -> None:
    after = len(narrow.parent.lines)
    with ExitStack() as stack:
        peers = [
            stack.enter_context(RawPeer.dial(narrow.other_path))
            for _ in range(GREETINGS_AT_ONCE + 1)
        ]
        assert peers.pop().last_word() is None
        line = narrow.parent.wait_for_event("link_refused", after=after, reason="limit")
        assert line["cid"] == OTHER_CID
        with tunnels(narrow, 1):  # another enclave is greeted already, and served
            pass
        for peer in peers:
            assert peer.last_word() is None
    with RawPeer.dial(narrow.other_path) as peer:
        peer.greet()
        narrow.parent.wait_for_event("link_up", after=after, cid=OTHER_CID)  # the lines before it
    lines = [line for line in narrow.parent.lines[after:] if line.get("cid") == OTHER_CID]
    silent = [line for line in lines if line.get("text") == f"no hello for {GREETING_SECONDS} s"]
    assert len(silent) == GREETINGS_AT_ONCE


def test_a_request_that_comes_by_the_byte_has_a_time_for_its_whole_head(
    narrow: ExchangePair,
) -> None:
    with socket.create_connection(("127.0.0.1", narrow.pair.proxy_port), SECONDS) as sock:
        sock.sendall(b"GET http://h/ HTTP/1.1\r\nX: ")
        began = time.monotonic()
        while not select.select([sock], [], [], 0.05)[0]:
            sock.sendall(b"x")
        assert time.monotonic() - began < 10 * GREETING_SECONDS
        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_lookups_of_one_enclave_share_its_turns_and_leave_others_theirs(
    wide: tuple[ExchangePair, DnsServer],
) -> None:
    rig, dns = wide
    too_many = 6
    with ExitStack() as stack:
        socks = []
        for number in range(LOOKUPS_AT_ONCE + too_many):
            host = f"n{number}.slow.test"
            sock = socket.create_connection(("127.0.0.1", rig.pair.proxy_port), SECONDS)
            socks.append(stack.enter_context(sock))
            sock.sendall(f"CONNECT {host}:{PORT} HTTP/1.1\r\nHost: {host}:{PORT}\r\n\r\n".encode())
        with RawPeer.dial(rig.other_path) as peer:
            peer.greet().open(1, "quick.test", PORT)
            answer = peer.wait_for(wire.REFUSED, 1)  # nobody listens there, but it was looked up
            assert b"dial_refused" in answer.payload
        dns.wait_for_questions(2 * LOOKUPS_AT_ONCE, below=".slow.test")  # for A and for AAAA
        asked = {question.name for question in dns.questions if ".slow." in question.name}
        assert not select.select(socks, [], [], 0)[0]
        assert len(asked) == LOOKUPS_AT_ONCE
        answers = [sock.makefile("rb").read().decode() for sock in socks]
    assert all(answer.startswith("HTTP/1.1 502 ") for answer in answers)
    assert all("lookup_failed" in answer for answer in answers)


@contextlib.contextmanager
def few_descriptors(pid: int) -> Iterator[int]:
    """While the body runs, a process can open only a few more; gives how many."""
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = descriptors(pid)
    highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
    limit = max(highest + 1, used + SPARE_DESCRIPTORS)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, usual[1]))
    try:
        yield limit - used
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def new_count(side: Side, event: str, after: int) -> int:
    return sum(line["event"] == event for line in side.lines[after:])


def test_an_enclave_without_descriptors_accepts_no_more_and_recovers(
    wide: tuple[ExchangePair, DnsServer],
) -> None:
    rig, _ = wide
    rig.wait_until_closed()
    after = len(rig.enclave.lines)
    (worker,) = rig.enclave.workers
    with rig.connect("shared") as sock:
        converse(sock)
        with few_descriptors(worker) as left, ExitStack() as stack:
            for _ in range(left + 16):
                address = ("127.0.0.1", rig.pair.proxy_port)
                stack.enter_context(socket.create_connection(address, SECONDS))
            rig.enclave.wait_for_event("accept_paused", after=after)
            busy_until = time.monotonic() + 0.5  # five more attempts to accept
            while time.monotonic() < busy_until:
                converse(sock)
            assert new_count(rig.enclave, "accept_paused", after) == 1
        with tunnels(rig, 3):
            converse(sock)
    assert rig.enclave.workers == [worker]


def test_a_parent_without_descriptors_serves_what_stands_and_recovers(
    wide: tuple[ExchangePair, DnsServer],
) -> None:
    rig, _ = wide
    rig.wait_until_closed()
    after = len(rig.parent.lines)
    (worker,) = rig.parent.workers
    with rig.connect("shared") as sock, ExitStack() as stack:
        converse(sock)
        with few_descriptors(worker) as left:
            peers = [stack.enter_context(RawPeer.dial(rig.other_path)) for _ in range(left + 16)]
            assert peers[-1].last_word() is None
            rig.parent.wait_for_event("connection_failed", after=after)
            head, text = ask(rig, HOST)
            assert head.startswith(b"HTTP/1.1 502 ")
            assert "Too many open files" in text
            converse(sock)
        assert new_count(rig.parent, "connection_failed", after) == 1
        for peer in peers:
            peer.sock.close()
        with RawPeer.dial(rig.other_path) as peer, tunnels(rig, 3):
            peer.greet()
            converse(sock)
    assert rig.parent.workers == [worker]


def test_a_session_that_opens_more_than_it_may_ends_and_gives_its_places_back(
    narrow: ExchangePair,
) -> None:
    narrow.wait_until_closed()
    for _ in range(3):
        with RawPeer.dial(narrow.other_path) as peer:
            peer.greet()
            for stream in range(1, 2 * STREAMS, 2):
                peer.open(stream, HOST, PORT)
            for stream in range(1, 2 * STREAMS, 2):
                peer.wait_for(wire.OPENED, stream)
            peer.open(2 * STREAMS + 1, HOST, PORT)
            assert peer.last_word() == ErrorCode.STREAM_LIMIT
