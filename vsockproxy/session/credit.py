"""Flow control of one direction of one stream, and the budget that all streams share.

Credit is absolute: a grant names the total number of bytes that may ever be sent on the stream (as
MAX_STREAM_DATA does in RFC 9000 §4.1), so a repeated or late grant does no harm and what is due is
one integer.

The rules of the receiving end:

1. A stream's window is reserved from the budget for as long as the stream lives, so whatever was
   granted can always be held, and no stream can take another's credit.
2. Credit is given when the next hop has taken the bytes (`consume`), never when they arrive.
3. It is given once half of the window has been consumed, and not at all for a direction that has
   ended or that this end has asked to stop.
4. A window that was used up within two round trips doubles, out of budget that nobody has
   reserved, to at most a quarter of what is unreserved and at most `MAX_WINDOW_BYTES`.
5. It doubles once the next hop has taken `PROVEN_FACTOR` times the doubled size. The kernel takes
   some 290 KiB at full speed for a reader that has stopped; windows that grew on those bytes would
   leave nothing for the streams that work.
"""

from vsockproxy.session.errors import ErrorCode, LocalProtocolError, PeerProtocolError
from vsockproxy.session.limits import MAX_WINDOW_BYTES, PROVEN_FACTOR


class ReceiveBudget:
    """Bytes that the receivers of one enclave's streams may hold, and how many streams it may have.

    Args:
        total_bytes: the limit (`limits.receive_budget`); nothing is allocated.
        max_streams: streams that may exist at once over all sessions (`limits.streams`).
    """

    __slots__ = ("max_streams", "reserved_bytes", "streams", "total_bytes")

    def __init__(self, total_bytes: int, max_streams: int) -> None:
        self.total_bytes = total_bytes
        self.max_streams = max_streams
        self.reserved_bytes = 0
        self.streams = 0

    @property
    def unreserved_bytes(self) -> int:
        """What windows may still grow from."""
        return self.total_bytes - self.reserved_bytes

    def admit_stream(self, window_bytes: int) -> bool:
        """Take a place and a first window for one stream; False when either is used up."""
        if self.streams >= self.max_streams or self.unreserved_bytes < window_bytes:
            return False
        self.streams += 1
        self.reserved_bytes += window_bytes
        return True

    def dismiss_stream(self, window_bytes: int) -> None:
        """Give a stream's place and its whole window back."""
        self.streams -= 1
        self.reserved_bytes -= window_bytes
        if self.streams < 0 or self.reserved_bytes < 0:
            raise LocalProtocolError("a stream gave back more than it had reserved")

    def extend(self, window_bytes: int, wanted_bytes: int) -> int:
        """Reserve growth for a window of `window_bytes`; returns the bytes added, perhaps 0."""
        largest = min(wanted_bytes, MAX_WINDOW_BYTES, self.unreserved_bytes // 4)
        added = max(0, largest - window_bytes)
        self.reserved_bytes += added
        return added


class ReceiveWindow:
    """What one stream may still be sent, as granted by this end."""

    __slots__ = ("budget", "consumed", "granted", "granted_at", "received", "size_bytes")

    def __init__(self, budget: ReceiveBudget, size_bytes: int, now: float) -> None:
        self.budget = budget
        self.size_bytes = size_bytes
        self.granted = size_bytes
        self.granted_at = now
        self.received = 0
        self.consumed = 0

    def receive(self, length_bytes: int) -> None:
        """Account for arriving data, before any of it is kept.

        Raises:
            PeerProtocolError: with FLOW_CONTROL when it is more than was granted.
        """
        received = self.received + length_bytes
        if received > self.granted:
            raise PeerProtocolError(
                ErrorCode.FLOW_CONTROL,
                f"{received} bytes were sent on a stream that was granted {self.granted}",
            )
        self.received = received

    def consume(self, length_bytes: int) -> bool:
        """Account for bytes that the next hop took; True when half of the window is used up.

        Raises:
            LocalProtocolError: when more is consumed than arrived.
        """
        self.consumed += length_bytes
        if self.consumed > self.received:
            raise LocalProtocolError("more bytes were consumed than arrived")
        return self.granted - self.consumed <= self.size_bytes // 2

    def grant(self, now: float, round_trip_seconds: float) -> bool:
        """Grant what was consumed, and more where the window is too small for the round trip.

        Returns:
            Whether the total grew: a window of 0 bytes has nothing to grant.
        """
        doubled = 2 * self.size_bytes
        is_used_up = now - self.granted_at < 2 * round_trip_seconds
        if is_used_up and self.consumed >= PROVEN_FACTOR * doubled:
            self._grow_to(doubled)
        self.granted_at = now
        return self._grant()

    def widen(self, size_bytes: int) -> bool:
        """Make the window larger than the first one, as far as the budget goes; as `grant`."""
        self._grow_to(size_bytes)
        return self._grant()

    def _grow_to(self, size_bytes: int) -> None:
        self.size_bytes += self.budget.extend(self.size_bytes, size_bytes)

    def _grant(self) -> bool:
        granted, self.granted = self.granted, self.consumed + self.size_bytes
        return self.granted > granted


class SendWindow:
    """What this end may still send on one stream, as granted by the peer."""

    __slots__ = ("limit", "sent", "stalls")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sent = 0
        self.stalls = 0
        """Times that the driver had something to send, and no credit."""

    def raise_to(self, limit: int) -> bool:
        """Take a grant; False when it grants nothing new (it is then ignored)."""
        if limit <= self.limit:
            return False
        self.limit = limit
        return True

    def send(self, length_bytes: int) -> None:
        """Account for data about to be sent.

        Raises:
            LocalProtocolError: when the peer did not grant it.
        """
        sent = self.sent + length_bytes
        if sent > self.limit:
            raise LocalProtocolError(f"{sent} bytes exceed the peer's grant of {self.limit}")
        self.sent = sent
