"""Streams of one session: opening, ids, limits, ends, and what crosses on the way."""

import pytest

from tests.support.session_frames import (
    CREDIT,
    DATA,
    END,
    FIN,
    MAX_STREAMS,
    OPEN,
    OPEN_DEDICATED,
    OPEN_REQUEST,
    OPENED,
    OPENED_DEDICATED,
    OPENED_SHARED,
    PING,
    REFUSED,
    REFUSED_LIMIT,
    RESET,
    STOP,
    TOKEN,
    TYPES,
    goaway,
    reset,
    stop,
    total,
)
from tests.support.session_pair import Alone, ended, make_budget, make_hello
from tests.support.wire_rules import covers
from vsockproxy.errors import Refused
from vsockproxy.session import ErrorCode, LocalProtocolError, Open, Opened, Refusal, Stream
from vsockproxy.session.events import (
    CreditReceived,
    DataReceived,
    StopReceived,
    StreamAccepted,
    StreamFinished,
    StreamOpened,
    StreamRefused,
    StreamReset,
    StreamsAllowed,
)
from vsockproxy.session.frames import MAX_STREAM_ID


def names(alone: Alone) -> list[str]:
    return [TYPES[frame.type] + ("+FIN" if frame.flags else "") for frame in alone.take()]


def opened_by_peer(alone: Alone, stream_id: int = 1, request: bytes = OPEN_REQUEST) -> Stream:
    (event,) = alone.send(OPEN, stream_id, request)
    assert isinstance(event, StreamOpened)
    return event.stream


def accepted(is_initiator: bool = False, *, is_dedicated: bool = False) -> tuple[Alone, Stream]:
    """A session with one open stream; the session's end opened it where it is the initiator."""
    alone = Alone(is_initiator=is_initiator)
    if is_initiator:
        stream = alone.session.open(Open("h", 1, dedicated=is_dedicated), alone.now)
        alone.send(OPENED, 1, OPENED_DEDICATED if is_dedicated else OPENED_SHARED)
    else:
        stream = opened_by_peer(alone, 1, OPEN_DEDICATED if is_dedicated else OPEN_REQUEST)
        alone.session.accept(stream, Opened(token=TOKEN if is_dedicated else None))
    alone.take()
    return alone, stream


# ------------------------------------------------------------------------------ opening


def test_a_stream_of_the_peer() -> None:
    alone = Alone()
    (event,) = alone.send(OPEN, 1, OPEN_REQUEST)
    assert isinstance(event, StreamOpened)
    assert event.request == Open("h", 123)
    stream = event.stream
    assert alone.session.streams == {1: stream}
    alone.session.accept(stream, Opened(address="192.0.2.1"))
    (frame,) = alone.take()
    assert frame[:4] == (OPENED, 0, 1, Opened(address="192.0.2.1").encode())


def test_a_stream_of_ours() -> None:
    alone = Alone(is_initiator=True)
    stream = alone.session.open(Open("h", 123), alone.now)
    assert [frame[:4] for frame in alone.take()] == [(OPEN, 0, 1, OPEN_REQUEST)]
    assert alone.send(OPENED, 1, OPENED_SHARED) == [StreamAccepted(stream, Opened())]


def test_a_stream_of_ours_that_is_refused() -> None:
    alone = Alone(is_initiator=True)
    stream = alone.session.open(Open("h", 123), alone.now)
    alone.take()
    assert alone.send(REFUSED, 1, REFUSED_LIMIT) == [StreamRefused(stream, Refusal("limit"))]
    assert stream.is_closed
    alone.session.release(stream)
    assert (alone.budget.streams, alone.budget.reserved_bytes) == (0, 0)


@covers("W-040")
@pytest.mark.parametrize("is_initiator", [False, True])
@pytest.mark.parametrize("step", [-2, -1, 1, 2, 4, 100])
def test_ids_out_of_order(is_initiator: bool, step: int) -> None:
    alone = Alone(is_initiator=is_initiator)
    first = 2 if is_initiator else 1
    opened_by_peer(alone, first)
    opened_by_peer(alone, first + 2)
    event = ended(alone.send(OPEN, first + 4 + step, OPEN_REQUEST))
    assert event.code == ErrorCode.PROTOCOL


def test_our_ids_are_those_of_our_role() -> None:
    for is_initiator, ids in ((True, [1, 3, 5]), (False, [2, 4, 6])):
        alone = Alone(is_initiator=is_initiator)
        assert [alone.session.open(Open("h", 1), alone.now).id for _ in ids] == ids
        assert [frame.stream for frame in alone.take()] == ids


