"""Boots an image in User Mode Linux: its entrypoint as PID 1, its parent on the loopback CID."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.image.roots import make_parent_packages
from tests.on_vsock.machine.kernel import Kernel, search_path

GUEST: Final = Path(__file__).with_name("guest.py")
BOOT_SECONDS: Final = 180

_INIT_ENDED: Final = re.compile(rb"Attempted to kill init! exitcode=0x([0-9a-f]{8})")
"""What the kernel says when PID 1 exits, with its wait status (kernel/exit.c, do_exit)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a machine ended."""

    status: int
    """PID 1's."""
    console: str
    parent: list[dict[str, Any]]
    """The parent's log."""


def prepare(
    root: Path, kernel: Kernel, *, enclave: Mapping[str, Any], parent: Mapping[str, Any], page: str
) -> None:
    """Put beside the image, below /guest, what is the parent instance's in truth.

    Args:
        root: the image.
        kernel: User Mode Linux, whose modules are loaded.
        enclave: the image's file, as an enclave on the loopback CID needs it.
        parent: the parent's file.
        page: what the origin behind the parent answers.
    """
    guest = root / "guest"
    guest.mkdir()
    shutil.copy(GUEST, guest)
    (guest / "guest.py").chmod(0o755)
    for module in kernel.modules:
        shutil.copy(module, guest)
    (guest / "modules").write_text(" ".join(module.name for module in kernel.modules))
    (guest / "page").write_text(page)
    (guest / "parent.yaml").write_text(json.dumps(parent))
    (root / "etc/vsockproxy/enclave.yaml").write_text(json.dumps(enclave))
    make_parent_packages(guest / "packages")


def boot(root: Path, kernel: Kernel, command: Sequence[str], folder: Path) -> Ended:
    """Boot the image around `command`, until PID 1 exits.

    Args:
        root: what `prepare` was called for.
        kernel: User Mode Linux.
        command: the user's.
        folder: for the machine's own files.
    """
    # In a file, because User Mode Linux puts words of its own behind those for init.
    (root / "guest" / "command.json").write_text(json.dumps(list(command)))
    console = folder / "console"
    with console.open("wb") as output:
        guest = subprocess.Popen(
            [
                kernel.binary,
                "mem=512M",
                "rootfstype=hostfs",
                f"rootflags={root}",
                "rw",
                "quiet",
                "init=/guest/guest.py",
                f"uml_dir={folder}",
                "con=null",
                "con0=null,fd:1",
            ],
            env={"PATH": search_path(), "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its processes are ended as one group
        )
        try:
            guest.wait(BOOT_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(guest.pid, signal.SIGKILL)
            guest.wait()
    said = console.read_bytes()
    text = said.decode(errors="replace")
    ended = _INIT_ENDED.search(said)
    assert ended is not None, text
    log = (root / "guest" / "parent.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return Ended(int(ended[1], 16) >> 8, text, lines)
