"""One rig for all tests of the shim that do not break it, and one program under the shim."""

from collections.abc import Iterator

import pytest

from tests.enclave_side.shim.socket_shim.rig import Rig, rig
from tests.support.shimmed import SECONDS, Agent


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("rig")) as made:
        yield made


@pytest.fixture(scope="package")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One whose silent.test keeps everybody waiting; its worker may be killed."""
    with rig(tmp_path_factory.mktemp("patient"), connect_seconds=SECONDS) as made:
        yield made


@pytest.fixture(scope="package")
def agent(running: Rig) -> Iterator[Agent]:
    with Agent(running.path) as program:
        yield program