@covers("W-041")
def test_the_peers_ids_end() -> None:
    alone = Alone()
    alone.session._table.remote._next_id = MAX_STREAM_ID
    opened_by_peer(alone, MAX_STREAM_ID)
    assert ended(alone.send(OPEN, MAX_STREAM_ID + 2, OPEN_REQUEST)).code == ErrorCode.PROTOCOL


@covers("W-041")
def test_our_ids_end_with_goaway() -> None:
    alone = Alone(is_initiator=True)
    alone.session._table.local._next_id = MAX_STREAM_ID - 2
    assert alone.session.open(Open("h", 1), alone.now).id == MAX_STREAM_ID - 2
    assert alone.session.may_open
    assert alone.session.open(Open("h", 1), alone.now).id == MAX_STREAM_ID
    assert not alone.session.may_open
    assert names(alone) == ["OPEN", "OPEN", "GOAWAY"]


@covers("W-042")
def test_more_streams_than_were_allowed() -> None:
    alone = Alone(local=make_hello(is_initiator=False, max_streams=2))
    opened_by_peer(alone, 1)
    opened_by_peer(alone, 3)
    event = ended(alone.send(OPEN, 5, OPEN_REQUEST))
    assert (event.code, event.text) == (ErrorCode.STREAM_LIMIT, "stream 3 of 2 allowed")


@covers("W-042")
def test_no_stream_at_all_is_allowed() -> None:
    alone = Alone(local=make_hello(is_initiator=False, max_streams=0))
    assert not alone.session.has_control
    assert ended(alone.send(OPEN, 1, OPEN_REQUEST)).code == ErrorCode.STREAM_LIMIT


@covers("W-070")
def test_we_open_as_many_as_the_peer_allows() -> None:
    alone = Alone(is_initiator=True, remote=make_hello(is_initiator=False, max_streams=1))
    session = alone.session
    session.open(Open("h", 1), alone.now)
    assert not session.may_open
    with pytest.raises(Refused, match="limit: the other side allows no more streams"):
        session.open(Open("h", 1), alone.now)
    for allowed in (0, 1):
        assert alone.send(MAX_STREAMS, 0, total(allowed)) == []
        assert not session.may_open
    assert alone.send(MAX_STREAMS, 0, total(3)) == [StreamsAllowed()]
    assert [session.open(Open("h", 1), alone.now).id for _ in range(2)] == [3, 5]
    assert not session.may_open
    assert alone.send(MAX_STREAMS, 0, total(2**64 - 1)) == [StreamsAllowed()]
    assert session.may_open


@covers("W-048")
@pytest.mark.parametrize("what", ["streams", "bytes"])
def test_an_open_without_room_is_refused(what: str) -> None:
    budget = make_budget(16384 * 2, 100) if what == "bytes" else make_budget(1 << 30, 2)
    alone = Alone(budget=budget)
    first = opened_by_peer(alone, 1)
    opened_by_peer(alone, 3)
    assert alone.send(OPEN, 5, OPEN_REQUEST) == []
    (refused,) = alone.take()
    assert refused[:3] == (REFUSED, 0, 5)
    assert Refusal.decode(refused.payload).reason == "limit"
    assert alone.send(DATA, 5, b"early data", flags=FIN) == [], "it was on its way"
    assert [type(event) for event in alone.send(DATA, 1, b"x")] == [DataReceived]
    alone.session.reset(first, ErrorCode.CUT)
    alone.session.release(first)
    opened_by_peer(alone, 7)
    assert budget.streams == 2


def test_our_own_open_without_room() -> None:
    alone = Alone(is_initiator=True, budget=make_budget(16384, 100))
    alone.session.open(Open("h", 1), alone.now)
    with pytest.raises(Refused, match="streams or the receive budget are used up"):
        alone.session.open(Open("h", 1), alone.now)
    dedicated = alone.session.open(Open("h", 1, dedicated=True), alone.now)
    assert dedicated.id == 3, "a dedicated stream has no window, and no id was lost"


def test_a_request_that_no_peer_takes_uses_no_id() -> None:
    alone = Alone(is_initiator=True)
    with pytest.raises(LocalProtocolError, match="the host of OPEN"):
        alone.session.open(Open("h\n", 1), alone.now)
    assert (alone.budget.streams, alone.budget.reserved_bytes) == (0, 0)
    assert alone.session.open(Open("h", 1), alone.now).id == 1


@covers("W-043")
@pytest.mark.parametrize("payload", ["a0", "a1016168", "a301616802187b046173", "a1046173ff"])
def test_an_open_of_nothing_or_of_two_things(payload: str) -> None:
    alone = Alone()
    assert ended(alone.send(OPEN, 1, bytes.fromhex(payload))).code == ErrorCode.PROTOCOL


