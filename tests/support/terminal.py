"""A terminal, and an interactive shell that a test types into."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from typing import Self

from tests.support.program import DEADLINE_SECONDS, environment

INTERRUPT = "\x03"
SUSPEND = "\x1a"


class Shell:
    """bash at a terminal; leave the `with` block and it is gone."""

    def __init__(self, **variables: str) -> None:
        self._master, slave = pty.openpty()
        self.screen = ""
        # A session's leader may make a terminal its controlling one.
        script = (
            "import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            "os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment(PS1="$ ", TERM="dumb", **variables),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size, as a window does that somebody drags."""
        termios.tcsetwinsize(self._master, (rows, columns))

    def wait_for(self, text: str) -> str:
        """Wait until the screen shows `text`; what it showed up to its end since the last wait."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in self.screen:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0 or not select.select([self._master], [], [], left_seconds)[0]:
                raise AssertionError(f"no {text!r} on the screen: {self.screen!r}")
            self.screen += os.read(self._master, 1 << 16).decode(errors="replace")
        before, _, self.screen = self.screen.partition(text)
        return before + text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._master)  # the terminal hangs up
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
