"""Our own wheel, built as an installer would, from the tree that is being tested."""

import functools
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 300


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vsockproxy-wheel-")


@functools.cache
def our_wheel() -> Path:
    """Build it, once for this process; without a network where hatchling is beside the tests."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    is_here = importlib.util.find_spec("hatchling") is not None
    offline = ["--no-build-isolation", "--no-index"] if is_here else []
    folder = _directory().name
    done = subprocess.run(
        [*build, *offline, "--no-deps", "--wheel-dir", folder, str(ROOT)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = Path(folder).iterdir()
    return wheel