@covers("W-045")
@pytest.mark.parametrize("is_initiator", [False, True])
@pytest.mark.parametrize("stream_id", [3, 4, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2])
@pytest.mark.parametrize("frame_type", [OPENED, REFUSED, DATA, CREDIT, RESET, STOP, END])
def test_a_frame_for_a_stream_that_was_never_opened(
    frame_type: int, stream_id: int, is_initiator: bool
) -> None:
    alone = Alone(is_initiator=is_initiator)
    alone.session.open(Open("h", 1), alone.now)
    opened_by_peer(alone, 2 if is_initiator else 1)
    payloads = {OPENED: OPENED_SHARED, REFUSED: REFUSED_LIMIT, RESET: reset(16, 0), STOP: stop(0)}
    payload = payloads.get(frame_type, total(8))
    event = ended(alone.send(frame_type, stream_id, payload))
    assert event.code == ErrorCode.PROTOCOL
    assert event.text == f"a frame for stream {stream_id}, which was never opened"


# --------------------------------------------------------------------------------- data


def test_data_may_follow_open_at_once() -> None:
    alone = Alone(is_initiator=True)
    stream = alone.session.open(Open("h", 1), alone.now)
    assert alone.session.sendable_bytes(stream) == 16384
    buffer = bytearray(12) + b"early"
    assert alone.session.seal_data(buffer, stream, 5) == 17
    assert alone.session.sendable_bytes(stream) == 16384 - 5
    peer = Alone()
    events = peer.receive(
        peer.frame(OPEN, 1, OPEN_REQUEST) + peer.frame(DATA, 1, b"early", flags=FIN)
    )
    assert [type(event) for event in events] == [StreamOpened, DataReceived, StreamFinished]


@covers("W-026")
def test_empty_data_without_fin() -> None:
    alone, _ = accepted()
    event = ended(alone.send(DATA, 1))
    assert (event.code, event.text) == (ErrorCode.PROTOCOL, "an empty DATA frame without FIN")


@covers("W-026")
def test_empty_data_without_fin_for_a_closed_stream() -> None:
    alone, stream = accepted()
    alone.session.reset(stream, ErrorCode.CUT)
    assert ended(alone.send(DATA, 1)).code == ErrorCode.PROTOCOL


@pytest.mark.parametrize("is_apart", [False, True], ids=["in one frame", "in a frame of its own"])
def test_fin_with_data_and_alone(is_apart: bool) -> None:
    alone, stream = accepted()
    if is_apart:
        events = alone.send(DATA, 1, b"abc") + alone.send(DATA, 1, flags=FIN)
    else:
        events = alone.send(DATA, 1, b"abc", flags=FIN)
    first, last = events
    assert isinstance(first, DataReceived)
    assert bytes(first.payload) == b"abc"
    assert last == StreamFinished(stream, 3)


def test_a_stream_is_closed_when_both_have_finished() -> None:
    alone, stream = accepted()
    alone.session.finish(stream)
    assert names(alone) == ["DATA+FIN"]
    alone.send(DATA, 1, b"last", flags=FIN)
    assert stream.is_closed
    assert alone.session.streams == {}
    alone.session.release(stream)


def test_a_stream_is_released_once_and_only_when_closed() -> None:
    alone, stream = accepted()
    with pytest.raises(LocalProtocolError, match="release of stream 1, which is OPEN"):
        alone.session.release(stream)
    alone.session.reset(stream, ErrorCode.CUT)
    alone.session.release(stream)
    with pytest.raises(LocalProtocolError, match="stream 1 was released twice"):
        alone.session.release(stream)
    assert (alone.budget.streams, alone.budget.reserved_bytes) == (0, 0)


@covers("W-071")
def test_a_stream_counts_until_it_is_released() -> None:
    alone = Alone(local=make_hello(is_initiator=False, max_streams=1))
    stream = opened_by_peer(alone)
    alone.send(RESET, 1, reset(16, 0))
    assert stream.is_closed
    assert names(alone) == [], "its dial goes on"
    alone.session.release(stream)
    (frame,) = alone.take()
    assert frame[:4] == (MAX_STREAMS, 0, 0, total(2))
    opened_by_peer(alone, 3)


def test_the_reset_goes_before_the_room_that_it_makes() -> None:
    alone = Alone(local=make_hello(is_initiator=False, max_streams=1))
    stream = opened_by_peer(alone)
    alone.session.reset(stream, ErrorCode.CUT)
    alone.session.release(stream)
    assert names(alone) == ["RESET", "MAX_STREAMS"]


# ---------------------------------------------------------------------------- reset, stop


