"""The kernel that these tests boot: the one that `make test-vsock` fetches and keeps."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.as_init.machine import Ended, run_as_init
from tests.on_vsock.machine import kernel
from tests.on_vsock.machine.failure import MachineError

RunAsInit = Callable[..., Ended]


@pytest.fixture(scope="session")
def cache() -> Path:
    return kernel.default_cache().resolve()


@pytest.fixture(scope="session")
def ready(cache: Path) -> kernel.Kernel:
    """Fetched only where VSOCKPROXY_TEST_MACHINE=1 asks for it; then there has to be one."""
    if os.environ.get("VSOCKPROXY_TEST_MACHINE") == "1":
        return kernel.prepare(cache)
    if not kernel.is_ready(cache):
        pytest.skip("needs the kernel that make test-vsock fetches")
    try:
        return kernel.prepare(cache)
    except MachineError as error:
        pytest.skip(f"no machine here: {error}")


@pytest.fixture
def run_init(ready: kernel.Kernel, cache: Path) -> RunAsInit:
    return functools.partial(run_as_init, ready, cache)
