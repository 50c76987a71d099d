"""What our processes ask of the kernel is what their units let them ask."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.program import Program, command_line

STRACE = shutil.which("strace")
SYSTEMD = shutil.which("systemd-analyze")

pytestmark = pytest.mark.skipif(
    STRACE is None or SYSTEMD is None, reason="needs strace and systemd-analyze (strace, systemd)"
)

_CALL = re.compile(r"^\d+ +([a-z0-9_]+)\(", re.MULTILINE)
_WRITABLE_CODE = re.compile(r"(?:mmap|mprotect)\([^)]*PROT_WRITE\|PROT_EXEC")


def system_calls(group: str) -> Iterator[str]:
    """The system calls of one of systemd's groups, and of the groups within it."""
    assert SYSTEMD is not None  # the tests are marked
    done = subprocess.run(
        [SYSTEMD, "syscall-filter", group], capture_output=True, text=True, check=True
    )
    for line in done.stdout.splitlines()[1:]:
        name = line.strip()
        if name.startswith("@"):
            yield from system_calls(name)
        elif name and not name.startswith("#"):
            yield name


def forbidden_by_units(trace: str) -> set[str]:
    """Those of a trace that `SystemCallFilter` of the units refuses."""
    refused = {*system_calls("@privileged"), *system_calls("@resources")}
    return set(_CALL.findall(trace)) - (set(system_calls("@system-service")) - refused)


def trace_of(tmp_path: Path, ready: str, *words: str) -> str:
    """What strace writes of a command of ours and its children, from its start to SIGTERM."""
    assert STRACE is not None  # the tests are marked
    file = tmp_path / "trace"
    with Program([STRACE, "-f", "-qq", "-o", str(file), *command_line(*words)]) as program:
        program.line_with(ready)
        children = Path(f"/proc/{program.process.pid}/task/{program.process.pid}/children")
        (pid,) = map(int, children.read_text().split())
        os.kill(pid, signal.SIGTERM)
        program.end()
    return file.read_text()


def test_the_parent(tmp_path: Path) -> None:
    content = {
        "listen": f"unix://{tmp_path}/link.sock",
        "admin": {"listen": f"unix://{tmp_path}/admin.sock"},
    }
    (tmp_path / "parent.yaml").write_text(json.dumps(content))
    trace = trace_of(tmp_path, '"ready"', "parent", "--config", str(tmp_path / "parent.yaml"))
    assert forbidden_by_units(trace) == set()
    assert _WRITABLE_CODE.search(trace) is None, "MemoryDenyWriteExecute"


def test_the_credentials_service(tmp_path: Path) -> None:
    with serving_metadata(MetadataService()) as service:
        trace = trace_of(
            tmp_path,
            '"credentials_fetched"',
            *("credentials", "--listen", f"unix://{tmp_path}/credentials.sock"),
            *("--metadata-address", f"127.0.0.1:{service.port}"),
        )
    assert forbidden_by_units(trace) == set()
    assert _WRITABLE_CODE.search(trace) is None, "MemoryDenyWriteExecute"
