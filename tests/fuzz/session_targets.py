"""Targets: the opening exchange, the bytes of a link, and scripts of well-numbered frames.

A mutated byte stream rarely gets past the sequence numbers. So one target takes its input as a
script: frames that are numbered rightly, with any type, stream and payload, and between them what
our own side does, as a driver would that has acted on all events.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from struct import pack
from zlib import crc32

from tests.fuzz.target import KIBIBYTE, Cut, Target, same_however_cut
from tests.support import session_frames as raw
from tests.support.session_events import Described, describe, join
from tests.support.session_pair import Alone, make_budget, make_hello
from vsockproxy.session import (
    DedicatedPreface,
    ErrorCode,
    Open,
    Opened,
    PeerProtocolError,
    PrefaceReader,
    Resolved,
    Session,
    Stream,
    agree_on_version,
)
from vsockproxy.session.attesting import (
    MAX_EVIDENCE_BYTES,
    MAX_RESULT_BYTES,
    Evidence,
    MapReader,
    Result,
)
from vsockproxy.session.events import Event, ResolveReceived, SessionEnded
from vsockproxy.session.states import TRANSITIONS, StreamInput

MAX_STREAMS = 20
BUDGET_BYTES = 256 * KIBIBYTE

FACTOR = 150
"""Bytes of memory for each byte of the input: an OPEN of 20 bytes makes a stream, its windows, an
event and a request, and each input is run twice."""


def _read_preface(data: bytes, cut: Cut) -> str:
    reader = PrefaceReader(may_be_dedicated=True)
    pieces = iter(cut(data))
    try:
        for piece in pieces:
            preface = reader.receive(piece)
            if preface is None:
                continue
            rest = reader.rest + b"".join(pieces)
            if isinstance(preface, DedicatedPreface):
                return f"token {preface.token.hex()}, then {rest.hex()}"
            agree_on_version(make_hello(is_initiator=False), preface)
            return f"{preface}, then {rest.hex()}"
    except PeerProtocolError as error:
        return error.text
    return "more"


def _execute_preface(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read_preface(data, cut))
    assert outcome.isprintable()
    return outcome[:5] if ", then " in outcome else outcome


def _read_map(data: bytes, cut: Cut) -> str:
    """Evidence or a result, as the first byte says."""
    is_evidence = bool(data) and bool(data[0] & 1)
    most_bytes = MAX_EVIDENCE_BYTES if is_evidence else MAX_RESULT_BYTES
    reader = MapReader(most_bytes, "a message")
    pieces = iter(cut(data[1:]))
    try:
        for piece in pieces:
            body = reader.receive(piece)
            if body is not None:
                value = Evidence.decode(body) if is_evidence else Result.decode(body)
                # Not joined: that takes more memory than the parser, for pieces of one byte.
                first = crc32(reader.rest)
                rest = reduce(lambda checksum, piece: crc32(piece, checksum), pieces, first)
                return f"value: {value}, then {rest}"
    except PeerProtocolError as error:
        return error.text
    return "more"


def _execute_attestation(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read_map(data, cut))
    assert outcome.isprintable()
    return "value" if outcome.startswith("value: ") else outcome


def _new(*, has_checksums: bool) -> Alone:
    features = ["crc32"] if has_checksums else []
    return Alone(
        local=make_hello(is_initiator=False, max_streams=MAX_STREAMS, features=features),
        remote=make_hello(is_initiator=True, max_streams=MAX_STREAMS, features=features),
        budget=make_budget(BUDGET_BYTES, MAX_STREAMS),
    )


def _check(session: Session, events: list[Event]) -> None:
    """What holds after each read, whatever was in it."""
    budget = session.budget
    assert 0 <= budget.reserved_bytes <= budget.total_bytes
    assert 0 <= budget.streams <= MAX_STREAMS
    assert len(session.streams) <= 2 * MAX_STREAMS
    assert not any(isinstance(event, SessionEnded) for event in events[:-1]), "it is the last one"
    assert session.is_ended == (bool(events) and isinstance(events[-1], SessionEnded))


def _outcome(session: Session, described: list[Described]) -> str:
    if session.is_ended:
        _, code, text, _, _ = described[-1]
        assert isinstance(text, str)
        assert text.isprintable()
        return f"{code} {''.join(letter for letter in text if not letter.isdigit())}"
    return "more " + " ".join(sorted({str(event[0]) for event in described}))


def _read_link(data: bytes, cut: Cut) -> tuple[list[Described], bytearray]:
    alone = _new(has_checksums=bool(data) and bool(data[0] & 1))
    described: list[Described] = []
    for piece in cut(data[1:]):
        events = alone.session.receive(memoryview(piece), alone.now)
        _check(alone.session, events)
        described += describe(events)
        if alone.session.is_ended:
            break
    output = alone.session.control_to_send()
    assert not alone.session.has_control
    if not alone.session.is_ended:
        described += describe(alone.session.receive_eof())
    return join(described), output


def _execute_link(data: bytes) -> str:
    described, _ = same_however_cut(lambda cut: _read_link(data, cut))
    _, code, text, _, _ = described[-1]
    return f"{len(described)} {code} {str(text)[:20]}"


class _Script:
    """One run of a script: frames of the peer and verbs of ours, as the input's bytes say."""

    def __init__(self, data: bytes, cut: Cut) -> None:
        self._data = data
        self._cut = cut
        self._alone = _new(has_checksums=bool(data) and bool(data[0] & 1))
        self._session = self._alone.session
        self._pending = b""
        self._streams: dict[int, Stream] = {}
        self._unread: dict[Stream, int] = {}
        self._questions: list[int] = []
        self.described: list[Described] = []

    def run(self) -> tuple[list[Described], int, int]:
        position = 1
        while position + 3 < len(self._data) and not self._session.is_ended:
            kind, flags, stream_id, length = self._data[position : position + 4]
            position += 4
            if kind & 0x80:
                self._deliver()
                self._verb(kind & 0x0F, stream_id, length)
                continue
            payload = self._data[position : position + length]
            position += length
            said = len(payload) + (flags >> 4) if kind & 0x40 else None
            self._pending += raw.frame(
                kind & 0x1F,
                stream_id,
                payload,
                sequence=self._alone.sequence,
                flags=flags & 0x0F,
                length=said,
                has_checksum=self._alone.has_checksums,
            )
            self._alone.sequence = (self._alone.sequence + 1) & 0xFFFFFFFF
        self._deliver()
        return join(self.described), self._alone.abuse_points, len(self._session.streams)

    def end(self) -> str:
        """Everything ends, and everything is given back."""
        session = self._session
        outcome = _outcome(session, self.described)
        session.abort(ErrorCode.SHUTDOWN, "the input ends")
        session.control_to_send()
        assert not session.has_control
        for stream in self._streams.values():
            if not stream.is_released:
                session.release(stream)
        assert (session.budget.streams, session.budget.reserved_bytes) == (0, 0)
        return outcome

    def _deliver(self) -> None:
        for piece in self._cut(self._pending):
            if self._session.is_ended:
                break
            events = self._session.receive(memoryview(piece), self._alone.now)
            _check(self._session, events)
            self.described += describe(events)
            for event in events:
                stream = getattr(event, "stream", None)
                if isinstance(stream, Stream):
                    self._streams[stream.id] = stream
                payload = getattr(event, "payload", None)
                if isinstance(stream, Stream) and payload is not None:
                    self._unread[stream] = self._unread.get(stream, 0) + len(payload)
                if isinstance(event, ResolveReceived):
                    self._questions.append(event.request_id)
        self._pending = b""

    def _verb(self, verb: int, stream_id: int, length: int) -> None:
        session = self._session
        if session.is_ended:
            return
        if verb == 0 and session.may_open and session.budget.unreserved_bytes > 16384:
            if session.budget.streams < MAX_STREAMS:
                request = Open("h", 1, dedicated=length % 4 == 0)
                stream = session.open(request, self._alone.now)
                self._streams[stream.id] = stream
        elif verb == 1:
            session.control_to_send()
            assert not session.has_control
        elif verb == 2 and length == 0:
            session.go_away("script")
        elif verb == 3:
            self._alone.now += length / 8
        elif verb == 4 and self._questions:
            session.answer_resolve(self._questions.pop(), Resolved(records=(b"x" * length,)))
        elif stream_id in self._streams:
            self._stream_verb(self._streams[stream_id], verb, length)

    def _stream_verb(self, stream: Stream, verb: int, length: int) -> None:
        session = self._session
        if verb == 5 and not stream.is_released and stream.is_closed:
            session.release(stream)
        elif verb == 6:
            taken = min(length * 256, self._unread.get(stream, 0))
            session.consume(stream, taken, self._alone.now)
            self._unread[stream] = self._unread.get(stream, 0) - taken
        elif verb == 7 and session.sendable_bytes(stream):
            size = min(max(length, 1), session.sendable_bytes(stream))
            session.control_to_send()
            session.seal_data(bytearray(12 + size + 4), stream, size)
        elif verb in _STREAM_VERBS:
            stream_input, act = _STREAM_VERBS[verb]
            is_known = not stream.is_dedicated or stream_input is not StreamInput.SEND_STOP
            if is_known and (stream.is_closed or stream_input in TRANSITIONS[stream.state]):
                act(session, stream, length)


