"""Streams that stand still for too long are reset, and both sides know why; no others are."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.support.exchange_pair import CARRIERS, HOST, PORT, ExchangePair, converse
from tests.support.full_backlog import full_backlog
from tests.support.observation import wait_until
from tests.support.pair import Side, echo, is_reset
from tests.support.traffic import receive_all

pytestmark = pytest.mark.alone

IDLE_SECONDS = 1.0
HALF_CLOSED_SECONDS = 0.5
CONNECT_SECONDS = 1.3
LATE_SECONDS = 5.0
TICK_SECONDS = 0.1
TICKS = 14

BLACKHOLE = "full.test"


@pytest.fixture(scope="module", params=["parent", "enclave"])
def rig(request: pytest.FixtureRequest) -> Iterator[ExchangePair]:
    """A pair of which one side has limits in time."""
    limits: dict[str, Any] = {
        "parent": {"connect": CONNECT_SECONDS},
        "enclave": {},
    }
    limits[request.param] |= {"idle": IDLE_SECONDS, "half_closed": HALF_CLOSED_SECONDS}
    with full_backlog() as port:
        rule = {"address": BLACKHOLE, "port": PORT, "private": True, "require_tls": False}
        with ExchangePair(
            "unix",
            parent={"limits": limits["parent"]},
            enclave={"limits": limits["enclave"]},
            rules=[{**rule, "dial": f"127.0.0.1:{port}"}],
        ) as rig:
            yield rig


def every_way(rig: ExchangePair, stack: ExitStack) -> list[socket.socket]:
    """A connection to the origin by each way in."""
    return [
        *(stack.enter_context(rig.connect(carrier)) for carrier in CARRIERS),
        stack.enter_context(rig.pair.connect(HOST, PORT)),
    ]


def have_timed_out(side: Side, after: int, streams: int) -> bool:
    """Whether so many streams were closed, all of them for the time they took."""
    ends = [line["ended"] for line in side.lines[after:] if line["event"] == "close"]
    assert set(ends) <= {"timed_out"}
    return len(ends) == streams


def assert_cut(rig: ExchangePair, socks: list[socket.socket], limit_seconds: float) -> None:
    """Every connection is reset when the limit has passed, and both sides log that."""
    marks = {side: len(side.lines) for side in (rig.parent, rig.enclave)}
    began = time.monotonic()
    for sock in socks:
        assert is_reset(sock)
    assert limit_seconds * 0.8 < time.monotonic() - began < limit_seconds + LATE_SECONDS
    for side, after in marks.items():
        wait_until(side, partial(have_timed_out, side, after, len(socks)))


def test_a_stream_without_a_byte_is_reset_after_idle(rig: ExchangePair) -> None:
    rig.origin.handler = echo
    with ExitStack() as stack:
        socks = every_way(rig, stack)
        for sock in socks:
            converse(sock)
        assert_cut(rig, socks, IDLE_SECONDS)


def test_a_stream_with_one_direction_is_reset_after_half_closed(rig: ExchangePair) -> None:
    is_over = threading.Event()

    def origin(connection: socket.socket) -> None:
        receive_all(connection)
        is_over.wait(60)  # and says nothing

    rig.origin.handler = origin
    with ExitStack() as stack:
        stack.callback(is_over.set)
        socks = every_way(rig, stack)
        for sock in socks:
            sock.sendall(b"all there is")
            sock.shutdown(socket.SHUT_WR)
        assert_cut(rig, socks, HALF_CLOSED_SECONDS)


@pytest.mark.parametrize("is_half_closed", [False, True])
def test_a_stream_that_moves_a_byte_now_and_then_is_not(
    rig: ExchangePair, is_half_closed: bool
) -> None:
    def origin(connection: socket.socket) -> None:
        if is_half_closed:
            receive_all(connection)
        clock = threading.Event()
        for _ in range(TICKS):
            clock.wait(TICK_SECONDS)
            connection.sendall(b".")

    rig.origin.handler = origin
    with ExitStack() as stack:
        socks = every_way(rig, stack)
        for sock in socks:
            if is_half_closed:
                sock.shutdown(socket.SHUT_WR)
        for sock in socks:
            assert receive_all(sock)[0] == TICKS
    rig.wait_until_closed()


def test_a_dial_that_takes_longer_than_idle_has_its_own_time(rig: ExchangePair) -> None:
    sock, head = rig.pair.ask(f"CONNECT {BLACKHOLE}:{PORT} HTTP/1.1\r\nHost: {BLACKHOLE}\r\n\r\n")
    with sock:
        assert head.startswith(b"HTTP/1.1 504 ")
    rig.enclave.wait_for_event("decision", host=BLACKHOLE, reason="dial_timeout")
