"""Records and positions as bytes, and what is none."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.protocols.errors import LogStreamError
from vsockproxy.protocols.log_position import LogPosition, readable_pieces
from vsockproxy.protocols.log_stream import (
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SEQUENCE,
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


def raw(
    kind: int,
    payload: bytes = b"",
    *,
    source: int = 0,
    flags: int = 0,
    label: int = 0,
    length: int | None = None,
    sequence: int = 7,
    time_ms: int = 0,
) -> bytes:
    """A record by hand."""
    size = len(payload) if length is None else length
    return struct.pack(">BBBBHQQ", kind, source, flags, label, size, sequence, time_ms) + payload


RECORDS: dict[str, tuple[Line | Dropped | Exit, bytes]] = {
    "a line": (Line(7, Source.STDOUT, b"hi"), raw(1, b"hi", source=1)),
    "an empty line": (Line(7, Source.STDERR, b""), raw(1, source=2)),
    "a line of ours, with its time": (
        Line(7, Source.VSOCKPROXY, b"{}", time_ms=5),
        raw(1, b"{}", source=3, time_ms=5),
    ),
    "a line of a command that has a name": (
        Line(7, Source.STDOUT, b"hi", "web-1"),
        raw(1, b"web-1hi", source=1, label=5),
    ),
    "a piece of a line": (
        Line(7, Source.STDOUT, b"\xff\0", continues=True),
        raw(1, b"\xff\0", source=1, flags=1),
    ),
    "dropped records": (Dropped(7, 300), raw(2, struct.pack(">Q", 300))),
    "an exit": (Exit(7, 137, 9, 1500, 5), raw(3, struct.pack(">HBQ", 137, 9, 1500), time_ms=5)),
}


@pytest.mark.parametrize(("record", "data"), RECORDS.values(), ids=RECORDS)
def test_a_record_is_its_header_and_its_payload(record: Record, data: bytes) -> None:
    assert not isinstance(record, Unknown)
    assert record.encode() == data
    assert RecordReader().receive(data) == [record]


def test_a_record_of_a_later_version_is_stepped_over() -> None:
    data = raw(99, bytes(MAX_PAYLOAD_BYTES), source=255, flags=255, label=255)
    assert RecordReader().receive(data + raw(1, source=1, sequence=8)) == [
        Unknown(7),
        Line(8, Source.STDOUT, b""),
    ]


BROKEN = {
    "a longer payload than there is": (raw(99, length=MAX_PAYLOAD_BYTES + 1), "a record of 4097"),
    "a number beyond all numbers": (raw(1, source=1, sequence=MAX_SEQUENCE), "with the number"),
    "a line of nobody": (raw(1), "the unknown source 0"),
    "a line of somebody else": (raw(1, source=4), "the unknown source 4"),
    "a label that is longer than its record": (raw(1, b"a", source=1, label=2), "is none"),
    "a label of 65 letters": (raw(1, b"a" * 65, source=1, label=65), "is none"),
    "a label with a line break": (raw(1, b"a\n", source=1, label=2), "is none"),
    "a count of 7 bytes": (raw(2, bytes(7)), "a count of 7 bytes"),
    "a count of 0": (raw(2, bytes(8)), "0 dropped records"),
    "a count beyond all numbers": (raw(2, b"\xff" * 8), "dropped records from number 7 on"),
    "an exit with more than that": (raw(3, bytes(12)), "an exit of 12 bytes"),
}


@pytest.mark.parametrize(("data", "text"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_record_is_one_error(data: bytes, text: str) -> None:
    with pytest.raises(LogStreamError) as caught:
        RecordReader().receive(data)
    assert text in caught.value.text


@given(st.lists(st.sampled_from(list(RECORDS))), st.data())
def test_records_come_in_any_pieces(names: list[str], data: st.DataObject) -> None:
    stream = b"".join(RECORDS[name][1] for name in names)
    reader = RecordReader()
    found: list[Record] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += reader.receive(stream[:size])
        stream = stream[size:]
    assert found == [RECORDS[name][0] for name in names]


@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(1, 20))
def test_positions_come_in_any_pieces(positions: list[int], size: int) -> None:
    stream = b"".join(map(encode_position, positions))
    reader = PositionReader()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [each for piece in pieces for each in reader.receive(piece)] == positions


def test_a_header_is_as_long_as_it_says() -> None:
    assert len(raw(1)) == HEADER_BYTES == 22


# ---------------------------------------------------------------- what is written already


def line(sequence: int) -> Line:
    return Line(sequence, Source.STDOUT, b"")


def position_after(*records: Record) -> LogPosition:
    position = LogPosition()
    for record in records:
        position.written(record)
    return position


def test_nothing_is_known_of_an_enclave_that_is_older_than_the_parent() -> None:
    position = LogPosition()
    assert position.next == 0
    assert position.unwritten(line(1000)) == line(1000)
    position.written(line(1000))
    assert position.next == 1001


WHAT_IS_LEFT: dict[str, tuple[Record, Record | None]] = {
    "the next one": (line(5), line(5)),
    "the one before": (line(4), None),
    "the first": (line(0), None),
    "a gap that begins here": (Dropped(5, 10), Dropped(5, 10)),
    "a gap that is written": (Dropped(1, 4), None),
    "a gap of which a part is written": (Dropped(1, 10), Dropped(5, 6)),
    "an exit": (Exit(5, 0, 0, 0), Exit(5, 0, 0, 0)),
    "an exit that is written": (Exit(3, 0, 0, 0), None),
    "what is not known": (Unknown(5), Unknown(5)),
}


@pytest.mark.parametrize(("record", "left"), WHAT_IS_LEFT.values(), ids=WHAT_IS_LEFT)
def test_what_is_written_is_not_written_again(record: Record, left: Record | None) -> None:
    assert position_after(line(4)).unwritten(record) == left


@pytest.mark.parametrize("record", [line(6), Dropped(6, 1), Exit(2**62, 0, 0, 0), Unknown(7)])
def test_a_gap_that_nobody_speaks_of_is_an_error(record: Record) -> None:
    with pytest.raises(LogStreamError) as caught:
        position_after(line(4)).unwritten(record)
    assert caught.value.text == f"record {record.sequence} follows 4"


def test_a_gap_moves_the_position_by_its_length() -> None:
    assert position_after(Dropped(5, 10)).next == 15


# ---------------------------------------------------------------- lines as text


@given(st.binary(max_size=3000), st.integers(20, 200))
def test_pieces_of_a_line_are_all_of_it_and_none_is_long(text: bytes, most: int) -> None:
    pieces = readable_pieces(text, most)
    assert "".join(pieces) == text.decode("utf-8", "backslashreplace")
    assert all(len(json.dumps(piece)) <= most for piece in pieces)
    assert all(len(piece.encode()) <= most for piece in pieces)


def test_a_short_line_is_one_piece() -> None:
    assert readable_pieces(b"", 3000) == [""]
    assert readable_pieces("Grüße \0".encode() + b"\xff", 3000) == ["Grüße \0\\xff"]
