"""A worker of a parent whose clock is ahead of this machine's.

python -m tests.as_init.worker_ahead DESCRIPTOR
"""

import time

AHEAD_SECONDS = 5

_time_ns = time.time_ns

if __name__ == "__main__":
    # As a library for false clocks does it for other programs; everything else is the real worker.
    time.time_ns = lambda: _time_ns() + AHEAD_SECONDS * 1_000_000_000

    from parent_side.worker import make_side
    from vsockproxy.dataplane.worker import run_worker

    run_worker(make_side)
