"""A token bucket: so many in a second, and a burst after a quiet time."""

__all__ = ("TokenBucket",)


class TokenBucket:
    """Counts what has been taken; the rate and the burst are given each time, as they are then.

    It counts what was spent and has not come back, so that a new bucket is a full one.
    """

    __slots__ = ("_counted_at", "_spent")

    def __init__(self) -> None:
        self._spent = 0.0
        self._counted_at = 0.0

    def take(self, rate: float, burst: float, now: float) -> bool:
        """Take one token, if there is one.

        Args:
            rate: tokens that come back in a second.
            burst: tokens that a full bucket has, at least 1.
            now: seconds on a clock that does not go back.
        """
        spent = self._left_over(rate, now)
        has_one = spent + 1 <= burst
        self._spent = spent + 1 if has_one else spent
        self._counted_at = now
        return has_one

    def is_full(self, rate: float, now: float) -> bool:
        """Whether every token has come back, so that a new bucket is as good."""
        return not self._left_over(rate, now)

    def _left_over(self, rate: float, now: float) -> float:
        """What is spent by now; the tokens of the time since it was counted have come back."""
        return max(0.0, self._spent - (now - self._counted_at) * rate)
