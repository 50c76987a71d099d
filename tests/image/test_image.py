"""The Dockerfiles of configs/image make small images, out of which nothing else has to be done."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.image.roots import Borrowed, make_base, make_wheels
from tests.image.steps import carry_out, read_stages
from tests.support.program import ROOT

FOLDER: Final = ROOT / "configs" / "image"
DOCKERFILES: Final = ("Dockerfile", "python.Dockerfile")
MOST_KIB: Final = 60 * 1024
"""What vsockproxy may add to an image, Python included."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `base`, a minimal Debian, and `wheels`."""
    folder = tmp_path_factory.mktemp("image")
    make_base(folder / "base")
    make_wheels(folder / "wheels")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.image
@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_small_and_holds_what_it_needs(made: Path, name: str) -> None:
    first, last = read_stages((FOLDER / name).read_text(encoding="utf-8"))
    assert first.name == "wheels"  # made by pip outside, for the same Python
    root = made / name
    subprocess.run(["cp", "--archive", made / "base", root], check=True)  # device nodes too
    with Borrowed(root):
        output = carry_out(last, root, ROOT, {"wheels": made})
    added = re.search(r"vsockproxy added (\d+) KiB", output)
    assert added, output
    print(added[0])
    brings_python = name == "Dockerfile"
    assert int(added[1]) < (MOST_KIB if brings_python else MOST_KIB // 2)
    for command, text in (
        (["vsockproxy", "--version"], "vsockproxy"),
        (["vsockproxy", "check", "/etc/vsockproxy/enclave.yaml"], ""),
        (["/opt/vsockproxy/bin/python3", "-c", "import trio, enclave_side.worker; print(1)"], "1"),
    ):
        assert text in _in(root, command)
    left = {*root.glob("tmp/*"), *root.glob("wheels"), *root.glob("var/lib/apt/lists/*Packages")}
    assert left == set()
    assert last.command[0] == "vsockproxy"
    assert (root / "usr/bin/strip").exists() is False


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