@covers("W-049")
@pytest.mark.parametrize("wrong", [0, 4, 6, 16384, 2**64 - 1])
def test_a_wrong_final_size(wrong: int) -> None:
    alone, _ = accepted()
    alone.send(DATA, 1, b"12345")
    event = ended(alone.send(RESET, 1, reset(17, wrong)))
    assert event.code == ErrorCode.FLOW_CONTROL
    assert event.text == f"stream 1 was reset at {wrong} bytes, and 5 arrived"


@covers("W-049", "W-117")
@pytest.mark.parametrize("code", [0, 16, 17, 99, 2**32 - 1])
def test_the_right_final_size(code: int) -> None:
    alone, stream = accepted()
    alone.send(DATA, 1, b"12345")
    assert alone.send(RESET, 1, reset(code, 5)) == [StreamReset(stream, code)]


@covers("W-049", "W-085")
def test_a_dedicated_stream_is_reset_at_0() -> None:
    alone, stream = accepted(is_dedicated=True)
    assert ended(alone.send(RESET, 1, reset(17, 1))).code == ErrorCode.FLOW_CONTROL
    alone, stream = accepted(is_dedicated=True)
    assert alone.send(RESET, 1, reset(17, 0)) == [StreamReset(stream, 17)]


def test_our_reset_says_what_was_sent() -> None:
    alone, stream = accepted(is_initiator=True)
    alone.session.seal_data(bytearray(112), stream, 100)
    alone.session.reset(stream, ErrorCode.TIMED_OUT)
    (frame,) = alone.take()
    assert frame[:4] == (RESET, 0, 1, reset(20, 100))


def test_a_reset_takes_the_place_of_all_that_was_due() -> None:
    alone = Alone()
    stream = opened_by_peer(alone)
    alone.send(DATA, 1, b"x" * 16384)
    alone.session.consume(stream, 16384, alone.now)
    alone.session.accept(stream, Opened())
    alone.session.stop(stream, ErrorCode.CUT)
    alone.session.finish(stream)
    alone.session.reset(stream, ErrorCode.CUT)
    assert names(alone) == ["RESET"]


@pytest.mark.parametrize("frame_type", [RESET, REFUSED])
def test_nothing_is_said_of_a_stream_that_the_peer_has_ended(frame_type: int) -> None:
    alone = Alone(is_initiator=True)
    stream = alone.session.open(Open("h", 1), alone.now)
    alone.take()
    alone.session.finish(stream)
    alone.send(frame_type, 1, REFUSED_LIMIT if frame_type == REFUSED else reset(16, 0))
    assert names(alone) == []


def test_a_stream_that_is_opened_and_reset_at_once_takes_its_id() -> None:
    alone = Alone(is_initiator=True)
    for _ in range(2):
        stream = alone.session.open(Open("h", 1), alone.now)
        alone.session.finish(stream)
        alone.session.reset(stream, ErrorCode.CANCELLED)
    assert [(TYPES[frame.type], frame.stream) for frame in alone.take()] == [
        ("OPEN", 1),
        ("RESET", 1),
        ("OPEN", 3),
        ("RESET", 3),
    ]


@covers("W-050", "W-117")
@pytest.mark.parametrize("code", [0, 17, 99, 2**32 - 1])
def test_stop_is_answered_with_fin_behind_what_was_sent(code: int) -> None:
    alone, stream = accepted(is_initiator=True)
    alone.session.seal_data(bytearray(112), stream, 100)
    assert alone.send(STOP, 1, stop(code)) == [StopReceived(stream, code)]
    assert alone.session.sendable_bytes(stream) == 0
    with pytest.raises(LocalProtocolError):
        alone.session.seal_data(bytearray(112), stream, 100)
    alone.session.finish(stream)  # the driver had an end of file at the same time
    assert names(alone) == ["DATA+FIN"]
    assert alone.send(STOP, 1, stop(code)) == [StopReceived(stream, code)]
    assert names(alone) == [], "a second STOP changes nothing"


@covers("W-050")
def test_stop_closes_a_stream_whose_other_direction_is_over() -> None:
    alone, stream = accepted()
    alone.send(DATA, 1, flags=FIN)
    assert alone.send(STOP, 1, stop(17)) == [StopReceived(stream, 17)]
    assert stream.is_closed
    assert names(alone) == ["DATA+FIN"]
    alone.session.release(stream)


@covers("W-050")
def test_stop_before_the_answer_ends_early_data() -> None:
    alone = Alone(is_initiator=True)
    stream = alone.session.open(Open("h", 1), alone.now)
    assert alone.send(STOP, 1, stop(17)) == [StopReceived(stream, 17)]
    assert names(alone) == ["OPEN", "DATA+FIN"]
    alone.send(OPENED, 1, OPENED_SHARED)
    assert alone.session.sendable_bytes(stream) == 0


