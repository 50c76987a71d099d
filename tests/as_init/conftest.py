"""The kernel that these tests boot: the one that `make test-vsock` fetches and keeps."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.as_init.machine import Ended, run_as_init
from tests.on_vsock.machine import kernel

RunAsInit = Callable[..., Ended]


@pytest.fixture(scope="session")
def cache() -> Path:
    return kernel.default_cache().resolve()


@pytest.fixture(scope="session")
def ready(cache: Path) -> kernel.Kernel:
    return kernel.prepare(cache)


@pytest.fixture
def run_init(ready: kernel.Kernel, cache: Path) -> RunAsInit:
    return functools.partial(run_as_init, ready, cache)
