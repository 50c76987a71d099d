"""Imports point one way, pure layers stay pure, and each third-party package has its home."""

import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.rules.architecture import COMPUTED_IMPORTS, HOMES, LAYERS, PACKAGES, WITH_FILES
from tests.rules.imports import breaches, modules, read_imports

ROOT = Path(__file__).parents[2]
MODULES = modules(ROOT)


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_the_rules(module: str) -> None:
    path = MODULES[module]
    source = path.read_text(encoding="utf-8")
    assert list(breaches(module, source, is_package=path.name == "__init__.py")) == []


def test_the_walk_finds_all_packages() -> None:
    assert {module.partition(".")[0] for module in MODULES} == set(PACKAGES)
    assert "vsockproxy.errors" in MODULES


def test_layers_form_no_circle() -> None:
    done: set[str] = set()
    while ready := {
        name
        for name, layer in LAYERS.items()
        if name not in done and layer.imports | layer.lazily <= done | {name}
    }:
        done |= ready
    assert done == set(LAYERS)


def test_the_sides_do_not_know_each_other() -> None:
    for layer in LAYERS.values():
        assert "parent_side" not in layer.imports
        assert "enclave_side" not in layer.imports


def test_modules_with_an_exception_exist() -> None:
    assert {*WITH_FILES, *COMPUTED_IMPORTS} <= set(MODULES)


def test_what_is_declared_in_pyproject_is_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["parent"], *extras["trust"], *extras["acme"]]
    names = {requirement.partition(">")[0].lower() for requirement in declared}
    names = {name for name in names if not name.startswith("vsockproxy[")}
    distributions = packages_distributions()
    homes = {distributions[top][0].lower() for top in HOMES if top in distributions}
    assert names == homes


def test_every_home_that_is_built_is_lived_in() -> None:
    imported = {
        found.target.partition(".")[0]
        for module, path in MODULES.items()
        for found in read_imports(module, path.read_text(encoding="utf-8"))
    }
    built = {package for package, homes in HOMES.items() if homes & set(MODULES)}
    assert built <= imported


