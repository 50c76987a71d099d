"""SIGTERM: what is open may end, nothing new is taken, what takes too long is cut."""

import contextlib
import hashlib
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import Future
from functools import partial

import pytest

from tests.support.exchange_pair import CARRIERS, ExchangePair, Sizes, converse
from tests.support.exchanges import End
from tests.support.observation import count, wait_until
from tests.support.pair import LinkKind, Side, echo
from tests.support.traffic import start

LONG: Sizes = (3_000_000, 3_000_000)
ENDLESS: Sizes = (1 << 40, 1 << 40)
STREAMS = 20
"""Of each carrier."""

AT_ONCE_SECONDS = 3.0


def load(rig: ExchangePair, sizes: Sizes, streams: int = STREAMS) -> list[Future[End]]:
    """Exchanges that are all under way."""
    running = [future for carrier in CARRIERS for future in rig.begin(carrier, streams, sizes)]
    rig.origin.wait_for_bytes(len(running), 1)
    return running


def test_every_stream_under_load_ends_whole(kind: LinkKind) -> None:
    with ExchangePair(kind, parent={"workers": 2}) as rig:
        running = load(rig, LONG)
        rig.parent.process.send_signal(signal.SIGTERM)
        rig.parent.wait_for_event("stopping", drain=30.0)
        assert Counter(future.result(60) for future in running) == {End.COMPLETE: len(running)}
        assert rig.parent.process.wait(30) == 0
        outcomes = rig.origin.wait_for_all().values()
        assert {outcome.end for outcome in outcomes} == {End.COMPLETE}
        rig.wait_until_closed()
        for side in (rig.parent, rig.enclave):
            assert {line["ended"] for line in side.events("close")} == {"finished"}


def test_streams_opened_all_the_time_end_whole_or_never_begin(kind: LinkKind) -> None:
    """Each program says a word, hears its hash and an end; or it was refused, from the start."""
    is_over = threading.Event()

    def answer(connection: socket.socket) -> None:
        data = b""
        while piece := connection.recv(65_536):
            data += piece
        connection.sendall(data + hashlib.sha256(data).digest())

    def ask(rig: ExchangePair, seed: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        word = hashlib.sha256(str(seed).encode()).digest() * 1000
        while not is_over.is_set():
            try:
                with rig.connect(CARRIERS[seed % 2]) as sock:
                    sock.sendall(word)
                    sock.shutdown(socket.SHUT_WR)
                    heard = sock.makefile("rb").read()
            except OSError:
                seen["refused"] += 1
                continue
            seen["whole" if heard == word + hashlib.sha256(word).digest() else "broken"] += 1
        return seen

    with ExchangePair(kind, enclave={"limits": {"link_wait": 0}}) as rig:
        rig.origin.handler = answer
        asking = [start(partial(ask, rig, seed)) for seed in range(8)]
        wait_until(rig.parent, lambda: count(rig.parent, "close") > 200)
        assert rig.parent.stop() == 0
        is_over.set()
        seen = sum((future.result(60) for future in asking), Counter[str]())
        assert seen["whole"] > 200
        assert seen["broken"] == 0
        # No stream that the parent had allowed ended in any other way.
        assert {line["ended"] for line in rig.parent.events("close")} == {"finished"}


def test_who_connects_while_it_drains_is_refused() -> None:
    with ExchangePair("unix") as rig:
        rig.origin.handler = echo
        path = str(rig.pair.path / "link.sock")
        with rig.connect("shared") as sock:
            converse(sock)
            rig.parent.process.send_signal(signal.SIGTERM)
            rig.parent.wait_for_event("stopping")
            deadline = time.monotonic() + 10
            while connects(path):
                assert time.monotonic() < deadline
            converse(sock)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        assert rig.parent.process.wait(20) == 0


def connects(path: str) -> bool:
    """Whether a connection stands; if so, it is closed by the other end."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        try:
            sock.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        sock.sendall(b"vsockproxy")
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1)
        return True


@pytest.mark.alone
def test_the_deadline_cuts_what_is_left(kind: LinkKind) -> None:
    with ExchangePair(kind, parent={"drain": 1.5}) as rig:
        running = load(rig, ENDLESS, 4)
        began_at = time.monotonic()
        rig.parent.process.send_signal(signal.SIGTERM)
        assert {future.result(60) for future in running} == {End.RESET}
        took = time.monotonic() - began_at
        assert 1.4 < took < 1.5 + AT_ONCE_SECONDS
        assert rig.parent.process.wait(20) == 0
        assert {outcome.end for outcome in rig.origin.wait_for_all().values()} == {End.RESET}
        rig.wait_until_closed()
        assert {line["ended"] for line in rig.parent.events("close")} == {"shutdown"}


@pytest.mark.alone
@pytest.mark.parametrize("stopped", ["parent", "enclave"])
def test_a_second_signal_cuts_at_once(kind: LinkKind, stopped: str) -> None:
    with ExchangePair(kind) as rig:
        running = load(rig, ENDLESS, 4)
        side: Side = getattr(rig, stopped)
        side.process.send_signal(signal.SIGTERM)
        side.wait_for_event("stopping")
        began_at = time.monotonic()
        side.process.send_signal(signal.SIGTERM)
        side.wait_for_event("cutting")
        assert {future.result(60) for future in running} == {End.RESET}
        assert side.process.wait(20) == 0
        assert time.monotonic() - began_at < AT_ONCE_SECONDS


def test_a_parent_without_streams_ends_at_once(kind: LinkKind) -> None:
    with ExchangePair(kind) as rig:
        rig.complete("shared", 4, (1000, 1000))
        rig.parent.process.send_signal(signal.SIGTERM)
        assert rig.parent.process.wait(10) == 0, "well before the deadline of 30 s"
        wait_until(rig.enclave, lambda: count(rig.enclave, "link_down", code="none") == rig.links)
