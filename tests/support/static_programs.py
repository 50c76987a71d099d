"""C programs that tests need, compiled where they are needed."""

import shutil
import subprocess
from pathlib import Path

import pytest

VSOCK_CALLS = Path(__file__).with_name("vsock_calls.c")


def build_static(source: Path, directory: Path) -> Path:
    """Compile `source` to a static program in `directory`; skips where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing: apt-get install gcc libc6-dev")
    program = directory / source.stem
    warnings = ["-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        ["gcc", "-O1", *warnings, "-static", "-no-pie", "-o", str(program), str(source)],
        capture_output=True,
        text=True,
    )
    if "cannot find -lc" in done.stderr:
        pytest.skip("a static C library is missing: apt-get install libc6-dev")
    assert done.returncode == 0, done.stderr
    return program
