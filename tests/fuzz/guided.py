"""Fuzzes one target with mutations that the branches it reaches guide, by atheris and libFuzzer.

What a target demands of each execution is checked as `fuzzer` does it. The corpus that grows is
kept in a folder, which is printed, with the inputs that break the invariant.
"""

import gc
import importlib
import math
import sys
import tempfile
from itertools import count
from pathlib import Path
from types import FunctionType

from tests.fuzz.fuzzer import EXECUTIONS_FOR_EACH_MEMORY_CHECK, check
from tests.fuzz.mutator import MAX_INPUT_BYTES
from tests.fuzz.target import Target

__all__ = ("fuzz_guided",)

PACKAGES = ("vsockproxy", "enclave_side", "parent_side")


def fuzz_guided(target: Target, *, runs: int | None, seconds: float | None) -> int:
    """Fuzz until `runs` or `seconds` are used up, or an input breaks the invariant.

    It ends the process, with status 0 if none did; returns 2 if atheris is not installed.
    """
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install atheris, or leave --atheris out")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="vsockproxy-fuzz-"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(target.corpus):
        (corpus / str(number)).write_bytes(data)
    dictionary = folder / "dictionary"
    dictionary.write_text("".join(_quoted(piece) for piece in target.dictionary))
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and _is_ours(function):
            atheris.instrument_func(function)
    executions = count()

    def execute(data: bytes) -> None:
        is_measured = next(executions) % EXECUTIONS_FOR_EACH_MEMORY_CHECK == 0
        check(target, data, measures_memory=is_measured)

    limits = [
        f"-max_len={MAX_INPUT_BYTES}",
        f"-artifact_prefix={folder}/failing-",
        f"-dict={dictionary}",
        "-print_final_stats=1",
    ]
    if runs is not None:
        limits.append(f"-runs={runs}")
    if seconds is not None:
        limits.append(f"-max_total_time={math.ceil(seconds)}")
    print(f"inputs are in {folder}", flush=True)
    atheris.Setup([sys.argv[0], str(corpus), *limits], execute)
    atheris.Fuzz()  # Does not return: it ends the process with its own status.
    return 0


def _quoted(piece: bytes) -> str:
    """A line of a dictionary of libFuzzer, which takes pieces of at most 64 bytes."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in piece[:64]) + '"\n'


def _is_ours(function: FunctionType) -> bool:
    """Whether it is of the packages: branches of libraries would lead astray."""
    return (function.__module__ or "").partition(".")[0] in PACKAGES