def _accept(session: Session, stream: Stream, length: int) -> None:
    if stream.is_dedicated:
        session.accept(stream, Opened(token=raw.TOKEN))
    else:
        session.accept(stream, Opened(window_bytes=length << 10 if length else None))


def _finish(session: Session, stream: Stream, length: int) -> None:
    if stream.is_dedicated:
        session.end(stream, length)
    else:
        session.finish(stream)


_STREAM_VERBS: dict[int, tuple[StreamInput, Callable[[Session, Stream, int], None]]] = {
    8: (StreamInput.SEND_OPENED, _accept),
    9: (StreamInput.SEND_REFUSED, lambda session, stream, _: session.refuse(stream, "denied", "")),
    10: (StreamInput.SEND_FIN, _finish),
    11: (StreamInput.SEND_STOP, lambda session, stream, _: session.stop(stream, ErrorCode.CUT)),
    12: (StreamInput.SEND_RESET, lambda session, stream, _: session.reset(stream, ErrorCode.CUT)),
}


def _execute_script(data: bytes) -> str:
    def run(cut: Cut) -> tuple[tuple[list[Described], int, int], str]:
        script = _Script(data, cut)
        return script.run(), script.end()

    return same_however_cut(run)[1]


def _link_corpus() -> Iterator[bytes]:
    for has_checksums in (False, True):
        alone = _new(has_checksums=has_checksums)
        yield bytes([has_checksums]) + b"".join(
            alone.frame(kind, stream, payload, flags=flags)
            for kind, flags, stream, payload in _GOOD
        )


