"""How many streams each end may open (RFC 9000 §4.6: a total that only grows)."""

from vsockproxy.session.errors import ErrorCode, PeerProtocolError
from vsockproxy.session.frames import MAX_STREAM_ID


class LocalStreams:
    """Ids and allowance of the streams that this end opens."""

    __slots__ = ("_allowed", "_next_id", "_opened")

    def __init__(self, first_id: int, allowed: int) -> None:
        self._next_id = first_id
        self._opened = 0
        self._allowed = allowed

    @property
    def may_open(self) -> bool:
        """Whether the peer and the id space allow one more."""
        return self._opened < self._allowed and self._next_id <= MAX_STREAM_ID

    @property
    def are_used_up(self) -> bool:
        """The id space has ended: this session can open no more, ever."""
        return self._next_id > MAX_STREAM_ID

    def take_id(self) -> int:
        """The id of a new stream; `may_open` holds."""
        stream_id = self._next_id
        self._next_id += 2
        self._opened += 1
        return stream_id

    def was_opened(self, stream_id: int) -> bool:
        """Whether an id of ours was ever in use."""
        return stream_id < self._next_id

    def allow(self, total: int) -> bool:
        """Take MAX_STREAMS; False when it allows nothing new."""
        if total <= self._allowed:
            return False
        self._allowed = total
        return True


class RemoteStreams:
    """Ids and allowance of the streams that the peer opens.

    Args:
        first_id: 1 where the peer is the initiator, else 2.
        most: streams that may exist at once. A stream counts until it is released: until the work
            that it caused has ended (CVE-2023-44487 was a limit that forgot this).
    """

    __slots__ = ("_announced", "_most", "_next_id", "_opened", "_released", "is_announcement_due")

    def __init__(self, first_id: int, most: int) -> None:
        self._next_id = first_id
        self._most = most
        self._opened = 0
        self._released = 0
        self._announced = most
        self.is_announcement_due = False
        """Whether to send MAX_STREAMS: in large steps while much is left, else at once."""

    def open(self, stream_id: int) -> None:
        """The peer opened a stream.

        Raises:
            PeerProtocolError: when the id is not the next one, or the allowance is used up.
        """
        if stream_id != self._next_id or stream_id > MAX_STREAM_ID:
            raise PeerProtocolError(
                ErrorCode.PROTOCOL,
                f"stream {stream_id} was opened, {self._next_id} is next and {MAX_STREAM_ID} last",
            )
        if self._opened >= self._announced:
            raise PeerProtocolError(
                ErrorCode.STREAM_LIMIT, f"stream {self._opened + 1} of {self._announced} allowed"
            )
        self._next_id += 2
        self._opened += 1
        self._look()

    def release(self) -> None:
        """A stream of the peer and its work are gone."""
        self._released += 1
        self._look()

    def was_opened(self, stream_id: int) -> bool:
        """Whether an id of the peer's was ever in use."""
        return stream_id < self._next_id

    @property
    def highest_id(self) -> int:
        """The last id that was opened; 0 when none was."""
        return max(self._next_id - 2, 0)

    def announce(self) -> int:
        """The total for a MAX_STREAMS frame that is about to be sent."""
        self._announced = self._released + self._most
        self.is_announcement_due = False
        return self._announced

    def _look(self) -> None:
        growth = self._released + self._most - self._announced
        self.is_announcement_due = growth > (self._announced - self._opened) // 8
