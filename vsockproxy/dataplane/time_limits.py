"""How often streams are looked at for their limits of time."""

from typing import Final

from vsockproxy.config.model import Limits

LOOKS_IN_A_LIMIT: Final = 8
SHORTEST_SECONDS: Final = 0.02
LONGEST_SECONDS: Final = 5.0


def look_seconds(limits: Limits) -> float:
    """Seconds until the next look, so that no stream outlasts a limit by much."""
    shortest = min((limit for limit in (limits.half_closed, limits.idle) if limit), default=None)
    if shortest is None:
        return LONGEST_SECONDS
    return min(max(shortest / LOOKS_IN_A_LIMIT, SHORTEST_SECONDS), LONGEST_SECONDS)
