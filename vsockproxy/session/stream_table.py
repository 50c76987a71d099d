"""Which streams of a session exist: ids, what each end may open, and places in the budget."""

from vsockproxy.errors import Refused
from vsockproxy.session.allowance import LocalStreams, RemoteStreams
from vsockproxy.session.credit import ReceiveBudget, ReceiveWindow, SendWindow
from vsockproxy.session.errors import ErrorCode, LocalProtocolError, PeerProtocolError
from vsockproxy.session.opening import Hello
from vsockproxy.session.states import StreamState
from vsockproxy.session.stream import Stream


class StreamTable:
    """The streams of one session, from their opening until they are released.

    Args:
        is_initiator: whether this end dialled the link; its streams have odd ids then.
        local: the hello of this end.
        remote: the hello of the peer.
        budget: where each stream takes its place and its window.
    """

    def __init__(
        self, *, is_initiator: bool, local: Hello, remote: Hello, budget: ReceiveBudget
    ) -> None:
        self.by_id: dict[int, Stream] = {}
        """Streams that frames may arrive for; closed ones are not in it."""
        self.local = LocalStreams(1 if is_initiator else 2, remote.max_streams)
        self.remote = RemoteStreams(2 if is_initiator else 1, local.max_streams)
        self._budget = budget
        self._is_initiator = is_initiator
        self._receive_window_bytes = local.first_window_bytes
        self._send_window_bytes = remote.first_window_bytes

    def open_local(self, *, is_dedicated: bool, now: float) -> Stream:
        """A stream of this end, with the next id.

        Raises:
            Refused: with reason limit, when the peer or the budget of this side allows no more.
        """
        if not self.local.may_open:
            raise Refused("limit", "the other side allows no more streams on this link")
        if not self._admit(is_dedicated=is_dedicated):
            raise Refused("limit", self.full_text)
        stream_id = self.local.take_id()
        return self._add(stream_id, StreamState.LOCAL_OPENING, is_dedicated=is_dedicated, now=now)

    def open_remote(self, stream_id: int, *, is_dedicated: bool, now: float) -> Stream:
        """A stream that the peer opened.

        One that the budget has no place for comes without (`has_place`): it exists to be refused.
        """
        has_place = self._admit(is_dedicated=is_dedicated)
        stream = self._add(
            stream_id, StreamState.REMOTE_OPENING, is_dedicated=is_dedicated, now=now
        )
        stream.has_place = has_place
        return stream

    @property
    def full_text(self) -> str:
        """What a refusal for lack of a place says."""
        return f"{self._budget.max_streams} streams or the receive budget are used up"

    def was_opened(self, stream_id: int) -> bool:
        """Whether an id was ever in use, by whichever end."""
        is_local = (stream_id % 2 == 1) is self._is_initiator
        return (self.local if is_local else self.remote).was_opened(stream_id)

    def check_opened(self, stream_id: int) -> None:
        """Look at an id that no frame may arrive for.

        Raises:
            PeerProtocolError: when it was never in use, rather than closed.
        """
        if not self.was_opened(stream_id):
            raise PeerProtocolError(
                ErrorCode.PROTOCOL, f"a frame for stream {stream_id}, which was never opened"
            )

    def release(self, stream: Stream) -> None:
        """Nothing is left of a closed stream; its window and its place are free.

        Raises:
            LocalProtocolError: when it is open, or was released before.
        """
        if not stream.is_closed:
            raise LocalProtocolError(f"release of stream {stream.id}, which is {stream.state.name}")
        if stream.is_released:
            raise LocalProtocolError(f"stream {stream.id} was released twice")
        stream.is_released = True
        if stream.has_place:
            self._budget.dismiss_stream(stream.receive.size_bytes)
        if (stream.id % 2 == 1) is not self._is_initiator:
            self.remote.release()

    def _admit(self, *, is_dedicated: bool) -> bool:
        return self._budget.admit_stream(0 if is_dedicated else self._receive_window_bytes)

    def _add(self, stream_id: int, state: StreamState, *, is_dedicated: bool, now: float) -> Stream:
        receive_bytes = 0 if is_dedicated else self._receive_window_bytes
        send_bytes = 0 if is_dedicated else self._send_window_bytes
        stream = self.by_id[stream_id] = Stream(
            stream_id,
            state,
            is_dedicated=is_dedicated,
            receive=ReceiveWindow(self._budget, receive_bytes, now),
            send=SendWindow(send_bytes),
        )
        return stream
