"""What is measured: the loads, the figures that each gives, and how a sample is taken."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from tests.benchmarks import load
from tests.benchmarks.load import Work
from tests.benchmarks.pairs import Pair, Subject
from tests.benchmarks.processes import ProcessTree

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
GIBIBYTE = 1024 * MEBIBYTE

SETTLED_SECONDS = 0.04
MOST_SETTLING_SECONDS = 2.0

Figures = dict[str, float]
"""By the name of the figure, its unit at the end; CPU is absent where there is no pair."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much work one sample is.

    Args:
        bulk_bytes: in each direction.
        round_trips: on one stream; four times as many are spread over 64 streams.
        connections: one after the other; twice as many with 32 under way.
        idle_streams: streams whose memory is measured.
    """

    bulk_bytes: int = GIBIBYTE
    round_trips: int = 8000
    connections: int = 600
    idle_streams: int = 1000


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of work.

    Args:
        name: short, for `--only` and JSON.
        title: as tables say it.
        run: does the work through the port of a pair.
        figures: from what was done and the CPU seconds of the pair (None without one).
    """

    name: str
    title: str
    run: Callable[[int], Work]
    figures: Callable[[Work, float | None], Figures]


def measures(amounts: Amounts) -> list[Measure]:
    """Everything but memory, which needs a fresh pair."""
    size = amounts.bulk_bytes
    text = f"{size // MEBIBYTE} MiB"
    trips, streams, at_once = amounts.round_trips, 64, 32
    return [
        Measure(
            "bulk-up",
            f"One stream, {text} from the program to the destination",
            lambda port: load.bulk_up(port, size),
            _bulk_figures,
        ),
        Measure(
            "bulk-down",
            f"One stream, {text} from the destination to the program",
            lambda port: load.bulk_down(port, size),
            _bulk_figures,
        ),
        Measure(
            "bulk-both",
            f"One stream, {text} in each direction at once (both are counted)",
            lambda port: load.bulk_both(port, size),
            _bulk_figures,
        ),
        Measure(
            "round-trips",
            f"512 bytes there and back, {trips} times on one stream",
            lambda port: load.round_trips(port, trips),
            _latency_figures,
        ),
        Measure(
            "round-trips-64",
            f"512 bytes there and back, {4 * trips} times on {streams} streams at once",
            lambda port: load.round_trips_at_once(port, 4 * trips, streams),
            _rate_figures,
        ),
        Measure(
            "connections",
            f"{amounts.connections} connections, one after the other: connect, a byte there and "
            "back, close",
            lambda port: load.connections(port, amounts.connections),
            _connection_figures,
        ),
        Measure(
            "connections-32",
            f"{2 * amounts.connections} connections, {at_once} at once",
            lambda port: load.connections_at_once(port, 2 * amounts.connections, at_once),
            _connection_figures,
        ),
    ]


def sample(measure: Measure, pair: Pair) -> tuple[Work, float | None, Figures]:
    """Do the work once: what was done, the pair's CPU seconds, and the figures."""
    processes = pair.processes
    if processes is None:
        work = measure.run(pair.port)
        return work, None, measure.figures(work, None)
    before = processes.cpu_seconds()
    work = measure.run(pair.port)
    cpu_seconds = _settled_cpu_seconds(processes) - before
    return work, cpu_seconds, measure.figures(work, cpu_seconds)


def _settled_cpu_seconds(processes: ProcessTree) -> float:
    """CPU seconds once the pair has cleaned up and written its log."""
    limit = time.monotonic() + MOST_SETTLING_SECONDS
    before = processes.cpu_seconds()
    while True:
        time.sleep(SETTLED_SECONDS)
        now = processes.cpu_seconds()
        if now == before or time.monotonic() > limit:
            return now
        before = now


IDLE_STREAMS = "idle-streams"


def idle_title(amounts: Amounts) -> str:
    """The title of the table of memory."""
    return f"Memory of {amounts.idle_streams} idle streams (user memory of both processes, Pss)"


def idle_figures(subject: Subject, origin: int, amounts: Amounts) -> Figures:
    """Memory of idle streams in a fresh pair, which has served a few connections before."""
    with (
        tempfile.TemporaryDirectory() as directory,
        subject.start(origin, Path(directory)) as pair,
    ):
        assert pair.processes is not None  # only subjects with processes are asked
        load.connections(pair.port, 16)
        _settled_cpu_seconds(pair.processes)
        before = pair.processes.memory_bytes()
        with load.idle_streams(pair.port, amounts.idle_streams):
            _settled_cpu_seconds(pair.processes)
            after = pair.processes.memory_bytes()
    return {
        "KiB/stream": (after - before) / amounts.idle_streams / KIBIBYTE,
        "MiB at rest": before / MEBIBYTE,
    }


def _bulk_figures(work: Work, cpu_seconds: float | None) -> Figures:
    gibibytes = work.amount / GIBIBYTE
    figures = {"GiB/s": gibibytes / work.seconds}
    if cpu_seconds is not None:
        figures["CPU s/GiB"] = cpu_seconds / gibibytes
    return figures


def _latency_figures(work: Work, cpu_seconds: float | None) -> Figures:
    percentiles = quantiles(work.latencies_seconds, n=100)
    figures = {"p50 us": percentiles[49] * 1e6, "p99 us": percentiles[98] * 1e6}
    return figures | _cpu_each(work, cpu_seconds)


def _rate_figures(work: Work, cpu_seconds: float | None) -> Figures:
    return {"per second": work.amount / work.seconds} | _cpu_each(work, cpu_seconds)


def _connection_figures(work: Work, cpu_seconds: float | None) -> Figures:
    percentiles = quantiles(work.latencies_seconds, n=100)
    return {
        "per second": work.amount / work.seconds,
        "p99 ms": percentiles[98] * 1e3,
    } | _cpu_each(work, cpu_seconds)


def _cpu_each(work: Work, cpu_seconds: float | None) -> Figures:
    return {} if cpu_seconds is None else {"CPU us": cpu_seconds / work.amount * 1e6}
