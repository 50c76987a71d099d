"""Headers, payloads and checksums: the reader and the writer, without a session."""

from collections.abc import Iterable
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import session_frames as raw
from tests.support.session_frames import DATA, FIN, GOAWAY, MAX_STREAMS, PING, PONG
from tests.support.wire_rules import covers
from vsockproxy.session import ErrorCode, PeerProtocolError
from vsockproxy.session.frame_reader import CONTINUED, FrameReader
from vsockproxy.session.frame_writer import FrameWriter
from vsockproxy.session.frames import (
    HEADER_BYTES,
    MAX_TEXT_BYTES,
    PAYLOAD_LIMITS,
    SESSION_FRAMES,
    FrameType,
)

BOUNDS = {
    raw.OPEN: (1, 1024),
    raw.OPENED: (1, 1024),
    raw.REFUSED: (1, 1024),
    raw.DATA: (0, 65535),
    raw.CREDIT: (8, 8),
    raw.MAX_STREAMS: (8, 8),
    raw.RESET: (12, 12),
    raw.STOP: (4, 4),
    raw.END: (8, 8),
    raw.RESOLVE: (1, 1024),
    raw.RESOLVED: (1, 16384),
    raw.PING: (8, 8),
    raw.PONG: (8, 8),
    raw.GOAWAY: (8, 520),
}
"""Written a second time, from the table in WIRE_FORMAT.md section 3."""
ON_STREAM_0 = {MAX_STREAMS, PING, PONG, GOAWAY}
FIRST = 0xFFFFFFF0
"""The sequence wraps within each longer test."""

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, payload."""


def stream_of(frame_type: int) -> int:
    return 0 if frame_type in ON_STREAM_0 else 7


def write(frames: Iterable[Frame], *, has_checksums: bool) -> bytes:
    return b"".join(
        raw.frame(
            kind, stream, payload, flags=flags, sequence=FIRST + n, has_checksum=has_checksums
        )
        for n, (kind, flags, stream, payload) in enumerate(frames)
    )


def read(reader: FrameReader, pieces: Iterable[bytes]) -> list[Frame]:
    """What `reader` hands on, with the pieces of each DATA frame joined again."""
    frames: list[Frame] = []
    wanted = 0
    for piece in pieces:
        for kind, flags, stream, length, payload in reader.read(memoryview(piece)):
            if length != CONTINUED:
                frames.append((kind, flags, stream, bytes(payload)))
                wanted = length
            else:
                assert kind == DATA
                before = frames.pop()
                assert not before[1], "FIN came before the last piece"
                frames.append((kind, flags, stream, before[3] + payload))
            assert not flags or len(frames[-1][3]) == wanted
    return frames


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def new_reader(*, has_checksums: bool = False, most: int = 65535) -> FrameReader:
    return FrameReader(FIRST & 0xFFFFFFFF, most, has_checksums=has_checksums)


def data_frames(payloads: st.SearchStrategy[bytes]) -> st.SearchStrategy[Frame]:
    return st.tuples(st.just(DATA), st.sampled_from((0, FIN)), st.integers(1, 2**32 - 1), payloads)


control_frames = st.sampled_from(
    [(kind, 0, stream_of(kind), raw.SOME_PAYLOADS[kind]) for kind in BOUNDS if kind != DATA]
)
frames = st.lists(control_frames | data_frames(st.binary(max_size=50)), max_size=12)
with_and_without = pytest.mark.parametrize(
    "has_checksums", [False, True], ids=["plain", "checksums"]
)


def test_the_bounds_of_payloads() -> None:
    assert {int(kind): bounds for kind, bounds in PAYLOAD_LIMITS.items()} == BOUNDS
    assert set(map(int, SESSION_FRAMES)) == ON_STREAM_0
    assert {int(kind): kind.name for kind in FrameType} == raw.TYPES
    assert MAX_TEXT_BYTES == 512


@covers("W-027", "W-028", "W-029")
@with_and_without
@given(frames=frames, data=st.data())
def test_frames_are_read_in_any_pieces(
    has_checksums: bool, frames: list[Frame], data: st.DataObject
) -> None:
    written = write(frames, has_checksums=has_checksums)
    positions = data.draw(st.lists(st.integers(0, len(written)), max_size=20))
    reader = new_reader(has_checksums=has_checksums)
    assert read(reader, cut(written, positions)) == frames
    assert reader.is_between_frames
    assert reader.expected_sequence == (FIRST + len(frames)) & 0xFFFFFFFF


@covers("W-029")
@with_and_without
@pytest.mark.parametrize("size", [1, 2, 3, 11, 12, 13, 16])
def test_every_frame_in_pieces_of_one_size(size: int, has_checksums: bool) -> None:
    all_kinds = [(kind, 0, stream_of(kind), raw.SOME_PAYLOADS[kind]) for kind in BOUNDS]
    all_kinds += [(DATA, FIN, 9, b""), (DATA, FIN, 9, b"last"), (DATA, 0, 9, b"x" * 999)]
    written = write(all_kinds, has_checksums=has_checksums)
    pieces = cut(written, range(size, len(written), size))
    assert read(new_reader(has_checksums=has_checksums), pieces) == all_kinds


@with_and_without
def test_whether_the_bytes_end_with_a_frame(has_checksums: bool) -> None:
    one = write([(DATA, 0, 1, b"abc")], has_checksums=has_checksums)
    for length in range(len(one) + 1):
        reader = new_reader(has_checksums=has_checksums)
        read(reader, [one[:length]])
        assert reader.is_between_frames is (length in (0, len(one))), length
    ping = write([(PING, 0, 0, raw.total(1))], has_checksums=has_checksums)
    for length in range(len(ping) + 1):
        reader = new_reader(has_checksums=has_checksums)
        assert (read(reader, [ping[:length]]) == []) is (length < len(ping))
        assert reader.is_between_frames is (length in (0, len(ping))), length


def test_data_is_handed_on_before_the_frame_ends() -> None:
    reader = new_reader()
    begun = raw.frame(DATA, 1, b"abc", sequence=FIRST, flags=FIN, length=100)
    pieces = list(reader.read(memoryview(begun)))
    assert [(flags, length, bytes(payload)) for _, flags, _, length, payload in pieces] == [
        (0, 100, b"abc")
    ]
    pieces = list(reader.read(memoryview(b"x" * 97)))
    assert [(flags, length, len(payload)) for _, flags, _, length, payload in pieces] == [
        (FIN, CONTINUED, 97)
    ]


def test_a_view_of_the_read_buffer_is_handed_on_not_a_copy() -> None:
    buffer = bytearray(write([(DATA, 0, 1, b"abc")], has_checksums=False))
    ((*_, payload),) = new_reader().read(memoryview(buffer))
    buffer[HEADER_BYTES:] = b"xyz"
    assert bytes(payload) == b"xyz"


# ------------------------------------------------------------------------ what is refused


def refuse(data: bytes, code: ErrorCode, *, has_checksums: bool = False, most: int = 65535) -> None:
    """The same error, at the same byte, however the bytes are cut."""
    for pieces in ([data], [data[n : n + 1] for n in range(len(data))]):
        reader = new_reader(has_checksums=has_checksums, most=most)
        with pytest.raises(PeerProtocolError) as caught:
            read(reader, pieces)
        assert caught.value.code == code


@covers("W-020")
@pytest.mark.parametrize("off_by", [1, -1, 2, 1 << 31, 12345])
@pytest.mark.parametrize("kind", BOUNDS, ids=raw.TYPES.get)
def test_a_wrong_sequence_number(kind: int, off_by: int) -> None:
    payload = raw.SOME_PAYLOADS[kind]
    refuse(raw.frame(kind, stream_of(kind), payload, sequence=FIRST + off_by), ErrorCode.SEQUENCE)


@covers("W-020")
def test_a_lost_and_a_repeated_frame() -> None:
    three = [raw.frame(DATA, 1, b"abc", sequence=FIRST + n) for n in range(3)]
    refuse(three[0] + three[2], ErrorCode.SEQUENCE)
    refuse(three[0] + three[0], ErrorCode.SEQUENCE)
    refuse(three[1], ErrorCode.SEQUENCE)


@covers("W-020")
@given(st.integers(1, 26), st.binary(min_size=14, max_size=14))
def test_lost_bytes_are_seen_as_such(lost: int, payload: bytes) -> None:
    # What follows is read in the wrong place. Its first 4 bytes may pass for a header by chance,
    # so the sequence number is judged first.
    two = [raw.frame(DATA, 1, payload, sequence=0x51525354 + n) for n in range(2)]
    rest = two[0][: len(two[0]) - lost] + two[1]
    rest += raw.frame(DATA, 1, b"x" * 64, sequence=0x51525356)
    with pytest.raises(PeerProtocolError) as caught:
        read(FrameReader(0x51525354, 65535), [rest])
    assert caught.value.code == ErrorCode.SEQUENCE


@covers("W-020")
def test_the_sequence_wraps() -> None:
    reader = FrameReader(0xFFFFFFFF, 65535)
    data = raw.frame(DATA, 1, b"a", sequence=0xFFFFFFFF) + raw.frame(DATA, 1, b"b", sequence=0)
    assert [payload for *_, payload in read(reader, [data])] == [b"a", b"b"]
    assert reader.expected_sequence == 1


@covers("W-021")
@pytest.mark.parametrize("kind", [0, 15, 16, 127, 128, 255])
def test_an_unknown_type(kind: int) -> None:
    refuse(raw.frame(kind, 1, b"x" * 8, sequence=FIRST), ErrorCode.PROTOCOL)


@covers("W-022")
@pytest.mark.parametrize("flag", [1 << bit for bit in range(8)])
@pytest.mark.parametrize("kind", BOUNDS, ids=raw.TYPES.get)
def test_a_reserved_flag(kind: int, flag: int) -> None:
    data = raw.frame(kind, stream_of(kind), raw.SOME_PAYLOADS[kind], sequence=FIRST, flags=flag)
    if kind == DATA and flag == FIN:
        assert len(read(new_reader(), [data])) == 1
    else:
        refuse(data, ErrorCode.PROTOCOL)


@covers("W-023")
@pytest.mark.parametrize(
    ("kind", "length"),
    [
        pytest.param(kind, length, id=f"{raw.TYPES[kind]} of {length}")
        for kind, (least, most) in BOUNDS.items()
        for length in (least - 1, most + 1, 0xFFFF)
        if 0 <= length <= 0xFFFF and not least <= length <= most
    ],
)
def test_a_length_out_of_bounds_is_refused_with_the_header(kind: int, length: int) -> None:
    refuse(raw.frame(kind, stream_of(kind), sequence=FIRST, length=length), ErrorCode.PROTOCOL)


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        pytest.param(kind, length, id=f"{raw.TYPES[kind]} of {length}")
        for kind, bounds in BOUNDS.items()
        for length in bounds
        if length
    ],
)
def test_a_length_at_its_bound_is_taken(kind: int, length: int) -> None:
    data = raw.frame(kind, stream_of(kind), b"x" * length, sequence=FIRST)
    assert read(new_reader(), [data]) == [(kind, 0, stream_of(kind), b"x" * length)]


@covers("W-024")
@pytest.mark.parametrize("kind", BOUNDS, ids=raw.TYPES.get)
def test_the_stream_of_a_frame_that_has_none_and_none_where_there_must_be_one(kind: int) -> None:
    payload = raw.SOME_PAYLOADS[kind]
    wrong = 7 if kind in ON_STREAM_0 else 0
    refuse(raw.frame(kind, wrong, payload, sequence=FIRST), ErrorCode.PROTOCOL)


@covers("W-025")
def test_data_above_our_own_limit() -> None:
    data = raw.frame(DATA, 1, sequence=FIRST, length=1025)
    refuse(data, ErrorCode.PROTOCOL, most=1024)
    fits = raw.frame(DATA, 1, b"x" * 1024, sequence=FIRST)
    assert len(read(new_reader(most=1024), [fits])) == 1


@covers("W-027")
@pytest.mark.parametrize("kind", BOUNDS, ids=raw.TYPES.get)
@pytest.mark.parametrize("where", ["payload", "checksum"])
def test_a_changed_bit_with_checksums(kind: int, where: str) -> None:
    data = bytearray(
        raw.frame(kind, stream_of(kind), raw.SOME_PAYLOADS[kind], sequence=FIRST, has_checksum=True)
    )
    data[HEADER_BYTES if where == "payload" else -1] ^= 0x10
    refuse(bytes(data), ErrorCode.CHECKSUM, has_checksums=True)


@covers("W-027")
def test_fin_waits_for_the_checksum() -> None:
    reader = new_reader(has_checksums=True)
    data = raw.frame(DATA, 1, b"abc", sequence=FIRST, flags=FIN)
    assert read(reader, [data]) == [(DATA, 0, 1, b"abc")]
    checksum = crc32(b"abc").to_bytes(4, "big")
    assert [(flags, length) for _, flags, _, length, _ in reader.read(memoryview(checksum))] == [
        (FIN, CONTINUED)
    ]


@covers("W-028")
def test_checksums_that_were_not_agreed_on_are_taken_for_a_header() -> None:
    data = raw.frame(DATA, 1, b"abc", sequence=FIRST, has_checksum=True)
    refuse(data + data, ErrorCode.SEQUENCE)


@given(st.binary(max_size=100), st.booleans(), st.data())
def test_any_bytes_are_frames_or_more_or_an_error(
    tail: bytes, has_checksums: bool, data: st.DataObject
) -> None:
    good = write(data.draw(frames), has_checksums=has_checksums)
    changed = bytearray(good[: data.draw(st.integers(0, len(good)))] + tail)
    if changed:
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(0, 255))

    def outcome(pieces: Iterable[bytes]) -> tuple[list[Frame], ErrorCode | None]:
        reader = new_reader(has_checksums=has_checksums)
        seen: list[Frame] = []
        try:
            for piece in pieces:
                for kind, flags, stream, length, payload in reader.read(memoryview(piece)):
                    if length != CONTINUED:
                        seen.append((kind, flags, stream, bytes(payload)))
                    else:
                        before = seen.pop()
                        seen.append((kind, flags, stream, before[3] + payload))
        except PeerProtocolError as error:
            return seen, error.code
        return seen, None

    whole = outcome([bytes(changed)])
    positions = data.draw(st.lists(st.integers(0, len(changed)), max_size=8))
    assert outcome(cut(bytes(changed), positions)) == whole


# ------------------------------------------------------------------------------- the writer


@with_and_without
@given(frames=frames)
def test_the_writer_writes_what_stands_in_the_format(
    has_checksums: bool, frames: list[Frame]
) -> None:
    writer = FrameWriter(FIRST & 0xFFFFFFFF, has_checksums=has_checksums)
    written = b"".join(
        writer.frame(FrameType(kind), stream, payload, flags)
        for kind, flags, stream, payload in frames
    )
    assert written == write(frames, has_checksums=has_checksums)


@with_and_without
@given(payloads=st.lists(st.binary(min_size=1, max_size=40), max_size=5))
def test_data_is_sealed_in_place(has_checksums: bool, payloads: list[bytes]) -> None:
    writer = FrameWriter(FIRST & 0xFFFFFFFF, has_checksums=has_checksums)
    buffer = bytearray(300)
    end = 0
    for payload in payloads:
        start = end + HEADER_BYTES
        buffer[start : start + len(payload)] = payload
        end = writer.seal(buffer, end, 7, len(payload))
    assert buffer[:end] == write(
        [(DATA, 0, 7, payload) for payload in payloads], has_checksums=has_checksums
    )
