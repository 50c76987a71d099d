"""The multiplexer's core: bytes in, events out; what is to be sent is asked for. Pure.

A driver owns one link and does, in this order, whenever something happens:

1. `receive(data, now)` or `receive_eof()`, and acts on the events before it reads again;
2. sends `control_to_send()` before the next DATA frame, and whenever `has_control` is true;
3. for each stream that has bytes and `sendable_bytes(stream) > 0`: puts at most that many behind
   `HEADER_BYTES` free bytes of a buffer (with `trailer_bytes` of room after them), calls
   `seal_data`, and sends the frame;
4. calls `handle_deadline(now)` at `next_deadline()`.

The driver reports bytes that the next hop took with `consume`, and calls `release` once for every
stream, when the stream is closed and nothing behind it (a dial, a socket, a task) is left: until
then it counts against the peer's streams. After SessionEnded only `control_to_send` is of use: it
holds the last word, GOAWAY.
"""

from collections.abc import Callable

from vsockproxy.errors import Refused
from vsockproxy.session.abuse import AbuseMeter
from vsockproxy.session.allowance import LocalStreams, RemoteStreams
from vsockproxy.session.credit import ReceiveBudget, ReceiveWindow, SendWindow
from vsockproxy.session.errors import ErrorCode, LocalProtocolError, PeerProtocolError
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
from vsockproxy.session.frame_reader import FrameReader, Piece
from vsockproxy.session.frame_writer import FrameWriter
from vsockproxy.session.frames import (
    CHECKSUM_BYTES,
    FLAG_FIN,
    GOAWAY,
    PING,
    RESET,
    STOP,
    TOTAL,
    FrameType,
)
from vsockproxy.session.keepalive import Keepalive
from vsockproxy.session.limits import (
    COST_LATE_FRAME,
    COST_PING,
    COST_PREMATURE_RESET,
    COST_TINY_DATA,
    COST_USELESS_CREDIT,
    TINY_DATA_BYTES,
)
from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved, printable
from vsockproxy.session.opening import FEATURE_CRC32, Hello
from vsockproxy.session.resolves import Resolves
from vsockproxy.session.states import (
    MAY_RECEIVE_DATA,
    MAY_SEND_CREDIT,
    MAY_SEND_DATA,
    TRANSITIONS,
    StreamInput,
    StreamState,
)
from vsockproxy.session.stream import Stream

Handler = Callable[[int, bytes, list[Event], float], None]


