"""What the shim brings into a program: little, and no loop."""

import pytest

from tests.rules.test_enclave_imports import LOOPS, loaded_by, third_party

MODULES = ("enclave_side.shim.socket_shim.installation", "enclave_side.shim.socket_shim.launch")


@pytest.mark.parametrize("module", MODULES)
def test_the_shim_loads_no_loop_and_one_package(module: str) -> None:
    loaded = loaded_by(module)
    assert loaded & LOOPS == set()
    assert third_party(loaded) == {"cbor2"}