@covers("W-052")
def test_what_arrives_after_our_stop_is_dropped_and_counted() -> None:
    alone, stream = accepted()
    alone.session.stop(stream, ErrorCode.CUT)
    assert names(alone) == ["STOP"]
    assert alone.send(DATA, 1, b"x" * 16000) == []
    assert (stream.receive.received, stream.receive.consumed) == (16000, 16000)
    assert names(alone) == [], "there is no credit for it"
    assert alone.send(DATA, 1, b"x" * 384, flags=FIN) == [StreamFinished(stream, 16384)]
    alone.session.finish(stream)
    assert stream.is_closed


@covers("W-052", "W-060")
def test_our_stop_is_no_licence() -> None:
    alone, stream = accepted()
    alone.session.stop(stream, ErrorCode.CUT)
    assert ended(alone.send(DATA, 1, b"x" * 16385)).code == ErrorCode.FLOW_CONTROL


def test_no_credit_for_what_the_driver_drops_after_its_stop() -> None:
    alone, stream = accepted()
    alone.send(DATA, 1, b"x" * 16384)
    alone.session.stop(stream, ErrorCode.CUT)
    alone.session.consume(stream, 16384, alone.now)
    assert names(alone) == ["STOP"]
    assert alone.budget.reserved_bytes == 16384


# ------------------------------------------------------------------------ crossing frames


@covers("W-046")
@pytest.mark.parametrize("how", ["reset", "refused", "finished"])
def test_frames_that_cross_our_end_of_a_stream(how: str) -> None:
    alone = Alone()
    stream = opened_by_peer(alone)
    if how == "refused":
        alone.session.refuse(stream, "denied", "")
    else:
        alone.session.accept(stream, Opened())
        if how == "reset":
            alone.session.reset(stream, ErrorCode.CUT)
        else:
            alone.session.finish(stream)
            alone.send(DATA, 1, flags=FIN)
    alone.session.release(stream)
    reserved = alone.budget.reserved_bytes
    before = alone.abuse_points
    late = (
        alone.frame(DATA, 1, b"x" * 60000)
        + alone.frame(CREDIT, 1, total(1 << 20))
        + alone.frame(STOP, 1, stop(17))
        + alone.frame(DATA, 1, b"x" * 40, flags=FIN)
        + alone.frame(RESET, 1, reset(17, 12345))
        + alone.frame(END, 1, total(7))
        + alone.frame(OPENED, 1, b"\xff")
        + alone.frame(REFUSED, 1, b"\xff")
    )
    assert alone.receive(late) == []
    assert not alone.session.is_ended
    assert alone.abuse_points == before + 8
    assert alone.budget.reserved_bytes == reserved
    alone.take()
    assert [type(event) for event in alone.send(OPEN, 3, OPEN_REQUEST)] == [StreamOpened]


@pytest.mark.parametrize("cut", range(1, 12 + 100))
@pytest.mark.parametrize("has_checksums", [False, True])
def test_our_reset_in_the_middle_of_a_data_frame(cut: int, has_checksums: bool) -> None:
    # The rest of the frame, and its FIN, come for a stream that is gone: no fault of the peer's.
    features = ["crc32"] if has_checksums else []
    alone = Alone(
        local=make_hello(is_initiator=False, features=features),
        remote=make_hello(is_initiator=True, features=features),
    )
    stream = opened_by_peer(alone)
    alone.session.accept(stream, Opened())
    data = alone.frame(DATA, 1, b"x" * 100, flags=FIN)
    alone.receive(data[:cut])
    alone.session.reset(stream, ErrorCode.CUT)
    alone.session.release(stream)
    assert alone.receive(data[cut:]) == []
    assert not alone.session.is_ended
    assert alone.send(OPEN, 3, OPEN_REQUEST)


def test_our_stop_in_the_middle_of_a_data_frame() -> None:
    alone, stream = accepted()
    data = alone.frame(DATA, 1, b"x" * 100, flags=FIN)
    (event,) = alone.receive(data[:50])
    assert isinstance(event, DataReceived)
    alone.session.consume(stream, 38, alone.now)
    alone.session.stop(stream, ErrorCode.CUT)
    assert alone.receive(data[50:]) == [StreamFinished(stream, 100)]
    assert stream.receive.consumed == 100


def test_our_finish_in_the_middle_of_a_data_frame() -> None:
    alone, stream = accepted()
    data = alone.frame(DATA, 1, b"x" * 100, flags=FIN)
    alone.receive(data[:50])
    alone.session.finish(stream)
    events = alone.receive(data[50:])
    assert [type(event) for event in events] == [DataReceived, StreamFinished]
    assert stream.is_closed


