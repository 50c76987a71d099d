"""The ring of an enclave's log: what it keeps, sends, and says of a parent that lies."""

import itertools
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vsockproxy.protocols.errors import LogStreamError
from vsockproxy.protocols.log_position import LogPosition
from vsockproxy.protocols.log_ring import (
    MAX_IN_FLIGHT_BYTES,
    OVERHEAD_BYTES,
    LineSplitter,
    LogRing,
)
from vsockproxy.protocols.log_stream import (
    HEADER_BYTES,
    MAX_TEXT_BYTES,
    Dropped,
    Exit,
    Line,
    PositionReader,
    Record,
    RecordReader,
    Source,
    encode_position,
)

ROOM_FOR_ONE = HEADER_BYTES + OVERHEAD_BYTES


def ring_of(lines: int, *, room_for: int = 1000) -> LogRing:
    """A ring with so many empty lines, which has room for others."""
    ring = LogRing(room_for * ROOM_FOR_ONE)
    for _ in range(lines):
        add(ring)
    return ring


def add(ring: LogRing, text: bytes = b"") -> None:
    ring.add_line(Source.STDOUT, text, continues=False, time_ms=0)


def taken(ring: LogRing, most_bytes: int = 1 << 20) -> list[Record]:
    return RecordReader().receive(ring.take(most_bytes))


def numbers(records: list[Record]) -> list[int]:
    return [record.sequence for record in records]


def test_nothing_is_sent_before_the_parent_has_spoken() -> None:
    ring = ring_of(3)
    ring.begin()
    assert ring.take(100) == b""
    ring.acknowledge(0)
    assert numbers(taken(ring)) == [0, 1, 2]
    assert not ring.is_delivered
    ring.acknowledge(3)
    assert ring.is_delivered
    assert ring.size_bytes == 0


def test_on_a_new_stream_it_goes_on_from_what_the_parent_has() -> None:
    ring = ring_of(5)
    ring.begin()
    ring.acknowledge(0)
    assert len(taken(ring)) == 5
    ring.begin()
    ring.acknowledge(2)
    assert numbers(taken(ring)) == [2, 3, 4]


def test_a_parent_that_was_restarted_gets_what_was_not_acknowledged() -> None:
    ring = ring_of(5)
    ring.begin()
    ring.acknowledge(0)
    taken(ring)
    ring.acknowledge(4)
    ring.begin()
    ring.acknowledge(0)
    assert numbers(taken(ring)) == [4]


def test_a_full_ring_drops_the_oldest_and_says_how_many() -> None:
    ring = ring_of(10, room_for=4)
    assert ring.dropped == 6
    ring.begin()
    ring.acknowledge(0)
    assert taken(ring) == [Dropped(0, 6), *(Line(n, Source.STDOUT, b"") for n in range(6, 10))]


def test_what_was_dropped_behind_what_was_sent_is_told_in_its_place() -> None:
    ring = ring_of(4, room_for=4)
    ring.begin()
    ring.acknowledge(0)
    assert numbers(taken(ring, 2 * HEADER_BYTES)) == [0, 1]
    for _ in range(6):
        add(ring)
    assert taken(ring)[0] == Dropped(2, 4)


def test_what_was_dropped_and_yet_arrived_is_not_counted() -> None:
    ring = ring_of(4, room_for=4)
    ring.begin()
    ring.acknowledge(0)
    taken(ring)  # 0 to 3 are on their way
    for _ in range(6):
        add(ring)
    ring.begin()
    ring.acknowledge(3)  # and the first three have arrived
    assert taken(ring)[0] == Dropped(3, 3)


def test_the_latest_line_is_kept_whatever_it_costs() -> None:
    ring = LogRing(100)
    add(ring, b"x" * MAX_TEXT_BYTES)
    add(ring, b"y" * MAX_TEXT_BYTES)
    ring.begin()
    ring.acknowledge(0)
    assert taken(ring) == [Dropped(0, 1), Line(1, Source.STDOUT, b"y" * MAX_TEXT_BYTES)]


