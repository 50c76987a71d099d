"""The launcher of the enclave's side as its supervisor starts it, with what it reports."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enclave_side.fence import Fence

DEADLINE_SECONDS = 120.0
"""A machine that is emulated needs it."""

UNFENCED = Fence(capabilities=0, seccomp_program=b"", demands_filter=False)
"""Takes capabilities and new privileges away, and nothing else."""


@dataclass(frozen=True, slots=True)
class Launched:
    """How a launched command ended; the status is negative for a signal."""

    status: int
    stdout: str
    stderr: str
    report: str
    """What the launcher had to say; empty if the command ran."""


def launch(
    launcher: Sequence[str],
    *command: str | bytes,
    environment: Mapping[str, str] | None = None,
    passed: Sequence[int] = (),
    cwd: Path | None = None,
    within: Fence | None = None,
) -> Launched:
    """Run a command by `launcher`, the words of `Fence.launcher`, itself launched `within`."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as report, open(os.devnull, "wb") as null:
        if within is not None:
            launcher = [*within.launcher(), str(null.fileno()), *launcher]
        try:
            done = subprocess.run(
                [*launcher, str(write_end), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=[write_end, null.fileno(), *passed],
                cwd=cwd,
                timeout=DEADLINE_SECONDS,
            )
        finally:
            os.close(write_end)
        return Launched(
            done.returncode,
            done.stdout.decode(errors="surrogateescape"),
            done.stderr.decode(),
            report.read().decode(),
        )
