"""The life of a stream: the table over its full product, and the session over the same product."""

from collections.abc import Callable
from itertools import product

import pytest

from tests.support.session_frames import (
    CREDIT,
    DATA,
    END,
    FIN,
    OPEN,
    OPEN_DEDICATED,
    OPEN_REQUEST,
    OPENED,
    OPENED_DEDICATED,
    OPENED_SHARED,
    REFUSED,
    REFUSED_LIMIT,
    RESET,
    STOP,
    TOKEN,
    reset,
    stop,
    total,
)
from tests.support.session_pair import Alone, ended
from tests.support.wire_rules import covers
from vsockproxy.session import ErrorCode, LocalProtocolError, Open, Opened, Session, Stream
from vsockproxy.session.states import (
    MAY_RECEIVE_DATA,
    MAY_SEND_CREDIT,
    MAY_SEND_DATA,
    REMOTE_OPENING_STATES,
    TRANSITIONS,
    StreamInput,
    StreamState,
)

S = StreamState
I = StreamInput  # noqa: E741  # the table below is read with one letter for each axis

OUTCOMES: dict[StreamState, dict[StreamInput, StreamState]] = {
    S.LOCAL_OPENING: {
        I.SEND_DATA: S.LOCAL_OPENING,
        I.SEND_FIN: S.LOCAL_OPENING_FINISHED,
        I.SEND_RESET: S.CLOSED,
        I.RECEIVE_OPENED: S.OPEN,
        I.RECEIVE_REFUSED: S.CLOSED,
        I.RECEIVE_CREDIT: S.LOCAL_OPENING,
        I.RECEIVE_STOP: S.LOCAL_OPENING,
        I.RECEIVE_RESET: S.CLOSED,
    },
    S.LOCAL_OPENING_FINISHED: {
        I.SEND_RESET: S.CLOSED,
        I.RECEIVE_OPENED: S.LOCAL_FINISHED,
        I.RECEIVE_REFUSED: S.CLOSED,
        I.RECEIVE_CREDIT: S.LOCAL_OPENING_FINISHED,
        I.RECEIVE_STOP: S.LOCAL_OPENING_FINISHED,
        I.RECEIVE_RESET: S.CLOSED,
    },
    S.REMOTE_OPENING: {
        I.SEND_OPENED: S.OPEN,
        I.SEND_REFUSED: S.CLOSED,
        I.SEND_CREDIT: S.REMOTE_OPENING,
        I.SEND_STOP: S.REMOTE_OPENING,
        I.SEND_RESET: S.CLOSED,
        I.RECEIVE_DATA: S.REMOTE_OPENING,
        I.RECEIVE_FIN: S.REMOTE_OPENING_FINISHED,
        I.RECEIVE_RESET: S.CLOSED,
    },
    S.REMOTE_OPENING_FINISHED: {
        I.SEND_OPENED: S.REMOTE_FINISHED,
        I.SEND_REFUSED: S.CLOSED,
        I.SEND_STOP: S.REMOTE_OPENING_FINISHED,
        I.SEND_RESET: S.CLOSED,
        I.RECEIVE_RESET: S.CLOSED,
    },
    S.OPEN: {
        I.SEND_DATA: S.OPEN,
        I.SEND_FIN: S.LOCAL_FINISHED,
        I.SEND_CREDIT: S.OPEN,
        I.SEND_STOP: S.OPEN,
        I.SEND_RESET: S.CLOSED,
        I.RECEIVE_DATA: S.OPEN,
        I.RECEIVE_FIN: S.REMOTE_FINISHED,
        I.RECEIVE_CREDIT: S.OPEN,
        I.RECEIVE_STOP: S.OPEN,
        I.RECEIVE_RESET: S.CLOSED,
    },
    S.LOCAL_FINISHED: {
        I.SEND_CREDIT: S.LOCAL_FINISHED,
        I.SEND_STOP: S.LOCAL_FINISHED,
        I.SEND_RESET: S.CLOSED,
        I.RECEIVE_DATA: S.LOCAL_FINISHED,
        I.RECEIVE_FIN: S.CLOSED,
        I.RECEIVE_CREDIT: S.LOCAL_FINISHED,
        I.RECEIVE_STOP: S.LOCAL_FINISHED,
        I.RECEIVE_RESET: S.CLOSED,
    },
    S.REMOTE_FINISHED: {
        I.SEND_DATA: S.REMOTE_FINISHED,
        I.SEND_FIN: S.CLOSED,
        I.SEND_STOP: S.REMOTE_FINISHED,
        I.SEND_RESET: S.CLOSED,
        I.RECEIVE_CREDIT: S.REMOTE_FINISHED,
        I.RECEIVE_STOP: S.REMOTE_FINISHED,
        I.RECEIVE_RESET: S.CLOSED,
    },
    S.CLOSED: {},
}
"""Written a second time, from the table in WIRE_FORMAT.md section 4; the rest is forbidden."""

EVERY_PAIR = [
    pytest.param(state, stream_input, id=f"{stream_input.name} in {state.name}")
    for state, stream_input in product(S, I)
]


