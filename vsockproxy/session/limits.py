"""Numbers of the session with unit and reason; the configurable ones have their home in config."""

MAX_WINDOW_BYTES = 4 * 1024 * 1024
"""Largest receive window of one stream. vsock's round trip is some 80 µs, so a window hides our own
scheduling (milliseconds), not the wire: at 10 Gbit/s 4 MiB are 3.4 ms."""

PING_IDLE_SECONDS = 5.0
"""Silence after which we ask whether the peer is there."""

DEAD_SECONDS = 15.0
"""Silence after which the session is over: three pings unanswered."""

LATE_SECONDS = 1.0
"""A deadline served later than this means our own loop did not run; that time does not count."""

MEASURE_SECONDS = 1.0
"""While data flows, the round trip is measured this often."""

ASSUMED_ROUND_TRIP_SECONDS = 0.010
"""Until the first PONG."""

LEAST_ROUND_TRIP_SECONDS = 0.000_5
"""Below this, what counts is how often the two event loops run."""

MAX_RESOLVES = 256
"""RESOLVE requests that may be unanswered in each direction."""

TINY_DATA_BYTES = 32
"""A DATA frame below this that does not end its direction counts towards abuse."""

ABUSE_CAPACITY = 40_000
"""Points a peer may collect at once before the session is cut."""

ABUSE_LEAK_PER_SECOND = 20_000
"""Points forgiven each second: more tiny frames than one Python process can serve anyway."""

COST_TINY_DATA = 1
COST_LATE_FRAME = 1
COST_USELESS_CREDIT = 100
COST_PING = 200
COST_PREMATURE_RESET = 40
"""500 unanswered opens reset at once and each second are forgiven (CVE-2023-44487 is far above)."""
