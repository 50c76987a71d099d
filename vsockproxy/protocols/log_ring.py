"""The enclave's end of `vsockproxy.log`: what waits, what was sent, what is lost. Pure.

Records are numbered as they come. The ring keeps those that the parent has not acknowledged, up to
a number of bytes; when there is no room it drops the oldest, sent or not. So it always holds one
unbroken row of numbers, and what is lost between the parent's position and the oldest that is left
is counted from the numbers alone, at the moment when it is sent.
"""

from collections import deque
from typing import Final

from vsockproxy.protocols.errors import LogStreamError
from vsockproxy.protocols.log_stream import MAX_TEXT_BYTES, Dropped, Exit, Line, Source

__all__ = ("MAX_IN_FLIGHT_BYTES", "OVERHEAD_BYTES", "LineSplitter", "LogRing")

OVERHEAD_BYTES: Final = 48
"""What a record costs beyond its own bytes: a bytes object and its place in a deque."""

MAX_IN_FLIGHT_BYTES: Final = 256 * 1024
"""Sent and not acknowledged on one stream."""


class LogRing:
    """Holds records until the parent has them.

    Args:
        most_bytes: what all records together may cost, overhead included; the latest record is kept
            whatever it costs.
    """

    __slots__ = (
        "_acknowledged",
        "_base",
        "_batches",
        "_in_flight_bytes",
        "_most_bytes",
        "_position",
        "_sent",
        "_unacknowledged",
        "_unsent",
        "dropped",
        "next_sequence",
        "size_bytes",
    )

    def __init__(self, most_bytes: int) -> None:
        self.next_sequence = 0
        """The number of the next record."""
        self.size_bytes = 0
        self.dropped = 0
        """Records that were dropped for lack of room. The parent may have written some of them,
        and not have said so yet; its own count is exact."""
        self._most_bytes = most_bytes
        self._unacknowledged: deque[bytes] = deque()
        """Those that were sent on this stream, numbered from `_base` on."""
        self._unsent: deque[bytes] = deque()
        """Those behind them."""
        self._base = 0
        """The number of the oldest record that is here, or of the next one."""
        self._acknowledged = 0
        """The highest position that the parent has ever said."""
        self._sent = 0
        """The number of the next record to send on this stream, or what it was on the one before
        until the parent has spoken. If that record is no longer here, DROPPED stands for it."""
        self._position: int | None = None
        """The latest that the parent has said on this stream; None until it has."""
        self._batches: deque[tuple[int, int]] = deque()
        """What was sent on this stream at once: the number behind it, and its bytes."""
        self._in_flight_bytes = 0

    @property
    def is_delivered(self) -> bool:
        """Whether the parent has written all that there was."""
        return self._acknowledged == self.next_sequence

    def add_line(
        self, source: Source, text: bytes, *, continues: bool, time_ms: int, label: str = ""
    ) -> None:
        """Keep a line, or a piece of one, of at most `MAX_TEXT_BYTES`."""
        self._add(Line(self.next_sequence, source, text, label, continues, time_ms).encode())

    def add_exit(self, status: int, signal: int, uptime_ms: int, time_ms: int) -> None:
        """Keep the end of the enclave's side."""
        self._add(Exit(self.next_sequence, status, signal, uptime_ms, time_ms).encode())

    def _add(self, record: bytes) -> None:
        self.next_sequence += 1
        self._unsent.append(record)
        self.size_bytes += len(record) + OVERHEAD_BYTES
        self.keep_latest(self._most_bytes)

    def keep_latest(self, most_bytes: int) -> None:
        """Drop the oldest records until the others cost no more than that; the latest one stays."""
        while self.size_bytes > most_bytes and self.next_sequence - self._base > 1:
            self._forget_oldest()
            self.dropped += 1

    def _forget_oldest(self) -> None:
        queue = self._unacknowledged or self._unsent
        self.size_bytes -= len(queue.popleft()) + OVERHEAD_BYTES
        self._base += 1

    def begin(self) -> None:
        """A new stream: nothing is sent on it until the parent has said its position."""
        self._unsent.extendleft(reversed(self._unacknowledged))
        self._unacknowledged.clear()
        self._position = None
        self._batches.clear()
        self._in_flight_bytes = 0

    def acknowledge(self, position: int) -> None:
        """The parent has written all records before `position`.

        Raises:
            LogStreamError: it cannot have: they were not sent, or it has said more before.
        """
        previous = self._position
        if position > self._sent:
            raise LogStreamError(f"the parent has {position} records, and was sent fewer")
        if previous is not None and position < previous:
            raise LogStreamError(f"the parent has {position} records, and had {previous}")
        self._position = position
        while self._base < position:
            self._forget_oldest()
        self._acknowledged = max(self._acknowledged, position)
        if previous is None:
            self._sent = self._acknowledged
        while self._batches and self._batches[0][0] <= position:
            self._in_flight_bytes -= self._batches.popleft()[1]

    def take(self, most_bytes: int) -> bytes:
        """Records to send now; empty if there are none, or too much is on its way.

        Args:
            most_bytes: behind so many, no further record is added.
        """
        if self._position is None or self._in_flight_bytes >= MAX_IN_FLIGHT_BYTES:
            return b""
        taken: list[bytes] = []
        length = 0
        if self._sent < self._base and self._unsent:
            record = Dropped(self._sent, self._base - self._sent).encode()
            taken.append(record)
            length += len(record)
            self._sent = self._base
        while self._unsent and length < most_bytes:
            record = self._unsent.popleft()
            self._unacknowledged.append(record)
            taken.append(record)
            length += len(record)
            self._sent += 1
        if not taken:
            return b""
        self._batches.append((self._sent, length))
        self._in_flight_bytes += length
        return b"".join(taken)


class LineSplitter:
    """Parts bytes into lines, and long lines into pieces of at most `MAX_TEXT_BYTES`."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The lines that `data` completes, and pieces; True where the line goes on."""
        *lines, rest = (self._rest + data).split(b"\n")
        found: list[tuple[bytes, bool]] = []
        for line in lines:
            last = _cut(line, found) if len(line) > MAX_TEXT_BYTES else line
            found.append((last, False))
        self._rest = _cut(rest, found)
        return found

    def finish(self) -> list[tuple[bytes, bool]]:
        """What came behind the last line break, if anything did."""
        rest, self._rest = self._rest, b""
        return [(rest, False)] if rest else []


def _cut(line: bytes, pieces: list[tuple[bytes, bool]]) -> bytes:
    """Move all of a line but its last piece to `pieces`; that piece."""
    start = 0
    while len(line) - start > MAX_TEXT_BYTES:
        end = start + MAX_TEXT_BYTES
        for back in range(4):  # not within a character, where it is UTF-8
            if line[end - back] & 0xC0 != 0x80:
                end -= back
                break
        pieces.append((line[start:end], True))
        start = end
    return line[start:]