@pytest.mark.parametrize(("state", "stream_input"), EVERY_PAIR)
def test_the_table(state: StreamState, stream_input: StreamInput) -> None:
    assert TRANSITIONS[state].get(stream_input) == OUTCOMES[state].get(stream_input)


SENT = [stream_input for stream_input in StreamInput if stream_input.name.startswith("SEND_")]


@pytest.mark.parametrize("stream_input", SENT)
def test_what_one_end_may_send_the_other_may_receive(stream_input: StreamInput) -> None:
    # The answerer's view of a stream is the opener's, mirrored; frames of both may cross.
    mirror = {
        S.LOCAL_OPENING: {S.REMOTE_OPENING},
        S.LOCAL_OPENING_FINISHED: {S.REMOTE_OPENING_FINISHED},
        S.REMOTE_OPENING: {S.LOCAL_OPENING, S.LOCAL_OPENING_FINISHED},
        S.REMOTE_OPENING_FINISHED: {S.LOCAL_OPENING_FINISHED},
        S.OPEN: {S.OPEN, S.LOCAL_FINISHED},
        S.LOCAL_FINISHED: {S.REMOTE_FINISHED},
        S.REMOTE_FINISHED: {S.LOCAL_FINISHED},
    }
    received = StreamInput[stream_input.name.replace("SEND_", "RECEIVE_")]
    senders = [state for state in mirror if stream_input in OUTCOMES[state]]
    assert senders
    for state in senders:
        for other in mirror[state]:
            assert received in OUTCOMES[other], (state, other)


def test_the_sets_of_states() -> None:
    assert {S.OPEN, S.LOCAL_FINISHED, S.REMOTE_OPENING} == MAY_RECEIVE_DATA
    assert {S.OPEN, S.REMOTE_FINISHED, S.LOCAL_OPENING} == MAY_SEND_DATA
    assert {S.OPEN, S.LOCAL_FINISHED, S.REMOTE_OPENING} == MAY_SEND_CREDIT
    assert {S.REMOTE_OPENING, S.REMOTE_OPENING_FINISHED} == REMOTE_OPENING_STATES


# -------------------------------------------------------- the same product in a session


def stream_in(state: StreamState, *, is_dedicated: bool) -> tuple[Alone, Stream]:
    """A session with one stream that stands in `state`, reached as a peer would bring it there."""
    if state in REMOTE_OPENING_STATES:
        alone = Alone(is_initiator=False)
        alone.send(OPEN, 1, OPEN_DEDICATED if is_dedicated else OPEN_REQUEST)
        stream = alone.session.streams[1]
        if state is S.REMOTE_OPENING_FINISHED:
            _receive_fin(alone, stream)
    else:
        alone = Alone(is_initiator=True)
        stream = alone.session.open(Open("h", 1, dedicated=is_dedicated), alone.now)
        alone.take()
        if state is S.LOCAL_OPENING_FINISHED:
            _send_fin(alone.session, stream)
        elif state is not S.LOCAL_OPENING:
            alone.send(OPENED, 1, OPENED_DEDICATED if is_dedicated else OPENED_SHARED)
        if state is S.LOCAL_FINISHED:
            _send_fin(alone.session, stream)
        elif state is S.REMOTE_FINISHED:
            _receive_fin(alone, stream)
        elif state is S.CLOSED:
            alone.session.reset(stream, ErrorCode.CUT)
    alone.take()
    assert stream.state is state
    return alone, stream


def _send_fin(session: Session, stream: Stream) -> None:
    if stream.is_dedicated:
        session.end(stream, 0)
    else:
        session.finish(stream)


def _receive_fin(alone: Alone, stream: Stream) -> None:
    if stream.is_dedicated:
        alone.send(END, stream.id, total(0))
    else:
        alone.send(DATA, stream.id, flags=FIN)


RECEIVED: dict[StreamInput, tuple[int, int, bytes, bytes | None]] = {
    I.RECEIVE_OPENED: (OPENED, 0, OPENED_SHARED, OPENED_DEDICATED),
    I.RECEIVE_REFUSED: (REFUSED, 0, REFUSED_LIMIT, REFUSED_LIMIT),
    I.RECEIVE_DATA: (DATA, 0, b"data", None),
    I.RECEIVE_FIN: (DATA, FIN, b"", None),
    I.RECEIVE_CREDIT: (CREDIT, 0, total(1 << 20), None),
    I.RECEIVE_STOP: (STOP, 0, stop(17), None),
    I.RECEIVE_RESET: (RESET, 0, reset(17, 0), reset(17, 0)),
}
"""Type, flags, payload for a shared stream and for a dedicated one (None: it has no such frame)."""