@pytest.mark.parametrize("then", ["reset", "finish", "error"])
def test_verbs_on_a_stream_that_the_rest_of_the_read_has_closed(then: str) -> None:
    # The driver acts on the first event, and the session is further on already.
    alone = Alone()
    data = alone.frame(OPEN, 1, OPEN_REQUEST)
    if then == "reset":
        data += alone.frame(RESET, 1, reset(16, 0))
    elif then == "finish":
        data += alone.frame(DATA, 1, b"x", flags=FIN)
    else:
        data += alone.frame(PING, 1, total(1))
    opened = alone.receive(data)[0]
    assert isinstance(opened, StreamOpened)
    alone.session.refuse(opened.stream, "denied", "no")
    assert opened.stream.is_closed
    alone.session.release(opened.stream)
    sent = names(alone)
    assert sent == {"reset": [], "finish": ["REFUSED"], "error": ["GOAWAY"]}[then]
    assert (alone.budget.streams, alone.budget.reserved_bytes) == (0, 0)


def test_data_for_a_program_that_left_and_a_reset_behind_it() -> None:
    alone, stream = accepted()
    data = alone.frame(DATA, 1, b"x" * 100) + alone.frame(RESET, 1, reset(17, 100))
    first, second = alone.receive(data)
    assert isinstance(first, DataReceived)
    alone.session.stop(stream, ErrorCode.CUT)  # the driver could not write what `first` brought
    alone.session.consume(stream, 100, alone.now)
    assert second == StreamReset(stream, 17)
    assert names(alone) == []
    alone.session.release(stream)


# ------------------------------------------------------------------------------ dedicated


def test_a_dedicated_stream() -> None:
    alone, stream = accepted(is_initiator=True, is_dedicated=True)
    assert (stream.receive.size_bytes, stream.send.limit) == (0, 0)
    assert alone.budget.reserved_bytes == 0
    assert alone.budget.streams == 1
    alone.session.end(stream, 2**40)
    (frame,) = alone.take()
    assert frame[:4] == (END, 0, 1, total(2**40))
    assert alone.send(END, 1, total(2**33)) == [StreamFinished(stream, 2**33)]
    assert stream.is_closed
    alone.session.end(stream, 1)
    assert alone.take() == []


def test_nothing_is_granted_on_a_dedicated_stream() -> None:
    alone, stream = accepted(is_dedicated=True)
    alone.session.consume(stream, 0, alone.now)
    assert alone.take() == []
    with pytest.raises(LocalProtocolError, match="data on stream 1"):
        alone.session.seal_data(bytearray(20), stream, 8)


@covers("W-080")
@pytest.mark.parametrize("is_dedicated", [False, True])
def test_a_token_where_none_belongs_and_none_where_one_does(is_dedicated: bool) -> None:
    alone = Alone(is_initiator=True)
    alone.session.open(Open("h", 1, dedicated=is_dedicated), alone.now)
    event = ended(alone.send(OPENED, 1, OPENED_SHARED if is_dedicated else OPENED_DEDICATED))
    assert event.code == ErrorCode.PROTOCOL
    assert "a token belongs to a dedicated stream" in event.text


@covers("W-082")
def test_credit_in_the_answer_of_a_dedicated_stream() -> None:
    alone = Alone(is_initiator=True)
    alone.session.open(Open("h", 1, dedicated=True), alone.now)
    payload = bytes.fromhex("a20250") + TOKEN + bytes.fromhex("03190400")
    event = ended(alone.send(OPENED, 1, payload))
    assert event.code == ErrorCode.PROTOCOL
    assert "a dedicated stream has no window" in event.text


def test_we_answer_a_dedicated_stream_with_a_token_and_no_window() -> None:
    alone = Alone()
    stream = opened_by_peer(alone, 1, OPEN_DEDICATED)
    with pytest.raises(LocalProtocolError, match="with a token, no other"):
        alone.session.accept(stream, Opened())
    with pytest.raises(LocalProtocolError, match="no window"):
        alone.session.accept(stream, Opened(token=TOKEN, window_bytes=1))
    shared = opened_by_peer(alone, 3)
    with pytest.raises(LocalProtocolError, match="with a token, no other"):
        alone.session.accept(shared, Opened(token=TOKEN))
    alone.session.accept(stream, Opened(token=TOKEN))
    assert [frame[:4] for frame in alone.take()] == [(OPENED, 0, 1, OPENED_DEDICATED)]


