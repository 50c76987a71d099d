"""Runs one target on mutated inputs and keeps those that break its invariant."""

import random
import re
import signal
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from tests.fuzz.mutator import MAX_INPUT_BYTES, Mutator
from tests.fuzz.target import Target

MOST_CPU_SECONDS = 2.0
"""For one input; whoever takes longer lets others wait as long."""

EXECUTIONS_FOR_EACH_MEMORY_CHECK = 32
"""Counting every allocation makes an execution several times slower."""

MAX_POOL_INPUTS = 1000
MAX_FAILURES = 5

_VARIABLE = re.compile(r"['\"].*['\"]|\(.*\)|\S*[^A-Za-z\s,:;/]\S*", re.DOTALL)
"""What outcomes of one kind differ in: what is quoted, and words with more than letters."""


class TooSlow(Exception):
    """An execution took more than `MOST_CPU_SECONDS`."""


class TooMuchMemory(Exception):
    """An execution's peak was above what its target allows."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that broke the invariant."""

    target: str
    data: bytes
    text: str
    """The error and where it was raised."""


@dataclass(slots=True)
class Report:
    """What came of fuzzing one target."""

    target: str
    executions: int = 0
    outcomes: set[str] = field(default_factory=set)
    """The different ways in which executions ended."""
    failures: list[Failure] = field(default_factory=list)
    """One for each place that raised, at most `MAX_FAILURES`."""


def check(target: Target, data: bytes, *, measures_memory: bool = True) -> str:
    """Execute `target` once and return how it ended; raises whatever breaks the invariant."""
    with _cpu_limit(MOST_CPU_SECONDS):
        if not measures_memory:
            return target.execute(data)
        tracemalloc.start()
        try:
            outcome = target.execute(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    allowed = target.most_memory_bytes + target.most_memory_factor * len(data)
    if peak > allowed:
        raise TooMuchMemory(f"{peak} bytes for an input of {len(data)}, at most {allowed}")
    return outcome


def fuzz(
    target: Target, seed: int, *, runs: int | None = None, seconds: float | None = None
) -> Report:
    """Execute the corpus, then mutants, until `runs` or `seconds` are used up.

    An input that ends in a way not seen before joins the pool that mutants are made of.
    """
    choice = random.Random(f"{target.name} {seed}")
    mutator = Mutator(choice, target.dictionary)
    pool = list(target.corpus)
    report = Report(target.name)
    places: set[str] = set()
    ends = None if seconds is None else time.monotonic() + seconds
    for data in target.corpus:
        _try(target, data, report, places, measures_memory=False)  # Imports and caches settle.
    while len(report.failures) < MAX_FAILURES:
        if runs is not None and report.executions >= runs:
            break
        if ends is not None and time.monotonic() >= ends:
            break
        data = mutator.mutate(pool)
        measures_memory = report.executions % EXECUTIONS_FOR_EACH_MEMORY_CHECK == 0
        is_new = _try(target, data, report, places, measures_memory=measures_memory)
        if is_new and len(pool) < MAX_POOL_INPUTS and len(data) < MAX_INPUT_BYTES:
            pool.append(data)
    return report


def _try(
    target: Target, data: bytes, report: Report, places: set[str], *, measures_memory: bool
) -> bool:
    report.executions += 1
    try:
        outcome = check(target, data, measures_memory=measures_memory)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
        if place not in places:
            places.add(place)
            report.failures.append(Failure(target.name, data, f"{place}: {error}"))
        return False
    kind = _VARIABLE.sub("…", outcome)[:100]
    is_new = kind not in report.outcomes
    report.outcomes.add(kind)
    return is_new


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