def test_so_much_is_on_its_way_and_no_more() -> None:
    ring = LogRing(1 << 24)
    while ring.size_bytes < 4 * MAX_IN_FLIGHT_BYTES:
        add(ring, b"x" * 1000)
    ring.begin()
    ring.acknowledge(0)
    sent = list(itertools.takewhile(bool, (ring.take(10_000) for _ in itertools.count())))
    assert 0 <= sum(map(len, sent)) - MAX_IN_FLIGHT_BYTES < 12_000
    first = len(RecordReader().receive(sent[0]))
    ring.acknowledge(first - 1)
    assert ring.take(10_000) == b""
    ring.acknowledge(first)
    assert ring.take(10_000)


def test_the_exit_is_a_record_too() -> None:
    ring = ring_of(1)
    ring.add_exit(137, 9, 1500, 5)
    ring.begin()
    ring.acknowledge(0)
    assert taken(ring)[1] == Exit(1, 137, 9, 1500, 5)


LIES = {
    "a record that does not exist": ([0], 6),
    "a record that was not sent": ([0], 4),
    "fewer than before": ([0, 2], 1),
    "all records there will ever be": ([0], 2**64 - 1),
    "at once, more than was ever sent": ([], 4),
}


@pytest.mark.parametrize(("before", "lie"), LIES.values(), ids=LIES)
def test_a_parent_that_lies_is_told_and_nothing_is_lost(before: list[int], lie: int) -> None:
    ring = ring_of(5)
    ring.begin()
    ring.acknowledge(0)
    taken(ring, 3 * HEADER_BYTES)
    ring.begin()
    for position in before:
        ring.acknowledge(position)
        if position == 0:
            taken(ring, 3 * HEADER_BYTES)
    with pytest.raises(LogStreamError):
        ring.acknowledge(lie)
    ring.begin()
    ring.acknowledge(0)
    assert numbers(taken(ring))[-1] == 4


# ---------------------------------------------------------------- enclave, network and parent


class Shipping(RuleBasedStateMachine):
    """An enclave, a network that delays and cuts, and a parent that writes what it can."""

    ROOM = 8 * (ROOM_FOR_ONE + 4)

    def __init__(self) -> None:
        super().__init__()
        self.ring = LogRing(self.ROOM)
        self.position = LogPosition()
        self.written: list[int | str] = []
        """Each line once, or how many are lost, in the parent's order."""
        self.lines = 0
        self.is_up = False
        self.to_parent: deque[bytes] = deque()
        self.to_enclave: deque[bytes] = deque()
        self.records = RecordReader()
        self.positions = PositionReader()

    @rule(count=st.integers(1, 12))
    def the_command_writes(self, count: int) -> None:
        for _ in range(count):
            add(self.ring, str(self.lines).encode())
            self.lines += 1

    @precondition(lambda self: not self.is_up)
    @rule()
    def a_stream_opens(self) -> None:
        self.is_up = True
        self.ring.begin()
        self.records = RecordReader()
        self.positions = PositionReader()
        self.to_enclave.append(encode_position(self.position.next))

    @precondition(lambda self: self.is_up)
    @rule(most=st.integers(1, 200))
    def the_enclave_sends(self, most: int) -> None:
        if data := self.ring.take(most):
            self.to_parent.append(data)

    @precondition(lambda self: self.to_parent)
    @rule(size=st.integers(1, 100))
    def bytes_arrive(self, size: int) -> None:
        data = self.to_parent.popleft()
        if data[size:]:
            self.to_parent.appendleft(data[size:])
        for record in self.records.receive(data[:size]):
            unwritten = self.position.unwritten(record)
            if isinstance(unwritten, Dropped):
                self.written.extend(["lost"] * unwritten.count)
            elif unwritten is not None:
                assert isinstance(unwritten, Line)
                self.written.append(int(unwritten.text))
            if unwritten is not None:
                self.position.written(unwritten)

    @precondition(lambda self: self.is_up)
    @rule()
    def the_parent_acknowledges(self) -> None:
        self.to_enclave.append(encode_position(self.position.next))

    @precondition(lambda self: self.to_enclave)
    @rule(size=st.integers(1, 8))
    def an_acknowledgement_arrives(self, size: int) -> None:
        data = self.to_enclave.popleft()
        if data[size:]:
            self.to_enclave.appendleft(data[size:])
        for position in self.positions.receive(data[:size]):
            self.ring.acknowledge(position)

    @precondition(lambda self: self.is_up)
    @rule()
    def the_link_is_cut(self) -> None:
        self.is_up = False
        self.to_parent.clear()
        self.to_enclave.clear()

    @invariant()
    def each_line_is_written_once_in_order_or_counted(self) -> None:
        for place, what in enumerate(self.written):
            assert what in (place, "lost")

    @invariant()
    def the_ring_keeps_its_bound(self) -> None:
        assert self.ring.size_bytes <= self.ROOM

    def teardown(self) -> None:
        if self.is_up:
            self.the_link_is_cut()
        self.a_stream_opens()
        while self.to_parent or self.to_enclave or not self.ring.is_delivered:
            while self.to_enclave:
                self.an_acknowledgement_arrives(8)
            self.the_enclave_sends(1000)
            while self.to_parent:
                self.bytes_arrive(1000)
            self.the_parent_acknowledges()
            self.an_acknowledgement_arrives(8)
        self.each_line_is_written_once_in_order_or_counted()
        assert len(self.written) == self.lines


