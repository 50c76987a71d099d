"""Targets: an enclave's log as the parent receives it, and its positions as the enclave does."""

from collections.abc import Iterable

from tests.fuzz.target import Target, same_however_cut
from vsockproxy.protocols.errors import LogStreamError
from vsockproxy.protocols.log_position import LogPosition, readable_pieces
from vsockproxy.protocols.log_ring import LogRing
from vsockproxy.protocols.log_stream import (
    Dropped,
    Exit,
    Line,
    PositionReader,
    Record,
    RecordReader,
    Source,
    Unknown,
    encode_position,
)

_PIECE_BYTES = 3072


def _read(pieces: Iterable[bytes]) -> list[Record] | str:
    """The records; or what is wrong with one of them."""
    reader = RecordReader()
    records: list[Record] = []
    try:
        for piece in pieces:
            records += reader.receive(piece)
    except LogStreamError as error:
        return error.text
    return records


def _records(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read(cut(data)))
    if isinstance(outcome, str):
        assert outcome.isprintable()
        return outcome[:24]
    position = LogPosition()
    kinds = set()
    for record in outcome:
        if isinstance(record, Line):
            text = "".join(readable_pieces(record.text, _PIECE_BYTES))
            assert text == record.text.decode(errors="backslashreplace")
        if not isinstance(record, Unknown):
            assert RecordReader().receive(record.encode()) == [record]
        before = position.next
        try:
            unwritten = position.unwritten(record)
        except LogStreamError as error:
            return error.text[:6]
        if unwritten is not None:
            position.written(unwritten)
            assert position.next > before
            kinds.add(type(unwritten).__name__)
    return " ".join(sorted(kinds)) or "more"


def _positions(data: bytes) -> str:
    def positions(pieces: Iterable[bytes]) -> list[int]:
        reader = PositionReader()
        return [position for piece in pieces for position in reader.receive(piece)]

    ring = LogRing(1 << 20)
    for number in range(4):
        ring.add_line(Source.STDOUT, bytes(number), continues=False, time_ms=0)
    ring.begin()
    taken = 0
    for count, position in enumerate(same_however_cut(lambda cut: positions(cut(data)))):
        try:
            ring.acknowledge(position)
        except LogStreamError as error:
            return f"{'i' * min(count, 6)} {error.text[-10:]}"
        taken += len(ring.take(1))
        assert ring.size_bytes >= 0
    return f"{'i' * (taken % 7)} {'all' if ring.is_delivered else 'not all'} written"


_RECORDS = (
    Line(0, Source.STDOUT, b"hi"),
    Line(1, Source.STDERR, b"\xff", "web", continues=True, time_ms=1),
    Dropped(2, 300),
    Line(302, Source.VSOCKPROXY, b"{}"),
    Exit(303, 137, 9, 1500),
)

LOG_RECORDS = Target(
    "log_records",
    _records,
    (
        *(record.encode() for record in _RECORDS),
        b"".join(record.encode() for record in _RECORDS),
        b"\x63" + _RECORDS[0].encode()[1:],
    ),
    (
        b"\x01\x01\0\0\0\0",
        b"\x02\0\0\0\0\x08",
        b"\x03\0\0\0\0\x0b",
        b"\x10\0",
        bytes(8),
        b"\xff" * 8,
    ),
)
LOG_POSITIONS = Target(
    "log_positions",
    _positions,
    (
        b"".join(encode_position(number) for number in range(5)),
        encode_position(0) * 3,
        encode_position(2**63),
    ),
    (bytes(8), encode_position(1), encode_position(4), b"\xff" * 8),
)
