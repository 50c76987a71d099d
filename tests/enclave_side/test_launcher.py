import errno
import os
import pwd
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from enclave_side.fence import Fence, plan_fence
from enclave_side.launcher import SECCOMP_CALLS
from enclave_side.seccomp_filter import Instruction, assemble
from tests.support.launching import UNFENCED, Launched, launch
from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import environment
from tests.support.static_programs import VSOCK_CALLS, build_static
from vsockproxy.config.capabilities import capability_mask
from vsockproxy.config.model import Command
from vsockproxy.control.command import MAX_REPORT_BYTES

FENCE = plan_fence(Command())
OPEN_FENCE = plan_fence(Command(vsock="allow"))

is_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def status_of(fence: Fence, **more: str) -> dict[str, str]:
    """What /proc/self/status says of a fenced command."""
    done = launch([*fence.launcher()[:-1], f"{fence.launcher()[-1]} {' '.join(more)}"], "cat", "/proc/self/status")
    assert (done.status, done.report) == (0, "")
    return dict(line.split(":\t", 1) for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def vsock_calls(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_static(VSOCK_CALLS, tmp_path_factory.mktemp("static")))


def ways(done: Launched | subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The errno of each way to call the kernel, as the static program tells it."""
    return dict(line.split() for line in done.stdout.splitlines())
