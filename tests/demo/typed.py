"""Runs a line of shell at a terminal, and tells the log from the rest of what is on the screen."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_READ_BYTES = 1 << 16
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z ((?:debug|info|warning|error) event=.*)\n")
"""Not only at the start of a line: a program may write one of its own in pieces."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a line of shell came to.

    Args:
        output: all that it wrote, but for the log.
        log: the log's lines, without their times.
        status: the exit status.
    """

    output: str
    log: tuple[str, ...]
    status: int


def type_line(
    line: str, variables: Mapping[str, str], directory: Path, deadline_seconds: float
) -> Screen:
    """Run a line of shell until it and all that it started have left the terminal.

    Raises:
        TimeoutError: that takes longer than `deadline_seconds`.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", line],
        env=dict(variables),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        written = _read_all(master, time.monotonic() + deadline_seconds)
        status = process.wait(deadline_seconds)
    except (TimeoutError, subprocess.TimeoutExpired):
        raise TimeoutError(f"it takes longer than {deadline_seconds:g} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(master)
    screen = written.decode(errors="replace").replace("\r\n", "\n")
    return Screen(_LOG_LINE.sub("", screen), tuple(_LOG_LINE.findall(screen)), status)


def _read_all(terminal: int, deadline: float) -> bytes:
    written = b""
    while True:
        left_seconds = max(deadline - time.monotonic(), 0)
        if not select.select([terminal], [], [], left_seconds)[0]:
            raise TimeoutError
        try:
            data = os.read(terminal, _READ_BYTES)
        except OSError:  # EIO: nobody has the other end any more (pty(7))
            return written
        written += data
