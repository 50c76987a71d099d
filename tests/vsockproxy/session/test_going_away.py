"""How a session ends: drained, cut, by an error, or by the link."""

import pytest

from tests.support.session_frames import (
    DATA,
    FIN,
    GOAWAY,
    OPEN,
    OPEN_REQUEST,
    OPENED,
    OPENED_SHARED,
    PING,
    REFUSED,
    RESET,
    TYPES,
    goaway,
    reset,
    total,
)
from tests.support.session_pair import Alone, ended
from tests.support.wire_rules import covers
from vsockproxy.session import ErrorCode, LocalProtocolError, Open, Opened
from vsockproxy.session.events import (
    GoingAway,
    SessionEnded,
    StreamAccepted,
    StreamFinished,
    StreamOpened,
    StreamReset,
)


def names(alone: Alone) -> list[str]:
    return [TYPES[frame.type] for frame in alone.take()]


@covers("W-110")
def test_goaway_is_answered_once() -> None:
    alone = Alone()
    (event,) = alone.send(GOAWAY, 0, goaway(0, 7, b"drain"))
    assert event == GoingAway(7, "drain")
    (answer,) = alone.take()
    assert answer[:3] == (GOAWAY, 0, 0)
    assert answer.payload[:8] == goaway(0, 0)
    assert alone.session.is_drained
    assert alone.session.abort(ErrorCode.NONE, "all streams have ended") == [
        SessionEnded(ErrorCode.NONE, "all streams have ended", True, [])
    ]
    assert alone.take() == [], "the peer knows already"


def test_our_goaway_names_the_last_stream_of_the_peer() -> None:
    alone = Alone()
    alone.send(OPEN, 1, OPEN_REQUEST)
    alone.send(OPEN, 3, OPEN_REQUEST)
    alone.session.go_away("restart")
    alone.session.go_away("again")
    (frame,) = alone.take()
    assert frame.payload == goaway(0, 3, b"restart")


def test_a_session_is_drained_when_both_have_said_so_and_no_stream_is_left() -> None:
    alone = Alone()
    session = alone.session
    alone.send(OPEN, 1, OPEN_REQUEST)
    stream = session.streams[1]
    session.accept(stream, Opened())
    session.go_away("restart")
    assert names(alone) == ["OPENED", "GOAWAY"]
    assert not session.is_drained
    alone.send(DATA, 1, b"still here", flags=FIN)
    alone.send(GOAWAY, 0, goaway(0))
    assert alone.take() == [], "an answer is not answered"
    assert not session.is_drained
    session.finish(stream)
    assert not session.is_drained, "FIN is to be sent"
    assert names(alone) == ["DATA"]
    assert session.is_drained


@covers("W-112")
def test_an_open_that_crosses_goaway_is_refused() -> None:
    alone = Alone()
    alone.session.go_away("restart")
    assert alone.send(OPEN, 1, OPEN_REQUEST) == []
    assert names(alone) == ["REFUSED", "GOAWAY"]
    assert alone.send(OPEN, 3, OPEN_REQUEST) == []
    (refused,) = alone.take()
    assert refused.type == REFUSED
    assert refused.payload.startswith(bytes.fromhex("a201656c696d6974"))
    assert alone.budget.streams == 0
    assert not alone.session.is_ended


def test_both_ends_say_goaway_at_once_and_an_open_crosses() -> None:
    alone = Alone(is_initiator=True)
    session = alone.session
    stream = session.open(Open("h", 1), alone.now)
    session.go_away("we stop")
    assert names(alone) == ["OPEN", "GOAWAY"], "the OPEN came first"
    alone.send(GOAWAY, 0, goaway(0, 0, b"they stop"))
    assert not session.is_drained, "the peer has not answered our OPEN yet"
    alone.send(REFUSED, 1, bytes.fromhex("a101656c696d6974"))
    assert stream.is_closed
    assert session.is_drained


@covers("W-111")
def test_an_open_after_goaway() -> None:
    alone = Alone()
    alone.send(GOAWAY, 0, goaway(0))
    event = ended(alone.send(OPEN, 1, OPEN_REQUEST))
    assert (event.code, event.text) == (ErrorCode.PROTOCOL, "stream 1 opened after GOAWAY")


