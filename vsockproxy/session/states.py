"""The life of a stream as a table; what is not in it is an error and ends the session.

Both ends use the same table. A stream begins in LOCAL_OPENING where OPEN was sent and in
REMOTE_OPENING where it arrived. FIN (END for a dedicated stream) closes one direction, RESET closes
both, and so does REFUSED. STOP asks the other end to finish its direction and changes no state; the
opener may say it once it was answered, as nothing is sent to it before.
"""

from enum import IntEnum, auto
from typing import Final


class StreamState(IntEnum):
    """Where a stream stands. FINISHED means that this end sent its last byte."""

    LOCAL_OPENING = auto()
    LOCAL_OPENING_FINISHED = auto()
    REMOTE_OPENING = auto()
    REMOTE_OPENING_FINISHED = auto()
    OPEN = auto()
    LOCAL_FINISHED = auto()
    REMOTE_FINISHED = auto()
    CLOSED = auto()


CLOSED: Final = StreamState.CLOSED
"""The same: to look a member up costs as much as a call, and this one is asked for most."""


class StreamInput(IntEnum):
    """What can happen to a stream, sent by this end or received from the other."""

    SEND_OPENED = auto()
    SEND_REFUSED = auto()
    SEND_DATA = auto()
    SEND_FIN = auto()
    SEND_CREDIT = auto()
    SEND_STOP = auto()
    SEND_RESET = auto()
    RECEIVE_OPENED = auto()
    RECEIVE_REFUSED = auto()
    RECEIVE_DATA = auto()
    RECEIVE_FIN = auto()
    RECEIVE_CREDIT = auto()
    RECEIVE_STOP = auto()
    RECEIVE_RESET = auto()


_S = StreamState
_I = StreamInput

TRANSITIONS: dict[StreamState, dict[StreamInput, StreamState]] = {
    # The opener may send data at once; it may hear nothing but the answer, credit and STOP first.
    _S.LOCAL_OPENING: {
        _I.RECEIVE_OPENED: _S.OPEN,
        _I.RECEIVE_REFUSED: _S.CLOSED,
        _I.RECEIVE_CREDIT: _S.LOCAL_OPENING,
        _I.RECEIVE_STOP: _S.LOCAL_OPENING,
        _I.RECEIVE_RESET: _S.CLOSED,
        _I.SEND_DATA: _S.LOCAL_OPENING,
        _I.SEND_FIN: _S.LOCAL_OPENING_FINISHED,
        _I.SEND_RESET: _S.CLOSED,
    },
    # Credit and STOP may have been on their way when FIN was sent.
    _S.LOCAL_OPENING_FINISHED: {
        _I.RECEIVE_OPENED: _S.LOCAL_FINISHED,
        _I.RECEIVE_REFUSED: _S.CLOSED,
        _I.RECEIVE_CREDIT: _S.LOCAL_OPENING_FINISHED,
        _I.RECEIVE_STOP: _S.LOCAL_OPENING_FINISHED,
        _I.RECEIVE_RESET: _S.CLOSED,
        _I.SEND_RESET: _S.CLOSED,
    },
    _S.REMOTE_OPENING: {
        _I.SEND_OPENED: _S.OPEN,
        _I.SEND_REFUSED: _S.CLOSED,
        _I.SEND_CREDIT: _S.REMOTE_OPENING,
        _I.SEND_STOP: _S.REMOTE_OPENING,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_DATA: _S.REMOTE_OPENING,
        _I.RECEIVE_FIN: _S.REMOTE_OPENING_FINISHED,
        _I.RECEIVE_RESET: _S.CLOSED,
    },
    _S.REMOTE_OPENING_FINISHED: {
        _I.SEND_OPENED: _S.REMOTE_FINISHED,
        _I.SEND_REFUSED: _S.CLOSED,
        _I.SEND_STOP: _S.REMOTE_OPENING_FINISHED,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_RESET: _S.CLOSED,
    },
    _S.OPEN: {
        _I.SEND_DATA: _S.OPEN,
        _I.SEND_FIN: _S.LOCAL_FINISHED,
        _I.SEND_CREDIT: _S.OPEN,
        _I.SEND_STOP: _S.OPEN,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_DATA: _S.OPEN,
        _I.RECEIVE_FIN: _S.REMOTE_FINISHED,
        _I.RECEIVE_CREDIT: _S.OPEN,
        _I.RECEIVE_STOP: _S.OPEN,
        _I.RECEIVE_RESET: _S.CLOSED,
    },
    _S.LOCAL_FINISHED: {
        _I.SEND_CREDIT: _S.LOCAL_FINISHED,
        _I.SEND_STOP: _S.LOCAL_FINISHED,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_DATA: _S.LOCAL_FINISHED,
        _I.RECEIVE_FIN: _S.CLOSED,
        _I.RECEIVE_CREDIT: _S.LOCAL_FINISHED,
        _I.RECEIVE_STOP: _S.LOCAL_FINISHED,
        _I.RECEIVE_RESET: _S.CLOSED,
    },
    # STOP for a direction that has ended already is harmless: nothing is left to stop.
    _S.REMOTE_FINISHED: {
        _I.SEND_DATA: _S.REMOTE_FINISHED,
        _I.SEND_FIN: _S.CLOSED,
        _I.SEND_STOP: _S.REMOTE_FINISHED,
        _I.SEND_RESET: _S.CLOSED,
        _I.RECEIVE_CREDIT: _S.REMOTE_FINISHED,
        _I.RECEIVE_STOP: _S.REMOTE_FINISHED,
        _I.RECEIVE_RESET: _S.CLOSED,
    },
    # A closed stream is forgotten: the session ignores frames that were still on their way to it.
    _S.CLOSED: {},
}


def states_that_allow(stream_input: StreamInput) -> frozenset[StreamState]:
    """The states in which `stream_input` is allowed."""
    return frozenset(state for state, row in TRANSITIONS.items() if stream_input in row)


MAY_RECEIVE_DATA = states_that_allow(StreamInput.RECEIVE_DATA)
MAY_SEND_DATA = states_that_allow(StreamInput.SEND_DATA)
MAY_SEND_CREDIT = states_that_allow(StreamInput.SEND_CREDIT)
REMOTE_OPENING_STATES = states_that_allow(StreamInput.SEND_OPENED)
"""The peer's OPEN is not answered yet."""
