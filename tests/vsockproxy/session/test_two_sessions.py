"""Two sessions against each other, driven by hypothesis through any splits, delays and orders.

The model keeps what each program wrote and how it ended, and compares every byte of every stream
with what came out at the other end. Bytes are delivered in pieces of any size whenever hypothesis
says so, and either end may at any time open, accept, refuse, write, finish, reset, stop, consume,
go away or ask for names. At the end all is delivered, and everything must have been given back.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.session_events import Described, describe, join
from tests.support.session_pair import make_budget, make_hello
from vsockproxy.errors import Refused
from vsockproxy.session import (
    ErrorCode,
    Open,
    Opened,
    Resolve,
    Resolved,
    Session,
    Stream,
)
from vsockproxy.session.events import (
    CreditReceived,
    DataReceived,
    Event,
    GoingAway,
    ResolveAnswered,
    ResolveReceived,
    SessionEnded,
    StopReceived,
    StreamAccepted,
    StreamFinished,
    StreamOpened,
    StreamRefused,
    StreamReset,
    StreamsAllowed,
)
from vsockproxy.session.frames import HEADER_BYTES
from vsockproxy.session.states import MAY_SEND_DATA, REMOTE_OPENING_STATES, StreamState

TOKEN = b"t" * 16
FIRST_WINDOW_BYTES = 200


def content(stream_id: int, side: int, start: int, length: int) -> bytes:
    """What the program at `side` writes on a stream: every byte says where it belongs."""
    return bytes(
        (stream_id * 31 + side * 17 + position) % 251 for position in range(start, start + length)
    )


@dataclass(slots=True)
class End:
    """One end of one stream, as the program behind it sees it."""

    side: int
    stream: Stream
    is_opener: bool
    written: int = 0
    received: int = 0
    unread: int = 0
    is_accepted: bool = False
    is_finished: bool = False
    """No more is written: by us, or because the peer said STOP."""
    is_stopping: bool = False
    remote_total: int | None = None
    over: str = ""
    """`refused` or `reset`, from whichever end."""
    is_released: bool = False

    @property
    def written_total(self) -> int:
        """What FIN or END of this end amounts to."""
        return 1000 + self.stream.id if self.stream.is_dedicated else self.written


@dataclass(slots=True)
class Side:
    """One session and everything around it."""

    session: Session
    ends: dict[int, End] = field(default_factory=dict)
    wire: bytearray = field(default_factory=bytearray)
    """Sent by this side and not delivered yet."""
    questions: list[int] = field(default_factory=list)
    """Of the peer, unanswered."""
    asked: int = 0
    answers: int = 0
    heard_goaway: bool = False
    over: SessionEnded | None = None


def is_unanswered(end: End) -> bool:
    return end.stream.state in REMOTE_OPENING_STATES


def may_finish(end: End) -> bool:
    return end.stream.state in MAY_SEND_DATA


def may_write(end: End) -> bool:
    return may_finish(end) and not end.stream.is_dedicated


def may_reset(end: End) -> bool:
    return not end.stream.is_closed


def may_stop(end: End) -> bool:
    return may_reset(end) and not end.stream.is_dedicated and (end.is_accepted or not end.is_opener)


def may_consume(end: End) -> bool:
    return end.unread > 0


def may_release(end: End) -> bool:
    return end.stream.is_closed


def there_is(wanted: Callable[[End], bool]) -> Callable[["TwoSessions"], bool]:
    """A precondition: some end is as `wanted`."""
    return lambda machine: bool(machine.candidates(wanted))


class TwoSessions(RuleBasedStateMachine):
    """The rules, and what must hold after each; `teardown` brings everything to its end."""

    @initialize(
        has_checksums=st.booleans(),
        budget=st.sampled_from((300, 1000, 5000, 100_000)),
        max_streams=st.sampled_from((1, 3, 20)),
        # How soon a window doubles: never, sometimes, always.
        round_trip=st.sampled_from((0.0, 0.5, 1000.0)),
    )
    def begin(self, has_checksums: bool, budget: int, max_streams: int, round_trip: float) -> None:
        self.now = 100.0
        hellos = [
            make_hello(
                is_initiator=is_initiator,
                first_window_bytes=FIRST_WINDOW_BYTES,
                max_streams=max_streams,
                max_payload_bytes=1024,
                features=["crc32"] if has_checksums else [],
                first_sequence=0xFFFFFFFA if is_initiator else 0xFFFFFFFE,
            )
            for is_initiator in (True, False)
        ]
        self.sides = [
            Side(
                Session(
                    is_initiator=side == 0,
                    local=hellos[side],
                    remote=hellos[1 - side],
                    budget=make_budget(budget, 10),
                    now=self.now,
                    max_payload_bytes=300 if side else 1024,
                )
            )
            for side in (0, 1)
        ]
        for side in self.sides:
            side.session.keepalive.round_trip_seconds = round_trip

    # ----------------------------------------------------------------------- the wire

    @rule(number=st.integers(0, 1))
    def send_control(self, number: int) -> None:
        side = self.sides[number]
        had = side.session.has_control
        output = side.session.control_to_send()
        assert had or not output
        assert not side.session.has_control
        side.wire += output

    @rule(number=st.integers(0, 1), pieces=st.lists(st.integers(1, 400), min_size=1, max_size=6))
    def deliver(self, number: int, pieces: list[int]) -> None:
        for length in pieces:
            self._deliver(number, length)

    @rule(number=st.integers(0, 1), length=st.integers(1, 60))
    def deliver_byte_by_byte(self, number: int, length: int) -> None:
        for _ in range(length):
            self._deliver(number, 1)

    @rule(number=st.integers(0, 1))
    def deliver_all(self, number: int) -> None:
        self._deliver(number, len(self.sides[number].wire))

    @rule()
    def exchange(self) -> None:
        self._exchange()

    def _deliver(self, number: int, length: int) -> None:
        source, target = self.sides[number], self.sides[1 - number]
        data = bytes(source.wire[:length])
        del source.wire[:length]
        if data:
            self._act(1 - number, target.session.receive(memoryview(data), self.now))

    @rule(seconds=st.sampled_from((0.001, 0.1, 1.0, 4.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for side in self.sides:
            side.session.keepalive.heard(self.now)  # silence is another test's subject
            assert side.session.handle_deadline(self.now) == []

    def _act(self, number: int, events: list[Event]) -> None:
        side = self.sides[number]
        for event in events:
            match event:
                case SessionEnded():
                    side.over = event
                case StreamOpened(stream, request):
                    assert request == Open("h", 7, dedicated=stream.is_dedicated)
                    self._add(number, stream, is_opener=False)
                case StreamAccepted(stream, answer):
                    assert (answer.token == TOKEN) is stream.is_dedicated
                    side.ends[stream.id].is_accepted = True
                case StreamRefused(stream, refusal):
                    assert refusal.reason in ("denied", "limit")
                    side.ends[stream.id].over = "refused"
                case DataReceived(stream, payload):
                    self._received(side.ends[stream.id], bytes(payload))
                case StreamFinished(stream, total):
                    end = side.ends[stream.id]
                    assert end.remote_total is None
                    end.remote_total = total
                    if not stream.is_dedicated and not end.is_stopping:
                        assert total == end.received
                case StreamReset(stream, code):
                    assert code == ErrorCode.CUT
                    side.ends[stream.id].over = "reset"
                case StopReceived(stream, _):
                    side.ends[stream.id].is_finished = True
                case ResolveReceived(request_id, question):
                    assert question == Resolve("h", 1)
                    side.questions.append(request_id)
                case ResolveAnswered(request_id, answer):
                    assert answer == Resolved(ttl_seconds=request_id)
                    side.answers += 1
                case GoingAway():
                    side.heard_goaway = True
                case CreditReceived(stream):
                    assert not stream.is_dedicated
                case _:
                    assert isinstance(event, StreamsAllowed)

    def _received(self, end: End, payload: bytes) -> None:
        assert end.remote_total is None, "data after FIN"
        assert not end.over, "data after the end"
        expected = content(end.stream.id, 1 - end.side, end.received, len(payload))
        assert payload == expected
        end.received += len(payload)
        end.unread += len(payload)

    def _add(self, number: int, stream: Stream, *, is_opener: bool) -> End:
        end = self.sides[number].ends[stream.id] = End(number, stream, is_opener)
        return end

    # ------------------------------------------------------------------- the programs

    @rule(
        number=st.integers(0, 1),
        kinds=st.lists(st.sampled_from((False, False, False, True)), min_size=1, max_size=5),
    )
    def open(self, number: int, kinds: list[bool]) -> None:
        session = self.sides[number].session
        for is_dedicated in kinds:
            if session.is_going_away:
                return
            may_open = session.may_open
            try:
                stream = session.open(Open("h", 7, dedicated=is_dedicated), self.now)
            except Refused:
                return
            assert may_open
            self._add(number, stream, is_opener=True)

    @precondition(there_is(is_unanswered))
    @rule(
        data=st.data(),
        accepts=st.sampled_from((True, True, True, False)),
        window=st.sampled_from((None, None, 0, 500)),
    )
    def answer(self, data: st.DataObject, accepts: bool, window: int | None) -> None:
        end = self._pick(data, is_unanswered)
        session = self.sides[end.side].session
        if not accepts:
            session.refuse(end.stream, "denied", "no")
            end.over = "refused"
        elif end.stream.is_dedicated:
            session.accept(end.stream, Opened(token=TOKEN))
            end.is_accepted = True
        else:
            session.accept(end.stream, Opened(window_bytes=window))
            end.is_accepted = True

    @precondition(there_is(may_write))
    @rule(data=st.data(), length=st.integers(1, 1500))
    def write(self, data: st.DataObject, length: int) -> None:
        self._write(self._pick(data, may_write), length)

    def _write(self, end: End, length: int) -> None:
        side = self.sides[end.side]
        session = side.session
        if session.has_control:
            side.wire += session.control_to_send()
        while length:
            most = session.sendable_bytes(end.stream)
            assert most <= session.max_payload_bytes
            piece = min(most, length)
            if not piece:
                return
            buffer = bytearray(HEADER_BYTES + piece + session.trailer_bytes)
            buffer[HEADER_BYTES : HEADER_BYTES + piece] = content(
                end.stream.id, end.side, end.written, piece
            )
            assert session.seal_data(buffer, end.stream, piece) == len(buffer)
            side.wire += buffer
            end.written += piece
            length -= piece

    @precondition(there_is(may_finish))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self._finish(self._pick(data, may_finish))

    def _finish(self, end: End) -> None:
        session = self.sides[end.side].session
        if end.stream.is_dedicated:
            session.end(end.stream, end.written_total)
        else:
            session.finish(end.stream)
        end.is_finished = True

    @precondition(there_is(may_reset))
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        end = self._pick(data, may_reset)
        self.sides[end.side].session.reset(end.stream, ErrorCode.CUT)
        end.over = "reset"

    @precondition(there_is(may_stop))
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        end = self._pick(data, may_stop)
        self.sides[end.side].session.stop(end.stream, ErrorCode.CUT)
        end.is_stopping = True
        end.unread = 0

    @precondition(there_is(may_consume))
    @rule(data=st.data(), length=st.integers(1, 2000))
    def consume(self, data: st.DataObject, length: int) -> None:
        self._consume(self._pick(data, may_consume), length)

    def _consume(self, end: End, length: int) -> None:
        length = min(length, end.unread)
        end.unread -= length
        self.sides[end.side].session.consume(end.stream, length, self.now)

    @precondition(there_is(may_release))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self._release(self._pick(data, may_release))

    def _release(self, end: End) -> None:
        self.sides[end.side].session.release(end.stream)
        end.is_released = True

    def candidates(self, wanted: Callable[[End], bool]) -> list[End]:
        """The ends that are as `wanted`, of all streams that are not released."""
        return [
            end
            for side in self.sides
            for end in side.ends.values()
            if not end.is_released and wanted(end)
        ]

    def _pick(self, data: st.DataObject, wanted: Callable[[End], bool]) -> End:
        return data.draw(st.sampled_from(self.candidates(wanted)))

    @precondition(lambda self: sum(side.asked for side in self.sides) < 3)
    @rule(number=st.integers(0, 1))
    def ask(self, number: int) -> None:
        side = self.sides[number]
        side.asked += 1
        assert side.session.resolve(Resolve("h", 1)) == side.asked

    @precondition(lambda self: any(side.questions for side in self.sides))
    @rule(number=st.integers(0, 1), which=st.integers(0, 100))
    def tell(self, number: int, which: int) -> None:
        side = self.sides[number]
        if side.questions:
            self._tell(side, side.questions.pop(which % len(side.questions)))

    def _tell(self, side: Side, request_id: int) -> None:
        side.session.answer_resolve(request_id, Resolved(ttl_seconds=request_id))

    @precondition(lambda self: any(len(side.ends) > 3 for side in self.sides))
    @rule(number=st.integers(0, 1))
    def go_away(self, number: int) -> None:
        self.sides[number].session.go_away("drain")

    # -------------------------------------------------------------------- what holds

    @invariant()
    def nobody_broke_a_rule(self) -> None:
        for side in self.sides:
            assert side.over is None, side.over

    @invariant()
    def what_is_granted_is_reserved(self) -> None:
        for side in self.sides:
            budget = side.session.budget
            held = [end for end in side.ends.values() if not end.is_released]
            assert budget.streams == len(held)
            assert budget.reserved_bytes == sum(end.stream.receive.size_bytes for end in held)
            assert budget.reserved_bytes <= budget.total_bytes
            for end in held:
                window = end.stream.receive
                assert window.consumed <= window.received <= window.granted
                assert window.granted - window.consumed <= window.size_bytes
                assert end.stream.send.sent <= end.stream.send.limit
                assert end.unread <= window.size_bytes

    @invariant()
    def no_end_is_ahead_of_the_other(self) -> None:
        for number, side in enumerate(self.sides):
            for stream_id, end in side.ends.items():
                other = self.sides[1 - number].ends.get(stream_id)
                if other is not None:
                    assert end.received <= other.written
                    assert end.stream.send.limit <= max(
                        other.stream.receive.granted, FIRST_WINDOW_BYTES
                    )
                    if end.remote_total is not None and not end.stream.is_dedicated:
                        assert end.remote_total == other.written

    # ------------------------------------------------------------------------ the end

    def _exchange(self) -> None:
        """Send and deliver until nothing is left on the way."""
        for _ in range(10_000):
            for number, side in enumerate(self.sides):
                if side.session.has_control:
                    side.wire += side.session.control_to_send()
                self._deliver(number, len(side.wire))
            if not any(side.wire or side.session.has_control for side in self.sides):
                return
        raise AssertionError("the two never come to rest")

    def _open_ends(self) -> list[End]:
        return self.candidates(may_reset)

    def teardown(self) -> None:
        if not hasattr(self, "sides"):  # hypothesis may stop before the first rule
            return
        self._exchange()
        for side in self.sides:
            for end in side.ends.values():
                if is_unanswered(end):
                    token = TOKEN if end.stream.is_dedicated else None
                    side.session.accept(end.stream, Opened(token=token))
            while side.questions:
                self._tell(side, side.questions.pop())
        self._exchange()
        # Everybody writes a little more, takes everything, and finishes: nothing hangs.
        wanted = {
            id(end): end.written + 1000
            for end in self._open_ends()
            if end.stream.state in MAY_SEND_DATA and not end.stream.is_dedicated
        }
        for _ in range(1000):
            for end in self._open_ends():
                if end.unread:
                    self._consume(end, end.unread)
                missing = wanted.get(id(end), 0) - end.written
                if missing > 0 and end.stream.state in MAY_SEND_DATA:
                    self._write(end, missing)
            self._exchange()
            if all(
                end.written >= wanted.get(id(end), 0) or end.is_finished
                for end in self._open_ends()
            ):
                break
        else:
            raise AssertionError("a stream starved")
        for end in self._open_ends():
            if end.stream.state in MAY_SEND_DATA:
                self._finish(end)
        self._exchange()
        for number, side in enumerate(self.sides):
            assert side.answers == side.asked
            assert side.session.streams == {}
            for stream_id, end in side.ends.items():
                other = self.sides[1 - number].ends.get(stream_id)
                assert end.stream.state is StreamState.CLOSED
                self._came_to_its_end(end, other)
                if not end.is_released:
                    self._release(end)
        self._exchange()
        for side in self.sides:
            assert side.over is None
            assert (side.session.budget.streams, side.session.budget.reserved_bytes) == (0, 0)
        first, second = self.sides
        first.session.go_away("done")
        self._exchange()
        assert first.heard_goaway
        assert second.heard_goaway
        for side in self.sides:
            assert side.session.is_drained
            (event,) = side.session.receive_eof()
            assert isinstance(event, SessionEnded)
            assert event.is_clean

    @staticmethod
    def _came_to_its_end(end: End, other: End | None) -> None:
        """Complete with FIN both ways, or explicitly over."""
        if other is None:
            assert end.over, "the other end never heard of it, and this one was not told"
            return
        if end.over:
            # What crosses a reset may have completed the other end before: that is no loss to it.
            assert other.over or (other.is_finished and other.remote_total == end.written_total)
            return
        assert end.is_finished
        assert end.remote_total == other.written_total
        if not end.stream.is_dedicated and not end.is_stopping:
            assert end.received == other.written


@pytest.mark.usefixtures("small_windows_grow")
def test_two_sessions() -> None:
    run_state_machine_as_test(
        TwoSessions, settings=settings(max_examples=80, stateful_step_count=60)
    )


# ------------------------------------------------------------------- the same bytes, cut anew


@settings(max_examples=60)
@given(
    has_checksums=st.booleans(),
    steps=st.lists(
        st.tuples(st.sampled_from("owfrspqg"), st.integers(0, 5), st.integers(1, 300)), max_size=40
    ),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    damage=st.none() | st.tuples(st.integers(0, 10_000), st.integers(1, 255)),
)
def test_any_split_gives_the_same_events(
    has_checksums: bool,
    steps: list[tuple[str, int, int]],
    cuts: list[int],
    damage: tuple[int, int] | None,
) -> None:
    data = bytearray(_recorded(steps, has_checksums=has_checksums))
    if damage is not None and data:
        data[damage[0] % len(data)] ^= damage[1]
    pieces: list[bytes] = []
    position = 0
    while position < len(data):
        length = cuts[len(pieces) % len(cuts)]
        pieces.append(bytes(data[position : position + length]))
        position += length
    outcomes = []
    for way in ([bytes(data)], [bytes([byte]) for byte in data], pieces):
        session = _session(is_initiator=False, has_checksums=has_checksums)
        events: list[Described] = []
        for piece in way:
            events += describe(session.receive(memoryview(piece), 1.0))
        outcomes.append((join(events), session.control_to_send(), session.abuse.total))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def _session(*, is_initiator: bool, has_checksums: bool) -> Session:
    features = ["crc32"] if has_checksums else []
    hellos = [make_hello(is_initiator=which, features=features) for which in (True, False)]
    return Session(
        is_initiator=is_initiator,
        local=hellos[0 if is_initiator else 1],
        remote=hellos[1 if is_initiator else 0],
        budget=make_budget(),
        now=0.0,
        max_payload_bytes=300,
    )


def _recorded(steps: list[tuple[str, int, int]], *, has_checksums: bool) -> bytes:
    """What an initiator sends that does these steps and hears nothing."""
    session = _session(is_initiator=True, has_checksums=has_checksums)
    output = bytearray()
    streams: list[Stream] = []
    for what, which, length in steps:
        stream = streams[which % len(streams)] if streams else None
        if what == "o" and session.may_open:
            streams.append(session.open(Open("h", 7), 0.0))
        elif what == "q":
            session.resolve(Resolve("h", 1))
        elif what == "g" and length > 280:
            session.go_away("drain")
        elif stream is not None and what == "w":
            output += session.control_to_send()
            piece = min(length, session.sendable_bytes(stream))
            if piece:
                buffer = bytearray(HEADER_BYTES) + bytes(piece) + bytes(session.trailer_bytes)
                session.seal_data(buffer, stream, piece)
                output += buffer
        elif stream is not None and stream.state in MAY_SEND_DATA and what == "f":
            session.finish(stream)
        elif stream is not None and what == "r" and length > 200:
            session.reset(stream, ErrorCode.CUT)
        elif what == "p":
            session.keepalive.ping_due = length
        output += session.control_to_send()
    return bytes(output)
