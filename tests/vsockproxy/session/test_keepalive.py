"""Proof of life, on a clock of the test's own."""

import pytest

from tests.support.session_frames import DATA, OPEN, OPEN_REQUEST, PING, PONG, total
from tests.support.session_pair import Alone, ended
from tests.support.wire_rules import covers
from vsockproxy.session import ErrorCode, Opened
from vsockproxy.session.events import SessionEnded
from vsockproxy.session.keepalive import Keepalive
from vsockproxy.session.limits import (
    ASSUMED_ROUND_TRIP_SECONDS,
    DEAD_SECONDS,
    LATE_SECONDS,
    LEAST_ROUND_TRIP_SECONDS,
    PING_IDLE_SECONDS,
)

START = 1000.0


def quiet() -> Keepalive:
    """One whose first ping was answered at once."""
    keepalive = Keepalive(START)
    assert keepalive.ping_due == 1
    keepalive.ping_due = None
    assert keepalive.answered(1, START)
    return keepalive


def test_the_numbers() -> None:
    assert (PING_IDLE_SECONDS, DEAD_SECONDS) == (5.0, 15.0)


def test_the_first_ping_measures_the_round_trip() -> None:
    keepalive = Keepalive(START)
    assert keepalive.round_trip_seconds == ASSUMED_ROUND_TRIP_SECONDS
    assert keepalive.answered(1, START + 0.002)
    assert keepalive.round_trip_seconds == pytest.approx(0.010 + (0.002 - 0.010) / 8)


def test_a_round_trip_has_a_floor() -> None:
    keepalive = quiet()
    for _ in range(200):
        keepalive.handle_deadline(keepalive.next_deadline())
        assert keepalive.ping_due is not None
        keepalive.heard(keepalive.next_deadline())
        assert keepalive.answered(keepalive.ping_due, START + 5)  # a clock that stands
        keepalive.ping_due = None
    assert keepalive.round_trip_seconds == pytest.approx(LEAST_ROUND_TRIP_SECONDS)


def test_a_ping_after_five_seconds_and_the_end_after_fifteen() -> None:
    keepalive = quiet()
    assert keepalive.next_deadline() == START + 5
    assert not keepalive.handle_deadline(START + 4.999)
    assert keepalive.ping_due is None
    assert not keepalive.handle_deadline(START + 5)
    assert keepalive.ping_due == 2
    assert keepalive.next_deadline() == START + 15
    assert not keepalive.handle_deadline(START + 14.999)
    assert keepalive.handle_deadline(START + 15)


def test_any_byte_is_proof_of_life() -> None:
    keepalive = quiet()
    keepalive.handle_deadline(START + 5)
    keepalive.heard(START + 14)
    assert not keepalive.handle_deadline(START + 15)
    assert keepalive.next_deadline() == START + 29, "the ping is still unanswered"
    assert keepalive.handle_deadline(START + 29)


@pytest.mark.parametrize("deadline", [5, 15], ids=["the ping", "the end"])
def test_time_in_which_we_did_not_run_does_not_count(deadline: int) -> None:
    keepalive = quiet()
    if deadline == 15:
        keepalive.handle_deadline(START + 5)
        keepalive.ping_due = None
    assert keepalive.next_deadline() == START + deadline
    late = START + deadline + LATE_SECONDS + 0.001
    assert not keepalive.handle_deadline(late)
    assert keepalive.ping_due is None
    assert keepalive.next_deadline() == late + deadline


def test_a_little_late_is_in_time() -> None:
    keepalive = quiet()
    keepalive.handle_deadline(START + 5 + LATE_SECONDS)
    assert keepalive.ping_due == 2
    assert keepalive.handle_deadline(START + 15 + LATE_SECONDS)


def test_one_ping_at_a_time() -> None:
    keepalive = Keepalive(START)
    keepalive.ping_due = None
    for second in range(1, 100):
        keepalive.measure(START + second)
    assert keepalive.ping_due is None, "the first one is unanswered"
    assert keepalive.answered(1, START + 100)
    keepalive.measure(START + 100)
    assert keepalive.ping_due == 2


