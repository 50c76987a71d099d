"""Numbers of the session with unit and reason; the configurable ones have their home in config."""

MAX_WINDOW_BYTES = 4 * 1024 * 1024
"""Largest receive window of one stream. vsock's round trip is some 80 µs, so a window hides our own
scheduling (milliseconds), not the wire: at 10 Gbit/s 4 MiB are 3.4 ms."""

PROVEN_FACTOR = 16
"""A window of n bytes is earned by a reader that has taken 16 n: 32 KiB after 512 KiB, which is
more than the kernel takes for a reader that never reads."""

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

TINY_BYTES = 32
"""A DATA frame, or a raise of credit, of fewer bytes counts towards abuse."""

PREMATURE_SECONDS = 1.0
"""A peer's stream that the peer resets sooner, and unanswered, counts towards abuse: a program that
is killed with a thousand slow dials pending is none."""

ABUSE_CAPACITY = 200_000
"""Points a peer may collect at once before the session is cut."""

ABUSE_LEAK_PER_SECOND = 100_000
"""Points forgiven each second. One point is one cheap frame, and a hundred thousand of them keep a
Python process busy: a peer that only does harm takes no more than that, and no busy one gets there.
"""

COST_CHEAP = 1
"""Tiny data, a tiny raise of credit or streams, STOP, a frame for a closed stream."""

COST_USELESS = 500
"""A grant that grants nothing, a second GOAWAY: no peer of good will sends one."""

COST_PING = 1000
"""A PING, or a PONG that nobody asked for: 200 at once are forgiven, and then 100 each second."""

COST_PREMATURE_RESET = 200
"""1,000 opens that are reset at once are forgiven, and then 500 each second (CVE-2023-44487 is far
above). What they cause is bounded besides: a stream counts until its work has ended."""
