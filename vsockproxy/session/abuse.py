"""A leaky bucket that tells a clumsy peer from a hostile one."""

from vsockproxy.session.errors import ErrorCode, PeerProtocolError
from vsockproxy.session.limits import ABUSE_CAPACITY, ABUSE_LEAK_PER_SECOND


class AbuseMeter:
    """Adds up points for frames that are allowed but do only harm in numbers.

    The level falls by `ABUSE_LEAK_PER_SECOND`; above `ABUSE_CAPACITY` the session is cut.
    """

    __slots__ = ("_level", "_since", "total")

    def __init__(self, now: float) -> None:
        self._level = 0.0
        self._since = now
        self.total = 0

    def charge(self, points: int, what: str, now: float) -> None:
        """Add points for one frame.

        Raises:
            PeerProtocolError: with ABUSE, naming `what`, when the level is above the capacity.
        """
        self.total += points
        level = self._level - (now - self._since) * ABUSE_LEAK_PER_SECOND
        self._level = (level if level > 0 else 0.0) + points
        self._since = now
        if self._level > ABUSE_CAPACITY:
            raise PeerProtocolError(ErrorCode.ABUSE, f"too many {what}")
