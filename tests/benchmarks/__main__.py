"""The speed of the pair beside HAProxy and socat, in one run: `python -m tests.benchmarks`."""

import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from tests.benchmarks import machine, pairs
from tests.benchmarks.measures import (
    IDLE_STREAMS,
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
from vsockproxy.processes import raise_descriptor_limit

LIMIT_SECONDS = 1500
QUICK = Amounts(bulk_bytes=128 * MEBIBYTE, round_trips=1000, connections=100, idle_streams=200)
QUICK_REPETITIONS = 3
REPETITIONS = 5


class Run:
    """One run over all subjects.

    Args:
        subjects: what is compared; those that are missing are only named.
        counterparts: what the others are divided by.
        amounts: how much work one sample is.
        repetitions: samples of each subject and measure.
        only: part of the names of the measures to take; empty for all.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        counterparts: Sequence[str],
        *,
        amounts: Amounts,
        repetitions: int,
        only: str,
    ) -> None:
        self._subjects = subjects
        self._present = [subject for subject in subjects if not subject.missing]
        self._amounts = amounts
        self.repetitions = repetitions
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
                    for repetition in range(self.repetitions):
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
        taken: dict[str, list[Figures]] = {
            subject.name: [] for subject in self._subjects if subject.has_processes
        }
        for subject in self._present:
            if subject.has_processes:
                figures = idle_figures(subject, origin, self._amounts)
                taken[subject.name].append(figures)
                self._keep(IDLE_STREAMS, subject.name, 0, figures)
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
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all samples to this file.",
)
@click.option("--repetitions", type=click.IntRange(1, 100), help="Samples of each kind.")
@click.option("--mebibytes", type=click.IntRange(1, 16_384), help="Size of a bulk transfer.")
@click.option("--only", default="", metavar="TEXT", help="Measures whose name has TEXT in it.")
@click.option(
    "--beside",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    metavar="DIR",
    help="Compare with another checkout of this project, in place of HAProxy and socat.",
)
def main(
    quick: bool,
    json_file: Path | None,
    repetitions: int | None,
    mebibytes: int | None,
    only: str,
    beside: Path | None,
) -> None:
    """Measure the pair beside HAProxy and socat, on the same work in the same run."""
    amounts = QUICK if quick else Amounts()
    if mebibytes is not None:
        amounts = replace(amounts, bulk_bytes=mebibytes * MEBIBYTE)
    run = Run(
        *(_comparison() if beside is None else _comparison_with(beside)),
        amounts=amounts,
        repetitions=repetitions or (QUICK_REPETITIONS if quick else REPETITIONS),
        only=only,
    )
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(LIMIT_SECONDS)
    raise_descriptor_limit()
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **machine.describe(),
        "load before": f"{machine.load_average():.2f}",
    }
    print(*(f"{key}: {value}" for key, value in about.items()), sep="\n")
    print(f"medians of {run.repetitions}; a ratio is the median of those of each repetition\n")
    with pairs.listening_origin() as origin:
        run.measure(origin)
    if json_file is not None:
        result = {"about": about, "amounts": asdict(amounts), "samples": run.samples}
        json_file.write_text(json.dumps(result, indent=1) + "\n")
        print(f"all samples are in {json_file}")


def _comparison() -> tuple[list[Subject], list[str]]:
    subjects = [
        pairs.vsockproxy("vsockproxy, shared", "shared"),
        pairs.vsockproxy("vsockproxy, dedicated", "dedicated"),
        pairs.haproxy(),
        pairs.socat(),
        pairs.direct(),
    ]
    return subjects, ["HAProxy", "socat"]


def _comparison_with(tree: Path) -> tuple[list[Subject], list[str]]:
    subjects: list[Subject] = []
    for carrier in ("shared", "dedicated"):
        subjects.append(pairs.vsockproxy(f"this tree, {carrier}", carrier))
        subjects.append(pairs.vsockproxy(f"{tree.name}, {carrier}", carrier, tree))
    return subjects, [f"{tree.name}, {carrier}" for carrier in ("shared", "dedicated")]


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(1)


def _give_up(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(f"the benchmark took longer than {LIMIT_SECONDS} s")


if __name__ == "__main__":
    main()