@covers("W-085")
def test_a_session_that_ends_takes_its_dedicated_streams_along() -> None:
    alone, stream = accepted(is_dedicated=True)
    event = ended(alone.send(13, 5, goaway(0)))
    assert event.streams == [stream]
    assert stream.is_closed


# --------------------------------------------------------------------------------- credit


@covers("W-060")
@pytest.mark.parametrize("before", [0, 1, 16383, 16384])
def test_more_data_than_was_granted(before: int) -> None:
    alone, _ = accepted()
    if before:
        alone.send(DATA, 1, b"x" * before)
    length = 16384 - before + 1
    data = alone.frame(DATA, 1, b"x" * length)
    assert alone.receive(data[:12]) == []
    event = ended(alone.receive(data[12:13]))
    assert event.code == ErrorCode.FLOW_CONTROL, "judged by the header, whatever has arrived"
    assert event.text == "16385 bytes were sent on a stream that was granted 16384"


@covers("W-060")
def test_early_data_beyond_the_first_window() -> None:
    alone = Alone()
    opened_by_peer(alone)
    assert ended(alone.send(DATA, 1, b"x" * 16385)).code == ErrorCode.FLOW_CONTROL


@covers("W-060")
def test_a_first_window_of_0_waits_for_credit() -> None:
    alone = Alone(is_initiator=True, remote=make_hello(is_initiator=False, first_window_bytes=0))
    stream = alone.session.open(Open("h", 1), alone.now)
    assert alone.session.sendable_bytes(stream) == 0
    with pytest.raises(LocalProtocolError, match="exceed the peer's grant of 0"):
        alone.session.seal_data(bytearray(13), stream, 1)
    alone.send(CREDIT, 1, total(1))
    assert alone.session.sendable_bytes(stream) == 1


@covers("W-061")
@pytest.mark.parametrize("value", [0, 1, 16383, 16384])
def test_credit_that_grants_nothing(value: int) -> None:
    alone, stream = accepted(is_initiator=True)
    assert alone.send(CREDIT, 1, total(value)) == []
    assert stream.send.limit == 16384
    assert alone.abuse_points == 500


def test_credit_that_grants_something() -> None:
    alone, stream = accepted(is_initiator=True)
    assert alone.send(CREDIT, 1, total(2**64 - 1)) == [CreditReceived(stream)]
    assert alone.session.sendable_bytes(stream) == 65535
    assert alone.abuse_points == 0


@covers("W-063")
def test_credit_comes_when_half_of_the_window_is_consumed_and_not_before() -> None:
    alone, stream = accepted()
    alone.send(DATA, 1, b"x" * 16384)
    assert alone.take() == [], "arriving is not enough"
    alone.now += 10
    alone.session.consume(stream, 8191, alone.now)
    assert alone.take() == []
    alone.session.consume(stream, 1, alone.now)
    (frame,) = alone.take()
    assert frame[:4] == (CREDIT, 0, 1, total(8192 + 16384))


def test_several_grants_become_one_frame_with_the_latest_total() -> None:
    alone, stream = accepted()
    alone.now += 10
    for _ in range(4):
        alone.send(DATA, 1, b"x" * 8192)
        alone.session.consume(stream, 8192, alone.now)
        alone.now += 10
    grants = [frame.payload for frame in alone.take() if frame.type == CREDIT]
    assert grants == [total(4 * 8192 + 16384)]


@covers("W-062")
def test_a_stalled_stream_never_takes_the_credit_of_another() -> None:
    alone = Alone(budget=make_budget(10 * 16384, 100))
    for number in range(9):
        stream = opened_by_peer(alone, 1 + 2 * number)
        alone.session.accept(stream, Opened())
        alone.send(DATA, stream.id, b"x" * 16384)  # and nobody takes it
    last = opened_by_peer(alone, 19)
    alone.session.accept(last, Opened())
    alone.take()
    granted = 16384
    for _ in range(100):
        alone.send(DATA, 19, b"x" * 8192)
        alone.session.consume(last, 8192, alone.now)
        granted += 8192
        assert [frame[:4] for frame in alone.take() if frame.type == CREDIT] == [
            (CREDIT, 0, 19, total(granted))
        ]
    assert alone.budget.unreserved_bytes == 0
    assert ended(alone.send(DATA, 17, b"x")).code == ErrorCode.FLOW_CONTROL


