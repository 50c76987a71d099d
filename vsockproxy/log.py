"""The log of one worker: one line for each event, on stderr, without ever blocking.

A worker's stderr is a non-blocking pipe to its supervisor: the kernel's pipe buffer is the bounded
queue, a line that does not fit is dropped and counted, and the next line that fits says how many
were lost. `log_lines` makes the lines, `policy.reasons` has the reasons.
"""

import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable

from vsockproxy.activity import Activity
from vsockproxy.log_lines import Level, LineFormat, format_line, passes

MAX_LINE_BYTES = 4096
"""PIPE_BUF of Linux: a write up to this is whole or not at all (pipe(7))."""

Fields = dict[str, object]

_INTEGER = struct.Struct("i")


class Log:
    """Writes the events of one process; `activity` counts them, lost lines or not.

    Args:
        side: `parent` or `enclave`, on every line that does not say otherwise.
        line_format: text or JSON.
        level: events below it are not written.
        descriptor: where lines go.
        wall_clock: seconds since the epoch, for the time on each line.
    """

    def __init__(
        self,
        side: str,
        line_format: LineFormat,
        level: Level = "info",
        descriptor: int = 2,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.dropped_lines = 0
        self.activity = Activity()
        self.threshold = level
        """Events below it are not written."""
        self._side = side
        self._format = line_format
        self._descriptor = descriptor
        self.wall_clock = wall_clock
        self._unreported = 0
        self._pipe_bytes: int | None = None
        """What the pipe holds; 0 if it is none, None while that is not known."""

    def debug(self, event: str, **fields: object) -> None:
        """Something for whoever looks for a fault."""
        self.write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """The ordinary course of things."""
        self.write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something an operator should know."""
        self.write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something that does not work."""
        self.write("error", event, fields)

    def write(self, level: Level, event: str, fields: Fields) -> None:
        """Write one line; fields that are None are left out."""
        if not passes(level, self.threshold):
            return
        if self._unreported and self._put(
            "warning", "log_lines_dropped", {"lines": self._unreported}
        ):
            self._unreported = 0
        if not self._put(level, event, fields):
            self.dropped_lines += 1
            self._unreported += 1

    @property
    def has_much_room(self) -> bool:
        """Whether most of the pipe is free; true where lines go to what is no pipe.

        Whoever has lines that can wait asks before it writes them, so that there is room for those
        that cannot.
        """
        if self._pipe_bytes is None:
            try:
                self._pipe_bytes = fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ)
            except OSError:
                self._pipe_bytes = 0
        if not self._pipe_bytes:
            return True
        waiting = fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(_INTEGER.size))
        return bool(_INTEGER.unpack(waiting)[0] <= self._pipe_bytes // 4)

    def _put(self, level: Level, event: str, fields: Fields) -> bool:
        values = {"event": event, "side": self._side, **fields}
        now = self.wall_clock()
        line = format_line(self._format, now, level, values)
        while len(line) > MAX_LINE_BYTES:
            # Only texts are long; with its longest one halved the line still says everything else.
            longest = max(values, key=lambda key: len(str(values[key])))
            text = str(values[longest])
            values[longest] = text[: len(text) // 2] + "…"
            line = format_line(self._format, now, level, values)
        try:
            return os.write(self._descriptor, line) == len(line)
        except OSError:
            return False