def test_measures_once_a_second() -> None:
    keepalive = quiet()
    keepalive.measure(START + 0.999)
    assert keepalive.ping_due is None
    keepalive.measure(START + 1.0)
    assert keepalive.ping_due == 2


@pytest.mark.parametrize("nonce", [0, 2, 2**64 - 1])
def test_an_answer_to_another_question(nonce: int) -> None:
    assert not Keepalive(START).answered(nonce, START)


def test_an_answer_counts_once() -> None:
    keepalive = Keepalive(START)
    assert keepalive.answered(1, START)
    assert not keepalive.answered(1, START)


# -------------------------------------------------------------------------- in a session


@covers("W-100")
def test_a_ping_is_answered_with_its_nonce() -> None:
    alone = Alone()
    assert alone.send(PING, 0, total(2**64 - 1)) == []
    assert [(frame.type, frame.stream, frame.payload) for frame in alone.take()] == [
        (PONG, 0, total(2**64 - 1))
    ]


@covers("W-100", "W-030")
def test_of_several_pings_the_latest_is_answered() -> None:
    alone = Alone()
    for nonce in range(150):
        alone.send(PING, 0, total(nonce))
    assert [frame.payload for frame in alone.take()] == [total(149)]
    assert alone.take() == []


@covers("W-101")
def test_a_pong_that_nobody_asked_for() -> None:
    alone = Alone()
    assert alone.send(PONG, 0, total(1)) == [], "the first ping is answered"
    before = alone.abuse_points
    assert alone.send(PONG, 0, total(1)) == []
    assert alone.send(PONG, 0, total(9)) == []
    assert alone.abuse_points == before + 2000
    assert alone.take() == []


@covers("W-102")
@pytest.mark.parametrize("is_initiator", [False, True])
def test_silence(is_initiator: bool) -> None:
    alone = Alone(is_initiator=is_initiator)
    alone.send(PONG, 0, total(1))
    session = alone.session
    assert session.next_deadline() == alone.now + 5
    assert session.handle_deadline(alone.now + 5) == []
    assert [frame.type for frame in alone.take()] == [PING]
    assert session.handle_deadline(alone.now + 14.9) == []
    event = ended(session.handle_deadline(alone.now + 15))
    assert (event.code, event.is_clean) == (ErrorCode.KEEPALIVE, False)
    assert session.handle_deadline(alone.now + 99) == [], "it ends once"


def test_bytes_of_half_a_frame_are_proof_of_life() -> None:
    alone = Alone()
    alone.now += 10
    alone.receive(alone.frame(PING, 0, total(1))[:3])
    assert alone.session.next_deadline() == alone.now + 15


def test_the_round_trip_is_measured_while_data_flows() -> None:
    alone = Alone()
    alone.send(PONG, 0, total(1))
    alone.send(OPEN, 1, OPEN_REQUEST)
    stream = alone.session.streams[1]
    alone.session.accept(stream, Opened())
    alone.take()
    for seconds, pings in ((0.5, 0), (1.1, 1), (3.0, 1)):
        alone.now = 1000.0 + seconds
        alone.send(DATA, 1, b"x" * 9000)
        alone.session.consume(stream, 9000, alone.now)
        sent = alone.take()
        assert sum(frame.type == PING for frame in sent) == pings
        if pings:
            alone.send(PONG, 0, next(f.payload for f in sent if f.type == PING))


def test_a_deadline_never_ends_a_session_that_hears() -> None:
    alone = Alone()
    alone.send(PONG, 0, total(1))
    for _ in range(100):
        alone.now = alone.session.next_deadline()
        events = alone.session.handle_deadline(alone.now)
        assert not any(isinstance(event, SessionEnded) for event in events)
        for frame in alone.take():
            assert frame.type == PING
            alone.send(PONG, 0, frame.payload)
