"""Floods are cut; a busy peer of good will never is."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.session_frames import (
    CREDIT,
    DATA,
    FIN,
    GOAWAY,
    MAX_STREAMS,
    OPEN,
    OPEN_REQUEST,
    PING,
    PONG,
    RESET,
    STOP,
    goaway,
    reset,
    stop,
    total,
)
from tests.support.session_pair import Alone, ended, make_budget, make_hello
from tests.support.wire_rules import covers
from vsockproxy.session import ErrorCode, Open, Opened, PeerProtocolError, Stream
from vsockproxy.session.abuse import AbuseMeter
from vsockproxy.session.events import DataReceived, SessionEnded, StreamOpened, StreamReset
from vsockproxy.session.limits import ABUSE_CAPACITY, ABUSE_LEAK_PER_SECOND

HUGE = 1 << 40


def open_stream(alone: Alone, stream_id: int = 1) -> Stream:
    alone.send(OPEN, stream_id, OPEN_REQUEST)
    stream = alone.session.streams[stream_id]
    alone.session.accept(stream, Opened())
    alone.take()
    return stream


def new_alone() -> Alone:
    """A session whose limits are in no flood's way."""
    alone = Alone(
        local=make_hello(is_initiator=False, first_window_bytes=1 << 30, max_streams=10**6),
        budget=make_budget(1 << 50, 10**6),
    )
    alone.send(PONG, 0, total(1))
    return alone


def test_the_meter_leaks() -> None:
    meter = AbuseMeter(0.0)
    meter.charge(ABUSE_CAPACITY, "things", 0.0)
    meter.charge(ABUSE_LEAK_PER_SECOND, "things", 1.0)
    with pytest.raises(PeerProtocolError, match="too many things") as caught:
        meter.charge(1, "things", 1.0)
    assert caught.value.code == ErrorCode.ABUSE
    assert meter.total == ABUSE_CAPACITY + ABUSE_LEAK_PER_SECOND + 1


def test_the_meter_does_not_save_up() -> None:
    meter = AbuseMeter(0.0)
    meter.charge(1, "things", 1000.0)
    meter.charge(ABUSE_CAPACITY - 1, "things", 1000.0)
    with pytest.raises(PeerProtocolError):
        meter.charge(1, "things", 1000.0)


Flood = Callable[[Alone], Iterator[bytes]]
"""Frames of which each costs the same, one after another."""


def opens_that_are_reset(alone: Alone) -> Iterator[bytes]:
    stream_id = -1
    while True:
        stream_id += 2
        yield alone.frame(OPEN, stream_id, OPEN_REQUEST) + alone.frame(
            RESET, stream_id, reset(16, 0)
        )


def pings(alone: Alone) -> Iterator[bytes]:
    while True:
        yield alone.frame(PING, 0, total(7))


def unasked_pongs(alone: Alone) -> Iterator[bytes]:
    while True:
        yield alone.frame(PONG, 0, total(7))


def useless_credit(alone: Alone) -> Iterator[bytes]:
    open_stream(alone)
    while True:
        yield alone.frame(CREDIT, 1, total(16384))


def credit_by_single_bytes(alone: Alone) -> Iterator[bytes]:
    open_stream(alone)
    limit = 16384
    while True:
        limit += 1
        yield alone.frame(CREDIT, 1, total(limit))


def useless_max_streams(alone: Alone) -> Iterator[bytes]:
    while True:
        yield alone.frame(MAX_STREAMS, 0, total(0))


def max_streams_one_by_one(alone: Alone) -> Iterator[bytes]:
    allowed = 100
    while True:
        allowed += 1
        yield alone.frame(MAX_STREAMS, 0, total(allowed))


def repeated_goaways(alone: Alone) -> Iterator[bytes]:
    alone.send(GOAWAY, 0, goaway(0))
    while True:
        yield alone.frame(GOAWAY, 0, goaway(0))


def tiny_data(alone: Alone) -> Iterator[bytes]:
    open_stream(alone)
    while True:
        yield alone.frame(DATA, 1, b"x" * 31)


def stops(alone: Alone) -> Iterator[bytes]:
    open_stream(alone)
    while True:
        yield alone.frame(STOP, 1, stop(17))


def data_for_a_closed_stream(alone: Alone) -> Iterator[bytes]:
    alone.session.reset(open_stream(alone), ErrorCode.CUT)
    while True:
        yield alone.frame(DATA, 1, b"x" * 40)


def resets_of_a_closed_stream(alone: Alone) -> Iterator[bytes]:
    alone.session.reset(open_stream(alone), ErrorCode.CUT)
    while True:
        yield alone.frame(RESET, 1, reset(17, 0))