@covers("W-111")
@pytest.mark.parametrize("who", ["we", "the peer", "nobody: it has ended"])
def test_we_open_nothing_after_goaway(who: str) -> None:
    alone = Alone()
    assert alone.session.may_open
    if who == "we":
        alone.session.go_away("restart")
    elif who == "the peer":
        alone.send(GOAWAY, 0, goaway(0))
    else:
        alone.session.receive_eof()
    assert not alone.session.may_open
    with pytest.raises(LocalProtocolError, match="ended or is going away"):
        alone.session.open(Open("h", 1), alone.now)
    assert alone.budget.streams == 0


@covers("W-118")
def test_a_second_goaway() -> None:
    alone = Alone()
    alone.send(GOAWAY, 0, goaway(0))
    alone.take()
    assert alone.send(GOAWAY, 0, goaway(0)) == []
    assert alone.abuse_points == 500
    assert alone.take() == []


def with_streams(is_initiator: bool = False) -> Alone:
    """A session with two streams of the peer, one of them finished there, and one of its own."""
    alone = Alone(is_initiator=is_initiator)
    first = 2 if is_initiator else 1
    alone.send(OPEN, first, OPEN_REQUEST)
    alone.session.accept(alone.session.streams[first], Opened())
    alone.send(DATA, first, b"x", flags=FIN)
    alone.send(OPEN, first + 2, OPEN_REQUEST)
    alone.session.open(Open("h", 1), alone.now)
    alone.take()
    return alone


@covers("W-113", "W-117")
@pytest.mark.parametrize("code", [1, 8, 17, 99, 2**32 - 1])
def test_goaway_with_an_error(code: int) -> None:
    alone = with_streams()
    streams = list(alone.session.streams.values())
    event = ended(alone.send(GOAWAY, 0, goaway(code, 5, b"you lie")))
    assert event == SessionEnded(code, "the peer ended the session: you lie", False, streams)
    assert len(streams) == 3
    assert all(stream.is_closed for stream in streams)
    assert alone.take() == [], "it is not answered"
    assert not alone.session.has_control


@covers("W-114")
def test_an_error_is_the_last_frame() -> None:
    alone = with_streams()
    alone.send(PING, 0, total(1))
    for stream in list(alone.session.streams.values()):
        alone.session.reset(stream, ErrorCode.CUT)
    alone.session.open(Open("h", 1), alone.now)
    event = ended(alone.send(OPEN, 99, OPEN_REQUEST))
    assert [stream.id for stream in event.streams] == [4]
    (frame,) = alone.take()
    assert frame[:3] == (GOAWAY, 0, 0)
    assert frame.payload == goaway(ErrorCode.PROTOCOL, 3, event.text.encode())
    assert not alone.session.has_control


