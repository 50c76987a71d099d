"""Time to the first byte by each way in: `python -m tests.benchmarks.first_byte`.

One sandbox, one destination on loopback that speaks first. The ways take turns, so that whatever
else the machine does falls on all of them. A lookup is part of the way `names`, a CONNECT and its
answer of the others.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from tests.names.machines import HOSTS, hosts, machine

CONNECTIONS = 200
REPETITIONS = 5
WAYS = ("names", "http", "socks")


def main() -> int:
    """Measure and print."""
    with hosts() as port, tempfile.TemporaryDirectory() as directory:
        rule = {"address": "open.test", "port": port, "private": True}
        allowlist = [rule | {"dial": f"{HOSTS[0]}:{port}"}]
        enclave = {"allowlist": [rule], "shim": {"socks5": "127.0.0.1:1080"}}
        with machine(Path(directory), {"allowlist": allowlist}, enclave) as running:
            taken: dict[str, list[float]] = {way: [] for way in WAYS}
            for way in WAYS:
                running.ask("seconds_to_first_byte", way, "open.test", port, CONNECTIONS // 4)
            for _ in range(REPETITIONS):
                for way in WAYS:
                    seconds = running.ask(
                        "seconds_to_first_byte", way, "open.test", port, CONNECTIONS
                    )
                    taken[way].append(statistics.median(seconds) * 1e6)
    print(f"from the lookup to the first byte, medians of {CONNECTIONS}, {REPETITIONS} times:")
    base = taken["http"]
    for way in WAYS:
        ratio = statistics.median(a / b for a, b in zip(taken[way], base, strict=True))
        spread = " ".join(f"{each:.0f}" for each in taken[way])
        print(f"{way:8} {statistics.median(taken[way]):7.0f} us   / http {ratio:.2f}   ({spread})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
