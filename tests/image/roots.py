"""A root of Debian to build images on, and the wheels that go into them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.on_vsock.machine.mirror import find_mirror
from tests.support.program import ROOT

SUITE: Final = "bookworm"
"""What the Dockerfiles begin with, and whose Python the wheels are for."""

MAKE_SECONDS: Final = 300

_OF_APT: Final = ("apt/sources.list", "apt/sources.list.d", "apt/apt.conf.d", "apt/auth.conf.d")
_OF_NAMES_AND_TRUST: Final = ("resolv.conf", "hosts", "ssl/certs/ca-certificates.crt")


def make_base(folder: Path) -> None:
    """A minimal Debian, as its slim images are, from the archive that this machine uses."""
    debootstrap = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
    assert debootstrap, "debootstrap is missing: apt-get install debootstrap"
    command = [debootstrap, "--variant=minbase", SUITE, str(folder), find_mirror()]
    _run(command)
    shutil.rmtree(folder / "var/cache/apt/archives")
    shutil.rmtree(folder / "var/lib/apt/lists")
    for name in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (folder / name).mkdir(parents=True)


class Borrowed:
    """What this machine's apt needs to find packages, in a root for as long as the block runs."""

    def __init__(self, root: Path) -> None:
        self._etc = root / "etc"
        self._kept = root.with_name(f"{root.name}-etc")

    def __enter__(self) -> None:
        self._kept.mkdir()
        for name in (*_OF_APT, *_OF_NAMES_AND_TRUST):
            own, kept, source = self._etc / name, self._kept / name, Path("/etc") / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            if own.exists():
                own.rename(kept)
            if source.is_dir():
                shutil.copytree(source, own)
            elif source.exists():
                own.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, own)
        for hook in (self._etc / "apt/apt.conf.d").glob("*docker*"):
            hook.unlink()  # they name programs of this machine

    def __exit__(self, *exception: object) -> None:
        for name in (*_OF_APT, *_OF_NAMES_AND_TRUST):
            own, kept = self._etc / name, self._kept / name
            if own.is_dir():
                shutil.rmtree(own)
            else:
                own.unlink(missing_ok=True)
            if kept.exists():
                kept.rename(own)
        shutil.rmtree(self._kept)


def make_wheels(folder: Path, extras: str = "") -> None:
    """What `pip wheel` makes of this checkout and what an enclave needs.

    Args:
        folder: where they go.
        extras: further needs, as `[trust]`.
    """
    _run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder)),
            *("--constraint", str(ROOT / "constraints.txt"), f"{ROOT}{extras}"),
        ]
    )


def make_parent_packages(folder: Path) -> None:
    """What a parent needs beyond what an image has, for Python's path."""
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    _run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)),
            *(*constraints, "pycares"),
        ]
    )
    shutil.copytree(ROOT / "parent_side", folder / "parent_side")


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=MAKE_SECONDS, check=False
    )
    if done.returncode:
        raise AssertionError(f"{command}\n{done.stdout.decode()}{done.stderr.decode()}")
