"""A machine whose PID 1 is ours: User Mode Linux, booted for one command."""

import io
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.on_vsock.machine import boot, kernel

LIMIT_SECONDS = 120

ROOT = Path(__file__).parents[2]

_INIT = """
set -eu
cat >/tmp/enclave.yaml <<'END'
{document}
END
{before}
exec {python} -m vsockproxy enclave --config /tmp/enclave.yaml {command}
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a machine ended: PID 1's status, and all that was written."""

    status: int
    output: str

    @property
    def log(self) -> list[dict[str, Any]]:
        """Our log lines."""
        lines = self.output.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def texts(self, event: str) -> list[str]:
        """What the lines of an event say."""
        return [line["text"] for line in self.log if line["event"] == event]


def run_as_init(
    ready: kernel.Kernel,
    cache: Path,
    command: Sequence[str] = (),
    *,
    document: str = "",
    before: str = "",
) -> Ended:
    """Boot a machine whose PID 1 is `vsockproxy enclave` around `command`.

    Args:
        ready: the kernel.
        cache: where the machine keeps its files meanwhile.
        command: the user's command; without one, the document has several.
        document: more of the enclave's file.
        before: what a shell, still PID 1, does before it becomes ours.
    """
    line = f"-- {shlex.join(command)}" if command else ""
    script = _INIT.format(
        document=f"parent: unix:///tmp/link.sock\n{document}",
        before=before,
        python=shlex.quote(sys.executable),
        command=line,
    )
    job = boot.Job(
        command=["bash", "-c", script],
        checkout=ROOT,
        writable=[],
        environment={**os.environ, "HOME": "/tmp/home", "TMPDIR": "/tmp"},
        memory="512M",
        limit_seconds=LIMIT_SECONDS,
        is_init=True,
    )
    output = io.BytesIO()
    status = boot.run(ready, job, cache, output)
    return Ended(status, output.getvalue().decode(errors="replace"))