@covers("W-062")
def test_sessions_that_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsockproxy.session.credit.PROVEN_FACTOR", 0)
    budget = make_budget(3 * 16384 + 100_000, 4)
    first, second = Alone(budget=budget), Alone(budget=budget)
    streams = [opened_by_peer(first, 1), opened_by_peer(second, 1), opened_by_peer(first, 3)]
    assert (budget.streams, budget.reserved_bytes) == (3, 3 * 16384)
    second.session.accept(streams[1], Opened())
    for _ in range(20):
        length = streams[1].receive.granted - streams[1].receive.received
        second.send(DATA, 1, b"x" * length)
        second.session.consume(streams[1], length, second.now)
    assert streams[1].receive.size_bytes == 25_000, "a quarter of what was left"
    for stream in ended(second.session.receive_eof()).streams:
        second.session.release(stream)
    assert (budget.streams, budget.reserved_bytes) == (2, 2 * 16384)
    assert first.session.streams.keys() == {1, 3}


@covers("W-064")
@pytest.mark.parametrize("start", [2**32 - 20000, 2**32 - 1, 2**32, 2**53, 2**63])
def test_a_stream_goes_on_beyond_2_to_the_32_bytes(start: int) -> None:
    alone, stream = accepted()
    window = stream.receive
    window.received = window.consumed = start
    window.granted = start + window.size_bytes
    stream.send.sent = start
    stream.send.limit = start + 16384
    for _ in range(10):
        alone.now += 10
        alone.send(DATA, 1, b"x" * 16384)
        alone.session.consume(stream, 16384, alone.now)
        credit = [frame.payload for frame in alone.take() if frame.type == CREDIT]
        assert credit == [total(window.consumed + 16384)]
        alone.session.seal_data(bytearray(16384 + 12), stream, 16384)
        assert alone.session.sendable_bytes(stream) == 0
        alone.send(CREDIT, 1, total(stream.send.sent + 16384))
    assert window.consumed == start + 163840
    assert alone.send(DATA, 1, b"x", flags=FIN)[-1] == StreamFinished(stream, start + 163841)
    alone.session.reset(stream, ErrorCode.CUT)
    assert alone.take()[0].payload == reset(17, start + 163840)


@covers("W-065")
@pytest.mark.parametrize(
    ("payload", "limit"), [("a1031a00010000", 65536), ("a103194000", 16384), ("a10300", 16384)]
)
def test_the_credit_of_an_answer(payload: str, limit: int) -> None:
    alone = Alone(is_initiator=True)
    stream = alone.session.open(Open("h", 1), alone.now)
    alone.session.seal_data(bytearray(16396), stream, 16384)  # the driver waits for credit
    events = alone.send(OPENED, 1, bytes.fromhex(payload))
    assert stream.send.limit == limit
    assert [type(event) for event in events] == [StreamAccepted] + [CreditReceived] * (
        limit > 16384
    )


@covers("W-062", "W-065")
def test_a_larger_window_is_reserved_before_it_is_granted() -> None:
    alone = Alone(budget=make_budget(16384 + 40000, 10))
    stream = opened_by_peer(alone)
    alone.send(DATA, 1, b"x" * 10000)
    alone.session.consume(stream, 10000, alone.now)
    alone.session.accept(stream, Opened(window_bytes=1 << 20))
    (frame,) = (frame for frame in alone.take() if frame.type != PING)
    assert frame.type == OPENED
    answer = Opened.decode(frame.payload)
    assert answer.window_bytes == stream.receive.granted
    assert stream.receive.size_bytes == alone.budget.reserved_bytes
    assert alone.budget.reserved_bytes <= alone.budget.total_bytes
    assert stream.receive.granted - stream.receive.consumed <= stream.receive.size_bytes
    assert [type(event) for event in alone.send(DATA, 1, b"x" * 6384)] == [DataReceived]


@pytest.mark.usefixtures("small_windows_grow")
def test_no_budget_is_taken_for_a_direction_that_is_over() -> None:
    alone, stream = accepted()
    alone.send(DATA, 1, b"x" * 16384, flags=FIN)
    alone.session.consume(stream, 16384, alone.now)
    assert alone.take() == []
    assert alone.budget.reserved_bytes == 16384


@pytest.mark.usefixtures("small_windows_grow")
def test_no_budget_is_lost_to_a_stream_that_is_released() -> None:
    alone, stream = accepted()
    alone.send(DATA, 1, b"x" * 16384)
    alone.session.reset(stream, ErrorCode.CUT)
    alone.session.release(stream)
    alone.session.consume(stream, 16384, alone.now)
    assert (alone.budget.streams, alone.budget.reserved_bytes) == (0, 0)
    assert names(alone) == ["RESET"]


def test_credit_that_is_due_when_fin_arrives_is_not_sent() -> None:
    alone, stream = accepted()
    alone.send(DATA, 1, b"x" * 16384)
    alone.session.consume(stream, 16384, alone.now)
    alone.send(DATA, 1, flags=FIN)
    assert names(alone) == []