FLOODS: dict[Flood, int] = {
    opens_that_are_reset: 1000,
    pings: 200,
    unasked_pongs: 200,
    useless_credit: 400,
    credit_by_single_bytes: 200_000,
    useless_max_streams: 400,
    max_streams_one_by_one: 200_000,
    repeated_goaways: 400,
    tiny_data: 200_000,
    stops: 200_000,
    data_for_a_closed_stream: 200_000,
    resets_of_a_closed_stream: 200_000,
}
"""How many are forgiven at once (WIRE_FORMAT.md section 11: 200,000 points)."""


@covers("W-120")
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_a_flood_is_cut(flood: Flood) -> None:
    alone = new_alone()
    frames = flood(alone)
    left = FLOODS[flood]
    if left > 1000:
        # Of cheap frames, most have been: a point each.
        alone.receive(next(frames))
        alone.session.abuse.charge(left - 501, "cheap frames", alone.now)
        left = 500
    for _ in range(left):
        alone.receive(next(frames))
        assert not alone.session.is_ended
    event = ended(alone.receive(next(frames)))
    assert event.code == ErrorCode.ABUSE
    assert event.text.startswith("too many ")
    assert [frame.type for frame in alone.take()] == [GOAWAY]


@covers("W-120")
def test_a_slow_trickle_of_the_same_is_forgiven() -> None:
    alone = new_alone()
    frames = opens_that_are_reset(alone)
    for _ in range(4000):
        alone.now += 0.002
        for event in alone.receive(next(frames)):
            if isinstance(event, StreamReset):
                alone.session.release(event.stream)
        alone.session.control_to_send()
    assert not alone.session.is_ended


def test_resets_of_dials_that_took_long_cost_nothing() -> None:
    # A crawler with 5,000 pending dials is killed: no reason to cut its enclave off.
    alone = new_alone()
    before = alone.abuse_points
    for number in range(5000):
        alone.send(OPEN, 1 + 2 * number, OPEN_REQUEST)
    alone.now += 1.0
    for number in range(5000):
        alone.send(RESET, 1 + 2 * number, reset(16, 0))
    assert not alone.session.is_ended
    assert alone.abuse_points == before


def test_resets_of_answered_streams_cost_nothing() -> None:
    alone = new_alone()
    for number in range(3000):
        stream = open_stream(alone, 1 + 2 * number)
        before = alone.abuse_points
        alone.send(RESET, stream.id, reset(17, 0))
        assert alone.abuse_points == before
        alone.session.release(stream)


def test_refusals_of_our_own_opens_by_reset_cost_nothing() -> None:
    alone = Alone(is_initiator=True, remote=make_hello(is_initiator=False, max_streams=3000))
    for _ in range(3000):
        stream = alone.session.open(Open("h", 1), alone.now)
        alone.send(RESET, stream.id, reset(21, 0))
        alone.session.release(stream)
    assert not alone.session.is_ended
    assert alone.abuse_points == 0


def test_a_busy_peer_is_never_cut() -> None:
    # A second of a very busy enclave: 40,000 frames of keystroke size, 20,000 of bulk, 2,000 short
    # connections, and credit that crosses their ends.
    alone = new_alone()
    session = alone.session
    chatty = [open_stream(alone, 1 + 2 * number) for number in range(100)]
    received = 0
    next_id = 201
    for tick in range(200):
        alone.now += 0.005
        data = bytearray()
        for _ in range(2):
            for stream in chatty:
                data += alone.frame(DATA, stream.id, b"k")
        for stream in chatty:
            data += alone.frame(DATA, stream.id, b"b" * 512)
        ids = range(next_id, next_id + 20, 2)
        next_id += 20
        for stream_id in ids:
            data += alone.frame(OPEN, stream_id, OPEN_REQUEST)
            data += alone.frame(DATA, stream_id, b"GET / HTTP/1.1\r\n\r\n", flags=FIN)
        data += alone.frame(MAX_STREAMS, 0, total(10**6 + tick))
        for event in alone.receive(bytes(data)):
            assert not isinstance(event, SessionEnded), event
            if isinstance(event, DataReceived):
                received += len(event.payload)
                session.consume(event.stream, len(event.payload), alone.now)
            elif isinstance(event, StreamOpened):
                session.accept(event.stream, Opened())
                session.finish(event.stream)
        late = bytearray()
        for stream_id in ids:
            late += alone.frame(CREDIT, stream_id, total(HUGE))  # on its way when we finished
        alone.receive(bytes(late))
        session.control_to_send()
    assert received == 200 * (100 * 2 + 100 * 512 + 10 * 18)
    assert not session.is_ended
