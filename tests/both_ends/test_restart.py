"""Either side killed, started again or told to stop, under load."""

import signal
import socket
import time
from concurrent.futures import Future
from functools import partial
from typing import Literal

import pytest

from tests.support import session_frames as wire
from tests.support.exchange_pair import CARRIERS, HOST, PORT, ExchangePair, Sizes
from tests.support.exchanges import End
from tests.support.hostile_peer import RawPeer, make_hello
from tests.support.observation import count, kill_all, logged_at, wait_until
from tests.support.pair import LinkKind, Pair, echo, is_refused, is_reset, serving
from tests.support.traffic import start

ENDLESS: Sizes = (1 << 40, 1 << 40)
SHORT: Sizes = (100_000, 100_000)
STREAMS = 6
"""Of each carrier."""

AT_ONCE_SECONDS = 2.0
RECONNECTED_SECONDS = 2.0


def load(rig: ExchangePair) -> list[Future[End]]:
    """Exchanges that do not end by themselves, all of them under way."""
    running = [future for carrier in CARRIERS for future in rig.begin(carrier, STREAMS, ENDLESS)]
    rig.origin.wait_for_bytes(len(running), 100_000)
    return running


def all_reset(running: list[Future[End]], since: float) -> None:
    """Every exchange ended with a reset soon after."""
    assert {future.result(60) for future in running} == {End.RESET}
    assert time.monotonic() - since < AT_ONCE_SECONDS


@pytest.mark.alone
def test_a_killed_parent_resets_its_streams_and_is_found_again(kind: LinkKind) -> None:
    with ExchangePair(kind, enclave={"limits": {"link_wait": 30}}) as rig:
        running = load(rig)
        killed_at = time.monotonic()
        kill_all(rig.parent)
        all_reset(running, killed_at)
        assert {outcome.end for outcome in rig.origin.wait_for_all().values()} == {End.RESET}
        waiting = [future for carrier in CARRIERS for future in rig.begin(carrier, 2, SHORT)]
        ups = count(rig.enclave, "link_up")
        ready_at = logged_at(rig.pair.start_parent().wait_for_event("ready"))
        assert {future.result(60) for future in waiting} == {End.COMPLETE}
        rig.wait_for_links()
        for line in rig.enclave.events("link_up")[ups:]:
            assert logged_at(line) - ready_at < RECONNECTED_SECONDS


@pytest.mark.alone
def test_a_killed_enclave_resets_its_streams_and_is_served_again(kind: LinkKind) -> None:
    with ExchangePair(kind) as rig:
        workers = rig.parent.workers
        running = load(rig)
        killed_at = time.monotonic()
        kill_all(rig.enclave)
        all_reset(running, killed_at)
        assert {outcome.end for outcome in rig.origin.wait_for_all().values()} == {End.RESET}
        wait_until(rig.parent, lambda: count(rig.parent, "close") == len(running))
        ends = {line["ended"] for line in rig.parent.events("close")}
        # A dedicated stream's own connection may break before its link does.
        assert ends <= {"link_lost", "remote_reset"}
        rig.pair.start_enclave()
        for carrier in CARRIERS:
            rig.complete(carrier, STREAMS, SHORT)
        assert rig.parent.workers == workers


def test_a_new_instance_on_a_cid_ends_the_sessions_of_the_old_one() -> None:
    outcomes: list[bool] = []

    def origin(connection: socket.socket) -> None:
        outcomes.append(is_reset(connection))

    with serving(origin) as port:
        rule = {"address": HOST, "port": PORT, "private": True, "dial": f"127.0.0.1:{port}"}
        pair = Pair("unix", [rule])
        try:
            parent = pair.start_parent()
            path = str(pair.path / "link.sock")
            old, new = (make_hello(instance=bytes([number]) * 16) for number in (1, 2))
            with RawPeer.dial(path, old) as first, RawPeer.dial(path, old) as second:
                for peer in (first.greet(), second.greet()):
                    peer.open(1, HOST, PORT)
                    peer.wait_for(wire.OPENED, 1)
                with RawPeer.dial(path, new) as third:
                    third.greet().open(1, HOST, PORT)
                    third.wait_for(wire.OPENED, 1)
                    assert [peer.last_word() for peer in (first, second)] == [0, 0]
                    parent.wait_for_event("enclave_replaced", cid=Pair.CID)
                    wait_until(parent, lambda: count(parent, "close", ended="link_lost") == 2)
                    third.send(third.frame(wire.DATA, 1, flags=wire.FIN))
                    parent.wait_for_event("close", ended="finished")
        finally:
            pair.close()
    assert sorted(outcomes) == [False, True, True]


@pytest.mark.parametrize("stopped", ["parent", "enclave"])
def test_a_side_that_is_told_to_stop_lets_streams_end_and_takes_no_new_ones(
    kind: LinkKind, stopped: Literal["parent", "enclave"]
) -> None:
    with ExchangePair(kind, enclave={"limits": {"link_wait": 0.1}}) as rig:
        rig.origin.handler = echo
        socks = [rig.connect(carrier) for carrier in CARRIERS]
        for sock in socks:
            sock.sendall(b"first")
            assert sock.recv(100) == b"first"
        side = getattr(rig, stopped)
        side.process.send_signal(signal.SIGTERM)
        side.wait_for_event("stopping")
        if stopped == "parent":
            wait_until(rig.enclave, lambda: count(rig.enclave, "link_draining") == rig.links)
        # A stopping enclave's listeners are there until it has ended, but nobody accepts.
        refused = [start(partial(is_refused, port)) for port in rig.ports.values()]
        if stopped == "parent":
            assert all(future.result(60) for future in refused)
            away = partial(count, rig.enclave, "decision", reason="parent_away")
            wait_until(rig.enclave, lambda: away() == len(refused))
        for sock in socks:
            with sock:
                sock.sendall(b"second")
                sock.shutdown(socket.SHUT_WR)
                assert sock.makefile("rb").read() == b"second"
        assert side.process.wait(20) == 0
        assert all(future.result(60) for future in refused)
        rig.wait_until_closed()
        for each in (rig.parent, rig.enclave):
            assert {line["ended"] for line in each.events("close")} == {"finished"}


def test_streams_that_outlive_the_drain_end_with_a_reset(kind: LinkKind) -> None:
    with ExchangePair(kind, parent={"drain": 1}) as rig:
        running = load(rig)
        assert rig.parent.stop() == 0
        assert {line["ended"] for line in rig.parent.events("close")} == {"shutdown"}
        assert {future.result(60) for future in running} == {End.RESET}
        assert {outcome.end for outcome in rig.origin.wait_for_all().values()} == {End.RESET}
