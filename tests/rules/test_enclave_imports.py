"""What each process of ours loads: an image pays for every byte, and no process has two loops.

The lists are whole: a package that is added to an image is added here, on purpose.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OWN = {"vsockproxy", "enclave_side", "parent_side"}

TRIO = {"trio", "attr", "attrs", "outcome", "sniffio", "sortedcontainers"}
"""Trio and what it imports itself."""

THIRD_PARTY = {
    # PID 1 only reaps and passes signals on.
    "enclave_side.init": set(),
    # The configuration arrives as CBOR, so a worker reads no YAML.
    "enclave_side.worker": {"cbor2", "dns", "h11", "idna", "msgspec", "uvloop"},
    # Set-up runs in a process of its own, which ends before the command begins.
    "enclave_side.network_setup": {"pyroute2"},
    "enclave_side.services.process": {"cbor2", "dns", "h11", "idna", "msgspec", *TRIO},
    # Loaded where the file has `acme`; the library's own HTTP client is not.
    "enclave_side.services.acme": {
        *("acme", "cbor2", "cryptography", "h11", "idna", "josepy", "msgspec", *TRIO)
    },
    "enclave_side.entrypoint": {"cbor2", "idna", "msgspec", "yaml", *TRIO},
    "parent_side.worker": {"cbor2", "idna", "msgspec", "pycares", "uvloop"},
    "parent_side.service": {"cbor2", "idna", "msgspec", "yaml", *TRIO},
    # Only the process of services knows Prometheus' library.
    "parent_side.services.admin": {
        *("cbor2", "h11", "idna", "msgspec", "prometheus_client", *TRIO)
    },
    # Programs import these, and have to carry what they load.
    "vsockproxy.client.opening": {"cbor2"},
    "vsockproxy.client.blocking": {"cbor2"},
    "vsockproxy.client.for_asyncio": {"cbor2"},
    "vsockproxy.client.for_trio": {"cbor2", "idna", *TRIO},
    # One command must not load what another one needs.
    "vsockproxy.cli": {"click", "idna", "msgspec", "yaml"},
}
"""For each module that a process starts with, the third-party packages it may load."""

TAKEN_WHERE_FOUND = {"typing_extensions"}
"""Installed here for the tests' sake; msgspec does without it in an image that has it not."""

PSEUDO_MODULES = {"cython_runtime"}
"""Made in memory by compiled packages."""

LOOPS = {"asyncio", "uvloop", "trio"}

_PROBE = """
import importlib, json, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


@functools.cache
def loaded_by(module: str) -> set[str]:
    """The top-level packages that a fresh interpreter loads for `module`."""
    probe = [sys.executable, "-c", _PROBE, module]
    done = subprocess.run(probe, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def third_party(loaded: set[str]) -> set[str]:
    """Those of `loaded` that an image has to carry beside Python and ourselves.

    A top-level name with an underscore is a package's compiled part: `_cbor2` comes with cbor2.
    """
    known = OWN | TAKEN_WHERE_FOUND | PSEUDO_MODULES | sys.stdlib_module_names
    return {name for name in loaded - known if not name.startswith("_")}


@pytest.mark.parametrize("module", THIRD_PARTY)
def test_process_loads_only_its_packages(module: str) -> None:
    assert third_party(loaded_by(module)) <= THIRD_PARTY[module]


@pytest.mark.parametrize("module", THIRD_PARTY)
def test_process_has_one_loop_at_most(module: str) -> None:
    loops = loaded_by(module) & LOOPS
    assert loops <= {"trio"} or loops <= {"asyncio", "uvloop"}


@pytest.mark.parametrize("module", ["enclave_side.worker", "enclave_side.entrypoint"])
def test_enclave_loads_nothing_of_the_parent(module: str) -> None:
    assert "parent_side" not in loaded_by(module)


@pytest.mark.parametrize(
    ("module", "loops"),
    [
        ("vsockproxy.client.opening", set[str]()),
        ("vsockproxy.client.blocking", set[str]()),
        ("vsockproxy.client.for_asyncio", {"asyncio"}),
        ("vsockproxy.client.for_trio", {"trio"}),
    ],
)
def test_a_program_gets_the_loop_that_it_asks_for(module: str, loops: set[str]) -> None:
    assert loaded_by(module) & LOOPS == loops


def test_only_who_looks_loads_what_draws() -> None:
    assert "rich" not in loaded_by("vsockproxy.cli.status") | loaded_by("vsockproxy.cli.top")


def test_the_command_line_loads_no_side() -> None:
    loaded = loaded_by("vsockproxy.cli")
    assert not loaded & ({"enclave_side", "parent_side"} | LOOPS)


def test_a_package_too_many_is_seen() -> None:
    assert "hypothesis" in third_party(loaded_by("hypothesis"))
    assert "asyncio" in loaded_by("asyncio.events")
