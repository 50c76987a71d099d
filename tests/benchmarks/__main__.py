"""The speed of the pair beside HAProxy and socat, in one run: `python -m tests.benchmarks`."""

import json
import resource
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from tests.benchmarks import machine, pairs
from tests.benchmarks.measures import (
    IDLE_STREAMS,
    KIBIBYTE,
    MEBIBYTE,
    Amounts,
    Figures,
    idle_figures,
    idle_title,
    measures,
    sample,
)
from tests.benchmarks.pairs import Pair, Subject
from tests.benchmarks.report import table

COUNTERPARTS = ("HAProxy", "socat")
LIMIT_SECONDS = 1200
QUICK = Amounts(bulk_bytes=128 * MEBIBYTE, round_trips=1000, connections=100, idle_streams=200)
QUICK_REPETITIONS = 3
REPETITIONS = 5
DESCRIPTORS = 8192


class Run:
    """One run over all subjects.

    Args:
        subjects: what is compared; those that are missing are only named.
        amounts: how much work one sample is.
        repetitions: samples of each subject and measure.
        only: part of the names of the measures to take; empty for all.
        counterparts: what the others are divided by.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        amounts: Amounts,
        repetitions: int,
        only: str,
        counterparts: Sequence[str],
    ) -> None:
        self._subjects = subjects
        self._present = [subject for subject in subjects if not subject.missing]
        self._amounts = amounts
        self._repetitions = repetitions
        self._only = only
        self._counterparts = counterparts
        self.samples: list[dict[str, Any]] = []
        """Raw figures, in the order in which they were taken."""

    def measure(self, origin: int) -> None:
        """Take all samples, and print a table after each measure."""
        wanted = [each for each in measures(self._amounts) if self._only in each.name]
        if wanted:
            with ExitStack() as stack:
                running = {
                    subject.name: self._start(stack, subject, origin) for subject in self._present
                }
                for measure in wanted:
                    taken = self._no_samples()
                    for repetition in range(self._repetitions):
                        for name, pair in running.items():
                            work, cpu_seconds, figures = sample(measure, pair)
                            taken[name].append(figures)
                            raw = {"amount": work.amount, "seconds": work.seconds}
                            self._keep(
                                measure.name, name, repetition, figures, **raw, cpu=cpu_seconds
                            )
                    self._print(measure.title, taken)
        if self._only in IDLE_STREAMS:
            self._measure_idle(origin)

    def _measure_idle(self, origin: int) -> None:
        taken = self._no_samples()
        for subject in self._present:
            if subject.has_processes:
                figures = idle_figures(subject, origin, self._amounts)
                taken[subject.name].append(figures)
                self._keep(IDLE_STREAMS, subject.name, 0, figures)
            else:
                del taken[subject.name]
        self._print(idle_title(self._amounts), taken)

    @staticmethod
    def _start(stack: ExitStack, subject: Subject, origin: int) -> Pair:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        return stack.enter_context(subject.start(origin, Path(directory)))

    def _no_samples(self) -> dict[str, list[Figures]]:
        return {subject.name: [] for subject in self._subjects}

    def _keep(
        self, measure: str, subject: str, repetition: int, figures: Figures, **raw: float | None
    ) -> None:
        self.samples.append(
            {"measure": measure, "subject": subject, "repetition": repetition, **raw, **figures}
        )

    def _print(self, title: str, taken: dict[str, list[Figures]]) -> None:
        for line in table(title, taken, self._counterparts):
            print(line)
        for subject in self._subjects:
            if subject.missing:
                print(f"{subject.name}: missing, {subject.missing}")
        print(flush=True)


@click.command()
@click.option("--quick", is_flag=True, help="A short run, under 40 seconds; its figures are rough.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all samples to.")
@click.option("--repetitions", type=click.IntRange(1, 100), help="Samples of each kind.")
@click.option("--mebibytes", type=click.IntRange(1, 16_384), help="Size of a bulk transfer.")
@click.option("--only", default="", metavar="TEXT", help="Measures whose name has TEXT in it.")
@click.option(
    "--beside",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    multiple=True,
    metavar="DIR",
    help="Another checkout of this project, measured in the same run; the others are divided by it.",
)
def main(
    quick: bool,
    json_file: Path | None,
    repetitions: int | None,
    mebibytes: int | None,
    only: str,
    beside: tuple[Path, ...],
) -> None:
    """Measure the pair beside HAProxy and socat on the same work in the same run."""
    amounts = QUICK if quick else Amounts()
    if mebibytes is not None:
        amounts = Amounts(
            mebibytes * MEBIBYTE, amounts.round_trips, amounts.connections, amounts.idle_streams
        )
    repetitions = repetitions or (QUICK_REPETITIONS if quick else REPETITIONS)
    subjects = [pairs.vsockproxy("vsockproxy, shared", "shared")]
    subjects += [pairs.vsockproxy(f"{tree.name}, shared", "shared", tree) for tree in beside]
    subjects += [pairs.vsockproxy("vsockproxy, dedicated", "dedicated")]
    subjects += [pairs.vsockproxy(f"{tree.name}, dedicated", "dedicated", tree) for tree in beside]
    subjects += [pairs.haproxy(), pairs.socat(), pairs.direct()]