def test_a_long_error_is_shortened() -> None:
    alone = Alone()
    alone.session.abort(ErrorCode.SHUTDOWN, "é\n" * 1000)
    (frame,) = alone.take()
    assert frame.payload == goaway(ErrorCode.SHUTDOWN, 0, ("é " * 171)[:-1].encode())


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a\nb", b"\x1b[31m", "\u202e".encode(), b"x" * 512])
def test_the_text_of_a_goaway_is_made_printable(text: bytes) -> None:
    event = ended(Alone().send(GOAWAY, 0, goaway(1, 0, text)))
    assert event.text.isprintable()


@covers("W-116")
def test_nothing_behind_the_end_is_looked_at() -> None:
    alone = Alone()
    data = alone.frame(GOAWAY, 0, goaway(1)) + alone.frame(OPEN, 1, OPEN_REQUEST)
    assert [type(event) for event in alone.receive(data)] == [SessionEnded]
    assert alone.receive(b"whatever") == []
    assert alone.session.receive_eof() == []
    assert alone.session.abort(ErrorCode.CUT, "again") == []
    assert alone.session.handle_deadline(alone.now + 1000) == []
    alone.session.go_away("now?")
    assert not alone.session.has_control


def test_nothing_is_due_after_the_end_but_the_last_word() -> None:
    # A driver that sends while there is control to send must come to an end.
    alone = Alone()
    for number in range(100):
        alone.send(OPEN, 1 + 2 * number, OPEN_REQUEST)
        stream = alone.session.streams[1 + 2 * number]
        alone.session.refuse(stream, "denied", "")
        alone.session.release(stream)
    alone.send(PING, 0, total(1))
    alone.session.abort(ErrorCode.SHUTDOWN, "")
    assert alone.session.has_control
    assert names(alone) == ["GOAWAY"]
    assert not alone.session.has_control
    assert alone.take() == []


@covers("W-115")
@pytest.mark.parametrize(
    ("beginning", "is_clean"),
    [
        pytest.param(["goaway"], True, id="after GOAWAY"),
        pytest.param([], False, id="without GOAWAY"),
        pytest.param(["open", "goaway"], False, id="after GOAWAY, with a stream open"),
        pytest.param(["open", "reset", "goaway"], True, id="after GOAWAY, with its streams ended"),
        pytest.param(["goaway", "half a header"], False, id="within a header"),
        pytest.param(["goaway", "half a ping"], False, id="within a short frame"),
        pytest.param(["open", "half a data frame"], False, id="within data"),
        pytest.param(["open", "reset", "goaway", "half late data"], False, id="within late data"),
    ],
)
def test_the_end_of_the_link(beginning: list[str], is_clean: bool) -> None:
    alone = Alone()
    steps = {
        "goaway": lambda: alone.frame(GOAWAY, 0, goaway(0)),
        "open": lambda: alone.frame(OPEN, 1, OPEN_REQUEST),
        "reset": lambda: alone.frame(RESET, 1, reset(16, 0)),
        "half a header": lambda: alone.frame(PING, 0, total(1))[:5],
        "half a ping": lambda: alone.frame(PING, 0, total(1))[:15],
        "half a data frame": lambda: alone.frame(DATA, 1, b"x" * 100)[:50],
        "half late data": lambda: alone.frame(DATA, 1, b"x" * 100)[:50],
    }
    for step in beginning:
        alone.receive(steps[step]())
    alone.take()
    streams = list(alone.session.streams.values())
    event = ended(alone.session.receive_eof())
    assert event.is_clean is is_clean
    assert event.code == (ErrorCode.NONE if is_clean else ErrorCode.LINK_LOST)
    assert event.streams == streams
    assert all(stream.is_closed for stream in streams)
    assert alone.take() == [], "there is nobody to tell"


@covers("W-115")
def test_bytes_that_arrived_before_the_cut_are_no_clean_end() -> None:
    alone = with_streams(is_initiator=True)
    alone.send(OPENED, 1, OPENED_SHARED)
    events = alone.send(DATA, 1, b"all there is")
    assert not any(isinstance(event, StreamFinished | StreamReset) for event in events)
    assert {stream.id for stream in ended(alone.session.receive_eof()).streams} == {1, 2, 4}


def test_streams_go_on_after_goaway() -> None:
    alone = with_streams(is_initiator=True)
    alone.send(GOAWAY, 0, goaway(0))
    assert [type(event) for event in alone.send(OPENED, 1, OPENED_SHARED)] == [StreamAccepted]
    assert alone.session.sendable_bytes(alone.session.streams[1]) == 16384
    alone.session.accept(alone.session.streams[4], Opened())
    assert names(alone) == ["OPENED", "GOAWAY"]


def test_events_before_an_error_come_first() -> None:
    alone = Alone()
    data = alone.frame(OPEN, 1, OPEN_REQUEST) + alone.frame(DATA, 1, b"x") + b"\xff" * 12
    events = alone.receive(data)
    assert [type(event).__name__ for event in events] == [
        "StreamOpened",
        "DataReceived",
        "SessionEnded",
    ]
    opened = events[0]
    assert isinstance(opened, StreamOpened)
    # The driver acts on the first event while the session is over already: nothing happens.
    session = alone.session
    session.accept(opened.stream, Opened())
    session.refuse(opened.stream, "denied", "")
    session.finish(opened.stream)
    session.stop(opened.stream, ErrorCode.CUT)
    session.reset(opened.stream, ErrorCode.CUT)
    session.consume(opened.stream, 1, alone.now)
    session.release(opened.stream)
    assert names(alone) == ["GOAWAY"]
    assert (alone.budget.streams, alone.budget.reserved_bytes) == (0, 0)
