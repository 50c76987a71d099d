"""The service `vsockproxy.log`: an enclave's log on its way to the parent, as bytes of a stream.

The enclave opens the stream and sends records, each behind a header of 22 bytes (big-endian):

| offset | field    |     |                                                                   |
|--------|----------|-----|-------------------------------------------------------------------|
| 0      | kind     | u8  | 1 LINE, 2 DROPPED, 3 EXIT                                         |
| 1      | source   | u8  | of a LINE: 1 stdout, 2 stderr, 3 vsockproxy; else 0               |
| 2      | flags    | u8  | 0x01: the next LINE of this source goes on with the text          |
| 3      | label    | u8  | how many of the bytes behind the header name a command, 0 to 64   |
| 4      | length   | u16 | bytes behind the header, label included: at most 4,096            |
| 6      | sequence | u64 | the record's number in this life of the enclave                   |
| 14     | time     | u64 | ms since the epoch by the enclave's clock; 0: it does not say     |

LINE has its text behind the label, any bytes, without a line break. DROPPED has a u64: so many
records from its own number on are lost, and that it stands for them all. EXIT has status u16,
signal u8 (0: none) and uptime u64 in ms: the enclave's side is about to end. Numbers go up by one;
where some are missing, DROPPED says so. A receiver steps over a kind that it does not know.

The parent sends positions, u64: the number of the first record that it has not written yet. The
first comes at once, so that the enclave goes on from there; it is 0 if the parent knows nothing of
this life of the enclave. Later ones follow whenever records have been written. The enclave keeps
what lies behind the position, within its ring, and sends it again on its next stream.
"""

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from vsockproxy.protocols.errors import LogStreamError

__all__ = (
    "HEADER_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_SEQUENCE",
    "MAX_TEXT_BYTES",
    "SERVICE",
    "Dropped",
    "Exit",
    "Line",
    "PositionReader",
    "Record",
    "RecordReader",
    "Source",
    "Unknown",
    "encode_position",
)

SERVICE: Final = "vsockproxy.log"

MAX_PAYLOAD_BYTES: Final = 4096
"""Longest record behind its header."""

MAX_TEXT_BYTES: Final = 2048
"""Longest text that this implementation puts into one LINE: with all of it escaped, one or a few
log lines of the parent hold it."""

MAX_SEQUENCE: Final = 2**63

_HEADER: Final = struct.Struct(">BBBBHQQ")
HEADER_BYTES: Final = _HEADER.size
_COUNT: Final = struct.Struct(">Q")
_EXIT: Final = struct.Struct(">HBQ")

_LINE, _DROPPED, _EXIT_KIND = 1, 2, 3
_CONTINUES: Final = 0x01
_LABEL: Final = re.compile(rb"[A-Za-z0-9_.-]{0,64}")


class Source(IntEnum):
    """Who wrote a line."""

    STDOUT = 1
    STDERR = 2
    VSOCKPROXY = 3

    @property
    def text(self) -> str:
        """As logs say it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Line:
    """One line, or a piece of a long one."""

    sequence: int
    source: Source
    text: bytes
    label: str = ""
    """The command that wrote it, where there are several."""
    continues: bool = False
    """The line goes on in the next record of its source."""
    time_ms: int = 0

    def encode(self) -> bytes:
        """The record; its fields are within their bounds."""
        label = self.label.encode()
        return (
            _HEADER.pack(
                _LINE,
                self.source,
                _CONTINUES if self.continues else 0,
                len(label),
                len(label) + len(self.text),
                self.sequence,
                self.time_ms,
            )
            + label
            + self.text
        )


@dataclass(frozen=True, slots=True)
class Dropped:
    """`count` records from `sequence` on are lost."""

    sequence: int
    count: int

    def encode(self) -> bytes:
        """The record."""
        header = _HEADER.pack(_DROPPED, 0, 0, 0, _COUNT.size, self.sequence, 0)
        return header + _COUNT.pack(self.count)


@dataclass(frozen=True, slots=True)
class Exit:
    """The enclave's side ends."""

    sequence: int
    status: int
    """What its process exits with."""
    signal: int
    """The signal that ended the command, or 0."""
    uptime_ms: int
    time_ms: int = 0

    def encode(self) -> bytes:
        """The record."""
        header = _HEADER.pack(_EXIT_KIND, 0, 0, 0, _EXIT.size, self.sequence, self.time_ms)
        return header + _EXIT.pack(self.status, self.signal, self.uptime_ms)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A record of a kind from after this version."""

    sequence: int


Record = Line | Dropped | Exit | Unknown


class RecordReader:
    """Reads the records of a stream, whatever pieces they come in."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""
        """The beginning of a record, never a whole one."""

    def receive(self, data: bytes) -> list[Record]:
        """The records that `data` completes.

        Raises:
            LogStreamError: what comes is no record; nothing behind it can be read.
        """
        if self._rest:
            data = self._rest + data
        records: list[Record] = []
        start = 0
        while len(data) - start >= HEADER_BYTES:
            fields = _HEADER.unpack_from(data, start)
            length = fields[4]
            if length > MAX_PAYLOAD_BYTES:
                raise LogStreamError(f"a record of {length} bytes, more than {MAX_PAYLOAD_BYTES}")
            end = start + HEADER_BYTES + length
            if len(data) < end:
                break
            records.append(_decode(fields, data[start + HEADER_BYTES : end]))
            start = end
        self._rest = data[start:]
        return records


def _decode(fields: tuple[int, ...], payload: bytes) -> Record:
    kind, source, flags, label_bytes, _, sequence, time_ms = fields
    if sequence >= MAX_SEQUENCE:
        raise LogStreamError(f"a record with the number {sequence}")
    if kind == _LINE:
        label, text = payload[:label_bytes], payload[label_bytes:]
        if label_bytes > len(payload) or not _LABEL.fullmatch(label):
            raise LogStreamError("the label of a line is none")
        try:
            known = Source(source)
        except ValueError:
            raise LogStreamError(f"a line of the unknown source {source}") from None
        return Line(sequence, known, text, label.decode(), bool(flags & _CONTINUES), time_ms)
    if kind == _DROPPED:
        if len(payload) != _COUNT.size:
            raise LogStreamError(f"a count of {len(payload)} bytes")
        (count,) = _COUNT.unpack(payload)
        if not 0 < count <= MAX_SEQUENCE - sequence:
            raise LogStreamError(f"{count} dropped records from number {sequence} on")
        return Dropped(sequence, count)
    if kind == _EXIT_KIND:
        if len(payload) != _EXIT.size:
            raise LogStreamError(f"an exit of {len(payload)} bytes")
        status, signal, uptime_ms = _EXIT.unpack(payload)
        return Exit(sequence, status, signal, uptime_ms, time_ms)
    return Unknown(sequence)


def encode_position(sequence: int) -> bytes:
    """A position, as the parent says it."""
    return _COUNT.pack(sequence)


class PositionReader:
    """Reads the positions of a stream, whatever pieces they come in."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> list[int]:
        """The positions that `data` completes."""
        data = self._rest + data
        whole = len(data) - len(data) % _COUNT.size
        self._rest = data[whole:]
        return [position for (position,) in _COUNT.iter_unpack(data[:whole])]
