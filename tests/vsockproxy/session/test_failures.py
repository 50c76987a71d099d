"""How other multiplexers failed, entry by entry: each of these was somebody's deadlock, hang, panic
or hole, and none of them is ours.

The numbers follow the catalogue of hashicorp/yamux, libp2p/rust-yamux, xtaci/smux, HTTP/2 servers
and go-yamux issues from which this session was designed.
"""

import tracemalloc

import pytest

from tests.support.memory_link import MemoryLink
from tests.support.session_frames import (
    CREDIT,
    DATA,
    FIN,
    GOAWAY,
    MAX_STREAMS,
    OPEN,
    OPEN_REQUEST,
    OPENED,
    OPENED_SHARED,
    PING,
    PONG,
    RESET,
    RESOLVE,
    RESOLVE_QUESTION,
    STOP,
    TYPES,
    frame,
    goaway,
    reset,
    stop,
    total,
)
from tests.support.session_pair import Alone, ended, make_budget, make_hello
from tests.support.wire_rules import covers
from vsockproxy.session import (
    ErrorCode,
    LocalProtocolError,
    Open,
    Opened,
    Resolve,
    Resolved,
)
from vsockproxy.session.events import (
    DataReceived,
    SessionEnded,
    StreamOpened,
    StreamReset,
)

MEBIBYTE = 1024 * 1024


