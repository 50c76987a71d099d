"""The Dockerfiles of configs/image make small images, out of which nothing else has to be done."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.image.machine import boot, prepare
from tests.image.roots import Borrowed, make_base, make_wheels
from tests.image.steps import carry_out, read_stages
from tests.on_vsock.machine import kernel
from tests.on_vsock.machine.loopback import LOOPBACK_CID
from tests.support.program import ROOT

FOLDER: Final = ROOT / "configs" / "image"
DOCKERFILES: Final = ("Dockerfile", "python.Dockerfile")
PLAIN, TRUST = "", "[trust]"
MOST_KIB: Final = {PLAIN: 60 * 1024, TRUST: 85 * 1024}
"""What vsockproxy may add to an image, Python included, without and with the extra `trust`."""

DEBIAN_PYTHON_KIB: Final = 30 * 1024
"""What Debian's Python is of that; an image that has one already is spared it."""

pytestmark = pytest.mark.machine

PAGE: Final = "fetched through the enclave"
RULE: Final = {"address": "origin.test", "port": 8080, "private": True, "require_tls": False}
PARENT: Final = {
    "listen": "vsock://any:5000",
    "enclaves": [
        {
            "cid": LOOPBACK_CID,
            "name": "image",
            "allowlist": [{**RULE, "dial": "127.0.0.1:8081"}],
        }
    ],
    "log": {"format": "json"},
}
ENCLAVE: Final = {
    "parent": f"vsock://{LOOPBACK_CID}:5000",
    "allowlist": [RULE],
    "command": {"user": "app"},
    "machine": {"at_end": "exit"},  # after a reboot the machine would begin again
    "log": {"format": "json"},
}
FETCH: Final = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `base`, a minimal Debian, and below each extra `wheels`."""
    folder = tmp_path_factory.mktemp("image")
    make_base(folder / "base")
    for extras in (PLAIN, TRUST):
        make_wheels(folder / f"for{extras}" / "wheels", extras)
    yield folder
    shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class Made:
    """An image, and what its steps printed."""

    root: Path
    output: str
    extras: str


@pytest.fixture(
    scope="module",
    params=[*((name, PLAIN) for name in DOCKERFILES), (DOCKERFILES[0], TRUST)],
    ids="".join,
)
def image(made: Path, request: pytest.FixtureRequest) -> Made:
    """What a Dockerfile's last stage makes."""
    name, extras = request.param
    first, last = read_stages((FOLDER / name).read_text(encoding="utf-8"))
    assert first.name == "wheels"  # made by pip outside, for the same Python
    assert last.command[:2] == ["vsockproxy", "enclave"]
    root = made / f"{name}{extras}"
    subprocess.run(["cp", "--archive", made / "base", root], check=True)  # device nodes too
    with Borrowed(root):
        output = carry_out(last, root, ROOT, {"wheels": made / f"for{extras}"})
    return Made(root, output, extras)


def test_an_image_is_small_and_holds_what_it_needs(image: Made) -> None:
    added = re.search(r"vsockproxy added (\d+) KiB", image.output)
    assert added, image.output
    print(added[0])
    brings_python = image.root.name.startswith("Dockerfile")
    most_kib = MOST_KIB[image.extras] - (0 if brings_python else DEBIAN_PYTHON_KIB)
    assert int(added[1]) < most_kib
    proof = "from vsockproxy.attestation.documents import verify_document; print(1)"
    with_trust = [(["/opt/vsockproxy/bin/python3", "-c", proof], "1")] if image.extras else []
    for command, text in (
        *with_trust,
        (["vsockproxy", "--version"], "vsockproxy"),
        (["vsockproxy", "check", "/etc/vsockproxy/enclave.yaml"], ""),
        (["/opt/vsockproxy/bin/python3", "-c", "import trio, enclave_side.worker; print(1)"], "1"),
    ):
        assert text in _in(image.root, command)
    root = image.root
    left = {*root.glob("tmp/*"), *root.glob("wheels"), *root.glob("var/lib/apt/lists/*Packages")}
    assert left == set()
    packages = {path.name for path in root.glob("opt/vsockproxy/lib/python3*/site-packages/*")}
    assert {"vsockproxy", "enclave_side", "uvloop", "trio"} <= packages
    assert not packages & {"pycares", "rich", "prometheus_client", "pip"}
    assert ("cryptography" in packages) == bool(image.extras)
    assert not (root / "usr/bin/strip").exists()


def test_a_booted_image_reaches_what_is_allowed_and_nothing_else(
    image: Made, tmp_path: Path
) -> None:
    machine = kernel.prepare(kernel.default_cache().resolve())
    prepare(image.root, machine, enclave=ENCLAVE, parent=PARENT, page=PAGE)
    is_python = image.root.name.startswith("python")
    program = ["python3", "-c", FETCH] if is_python else ["curl", "-sS"]
    ended = boot(image.root, machine, [*program, "http://origin.test:8080/page"], tmp_path)
    assert ended.status == 0, ended.console
    assert PAGE in ended.console
    (decision,) = [line for line in ended.parent if line["event"] == "decision"]
    assert (decision["host"], decision["allowed"]) == ("origin.test", True)
    assert decision["enclave"] == "image"
    ended = boot(image.root, machine, [*program, "http://elsewhere.test:8080/page"], tmp_path)
    assert ended.status == (1 if is_python else 6), ended.console  # curl: does not resolve
    assert PAGE not in ended.console


def _in(root: Path, command: list[str]) -> str:
    done = subprocess.run(
        ["chroot", str(root), *command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()