def _step(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return bytes([kind, flags, stream, len(payload)]) + payload


def _verb(verb: int, stream: int = 0, length: int = 0) -> bytes:
    return bytes([0x80 | verb, 0, stream, length])


_GOOD = (
    (raw.PING, 0, 0, raw.total(7)),
    (raw.OPEN, 0, 1, raw.OPEN_REQUEST),
    (raw.DATA, 0, 1, b"early data, and more of it than is tiny"),
    (raw.OPEN, 0, 3, raw.OPEN_DEDICATED),
    (raw.END, 0, 3, raw.total(5)),
    (raw.RESOLVE, 0, 9, raw.RESOLVE_QUESTION),
    (raw.DATA, raw.FIN, 1, b"last"),
    (raw.MAX_STREAMS, 0, 0, raw.total(100)),
    (raw.OPEN, 0, 5, raw.OPEN_REQUEST),
    (raw.RESET, 0, 5, raw.reset(16, 0)),
    (raw.PONG, 0, 0, raw.total(1)),
    (raw.GOAWAY, 0, 0, raw.goaway(0, 0, b"drain")),
)

_MAPS = (
    raw.OPEN_REQUEST,
    raw.OPEN_DEDICATED,
    raw.OPENED_SHARED,
    raw.OPENED_DEDICATED,
    raw.REFUSED_LIMIT,
    raw.RESOLVE_QUESTION,
    raw.RESOLVED_ANSWER,
    bytes.fromhex("a1031a00010000"),
    bytes.fromhex("d81c81d81d00"),
    bytes.fromhex("a1f501"),
    bytes.fromhex("c249010000000000000000"),
)

SESSION_HELLO = Target(
    "session_hello",
    _execute_preface,
    corpus=(
        make_hello(is_initiator=True).encode(),
        make_hello(is_initiator=True, features=["crc32", "later"]).encode() + b"\x0c",
        replace(
            make_hello(is_initiator=False, features=["attestation"]), challenge=b"c" * 32
        ).encode(),
        DedicatedPreface(raw.TOKEN).encode() + b"payload",
    ),
    dictionary=(b"vsockpx\n", b"vsockpd\n", b"\x82\x01\x01", b"\x19\xff\xff", *_MAPS),
)

SESSION_ATTESTATION = Target(
    "session_attestation",
    _execute_attestation,
    corpus=(
        b"\x01" + Evidence(b"a document" * 30).encode(),
        b"\x01" + Evidence(refusal="there is no module").encode() + b"\x0c\x00",
        b"\x00" + Result().encode() + b"\x0c\x00\x00\x08",
        b"\x00" + Result("attestation_refused", "nonce_mismatch: another one").encode(),
        b"\x01\x00\x01\xa0",
        b"\x01\x00\x07\xa2\x01\x41\x00\x02\x61\x61",
    ),
    dictionary=(b"\xa1\x01", b"\xa1\x02", b"\xa2\x01", b"\x40\x00", b"\x04\x00", *_MAPS),
)

SESSION_LINK = Target(
    "session_link",
    _execute_link,
    corpus=tuple(_link_corpus()),
    dictionary=(
        *_MAPS,
        raw.total(2**64 - 1),
        *(pack(">BBHI", kind, 0, 8, 1) for kind in raw.TYPES),
    ),
    most_memory_factor=FACTOR,
)

SESSION_SCRIPT = Target(
    "session_script",
    _execute_script,
    corpus=(
        b"\0" + b"".join(_step(kind, stream, data, flags) for kind, flags, stream, data in _GOOD),
        b"\1"
        + _step(raw.OPEN, 1, raw.OPEN_REQUEST)
        + _verb(8, 1, 60)
        + _step(raw.DATA, 1, b"x" * 200)
        + _verb(6, 1, 255)
        + _step(raw.CREDIT, 1, raw.total(40_000))
        + _verb(7, 1, 255)
        + _step(raw.STOP, 1, raw.stop(17))
        + _verb(11, 1)
        + _step(raw.DATA, 1, b"x" * 100, raw.FIN)
        + _verb(5, 1)
        + _step(raw.CREDIT, 1, raw.total(50_000)),
        b"\0"
        + _verb(0, 0, 1)
        + _verb(0, 0, 0)
        + _verb(7, 2, 100)
        + _step(raw.OPENED, 2, bytes.fromhex("a1031a00010000"))
        + _step(raw.OPENED, 4, raw.OPENED_DEDICATED)
        + _step(raw.DATA, 2, b"x" * 40)
        + _verb(10, 4, 9)
        + _step(raw.END, 4, raw.total(3))
        + _verb(12, 2)
        + _step(raw.DATA, 2, b"late", raw.FIN)
        + _verb(2)
        + _step(raw.OPEN, 1, raw.OPEN_REQUEST)
        + _step(raw.GOAWAY, 0, raw.goaway(0))
        + _verb(1),
    ),
    dictionary=(
        *(_step(kind, 1, payload) for kind, payload in raw.SOME_PAYLOADS.items()),
        *(_step(kind, 2, payload) for kind, payload in raw.SOME_PAYLOADS.items()),
        *(_step(kind, 0, payload) for kind, payload in raw.SOME_PAYLOADS.items()),
        *(_verb(verb, stream, 100) for verb in range(13) for stream in (1, 2)),
        _step(raw.OPEN, 3, raw.OPEN_REQUEST),
        _step(raw.OPEN, 5, raw.OPEN_DEDICATED),
        *_MAPS,
    ),
    most_memory_factor=FACTOR,
)
