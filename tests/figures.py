"""What a test run came to, kept as a file, so that several runs end in one total.

`python -m tests.figures FILE...` prints the total of the runs that wrote those files. A test that
needs a real vsock, or a machine of its own, is skipped by `make test` on most machines and run by
`make test-vsock` or `make test-machine`: in their total it counts as run.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click


@dataclass(frozen=True, slots=True)
class Skipped:
    """One test that did not run, or one module of tests."""

    test: str
    reason: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One run, or the total of several."""

    passed: int
    failed: int
    """Tests that failed, and errors outside of tests."""
    on_vsock: tuple[str, ...]
    """The tests that ran on a real vsock."""
    on_machines: tuple[str, ...]
    """The tests that built or booted machines of their own."""
    skipped: tuple[Skipped, ...]

    def write(self, path: Path) -> None:
        """Keep this run for `read`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Figures":
        """The run that `write` kept."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            passed=kept["passed"],
            failed=kept["failed"],
            on_vsock=tuple(kept["on_vsock"]),
            on_machines=tuple(kept["on_machines"]),
            skipped=tuple(Skipped(**entry) for entry in kept["skipped"]),
        )


def total(runs: Iterable[Figures]) -> Figures:
    """The sum of `runs`; what one skipped and another ran where it can is not skipped."""
    runs = list(runs)
    on_vsock = tuple(sorted({test for run in runs for test in run.on_vsock}))
    on_machines = tuple(sorted({test for run in runs for test in run.on_machines}))
    skipped = {skip.test: skip for run in runs for skip in run.skipped}
    return Figures(
        passed=sum(run.passed for run in runs),
        failed=sum(run.failed for run in runs),
        on_vsock=on_vsock,
        on_machines=on_machines,
        skipped=tuple(
            skip for test, skip in skipped.items() if test not in {*on_vsock, *on_machines}
        ),
    )


def report(figures: Figures) -> Iterable[str]:
    """The lines for people, the closing line last: `N passed, N failed, N skipped`."""
    for reason, count in sorted(Counter(skip.reason for skip in figures.skipped).items()):
        yield f"skipped {count}: {reason}"
    yield f"{len(figures.on_vsock)} tests ran on a real vsock"
    yield f"{figures.passed} passed, {figures.failed} failed, {len(figures.skipped)} skipped"


@click.command
@click.option("--complete", is_flag=True, help="A skipped test is a failure.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def main(context: click.Context, files: Sequence[Path], complete: bool) -> None:
    """Print the total of the test runs kept in FILES."""
    missing = [path for path in files if not path.is_file()]
    figures = total(Figures.read(path) for path in files if path not in missing)
    for path in missing:
        click.echo(f"{path}: missing, that run did not come to its end")
    is_complete = not (complete and figures.skipped)
    if not is_complete:
        click.echo("this machine was set up to skip nothing, and tests were skipped")
    for line in report(figures):
        click.echo(line)
    context.exit(1 if figures.failed or missing or not is_complete else 0)


if __name__ == "__main__":
    main()
