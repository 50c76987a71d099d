"""Fuzzes the parsers: `python -m tests.fuzz.run --seconds 60` (or `--runs 100000`).

The time or number of runs is shared by all targets, or goes to the one that `--target` names. The
seed is printed; with it, and `--runs`, a run is the same again. An input that breaks a target is
written to a file, and the command that executes it again is printed. Exit status 1 if there is any.
"""

import argparse
import math
import secrets
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.fuzzer import Failure, check, fuzz
from tests.fuzz.guided import fuzz_guided
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

SHOWN_BYTES = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, or execute one input; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.target is None and (options.input is not None or options.atheris):
        parser.error("--input and --atheris are for one target: add --target")
    targets = [TARGETS[options.target]] if options.target else list(TARGETS.values())
    if options.input is not None:
        return _execute_again(targets[0], options.input)
    if options.atheris:
        return fuzz_guided(targets[0], runs=options.runs, seconds=options.seconds)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}")
    folder: Path | None = options.save
    failed = False
    for target in targets:
        report = fuzz(
            target,
            seed,
            runs=None if options.runs is None else math.ceil(options.runs / len(targets)),
            seconds=None if options.seconds is None else options.seconds / len(targets),
        )
        print(
            f"{target.name}: {report.executions} executions, "
            f"{len(report.outcomes)} outcomes, {len(report.failures)} failures",
            flush=True,
        )
        for number, failure in enumerate(report.failures, 1):
            failed = True
            folder = folder or Path(tempfile.mkdtemp(prefix="vsockproxy-fuzz-"))
            _show(failure, _save(failure, folder, number))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--seconds", type=float, help="how long, for all targets together")
    amount.add_argument("--runs", type=int, help="how many executions, for all targets together")
    amount.add_argument("--input", type=Path, help="execute this file alone; needs --target")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    parser.add_argument("--seed", type=int, help="the seed of an earlier run")
    parser.add_argument("--save", type=Path, help="folder for failing inputs (default: a new one)")
    parser.add_argument(
        "--atheris",
        action="store_true",
        help="let the branches that are reached guide the mutations; needs --target, and atheris",
    )
    return parser


def _execute_again(target: Target, path: Path) -> int:
    try:
        outcome = check(target, path.read_bytes())
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return 1
    print(f"{target.name}: {outcome}")
    return 0


def _save(failure: Failure, folder: Path, number: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{failure.target}-{number}"
    path.write_bytes(failure.data)
    return path


def _show(failure: Failure, path: Path) -> None:
    shown = failure.data[:SHOWN_BYTES].hex()
    more = "…" if len(failure.data) > SHOWN_BYTES else ""
    print(f"  {failure.text}")
    print(f"  input ({len(failure.data)} bytes): {shown}{more}")
    print(f"  again: python -m tests.fuzz.run --target {failure.target} --input {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