class Session:
    """One multiplexed conversation over one link.

    Args:
        is_initiator: whether this end dialled the link.
        local: the hello that this end sent.
        remote: the hello that the peer sent; `opening.agree_on_version` passed.
        budget: what all sessions of the same enclave share on this side.
        now: seconds on any clock that does not run backwards, as in every call.
        max_payload_bytes: largest DATA payload that the carrier may take in one send.
    """

    def __init__(
        self,
        *,
        is_initiator: bool,
        local: Hello,
        remote: Hello,
        budget: ReceiveBudget,
        now: float,
        max_payload_bytes: int,
    ) -> None:
        has_checksums = FEATURE_CRC32 in (local.features & remote.features)
        self.budget = budget
        self.streams: dict[int, Stream] = {}
        """Streams that frames may arrive for; closed ones are not in it."""
        self.is_ended = False
        self.is_going_away = False
        self.peer_is_going_away = False
        self.max_payload_bytes = min(max_payload_bytes, remote.max_payload_bytes)
        """Largest payload of a DATA frame that this end sends."""
        self.trailer_bytes = CHECKSUM_BYTES if has_checksums else 0
        self.keepalive = Keepalive(now)
        self.abuse = AbuseMeter(now)
        self._reader = FrameReader(
            remote.first_sequence, local.max_payload_bytes, has_checksums=has_checksums
        )
        self._writer = FrameWriter(local.first_sequence, has_checksums=has_checksums)
        self._arriving: Stream | None = None
        """The stream of the DATA frame that is arriving; None drops its bytes."""
        self._send_window_bytes = remote.first_window_bytes
        self._receive_window_bytes = local.first_window_bytes
        self._is_initiator = is_initiator
        self._local_streams = LocalStreams(1 if is_initiator else 2, remote.max_streams)
        self._remote_streams = RemoteStreams(2 if is_initiator else 1, local.max_streams)
        self._resolves = Resolves()
        # What is due to be sent is state, one value each, however much the peer asks for.
        self._due: dict[Stream, None] = {}
        self._goaway_due: tuple[int, str] | None = None
        self._handlers: dict[int, Handler] = {
            FrameType.OPEN: self._on_open,
            FrameType.OPENED: self._on_opened,
            FrameType.REFUSED: self._on_refused,
            FrameType.CREDIT: self._on_credit,
            FrameType.MAX_STREAMS: self._on_max_streams,
            FrameType.RESET: self._on_reset,
            FrameType.STOP: self._on_stop,
            FrameType.END: self._on_end,
            FrameType.RESOLVE: self._on_resolve,
            FrameType.RESOLVED: self._on_resolved,
            FrameType.PING: self._on_ping,
            FrameType.PONG: self._on_pong,
            FrameType.GOAWAY: self._on_goaway,
        }

    # ---------------------------------------------------------------- receiving

    def receive(self, data: memoryview, now: float) -> list[Event]:
        """Take bytes from the link. Payloads in the events are views into `data`."""
        events: list[Event] = []
        if self.is_ended:
            return events
        self.keepalive.heard(now)
        try:
            for piece in self._reader.read(data):
                if piece.type == FrameType.DATA:
                    self._on_data(piece, events, now)
                    continue
                self._handlers[piece.type](piece.stream_id, bytes(piece.payload), events, now)
                if self.is_ended:
                    break
        except PeerProtocolError as error:
            self._end(error.code, error.text, events)
        return events

    def receive_eof(self) -> list[Event]:
        """The link ended; clean only after GOAWAY and with no stream left."""
        is_clean = self.peer_is_going_away and not self.streams and self._reader.is_between_frames
        if is_clean:
            return self.abort(ErrorCode.NONE, "the peer went away")
        return self.abort(ErrorCode.LINK_LOST, "the link ended without GOAWAY")

    def abort(self, code: ErrorCode, text: str) -> list[Event]:
        """End the session at once; every stream is reset."""
        events: list[Event] = []
        if not self.is_ended:
            self._end(code, text, events)
        return events

    def _on_data(self, piece: Piece, events: list[Event], now: float) -> None:
        if piece.length >= 0:
            self._arriving = stream = self._find(piece.stream_id, now)
            if stream is not None:
                if stream.is_dedicated or stream.state not in MAY_RECEIVE_DATA:
                    raise PeerProtocolError(
                        ErrorCode.STREAM_STATE,
                        f"DATA on stream {stream.id}, which is "
                        + ("dedicated" if stream.is_dedicated else stream.state.name),
                    )
                stream.receive.receive(piece.length)
            if piece.length < TINY_DATA_BYTES:
                if not piece.length and not piece.flags:
                    raise PeerProtocolError(ErrorCode.PROTOCOL, "an empty DATA frame without FIN")
                self.abuse.charge(COST_TINY_DATA, "tiny DATA frames", now)
        stream = self._arriving
        if stream is None:
            return
        if piece.payload.nbytes:
            if stream.is_stopping:
                stream.receive.consumed += piece.payload.nbytes
            else:
                events.append(DataReceived(stream, piece.payload))
        if piece.flags & FLAG_FIN:
            self._step(stream, StreamInput.RECEIVE_FIN)
            events.append(StreamFinished(stream, stream.receive.received))

    def _on_open(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        self._remote_streams.open(stream_id)
        request = Open.decode(payload)
        stream = self._make_stream(
            stream_id, StreamState.REMOTE_OPENING, is_dedicated=request.dedicated, now=now
        )
        if stream is None or self.is_going_away:
            text = f"{self.budget.max_streams} streams or the receive budget are used up"
            if stream is None:
                stream = self._make_unreserved_stream(stream_id, is_dedicated=request.dedicated)
            else:
                text = "the peer is shutting down"
            self.streams[stream_id] = stream
            self.refuse(stream, "limit", text)
            self.release(stream)
            return
        self.streams[stream_id] = stream
        events.append(StreamOpened(stream, request))

    def _on_opened(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        self._step(stream, StreamInput.RECEIVE_OPENED)
        answer = Opened.decode(payload)
        if stream.is_dedicated is not (answer.token is not None):
            raise PeerProtocolError(
                ErrorCode.PROTOCOL, f"stream {stream_id}: a token belongs to a dedicated stream"
            )
        stream.was_answered = True
        if answer.window_bytes is not None:
            stream.send.raise_to(answer.window_bytes)
        events.append(StreamAccepted(stream, answer))

    def _on_refused(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is not None:
            refusal = Refusal.decode(payload)
            self._step(stream, StreamInput.RECEIVE_REFUSED)
            events.append(StreamRefused(stream, refusal))

    def _on_credit(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        (limit,) = TOTAL.unpack(payload)
        if stream.is_dedicated:
            raise PeerProtocolError(ErrorCode.PROTOCOL, "CREDIT on a dedicated stream")
        self._step(stream, StreamInput.RECEIVE_CREDIT)
        if stream.send.raise_to(limit):
            events.append(CreditReceived(stream))
        else:
            self.abuse.charge(COST_USELESS_CREDIT, "grants that grant nothing", now)

    def _on_max_streams(self, _: int, payload: bytes, events: list[Event], now: float) -> None:
        if self._local_streams.allow(TOTAL.unpack(payload)[0]):
            events.append(StreamsAllowed())
        else:
            self.abuse.charge(COST_USELESS_CREDIT, "MAX_STREAMS that allow nothing", now)

    def _on_reset(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        code, final_size = RESET.unpack(payload)
        window = stream.receive
        if not stream.is_dedicated and not window.received <= final_size <= window.granted:
            raise PeerProtocolError(
                ErrorCode.FLOW_CONTROL,
                f"stream {stream_id} was reset at {final_size} bytes, "
                f"{window.received} arrived and {window.granted} were granted",
            )
        if not stream.was_answered:
            self.abuse.charge(COST_PREMATURE_RESET, "opens that were reset at once", now)
        self._step(stream, StreamInput.RECEIVE_RESET)
        events.append(StreamReset(stream, code))

    def _on_stop(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        (code,) = STOP.unpack(payload)
        self._step(stream, StreamInput.RECEIVE_STOP)
        self.abuse.charge(COST_LATE_FRAME, "STOP frames", now)
        if not stream.is_dedicated and stream.state in MAY_SEND_DATA:
            self.finish(stream)
        events.append(StopReceived(stream, code))

    def _on_end(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        if not stream.is_dedicated:
            raise PeerProtocolError(ErrorCode.PROTOCOL, f"END on shared stream {stream_id}")
        self._step(stream, StreamInput.RECEIVE_FIN)
        events.append(StreamFinished(stream, TOTAL.unpack(payload)[0]))

    def _on_resolve(self, request_id: int, payload: bytes, events: list[Event], _: float) -> None:
        question = self._resolves.receive_question(request_id, payload)
        events.append(ResolveReceived(request_id, question))

    def _on_resolved(self, request_id: int, payload: bytes, events: list[Event], _: float) -> None:
        answer = self._resolves.receive_answer(request_id, payload)
        events.append(ResolveAnswered(request_id, answer))

    def _on_ping(self, _: int, payload: bytes, __: list[Event], now: float) -> None:
        self.keepalive.pong_due = payload
        self.abuse.charge(COST_PING, "PING frames", now)

    def _on_pong(self, _: int, payload: bytes, __: list[Event], now: float) -> None:
        if not self.keepalive.answered(PING.unpack(payload)[0], now):
            self.abuse.charge(COST_PING, "PONG frames that nobody asked for", now)

    def _on_goaway(self, _: int, payload: bytes, events: list[Event], now: float) -> None:
        last_stream_id, code = GOAWAY.unpack_from(payload)
        text = printable(payload[GOAWAY.size :].decode(errors="replace"))
        if code != ErrorCode.NONE:
            self._end(code, f"the peer ended the session: {text}", events)
            self._goaway_due = None
            return
        if self.peer_is_going_away:
            self.abuse.charge(COST_USELESS_CREDIT, "GOAWAY frames", now)
        self.peer_is_going_away = True
        events.append(GoingAway(last_stream_id, text))

    def _find(self, stream_id: int, now: float) -> Stream | None:
        """The stream, or None for one that was closed while the frame was on its way.

        Raises:
            PeerProtocolError: when the stream was never opened.
        """
        stream = self.streams.get(stream_id)
        if stream is not None:
            return stream
        is_local = (stream_id % 2 == 1) is self._is_initiator
        opener = self._local_streams if is_local else self._remote_streams
        if not opener.was_opened(stream_id):
            raise PeerProtocolError(
                ErrorCode.PROTOCOL, f"a frame for stream {stream_id}, which was never opened"
            )
        self.abuse.charge(COST_LATE_FRAME, "frames for closed streams", now)
        return None

    def _step(self, stream: Stream, stream_input: StreamInput) -> None:
        state = TRANSITIONS[stream.state].get(stream_input)
        if state is None:
            raise PeerProtocolError(
                ErrorCode.STREAM_STATE,
                f"{stream_input.name} on stream {stream.id}, which is {stream.state.name}",
            )
        stream.state = state
        if state is StreamState.CLOSED:
            del self.streams[stream.id]

    def _end(self, code: int, text: str, events: list[Event]) -> None:
        self.is_ended = True
        self._goaway_due = (code, text)
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.state = StreamState.CLOSED
        self._due.clear()
        events.append(SessionEnded(code, text, code == ErrorCode.NONE and not streams, streams))

    # ------------------------------------------------------------------ streams

    @property
    def may_open(self) -> bool:
        """Whether `open` can succeed now, as far as this session is concerned."""
        return (
            not self.is_ended
            and not self.is_going_away
            and not self.peer_is_going_away
            and self._local_streams.may_open
        )

    def open(self, request: Open, now: float) -> Stream:
        """Open a stream. Data may follow at once where the caller permits.

        Raises:
            Refused: with reason limit, when the peer or the budget of this side allows no more.
            LocalProtocolError: when the session has ended or is going away.
        """
        if self.is_ended or self.is_going_away or self.peer_is_going_away:
            raise LocalProtocolError("open on a session that has ended or is going away")
        if not self._local_streams.may_open:
            raise Refused("limit", "the other side allows no more streams on this link")
        stream = self._make_stream(
            0, StreamState.LOCAL_OPENING, is_dedicated=request.dedicated, now=now
        )
        if stream is None:
            raise Refused(
                "limit", f"{self.budget.max_streams} streams or the receive budget are used up"
            )
        stream.id = self._local_streams.take_id()
        stream.open_due = request.encode()
        self.streams[stream.id] = stream
        self._due[stream] = None
        return stream

    def accept(self, stream: Stream, answer: Opened) -> None:
        """Answer an OPEN: the destination was reached."""
        stream.send_input(StreamInput.SEND_OPENED)
        stream.was_answered = True
        stream.answer_due = answer
        self._due[stream] = None

    def refuse(self, stream: Stream, reason: str, text: str) -> None:
        """Answer an OPEN: the stream is not to be. It is closed."""
        self._close(stream, StreamInput.SEND_REFUSED)
        stream.answer_due = Refusal(reason, text)
        self._due[stream] = None

    def finish(self, stream: Stream) -> None:
        """No more data follows from this end (FIN), on a shared stream."""
        self._close(stream, StreamInput.SEND_FIN)
        stream.fin_due = True
        self._due[stream] = None

    def end(self, stream: Stream, total_bytes: int) -> None:
        """No more data follows from this end on a dedicated stream; so many bytes were sent."""
        self._close(stream, StreamInput.SEND_FIN)
        stream.end_due = total_bytes
        self._due[stream] = None

    def stop(self, stream: Stream, code: ErrorCode) -> None:
        """Ask the peer to send no more; what still arrives is dropped."""
        stream.send_input(StreamInput.SEND_STOP)
        stream.is_stopping = True
        stream.stop_due = code
        self._due[stream] = None

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once in both directions; does nothing when it is closed already."""
        if stream.is_closed:
            return
        self._close(stream, StreamInput.SEND_RESET)
        stream.credit_due = stream.fin_due = False
        stream.stop_due = stream.end_due = None
        stream.reset_due = code
        self._due[stream] = None

    def release(self, stream: Stream) -> None:
        """Nothing is left of a closed stream; gives its window and its place back."""
        if not stream.is_closed:
            raise LocalProtocolError(f"release of stream {stream.id}, which is {stream.state.name}")
        if stream.is_released:
            raise LocalProtocolError(f"stream {stream.id} was released twice")
        stream.is_released = True
        if stream.has_place:
            self.budget.dismiss_stream(stream.receive.size_bytes)
        if (stream.id % 2 == 1) is not self._is_initiator:
            self._remote_streams.release()

    def sendable_bytes(self, stream: Stream) -> int:
        """Payload bytes that the next DATA frame of a stream may carry; 0 means wait for credit."""
        if stream.state not in MAY_SEND_DATA:
            return 0
        return min(stream.send.limit - stream.send.sent, self.max_payload_bytes)

    def seal_data(
        self, buffer: bytearray | memoryview, stream: Stream, length: int, offset: int = 0
    ) -> int:
        """Make a DATA frame of `length` bytes that lie behind a header's room at `offset`.

        Returns:
            The offset behind the frame.
        """
        if stream.state not in MAY_SEND_DATA or stream.is_dedicated:
            raise LocalProtocolError(f"data on stream {stream.id}, which is {stream.state.name}")
        stream.send.send(length)
        return self._writer.seal(buffer, offset, stream.id, length)

    def consume(self, stream: Stream, length: int, now: float) -> None:
        """The next hop took `length` bytes of a stream; the only source of credit."""
        if (
            stream.receive.consume(length, now, self.keepalive.round_trip_seconds)
            and stream.state in MAY_SEND_CREDIT
        ):
            stream.credit_due = True
            self._due[stream] = None
            self.keepalive.measure(now)

    def resolve(self, question: Resolve) -> int:
        """Ask the peer's resolver; ResolveAnswered carries the id that is returned."""
        return self._resolves.ask(question)

    def answer_resolve(self, request_id: int, answer: Resolved) -> None:
        """Answer a question of the peer."""
        self._resolves.answer(request_id, answer)

    def go_away(self, text: str) -> None:
        """Take no new streams; those that are open go on (drain)."""
        if not self.is_ended and not self.is_going_away:
            self.is_going_away = True
            self._goaway_due = (ErrorCode.NONE, text)

    @property
    def is_drained(self) -> bool:
        """Whether GOAWAY was said by either end and no stream is left."""
        return (self.is_going_away or self.peer_is_going_away) and not self.streams

    def _close(self, stream: Stream, stream_input: StreamInput) -> None:
        stream.send_input(stream_input)
        if stream.is_closed:
            self.streams.pop(stream.id, None)

    def _make_stream(
        self, stream_id: int, state: StreamState, *, is_dedicated: bool, now: float
    ) -> Stream | None:
        """A stream with its first window reserved, or None when the budget is used up."""
        window_bytes = 0 if is_dedicated else self._receive_window_bytes
        if not self.budget.admit_stream(window_bytes):
            return None
        return Stream(
            stream_id,
            state,
            is_dedicated=is_dedicated,
            receive=ReceiveWindow(self.budget, window_bytes, now),
            send=SendWindow(0 if is_dedicated else self._send_window_bytes),
        )

    def _make_unreserved_stream(self, stream_id: int, *, is_dedicated: bool) -> Stream:
        """A stream that exists only to be refused."""
        stream = Stream(
            stream_id,
            StreamState.REMOTE_OPENING,
            is_dedicated=is_dedicated,
            receive=ReceiveWindow(self.budget, 0, 0.0),
            send=SendWindow(0),
        )
        stream.has_place = False
        return stream

    # ------------------------------------------------------------------ sending

    @property
    def has_control(self) -> bool:
        """Whether `control_to_send` would return bytes."""
        return bool(
            self._due
            or self._goaway_due is not None
            or self.keepalive.ping_due is not None
            or self.keepalive.pong_due is not None
            or self._resolves.is_due
            or self._remote_streams.is_announcement_due
        )

    def control_to_send(self) -> bytearray:
        """The control frames that are due, in an order that keeps every stream's own order."""
        output = bytearray()
        writer = self._writer
        if self.is_ended:
            self._write_goaway(output)
            self.keepalive.ping_due = self.keepalive.pong_due = None
            return output
        if self.keepalive.pong_due is not None:
            output += writer.frame(FrameType.PONG, 0, self.keepalive.pong_due)
            self.keepalive.pong_due = None
        if self.keepalive.ping_due is not None:
            output += writer.frame(FrameType.PING, 0, PING.pack(self.keepalive.ping_due))
            self.keepalive.ping_due = None
        if self._due:
            for stream in self._due:
                self._write_stream(stream, output)
            self._due.clear()
        if self._resolves.is_due:
            self._resolves.frames(writer, output)
        if self._remote_streams.is_announcement_due:
            total = TOTAL.pack(self._remote_streams.announce())
            output += writer.frame(FrameType.MAX_STREAMS, 0, total)
        self._write_goaway(output)
        return output

    def _write_stream(self, stream: Stream, output: bytearray) -> None:
        writer = self._writer
        if stream.open_due is not None:
            output += writer.frame(FrameType.OPEN, stream.id, stream.open_due)
            stream.open_due = None
        answer = stream.answer_due
        if answer is not None:
            frame_type = FrameType.OPENED if isinstance(answer, Opened) else FrameType.REFUSED
            output += writer.frame(frame_type, stream.id, answer.encode())
            stream.answer_due = None
        if stream.credit_due:
            # Granted when due; by now more may have been consumed, and the state may have moved on.
            if stream.state in MAY_SEND_CREDIT:
                output += writer.frame(
                    FrameType.CREDIT, stream.id, TOTAL.pack(stream.receive.granted)
                )
            stream.credit_due = False
        if stream.stop_due is not None:
            output += writer.frame(FrameType.STOP, stream.id, STOP.pack(stream.stop_due))
            stream.stop_due = None
        if stream.fin_due:
            output += writer.frame(FrameType.DATA, stream.id, flags=FLAG_FIN)
            stream.fin_due = False
        if stream.end_due is not None:
            output += writer.frame(FrameType.END, stream.id, TOTAL.pack(stream.end_due))
            stream.end_due = None
        if stream.reset_due is not None:
            payload = RESET.pack(stream.reset_due, stream.send.sent)
            output += writer.frame(FrameType.RESET, stream.id, payload)
            stream.reset_due = None

    def _write_goaway(self, output: bytearray) -> None:
        if self._goaway_due is not None:
            code, text = self._goaway_due
            last = max(self._remote_streams.highest_id, 0)
            payload = GOAWAY.pack(last, code) + printable(text).encode()
            output += self._writer.frame(FrameType.GOAWAY, 0, payload)
            self._goaway_due = None

    # ----------------------------------------------------------------- deadlines

    def next_deadline(self) -> float:
        """When `handle_deadline` wants to be called, on the clock of `now`."""
        return self.keepalive.next_deadline()

    def handle_deadline(self, now: float) -> list[Event]:
        """Serve what is due: a ping, or the end of a session whose peer is silent."""
        if not self.is_ended and self.keepalive.handle_deadline(now):
            return self.abort(ErrorCode.KEEPALIVE, "nothing was heard from the peer")
        return []
