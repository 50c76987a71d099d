"""A program of ours in a process of its own: its stderr line by line, its end, no leftovers."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 30.0


def environment(**variables: str) -> dict[str, str]:
    """Our variables, with this project importable in every working directory."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def command_line(*arguments: str) -> list[str]:
    """The command `vsockproxy`."""
    return [sys.executable, "-m", "vsockproxy", *arguments]


class Program:
    """A running program; leave the `with` block and it is gone."""

    def __init__(
        self,
        command: list[str],
        variables: Mapping[str, str] | None = None,
        *,
        stdin: int = subprocess.DEVNULL,
        cwd: Path | None = None,
    ) -> None:
        self.lines: list[str] = []
        self._rest = b""
        self.process = subprocess.Popen(
            command,
            env=environment(**(variables or {})),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,
        )

    def line_with(self, text: str) -> str:
        """The next line on stderr that has `text`."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        seen = len(self.lines)
        while True:
            for line in self.lines[seen:]:
                if text in line:
                    return line
            seen = len(self.lines)
            if not self._read(deadline):
                raise AssertionError(f"no line with {text!r} in {self.lines}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for its end; its exit code (negative for a signal) and stdout."""
        stdout, stderr = self.process.communicate(timeout=DEADLINE_SECONDS)
        self.lines += (self._rest + stderr).decode().splitlines()
        self._rest = b""
        return self.process.returncode, stdout.decode()

    def _read(self, deadline: float) -> bool:
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        left_seconds = deadline - time.monotonic()
        if left_seconds <= 0 or not select.select([descriptor], [], [], left_seconds)[0]:
            return False
        data = os.read(descriptor, 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode() for line in lines]
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A command that outlived its supervisor is in the same group, and holds our pipes.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=DEADLINE_SECONDS)


def processes_with(text: str) -> list[str]:
    """The command lines of running processes that contain `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has just ended
        if text in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found