TestShipping = Shipping.TestCase


# ---------------------------------------------------------------- lines


SPLIT: dict[str, tuple[list[bytes], list[tuple[bytes, bool]]]] = {
    "nothing": ([b""], []),
    "a line": ([b"a\n"], [(b"a", False)]),
    "empty lines": ([b"\n\n"], [(b"", False), (b"", False)]),
    "a line in pieces": ([b"a", b"b", b"\nc"], [(b"ab", False), (b"c", False)]),
    "a carriage return stays": ([b"a\r\n"], [(b"a\r", False)]),
    "the longest line": ([b"x" * MAX_TEXT_BYTES + b"\n"], [(b"x" * MAX_TEXT_BYTES, False)]),
    "a line that is one longer": (
        [b"x" * MAX_TEXT_BYTES + b"y\n"],
        [(b"x" * MAX_TEXT_BYTES, True), (b"y", False)],
    ),
    "a character is not parted": (
        [b"x" * (MAX_TEXT_BYTES - 1) + "€".encode() + b"\n"],
        [(b"x" * (MAX_TEXT_BYTES - 1), True), ("€".encode(), False)],
    ),
    "what is no character is parted anywhere": (
        [b"\x80" * (MAX_TEXT_BYTES + 1)],
        [(b"\x80" * MAX_TEXT_BYTES, True), (b"\x80", False)],
    ),
}


@pytest.mark.parametrize(("pieces", "lines"), SPLIT.values(), ids=SPLIT)
def test_bytes_are_parted_into_lines(pieces: list[bytes], lines: list[tuple[bytes, bool]]) -> None:
    splitter = LineSplitter()
    found = [line for piece in pieces for line in splitter.receive(piece)]
    assert found + splitter.finish() == lines
    assert splitter.finish() == []


@given(st.lists(st.binary(max_size=5000) | st.just(b"\n"), max_size=10))
def test_no_byte_is_lost_and_no_line_too_long(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.receive(piece)] + splitter.finish()
    assert all(len(text) <= MAX_TEXT_BYTES for text, _ in lines)
    joined = b"".join(text + (b"" if continues else b"\n") for text, continues in lines)
    data = b"".join(pieces)
    assert joined == (data if data.endswith(b"\n") or not data else data + b"\n")
