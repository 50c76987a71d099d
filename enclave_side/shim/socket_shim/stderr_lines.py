"""The lines that the shim writes to the program's stderr: what it refused, and why."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ("SAME_LINE_SECONDS", "StderrLines", "write_line")

SAME_LINE_SECONDS: Final = 10.0
"""How long a line is not written again."""

_MOST_REMEMBERED: Final = 256
_MOST_CHARACTERS: Final = 2000
_STDERR: Final = 2


def write_line(text: str) -> None:
    """Write a line of ours to the descriptor of stderr, whatever `sys.stderr` is; never raises."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[:_MOST_CHARACTERS])
    with suppress(OSError):  # closed, or nobody reads any more
        os.write(_STDERR, f"vsockproxy: {clean}\n".encode(errors="replace"))


class StderrLines:
    """Writes each line once in `SAME_LINE_SECONDS`.

    Threads share it without a lock, which a fork could keep locked: at worst a line is there twice.

    Args:
        write: writes one line.
        now: seconds of a clock.
    """

    def __init__(
        self,
        write: Callable[[str], None] = write_line,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._now = now
        self._written_at: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Write `text`, unless that was done just now."""
        now = self._now()
        written_at = self._written_at.get(text)
        if written_at is not None and now - written_at < SAME_LINE_SECONDS:
            return
        while len(self._written_at) >= _MOST_REMEMBERED:
            with suppress(KeyError, StopIteration, RuntimeError):  # another thread was faster
                del self._written_at[next(iter(self._written_at))]
        self._written_at.pop(text, None)  # to the end: the oldest goes first
        self._written_at[text] = now
        self._write(text)
