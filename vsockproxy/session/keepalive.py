"""Proof of life of a link, and its round trip.

vsock has no keepalive of its own, and a wedged device looks like silence. After `PING_IDLE_SECONDS`
without a byte a PING goes out, after `DEAD_SECONDS` the session is over. Time in which our own loop
did not run is not held against the peer: its bytes may lie unread in the kernel.
"""

from collections import deque

from vsockproxy.session.limits import (
    ASSUMED_ROUND_TRIP_SECONDS,
    DEAD_SECONDS,
    LATE_SECONDS,
    LEAST_ROUND_TRIP_SECONDS,
    MEASURE_SECONDS,
    PING_IDLE_SECONDS,
)

KEPT_SAMPLES = 8
"""One is made in a second at most, and they are counted every second."""


class Keepalive:
    """When to ask, when to give up, and how long a round trip takes."""

    __slots__ = (
        "_heard_at",
        "_ping_nonce",
        "_ping_sent_at",
        "_pinged_at",
        "measured_seconds",
        "ping_due",
        "pong_due",
        "round_trip_seconds",
        "samples",
    )

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._pinged_at = now
        self._ping_nonce = 0
        self._ping_sent_at: float | None = None
        """When the ping that is unanswered was made; there is at most one."""
        self.round_trip_seconds = ASSUMED_ROUND_TRIP_SECONDS
        self.measured_seconds: float | None = None
        """The latest round trip; None before the first."""
        self.samples: deque[float] = deque(maxlen=KEPT_SAMPLES)
        """The latest round trips in seconds, for whoever takes them out to count them."""
        self.ping_due: int | None = None
        """The nonce of a PING that is to be sent."""
        self.pong_due: bytes | None = None
        """The payload of the latest PING that is to be answered."""
        self._ping(now)

    def heard(self, now: float) -> None:
        """Bytes arrived."""
        self._heard_at = now

    def measure(self, now: float) -> None:
        """Ask for the round trip if that is due; called while data flows."""
        if now - self._pinged_at >= MEASURE_SECONDS and self._ping_sent_at is None:
            self._ping(now)

    def answered(self, nonce: int, now: float) -> bool:
        """A PONG arrived; False when nobody asked for it."""
        if self._ping_sent_at is None or nonce != self._ping_nonce:
            return False
        sample = max(now - self._ping_sent_at, LEAST_ROUND_TRIP_SECONDS)
        self._ping_sent_at = None
        self.samples.append(sample)
        self.measured_seconds = sample
        # As TCP smooths it (RFC 6298 §2.3), but from the first sample on.
        self.round_trip_seconds += (sample - self.round_trip_seconds) / 8
        return True

    def next_deadline(self) -> float:
        """When `handle_deadline` wants to be called."""
        if self._ping_sent_at is None:
            return self._heard_at + PING_IDLE_SECONDS
        return self._heard_at + DEAD_SECONDS

    def handle_deadline(self, now: float) -> bool:
        """Ask whether the peer is there; True when it is given up."""
        deadline = self.next_deadline()
        if now < deadline:
            return False
        if now - deadline > LATE_SECONDS:
            # We did not run; whatever we missed is to be read first.
            self._heard_at = now
            return False
        if self._ping_sent_at is None:
            self._ping(now)
            return False
        return True

    def _ping(self, now: float) -> None:
        self._ping_nonce += 1
        self._ping_sent_at = now
        self._pinged_at = now
        self.ping_due = self._ping_nonce