BAD = {
    "a layer imports one above it": (
        "vsockproxy.session.session",
        "from vsockproxy.dataplane import link",
        "imports vsockproxy.dataplane, which vsockproxy.session must not know",
    ),
    "a pure layer imports one beside it": (
        "vsockproxy.policy.rules",
        "import vsockproxy.session",
        "imports vsockproxy.session, which vsockproxy.policy must not know",
    ),
    "a module is imported as a name of its package": (
        "vsockproxy.addresses",
        "from vsockproxy import config",
        "imports vsockproxy.config, which vsockproxy.addresses must not know",
    ),
    "a relative import leads above": (
        "vsockproxy.config.load",
        "from ..control.supervisor import Supervisor",
        "imports vsockproxy.control, which vsockproxy.config must not know",
    ),
    "an import for annotations only": (
        "vsockproxy.protocols.http_proxy",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vsockproxy.policy",
        "vsockproxy.protocols.http_proxy:3: imports vsockproxy.policy",
    ),
    "one loop's layer imports the other's": (
        "vsockproxy.control.supervisor",
        "import vsockproxy.dataplane.loop",
        "imports vsockproxy.dataplane, which vsockproxy.control must not know",
    ),
    "the sides meet": (
        "parent_side.worker",
        "def later():\n    from enclave_side import worker",
        "imports enclave_side, which parent_side must not know",
    ),
    "the command line loads a side at once": (
        "vsockproxy.cli.parent",
        "from parent_side import service",
        "imports parent_side when it is loaded; inside a function it may",
    ),
    "a new part of the shared package without a layer": (
        "vsockproxy.extras",
        "",
        "vsockproxy.extras: has no layer",
    ),
    "an import of something without a layer": (
        "parent_side.worker",
        "from vsockproxy.extras import anything",
        "imports vsockproxy.extras.anything, which has no layer",
    ),
    "asyncio outside of the byte path": (
        "parent_side.worker",
        "import asyncio",
        "imports asyncio, which only vsockproxy.client.for_asyncio, vsockproxy.dataplane may",
    ),
    "trio in the byte path": (
        "vsockproxy.dataplane.loop",
        "from trio import open_nursery",
        "imports trio, which only enclave_side.services, parent_side.services, vsockproxy.",
    ),
    "a loop where programs without one import": (
        "vsockproxy.client.opening",
        "import asyncio",
        "imports asyncio, which only vsockproxy.client.for_asyncio, vsockproxy.dataplane may",
    ),
    "one loop's client module imports the other's": (
        "vsockproxy.client.for_trio",
        "from vsockproxy.client import for_asyncio",
        "imports vsockproxy.client.for_asyncio, which vsockproxy.client.for_trio must not know",
    ),
    "the public API imports a side": (
        "vsockproxy.client.opening",
        "from enclave_side.shim import streams",
        "imports enclave_side, which vsockproxy.client must not know",
    ),
    "the parent's resolver in the enclave": (
        "enclave_side.worker",
        "import pycares",
        "imports pycares, which only parent_side may",
    ),
    "a third-party package without a home": (
        "parent_side.worker",
        "import requests.adapters",
        "imports requests, which has no home",
    ),
    "a computed import": (
        "parent_side.worker",
        "from importlib import import_module as load\nload('enclave_side')",
        "parent_side.worker:2: importlib.import_module hides what is imported",
    ),
    "an import by the builtin": (
        "parent_side.worker",
        "__import__('enclave_side')",
        "builtins.__import__ hides what is imported",
    ),
    "a socket in a pure layer": (
        "vsockproxy.session.session",
        "import socket",
        "imports socket: a socket in a pure layer",
    ),
    "a submodule in a pure layer": (
        "vsockproxy.protocols.http_proxy",
        "from http.client import HTTPConnection",
        "imports http.client.HTTPConnection: a socket in a pure layer",
    ),
    "a clock by another name": (
        "vsockproxy.session.keepalive",
        "from time import monotonic as now",
        "imports time.monotonic: a clock in a pure layer",
    ),
    "a clock through a type": (
        "vsockproxy.attestation.chain",
        "import datetime as d\nd.datetime.now()",
        "datetime.datetime.now brings a clock into a pure layer",
    ),
    "randomness inside a function": (
        "vsockproxy.session.opening",
        "def nonce():\n    from os import urandom\n    return urandom(16)",
        "vsockproxy.session.opening:2: imports os.urandom: the operating system in a pure layer",
    ),
    "a random identifier": (
        "vsockproxy.session.opening",
        "from uuid import uuid4\nuuid4()",
        "uuid.uuid4 brings randomness into a pure layer",
    ),
    "a file in a pure layer": (
        "vsockproxy.policy.lists",
        "open('rules')",
        "builtins.open brings the operating system into a pure layer",
    ),
    "a path that can do more than be a path": (
        "vsockproxy.policy.lists",
        "from pathlib import Path",
        "pathlib.Path brings the operating system into a pure layer",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_breach_is_seen(case: str) -> None:
    module, source, expected = BAD[case]
    found = list(breaches(module, source))
    assert any(expected in breach for breach in found), found


GOOD = {
    "the standard library": ("vsockproxy.session.frames", "import struct\nimport zlib"),
    "a layer below": ("vsockproxy.policy.rules", "from vsockproxy.config.model import AllowRule"),
    "the layer itself": ("vsockproxy.session.session", "from .credit import Credit"),
    "the version": ("vsockproxy.cli.main", "from vsockproxy import __version__"),
    "a side inside a command": (
        "vsockproxy.cli.parent",
        "def run():\n    from parent_side.service import serve\n    serve()",
    ),
    "a path without files": ("vsockproxy.policy.lists", "from pathlib import PurePath"),
    "a date without a clock": ("vsockproxy.attestation.chain", "from datetime import datetime"),
    "a method called open": ("vsockproxy.session.session", "session.open()"),
    "a socket where bytes move": ("vsockproxy.dataplane.link", "import asyncio, socket, time"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_right_passes(case: str) -> None:
    module, source = GOOD[case]
    assert list(breaches(module, source)) == []


def test_a_package_is_the_base_of_its_own_relative_imports() -> None:
    (found,) = read_imports("vsockproxy.session", "from .credit import Credit", is_package=True)
    assert found.target == "vsockproxy.session.credit.Credit"