def pattern(length: int, seed: int = 0) -> bytes:
    block = bytes((seed + 7 * number) % 251 for number in range(251))
    return (block * (length // 251 + 1))[:length]


@covers("W-030")
@pytest.mark.parametrize("has_checksums", [False, True], ids=["plain", "checksums"])
@pytest.mark.parametrize("capacity", [1, 13, 1024])
def test_01_both_sides_write_and_nobody_waits_for_the_other(
    capacity: int, has_checksums: bool
) -> None:
    """rust-yamux PR 102, PR 112: both wait for their writes, so nobody reads."""
    length = {1: 2000, 13: 20_000, 1024: MEBIBYTE}[capacity]
    link = MemoryLink(capacity, has_checksums=has_checksums)
    pairs = [link.open() for _ in range(3)]
    for seed, (ours, theirs) in enumerate(pairs):
        link.initiator.send(ours, pattern(length, seed), finishes=True)
        link.acceptor.send(theirs, pattern(length, 100 + seed), finishes=True)
    link.run(1_000_000)
    for seed, (ours, theirs) in enumerate(pairs):
        assert theirs.received == pattern(length, seed)
        assert ours.received == pattern(length, 100 + seed)
        assert (ours.ended, theirs.ended) == ("finished", "finished")
    assert [(budget.streams, budget.reserved_bytes) for budget in link.budgets] == [(0, 0)] * 2


@covers("W-030", "W-100")
def test_02_an_answer_that_cannot_be_sent_does_not_stop_the_reader() -> None:
    """rust-yamux #227: reads wait for a pong slot that drains only when the socket is writable."""
    link = MemoryLink(1024)
    ours, theirs = link.open()
    link.initiator.send(ours, pattern(100_000))
    for _ in range(50):
        link.initiator.step(link.now)  # the acceptor does not read
    assert link.pipes[0].held_bytes == 1024
    peer = link.acceptor.session
    for nonce in range(150):
        peer.keepalive.ping_due = nonce
        link.pipes[1].write(peer.control_to_send())
        link.initiator.step(link.now)
        assert link.pipes[1].held_bytes == 0, "the reader went on"
    link.acceptor.send(theirs, b"and data too")
    link.acceptor.session.keepalive.ping_due = None
    assert link.initiator.session.keepalive.pong_due == total(149), "one answer, the latest"
    link.run()
    assert ours.received == b"and data too"
    assert theirs.received == pattern(100_000)


def test_03_no_waiter_is_lost_when_many_wait() -> None:
    """rust-yamux #232: reader and writer halves share one slot for whom to wake."""
    link = MemoryLink(4096, first_window_bytes=100, max_payload_bytes=1024)
    pairs = [link.open() for _ in range(50)]
    for seed, (ours, theirs) in enumerate(pairs):
        link.initiator.send(ours, pattern(3000, seed), finishes=True)
        link.acceptor.send(theirs, pattern(3000, seed + 1), finishes=True)
        theirs.is_reading = ours.is_reading = False
    link.run()
    assert all(theirs.received == pattern(100, seed) for seed, (_, theirs) in enumerate(pairs))
    for ours, theirs in pairs:
        theirs.is_reading = ours.is_reading = True
        link.initiator.take(ours, link.now)
        link.acceptor.take(theirs, link.now)
    link.run()
    for seed, (ours, theirs) in enumerate(pairs):
        assert theirs.received == pattern(3000, seed)
        assert ours.received == pattern(3000, seed + 1)


@covers("W-062")
def test_04_a_slow_stream_does_not_stall_the_others() -> None:
    """smux v1: one bucket for the session, and an unread stream empties it for all."""
    link = MemoryLink(8192, budgets=(make_budget(), make_budget(20 * 16384, 100)))
    slow = [link.open() for _ in range(10)]
    for ours, theirs in slow:
        theirs.is_reading = False
        link.initiator.send(ours, pattern(MEBIBYTE))
    link.run()
    fast, other = link.open()
    link.initiator.send(fast, pattern(MEBIBYTE, 5), finishes=True)
    link.run()
    assert other.received == pattern(MEBIBYTE, 5)
    assert {len(theirs.received) for _, theirs in slow} == {16384}
    for _, theirs in slow:
        theirs.is_reading = True
        link.acceptor.take(theirs, link.now)
    link.run()
    assert all(theirs.received == pattern(MEBIBYTE) for _, theirs in slow)


@covers("W-063")
def test_05_credit_is_for_what_was_taken_not_for_what_arrived() -> None:
    """rust-yamux 0.10-0.13, rust-libp2p #1257: credit on arrival lets a buffer grow without end."""
    link = MemoryLink(8192)
    ours, theirs = link.open()
    theirs.is_reading = False
    link.initiator.send(ours, pattern(100_000))
    link.run()
    assert (theirs.unread, ours.stream.send.sent) == (16384, 16384)
    assert link.acceptor.take(theirs, link.now, most=8191) == 8191
    link.run()
    assert ours.stream.send.sent == 16384, "not half a window yet"
    assert link.acceptor.take(theirs, link.now, most=1) == 1
    link.run()
    assert ours.stream.send.sent > 16384
    assert theirs.unread <= theirs.stream.receive.size_bytes


def test_06_a_write_that_timed_out_ends_the_other_sides_read() -> None:
    """hashicorp/yamux #142: the state is unchanged after the timeout, and a Read hangs for ever."""
    link = MemoryLink(1024)
    ours, theirs = link.open()
    theirs.is_reading = False
    link.initiator.send(ours, pattern(100_000))
    link.run()
    link.initiator.reset(ours, ErrorCode.TIMED_OUT)
    link.run()
    assert theirs.ended == "reset"
    assert len(link.acceptor.session.streams) == 0


@pytest.mark.parametrize("how", ["end of file", "error", "abort", "goaway", "silence"])
def test_07_nobody_waits_for_a_session_that_is_over(how: str) -> None:
    """hashicorp/yamux PR 127, #30: readers and writers sleep on after the session's death."""
    link = MemoryLink(1024)
    pairs = [link.open() for _ in range(3)]
    link.initiator.send(pairs[0][0], pattern(100_000))
    link.initiator.step(link.now)
    driver, session = link.initiator, link.initiator.session
    session.resolve(Resolve("h", 1))
    if how == "end of file":
        driver.act(session.receive_eof())
    elif how == "abort":
        driver.act(session.abort(ErrorCode.SHUTDOWN, "now"))
    elif how == "silence":
        for seconds in (0.5, 4.9, 5.5, 14.9, 15.1):
            driver.act(session.handle_deadline(link.now + seconds))
    else:
        sequence = link.acceptor.session._writer.next_sequence
        kind, payload = (GOAWAY, goaway(7)) if how == "goaway" else (99, b"")
        data = frame(kind, 0, payload, sequence=sequence)
        driver.act(session.receive(memoryview(data), link.now))
    assert driver.ended is not None
    assert [ours.ended for ours, _ in pairs] == ["lost"] * 3
    assert (link.budgets[0].streams, link.budgets[0].reserved_bytes) == (0, 0)
    with pytest.raises(LocalProtocolError):
        session.open(Open("h", 1), link.now)
    with pytest.raises(LocalProtocolError):
        session.resolve(Resolve("h", 1))


@covers("W-046")
def test_08_late_frames_are_no_error() -> None:
    """rust-yamux 0.8.1, 0.9: frames for a stream that was closed here end the connection."""
    link = MemoryLink(100_000)
    ours, theirs = link.open()
    link.initiator.send(ours, pattern(16384))
    link.acceptor.send(theirs, pattern(16384))
    link.initiator.step(link.now)
    link.acceptor.step(link.now, read_bytes=40)  # all of it is on its way in both directions
    link.initiator.reset(ours, ErrorCode.CUT)
    link.acceptor.reset(theirs, ErrorCode.CUT)
    again, other = link.open()
    link.initiator.send(again, b"still here", finishes=True)
    link.run()
    assert other.received == b"still here"
    assert link.initiator.ended is link.acceptor.ended is None


@covers("W-023", "W-060", "W-064")
@pytest.mark.parametrize(
    ("frame_type", "stream", "payload", "length", "code"),
    [
        pytest.param(DATA, 1, b"", 0xFFFF, ErrorCode.FLOW_CONTROL, id="more than was granted"),
        pytest.param(OPEN, 3, b"", 1025, ErrorCode.PROTOCOL, id="a long OPEN"),
        pytest.param(PING, 0, b"", 0xFFFF, ErrorCode.PROTOCOL, id="the ping of death"),
        pytest.param(GOAWAY, 0, b"", 521, ErrorCode.PROTOCOL, id="a long last word"),
        pytest.param(CREDIT, 1, total(2**64 - 1), None, None, id="all the credit there is"),
        pytest.param(MAX_STREAMS, 0, total(2**64 - 1), None, None, id="all streams there are"),
    ],
)
def test_09_malformed_frames_neither_panic_nor_allocate(
    frame_type: int, stream: int, payload: bytes, length: int | None, code: ErrorCode | None
) -> None:
    """GHSA-vxx9-2994-q338; rust-yamux 0.13.9; yamux TestSession_PingOfDeath."""
    alone = Alone()
    alone.send(OPEN, 1, OPEN_REQUEST)
    alone.session.accept(alone.session.streams[1], Opened())
    data = frame(frame_type, stream, payload, sequence=alone.sequence, length=length)
    tracemalloc.start()
    try:
        events = alone.receive(data + b"x" * (length is not None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000
    assert (ended(events).code if code else alone.session.is_ended) == (code or False)


@covers("W-101")
def test_10_a_pong_that_nobody_asked_for_ends_nothing() -> None:
    """rust-yamux: a pong with another nonce is a protocol error, after a lost race."""
    alone = Alone()
    for nonce in (1, 1, 7, 2**64 - 1):
        assert alone.send(PONG, 0, total(nonce)) == []
    assert alone.send(OPEN, 1, OPEN_REQUEST)


def test_11_large_writes_go_on_while_windows_change() -> None:
    """go-yamux #61: the window ramp made large writes block."""
    link = MemoryLink(256 * 1024)
    link.acceptor.session.keepalive.round_trip_seconds = 1.0  # so that every window grows
    ours, theirs = link.open()
    sizes = []
    data = pattern(72 * MEBIBYTE)
    link.initiator.send(ours, data, finishes=True)
    for _ in range(100_000):
        if theirs.ended or theirs.is_remote_finished:
            break
        link.now += 0.0001
        link.initiator.step(link.now)
        link.acceptor.step(link.now, read_bytes=200_000)
        sizes.append(theirs.stream.receive.size_bytes)
    assert theirs.received == data
    assert sizes[-1] == 4 * MEBIBYTE
    assert sizes == sorted(sizes)
    ordinary, other = link.open()
    link.initiator.send(ordinary, pattern(MEBIBYTE), finishes=True)
    link.run()
    assert other.received == pattern(MEBIBYTE)


def test_12_acting_on_events_calls_nobody_back() -> None:
    """go-yamux #7, yamux PR 104: locks taken in two orders. Here nothing is called from within:
    whatever a driver does while it acts on the events of one read, it finds the session at rest."""
    alone = Alone(local=make_hello(is_initiator=False, max_streams=50))
    for stream_id in range(1, 41, 2):
        alone.send(OPEN, stream_id, OPEN_REQUEST)
        alone.session.accept(alone.session.streams[stream_id], Opened())
    alone.take()
    data = b"".join(alone.frame(DATA, stream_id, b"x" * 9000) for stream_id in range(1, 41, 2))
    data += alone.frame(OPEN, 41, OPEN_REQUEST) + alone.frame(GOAWAY, 0, goaway(0))
    events = alone.receive(data)
    session = alone.session
    for event in events:
        for stream in list(session.streams.values()):
            if isinstance(event, DataReceived) and event.stream is stream:
                session.consume(stream, 9000, alone.now)
                session.reset(stream, ErrorCode.CUT)
                session.release(stream)
        if isinstance(event, StreamOpened):
            session.refuse(event.stream, "denied", "")
        session.control_to_send()
    assert session.streams == {}
    assert session.is_drained


@pytest.mark.parametrize("how", ["reset", "refuse", "abort"])
def test_13_whatever_is_dropped_here_is_told_to_the_peer(how: str) -> None:
    """rust-yamux, close_through_drop_of_stream_propagates_to_remote."""
    link = MemoryLink(1024, accepts=None)
    ours, theirs = link.open()
    if how == "reset":
        link.acceptor.reset(theirs, ErrorCode.SHUTDOWN)
    elif how == "refuse":
        link.acceptor.session.refuse(theirs.stream, "denied", "")
    else:
        link.acceptor.act(link.acceptor.session.abort(ErrorCode.SHUTDOWN, "now"))
    link.run()
    assert ours.ended == {"reset": "reset", "refuse": "refused", "abort": "lost"}[how]


@covers("W-030")
def test_14_what_is_due_stays_bounded_while_nothing_can_be_sent() -> None:
    """rust-yamux 0.13.2: frames that wait for the socket, without a limit."""
    alone = Alone(
        local=make_hello(is_initiator=False, max_streams=100), budget=make_budget(1 << 40, 1000)
    )
    session = alone.session
    alone.send(PONG, 0, total(1))

    def press(number: int) -> None:
        """Whatever makes us want to say something, and no word is taken from us."""
        alone.now += 1
        alone.send(PING, 0, total(number))
        for stream in list(session.streams.values()):
            alone.send(DATA, stream.id, b"x" * 9000)
            session.consume(stream, 9000, alone.now)
            session.stop(stream, ErrorCode.CUT)
            session.stop(stream, ErrorCode.NONE)
            stream.is_stopping = False
            alone.send(STOP, stream.id, stop(17))
        session.go_away(f"again {number}")

    for number in range(50):
        alone.send(OPEN, 1 + 2 * number, OPEN_REQUEST)
        stream = session.streams[1 + 2 * number]
        if number % 2:
            session.refuse(stream, "denied", "x" * 500)
        elif number % 4:
            session.accept(stream, Opened())
            session.reset(stream, ErrorCode.CUT)
        else:
            session.accept(stream, Opened())
            continue
        session.release(stream)
    for number in range(1, 257):
        alone.send(RESOLVE, number, RESOLVE_QUESTION)
        session.answer_resolve(number, Resolved())
    press(0)
    frames_of_one_round = _count(alone)
    for number in range(1, 200):
        press(number)
    assert _count(alone) == frames_of_one_round
    output = session.control_to_send()
    assert len(output) < 64 * 1024
    assert not session.has_control


def _count(alone: Alone) -> int:
    """Frames that are due, without taking them."""
    session = alone.session
    dues = sum(
        (stream.open_due is not None)
        + (stream.answer_due is not None)
        + stream.credit_due
        + stream.fin_due
        + (stream.stop_due is not None)
        + (stream.reset_due is not None)
        for stream in session._due
    )
    return dues + len(session._resolves._answers_due) + (session.keepalive.pong_due is not None)


@covers("W-071", "W-120")
@pytest.mark.parametrize("work_ends", [True, False], ids=["work ends", "work goes on"])
def test_15_a_reset_stream_counts_while_its_work_goes_on(work_ends: bool) -> None:
    """CVE-2023-44487: the limit on streams forgot those whose dial was still under way."""
    alone = Alone(local=make_hello(is_initiator=False, max_streams=10))
    dials = most_dials = refused = 0
    for number in range(3000):
        events = alone.receive(
            alone.frame(OPEN, 1 + 2 * number, OPEN_REQUEST)
            + alone.frame(RESET, 1 + 2 * number, reset(16, 0))
        )
        if isinstance(events[-1], SessionEnded):
            refused = events[-1].code
            break
        dials += 1
        most_dials = max(most_dials, dials)
        assert isinstance(events[-1], StreamReset)
        if work_ends:
            alone.session.release(events[-1].stream)
            dials -= 1
        alone.take()
    if work_ends:
        assert (number, refused, most_dials) == (1000, ErrorCode.ABUSE, 1)
    else:
        assert (number, refused, most_dials) == (10, ErrorCode.STREAM_LIMIT, 10)


def test_a_stream_that_is_answered_late_is_not_finished_early() -> None:
    alone = Alone(is_initiator=True)
    stream = alone.session.open(Open("h", 1), alone.now)
    alone.session.finish(stream)
    assert [TYPES[sent.type] for sent in alone.take()] == ["OPEN", "DATA"]
    alone.send(OPENED, 1, OPENED_SHARED)
    assert not stream.is_closed
    alone.send(DATA, 1, b"answer", flags=FIN)
    assert stream.is_closed
