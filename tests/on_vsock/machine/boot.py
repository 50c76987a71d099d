"""Runs one command in User Mode Linux: its output as it comes, and its exit status."""

import contextlib
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.on_vsock.machine.failure import MachineError
from tests.on_vsock.machine.kernel import Kernel, search_path

INIT = Path(__file__).with_name("init.sh")

_FOLLOW_SECONDS = 0.1
"""How often the output is looked at."""

_INIT_ENDED = re.compile(rb"Attempted to kill init! exitcode=0x([0-9a-f]{8})")
"""What the kernel says when PID 1 exits, with its wait status (kernel/exit.c, do_exit)."""

_LAST_WORDS_SECONDS = 30
"""How long a command that was interrupted may still say what it did, and the machine power off."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run in the machine and what it may use."""

    command: Sequence[str]
    checkout: Path
    """The working folder of the command, read-only like everything that is not listed below."""
    writable: Sequence[Path]
    """Folders of the host, inside the checkout, that the command may write to."""
    environment: Mapping[str, str]
    memory: str
    """What the machine has, as the kernel's `mem=` takes it: `2G`."""
    limit_seconds: int
    """The command is interrupted after that, as by Ctrl-C."""
    is_init: bool = False
    """Whether the command is PID 1 itself; the machine ends when it does, as the kernel has it."""


def run(kernel: Kernel, job: Job, cache: Path, output: BinaryIO | None = None) -> int:
    """Boot, run `job`, power off; what the command writes goes to `output` as it comes.

    Args:
        kernel: what to boot.
        job: what to run.
        cache: where the machine keeps its files meanwhile.
        output: our stdout if None.

    Returns:
        The command's exit status.

    Raises:
        MachineError: the machine did not come up, or the command did not end in time.
    """
    with tempfile.TemporaryDirectory(dir=cache, prefix="job-") as name:
        folder = Path(name)
        if any(not path.isprintable() or set(path) & set(" ,\"'") for path in _paths(job, folder)):
            raise MachineError(
                "a kernel's command line cannot carry spaces, commas or quotes in paths",
                f"move {job.checkout} or set XDG_CACHE_HOME",
            )
        _write_job(folder, kernel, job)
        started = time.monotonic()
        with (folder / "boot").open("wb") as boot_log:
            guest = _start(kernel, job, folder, boot_log)
            try:
                most_seconds = job.limit_seconds + 2 * _LAST_WORDS_SECONDS
                _follow(guest, folder / "output", output or sys.stdout.buffer, most_seconds)
            finally:
                _end(guest)
        status = _exit_status(folder)
        if status != 0 and time.monotonic() - started > job.limit_seconds:
            raise MachineError(f"the command was still running after {job.limit_seconds} s")
        if status is None:
            raise MachineError(f"the machine stopped early: {_last_words(folder)}")
        return status


def _paths(job: Job, folder: Path) -> list[str]:
    return [str(path) for path in (job.checkout, folder, *job.writable)]


def _write_job(folder: Path, kernel: Kernel, job: Job) -> None:
    """Everything that init.sh reads. The folder is ours alone: an environment can hold secrets."""
    soft_files, hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings = {
        "modules": f"({shlex.join(map(str, kernel.modules))})",
        "checkout": shlex.quote(str(job.checkout)),
        "writable": f"({shlex.join(map(str, job.writable))})",
        "soft_files": str(soft_files),
        "hard_files": str(hard_files),
        "is_init": "yes" if job.is_init else "''",
    }
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in job.environment.items()
        if name.isidentifier()  # bash exports functions under other names
    ]
    timeout = f"timeout --signal=INT --kill-after={_LAST_WORDS_SECONDS} {job.limit_seconds}"
    line = shlex.join(job.command)
    lines = {
        "settings": [f"{name}={value}" for name, value in settings.items()],
        "command": [
            *exports,
            'mkdir -p "$HOME"',
            f"exec {line if job.is_init else f'{timeout} {line}'} </dev/null",
        ],
        "setup": [],
        "output": [],
    }
    for name, content in lines.items():
        (folder / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
    shutil.copy2(INIT, folder / "init")


def _start(kernel: Kernel, job: Job, folder: Path, boot_log: BinaryIO) -> subprocess.Popen[bytes]:
    environment = {"PATH": search_path(), "HOME": str(folder)}
    if shutil.disk_usage("/dev/shm").free < _bytes(job.memory):  # containers have 64 MiB there
        environment["TMPDIR"] = str(folder)
    return subprocess.Popen(
        [
            kernel.binary,
            f"mem={job.memory}",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            "quiet",
            f"init={folder / 'init'}",
            f"uml_dir={folder}",
            "con=null",
            "con0=null,fd:1",
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=boot_log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # its processes are ended as one group
    )


def _follow(
    guest: subprocess.Popen[bytes], output: Path, to: BinaryIO, most_seconds: float
) -> None:
    """Copy `output` until the guest is gone or the time is over."""
    deadline = time.monotonic() + most_seconds
    with output.open("rb") as reader:
        while True:
            is_running = guest.poll() is None  # asked first: what it wrote last is still copied
            shutil.copyfileobj(reader, to)
            to.flush()
            if not is_running or time.monotonic() > deadline:
                return
            time.sleep(_FOLLOW_SECONDS)


def _end(guest: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(guest.pid, signal.SIGKILL)
    guest.wait()


def _exit_status(folder: Path) -> int | None:
    """What the command ended with; None when init did not get to its end."""
    try:
        return int((folder / "status").read_text(encoding="ascii"))
    except (OSError, ValueError):
        ended = _INIT_ENDED.search((folder / "boot").read_bytes())
        return int(ended[1], 16) >> 8 if ended else None


def _last_words(folder: Path) -> str:
    words: list[str] = []
    for name in ("boot", "setup"):
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        panics = [line for line in lines if "Kernel panic" in line]  # a stack follows it
        words += panics or lines[-5:]
    return " | ".join(words) or "it said nothing"


def _bytes(memory: str) -> int:
    return int(memory[:-1]) << {"K": 10, "M": 20, "G": 30}[memory[-1].upper()]
