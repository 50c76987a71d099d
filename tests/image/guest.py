#!/opt/vsockproxy/bin/python3
"""PID 1 of the machine that boots an image, until the image's own entrypoint takes its place.

It does what a Nitro enclave's init and the parent instance do around an image: mounts, the vsock
driver, a parent that listens, an origin behind it. It runs in the image, with what is there.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from enclave_side.namespaces import bring_up_loopback

FOLDER = Path(__file__).parent
SECONDS = 60.0
FINIT_MODULE = 313
"""The system call's number (arch/x86/entry/syscalls/syscall_64.tbl)."""

MOUNTS = (
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    # hostfs has no unix sockets.
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def load(module: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(module, os.O_RDONLY | os.O_CLOEXEC)
    if libc.syscall(FINIT_MODULE, descriptor, b"", 0):
        raise OSError(ctypes.get_errno(), f"cannot load {module}")
    os.close(descriptor)


def start(name: str, *command: str, **environment: str) -> None:
    with (FOLDER / name).open("wb") as output:
        subprocess.Popen(
            command, stderr=output, stdout=output, env={**os.environ, **environment}, cwd=FOLDER
        )


def wait_for(name: str, word: str) -> None:
    ends = time.monotonic() + SECONDS
    while word not in (FOLDER / name).read_text():
        if time.monotonic() > ends:
            raise TimeoutError(f"{name} never said {word}")
        time.sleep(0.05)


def main() -> None:
    os.environ["PATH"] = PATH
    for kind, target in MOUNTS:
        subprocess.run(["mount", "-t", kind, kind, target], check=True)
    for module in (FOLDER / "modules").read_text().split():
        load(FOLDER / module)
    bring_up_loopback()
    start("origin.log", sys.executable, "-u", "-m", "http.server", "8081", "--bind", "127.0.0.1")
    config = str(FOLDER / "parent.yaml")
    start(
        "parent.log",
        *(sys.executable, "-m", "vsockproxy", "parent", "--config", config),
        PYTHONPATH=str(FOLDER / "packages"),
    )
    wait_for("parent.log", '"ready"')
    wait_for("origin.log", "Serving HTTP")
    command = json.loads((FOLDER / "command.json").read_text())
    os.execv("/usr/bin/vsockproxy", ["/usr/bin/vsockproxy", "enclave", "--", *command])


main()
