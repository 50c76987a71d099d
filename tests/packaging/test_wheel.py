"""What pip and pipx install: both programs, every module, and the data that goes with them."""

import configparser
import zipfile

import pytest

from tests.packaging.wheels import ROOT, our_wheel
from vsockproxy import __version__

PACKAGES = ("vsockproxy", "enclave_side", "parent_side")


@pytest.fixture(scope="module")
def names() -> set[str]:
    with zipfile.ZipFile(our_wheel()) as wheel:
        return set(wheel.namelist())


def test_it_is_for_every_machine_and_of_our_version() -> None:
    assert our_wheel().name == f"vsockproxy-{__version__}-py3-none-any.whl"


def test_it_has_every_file_of_our_packages_and_no_other(names: set[str]) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    information = f"vsockproxy-{__version__}.dist-info/"
    assert {name for name in names if not name.startswith(information)} == ours
    for suffix in ("WIRE_FORMAT.md", ".cddl"):
        assert any(name.endswith(suffix) for name in names)


def test_its_scripts_are_both_programs() -> None:
    with zipfile.ZipFile(our_wheel()) as wheel:
        text = wheel.read(f"vsockproxy-{__version__}.dist-info/entry_points.txt").decode()
    scripts = configparser.ConfigParser()
    scripts.read_string(text)
    assert dict(scripts["console_scripts"]) == {
        "vsockproxy": "vsockproxy.cli:main",
        "vsock-proxy": "vsockproxy.cli.aws:main",
    }


def test_it_says_what_it_needs_and_under_which_licence(names: set[str]) -> None:
    with zipfile.ZipFile(our_wheel()) as wheel:
        metadata = wheel.read(f"vsockproxy-{__version__}.dist-info/METADATA").decode()
    needed = [
        line.removeprefix("Requires-Dist: ")
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    assert not any(line.startswith(("pycares", "cryptography", "rich")) for line in needed)
    for extra in ("parent", "trust", "all"):
        assert f"Provides-Extra: {extra}\n" in metadata
    assert any(name.endswith("/LICENSE") for name in names)
