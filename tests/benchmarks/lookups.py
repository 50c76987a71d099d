"""What 200 dead names of one enclave cost another: `python -m tests.benchmarks.lookups`.

Both measurements are one run: 500 uncached lookups of a healthy enclave, one after the other, alone
and while 200 lookups of another enclave for names that no server answers are under way.
"""

import asyncio
import time
from statistics import quantiles

from parent_side.resolver import Resolver
from tests.support.dns_server import Addresses, DnsServer, Silent
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop

LOOKUPS = 500
DEAD_LOOKUPS = 200
TIMEOUT_SECONDS = 5.0


async def measure(names: Resolver, label: str) -> list[float]:
    """Look up `LOOKUPS` names, print what that took, and give it in seconds."""
    taken = []
    for number in range(LOOKUPS):
        started = time.perf_counter()
        await names.resolve(f"n{number}.{label}.alive.test", enclave=17)
        taken.append(time.perf_counter() - started)
    percentiles = quantiles(taken, n=100)
    print(
        f"{label:>9}: p50 {percentiles[49] * 1000:.2f} ms, p99 {percentiles[98] * 1000:.2f} ms, "
        f"most {max(taken) * 1000:.2f} ms"
    )
    return percentiles


async def compare(server: DnsServer) -> float:
    """Measure alone and beside dead lookups; give the difference of the p99 in seconds."""
    names = Resolver(ResolverSettings(servers=[server.address], timeout=TIMEOUT_SECONDS))
    await names.resolve("warm.alive.test", enclave=17)
    alone = await measure(names, "alone")
    dead = [
        asyncio.create_task(names.resolve(f"n{number}.dead.test", enclave=16))
        for number in range(DEAD_LOOKUPS)
    ]
    await loop.sleep(0)
    beside = await measure(names, "beside")
    print(f"{sum(not task.done() for task in dead)} of {DEAD_LOOKUPS} dead lookups still wait")
    for task in dead:
        task.cancel()
    await asyncio.gather(*dead, return_exceptions=True)
    return beside[98] - alone[98]


def main() -> None:
    """Print both measurements and by how much the dead lookups moved the p99."""
    with DnsServer() as server:
        server.set("*.alive.test", Addresses("192.0.2.1", "2001:db8::1"))
        server.set("*.dead.test", Silent())
        moved = loop.run(compare(server))
    print(f"200 dead lookups moved the other enclave's p99 by {moved * 1000:.2f} ms")


if __name__ == "__main__":
    main()
