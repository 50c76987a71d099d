"""One two-way byte stream of a session: its state, its credit, and what is due to be sent."""

from vsockproxy.session.credit import ReceiveWindow, SendWindow
from vsockproxy.session.errors import LocalProtocolError
from vsockproxy.session.frames import FrameType
from vsockproxy.session.states import CLOSED, TRANSITIONS, StreamInput, StreamState


class Stream:
    """Bookkeeping of one stream; the session changes it, its driver reads it.

    Args:
        stream_id: odd where the initiator of the session opened it.
        state: LOCAL_OPENING or REMOTE_OPENING.
        is_dedicated: its bytes travel on a connection of their own; it has no credit.
        receive: the window granted to the peer.
        send: the window granted by the peer.
    """

    __slots__ = (
        "answer_due",
        "credit_due",
        "end_due",
        "fin_due",
        "has_place",
        "id",
        "is_dedicated",
        "is_released",
        "is_stopped",
        "is_stopping",
        "open_due",
        "owner",
        "receive",
        "reset_due",
        "send",
        "state",
        "stop_due",
    )

    def __init__(
        self,
        stream_id: int,
        state: StreamState,
        *,
        is_dedicated: bool,
        receive: ReceiveWindow,
        send: SendWindow,
    ) -> None:
        self.id = stream_id
        self.state = state
        self.is_dedicated = is_dedicated
        self.receive = receive
        self.send = send
        self.owner: object | None = None
        """Whatever the driver wants to find again; the session does not look at it."""
        self.is_stopping = False
        """STOP was sent: arriving data is dropped."""
        self.is_stopped = False
        """STOP arrived: the session says FIN by itself."""
        self.is_released = False
        self.has_place = True
        """Whether the budget counts it; false for one that exists only to be refused."""
        # What is due; control output is state, never a queue.
        self.open_due: bytes | None = None
        self.answer_due: tuple[FrameType, bytes] | None = None
        self.credit_due = False
        self.fin_due = False
        self.end_due: int | None = None
        self.stop_due: int | None = None
        self.reset_due: int | None = None

    @property
    def is_closed(self) -> bool:
        """Both directions have ended, or the stream was refused or reset."""
        return self.state is CLOSED

    def send_input(self, stream_input: StreamInput) -> None:
        """Step the state for something this end sends.

        Raises:
            LocalProtocolError: when the state does not allow it.
        """
        state = TRANSITIONS[self.state].get(stream_input)
        if state is None:
            raise LocalProtocolError(f"stream {self.id} in {self.state.name}: {stream_input.name}")
        self.state = state

    def drop_due(self) -> None:
        """Nothing is to be said any more of a stream that is over, but for OPEN: it takes an id."""
        self.answer_due = self.end_due = self.stop_due = self.reset_due = None
        self.credit_due = self.fin_due = False

    def __repr__(self) -> str:
        return (
            f"<Stream {self.id} {self.state.name} sent={self.send.sent}/{self.send.limit} "
            f"consumed={self.receive.consumed}/{self.receive.granted}>"
        )