@covers("W-044", "W-046", "W-047", "W-051", "W-081")
@pytest.mark.parametrize("is_dedicated", [False, True], ids=["shared", "dedicated"])
@pytest.mark.parametrize("stream_input", RECEIVED)
@pytest.mark.parametrize("state", S)
def test_a_frame_from_the_peer(
    state: StreamState, stream_input: StreamInput, is_dedicated: bool
) -> None:
    alone, stream = stream_in(state, is_dedicated=is_dedicated)
    frame_type, flags, shared, dedicated = RECEIVED[stream_input]
    is_known_kind = not is_dedicated or dedicated is not None
    payload = dedicated if is_dedicated and dedicated is not None else shared
    events = alone.send(frame_type, stream.id, payload, flags=flags)
    if state is S.CLOSED:
        assert events == []
        assert not alone.session.is_ended
        return
    outcome = OUTCOMES[state].get(stream_input) if is_known_kind else None
    if outcome is None:
        assert ended(events).code == ErrorCode.STREAM_STATE
        assert f"stream {stream.id}" in ended(events).text
        return
    if stream_input is I.RECEIVE_STOP and outcome in MAY_SEND_DATA:
        outcome = OUTCOMES[outcome][I.SEND_FIN]  # the session answers STOP by itself
    assert stream.state is outcome
    assert not alone.session.is_ended
    assert (stream.id in alone.session.streams) is (outcome is not S.CLOSED)


@covers("W-081")
@pytest.mark.parametrize("state", set(S) - {S.CLOSED}, ids=lambda state: state.name)
def test_end_from_the_peer(state: StreamState) -> None:
    alone, stream = stream_in(state, is_dedicated=True)
    outcome = OUTCOMES[state].get(I.RECEIVE_FIN)
    events = alone.send(END, stream.id, total(7))
    if outcome is None:
        assert ended(events).code == ErrorCode.STREAM_STATE
    else:
        assert stream.state is outcome
    alone, stream = stream_in(state, is_dedicated=False)
    assert ended(alone.send(END, stream.id, total(7))).code == ErrorCode.STREAM_STATE


Verb = Callable[[Session, Stream], None]

VERBS: dict[StreamInput, Verb] = {
    I.SEND_OPENED: lambda session, stream: session.accept(
        stream, Opened(token=TOKEN if stream.is_dedicated else None)
    ),
    I.SEND_REFUSED: lambda session, stream: session.refuse(stream, "denied", "no"),
    I.SEND_DATA: lambda session, stream: _seal(session, stream),
    I.SEND_FIN: _send_fin,
    I.SEND_STOP: lambda session, stream: session.stop(stream, ErrorCode.CUT),
    I.SEND_RESET: lambda session, stream: session.reset(stream, ErrorCode.CUT),
}


def _seal(session: Session, stream: Stream) -> None:
    buffer = bytearray(12 + 4)
    assert session.seal_data(buffer, stream, 4) == 16
    assert buffer[:4] == bytes([DATA, 0, 0, 4])


def is_forbidden(state: StreamState, stream_input: StreamInput, *, is_dedicated: bool) -> bool:
    if stream_input is I.SEND_DATA:
        return is_dedicated or state not in MAY_SEND_DATA
    if is_dedicated and stream_input is I.SEND_STOP:
        return True
    # The peer may have closed the stream a moment ago: that is nobody's fault.
    return state is not S.CLOSED and stream_input not in OUTCOMES[state]


@pytest.mark.parametrize("is_dedicated", [False, True], ids=["shared", "dedicated"])
@pytest.mark.parametrize("stream_input", VERBS)
@pytest.mark.parametrize("state", S)
def test_a_verb_of_the_driver(
    state: StreamState, stream_input: StreamInput, is_dedicated: bool
) -> None:
    alone, stream = stream_in(state, is_dedicated=is_dedicated)
    if is_forbidden(state, stream_input, is_dedicated=is_dedicated):
        with pytest.raises(LocalProtocolError, match=f"stream {stream.id}"):
            VERBS[stream_input](alone.session, stream)
        assert stream.state is state
        assert alone.take() == []
        return
    VERBS[stream_input](alone.session, stream)
    if state is S.CLOSED:
        assert alone.take() == []
        return
    assert stream.state is OUTCOMES[state][stream_input]
    sent = alone.take()
    assert len(sent) == (stream_input is not I.SEND_DATA)
    assert all(frame.stream == stream.id for frame in sent)
    assert not alone.session.is_ended


def test_a_dedicated_stream_has_no_fin_and_a_shared_one_no_end() -> None:
    alone, stream = stream_in(S.OPEN, is_dedicated=True)
    with pytest.raises(LocalProtocolError, match="has END"):
        alone.session.finish(stream)
    alone, stream = stream_in(S.OPEN, is_dedicated=False)
    with pytest.raises(LocalProtocolError, match="has FIN"):
        alone.session.end(stream, 0)


def test_sendable_bytes_are_those_of_states_that_may_send() -> None:
    for state in S:
        alone, stream = stream_in(state, is_dedicated=False)
        assert (alone.session.sendable_bytes(stream) > 0) is (state in MAY_SEND_DATA)
        alone, stream = stream_in(state, is_dedicated=True)
        assert alone.session.sendable_bytes(stream) == 0


def test_a_stream_says_what_it_is() -> None:
    _, stream = stream_in(S.OPEN, is_dedicated=False)
    assert repr(stream) == "<Stream 1 OPEN sent=0/16384 consumed=0/16384>"
