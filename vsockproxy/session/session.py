"""The multiplexer's core: bytes in, events out; what is to be sent is asked for. Pure.

A driver owns one link and does, in this order, whenever something happens:

1. `receive(data, now)` or `receive_eof()`, and acts on the events before it reads again;
2. sends `control_to_send()` before the next DATA frame, and whenever `has_control` is true;
3. for each stream that has bytes and `sendable_bytes(stream) > 0`: puts 1 to that many behind
   `HEADER_BYTES` free bytes of a buffer (with `trailer_bytes` of room after them), calls
   `seal_data`, and sends the frame;
4. calls `handle_deadline(now)` at `next_deadline()`.

The driver reports bytes that the next hop took with `consume`, and calls `release` once for every
stream, when the stream is closed and nothing behind it (a dial, a socket, a task) is left: until
then it counts against the peer's streams. After SessionEnded only `control_to_send` is of use: it
holds the last word, GOAWAY.

What the peer sends never raises: a broken rule is the event SessionEnded. And as the events of one
read are a list, a stream may be over already, in the session, while the driver acts on an earlier
event of it: `accept`, `refuse`, `finish`, `end`, `stop` and `reset` do nothing on a closed stream.
"""

from collections.abc import Callable
from typing import Never

from vsockproxy.session.abuse import AbuseMeter
from vsockproxy.session.credit import ReceiveBudget
from vsockproxy.session.errors import ErrorCode, PeerProtocolError
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
from vsockproxy.session.frame_reader import FrameReader
from vsockproxy.session.frames import (
    DATA,
    FLAG_FIN,
    GOAWAY,
    PING,
    RESET,
    STOP,
    TOTAL,
    FrameType,
)
from vsockproxy.session.limits import (
    COST_CHEAP,
    COST_PING,
    COST_PREMATURE_RESET,
    COST_USELESS,
    PREMATURE_SECONDS,
    TINY_BYTES,
)
from vsockproxy.session.messages import Open, Opened, Refusal, printable
from vsockproxy.session.opening import Hello
from vsockproxy.session.states import (
    CLOSED,
    MAY_RECEIVE_DATA,
    MAY_SEND_DATA,
    REMOTE_OPENING_STATES,
    TRANSITIONS,
    StreamInput,
)
from vsockproxy.session.stream import Stream
from vsockproxy.session.verbs import SessionVerbs

Handler = Callable[[int, bytes, list[Event], float], None]


class Session(SessionVerbs):
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
        super().__init__(
            is_initiator=is_initiator,
            local=local,
            remote=remote,
            budget=budget,
            now=now,
            max_payload_bytes=max_payload_bytes,
        )
        self.peer_is_going_away = False
        self.abuse = AbuseMeter(now)
        self._reader = FrameReader(
            remote.first_sequence, local.max_payload_bytes, has_checksums=self.has_checksums
        )
        self._arriving: Stream | None = None
        """The stream of the DATA frame that is arriving; None drops its bytes."""
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
            for frame_type, flags, stream_id, length, payload in self._reader.read(data):
                if frame_type == DATA:
                    self._on_data(flags, stream_id, length, payload, events, now)
                    continue
                self._handlers[frame_type](stream_id, bytes(payload), events, now)
                if self.is_ended:
                    break
        except PeerProtocolError as error:
            self._end(error.code, error.text, events)
        return events

    def receive_eof(self) -> list[Event]:
        """The link ended; clean only after GOAWAY, between frames and with no stream left."""
        if not self.peer_is_going_away:
            return self.abort(ErrorCode.LINK_LOST, "the link ended without GOAWAY")
        if self.streams or not self._reader.is_between_frames:
            return self.abort(ErrorCode.LINK_LOST, "the link ended before all was said")
        return self.abort(ErrorCode.NONE, "the peer went away")

    def abort(self, code: ErrorCode, text: str) -> list[Event]:
        """End the session at once; every stream is reset."""
        events: list[Event] = []
        if not self.is_ended:
            self._end(code, text, events)
        return events

    def _on_data(
        self,
        flags: int,
        stream_id: int,
        length: int,
        payload: memoryview,
        events: list[Event],
        now: float,
    ) -> None:
        if length >= 0:
            stream = self.streams.get(stream_id)
            if stream is None:
                self._charge_late(stream_id, now)
            elif stream.is_dedicated or stream.state not in MAY_RECEIVE_DATA:
                self._forbid(stream, "DATA")
            else:
                stream.receive.receive(length)
            self._arriving = stream
            if length < TINY_BYTES:
                if not length and not flags:
                    raise PeerProtocolError(ErrorCode.PROTOCOL, "an empty DATA frame without FIN")
                self.abuse.charge(COST_CHEAP, "tiny DATA frames", now)
        else:
            stream = self._arriving
            if stream is not None and stream.is_closed:
                # This end reset the stream while the frame was arriving.
                self._arriving = stream = None
        if stream is None:
            return
        if payload.nbytes:
            if stream.is_stopping:
                stream.receive.consumed += payload.nbytes
            else:
                events.append(DataReceived(stream, payload))
        if flags & FLAG_FIN:
            self._step(stream, StreamInput.RECEIVE_FIN)
            events.append(StreamFinished(stream, stream.receive.received))

    def _on_open(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        if self.peer_is_going_away:
            raise PeerProtocolError(ErrorCode.PROTOCOL, f"stream {stream_id} opened after GOAWAY")
        self._table.remote.open(stream_id)
        request = Open.decode(payload)
        stream = self._table.open_remote(stream_id, is_dedicated=request.dedicated, now=now)
        if stream.has_place and not self.is_going_away:
            events.append(StreamOpened(stream, request))
            return
        text = "the peer is shutting down" if self.is_going_away else self._table.full_text
        self.refuse(stream, "limit", text)
        self.release(stream)

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
        if stream.is_dedicated and answer.window_bytes is not None:
            raise PeerProtocolError(
                ErrorCode.PROTOCOL, f"stream {stream_id}: a dedicated stream has no window"
            )
        events.append(StreamAccepted(stream, answer))
        if answer.window_bytes is not None and stream.send.raise_to(answer.window_bytes):
            events.append(CreditReceived(stream))

    def _on_refused(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is not None:
            refusal = Refusal.decode(payload)
            self._step(stream, StreamInput.RECEIVE_REFUSED)
            stream.drop_due()
            events.append(StreamRefused(stream, refusal))

    def _on_credit(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        if stream.is_dedicated:
            self._forbid(stream, "CREDIT")
        self._step(stream, StreamInput.RECEIVE_CREDIT)
        (limit,) = TOTAL.unpack(payload)
        if limit - stream.send.limit < TINY_BYTES:
            if limit <= stream.send.limit:
                self.abuse.charge(COST_USELESS, "grants that grant nothing", now)
                return
            self.abuse.charge(COST_CHEAP, "tiny grants", now)
        stream.send.limit = limit
        events.append(CreditReceived(stream))

    def _on_max_streams(self, _: int, payload: bytes, events: list[Event], now: float) -> None:
        if self._table.local.allow(TOTAL.unpack(payload)[0]):
            self.abuse.charge(COST_CHEAP, "MAX_STREAMS frames", now)
            events.append(StreamsAllowed())
        else:
            self.abuse.charge(COST_USELESS, "MAX_STREAMS that allow nothing", now)

    def _on_reset(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        code, final_size = RESET.unpack(payload)
        if final_size != stream.receive.received:
            raise PeerProtocolError(
                ErrorCode.FLOW_CONTROL,
                f"stream {stream_id} was reset at {final_size} bytes, and "
                f"{stream.receive.received} arrived",
            )
        # Its window was first granted when the stream was opened.
        age = now - stream.receive.granted_at
        if stream.state in REMOTE_OPENING_STATES and age < PREMATURE_SECONDS:
            self.abuse.charge(COST_PREMATURE_RESET, "opens that were reset at once", now)
        self._step(stream, StreamInput.RECEIVE_RESET)
        stream.drop_due()
        events.append(StreamReset(stream, code))

    def _on_stop(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        if stream.is_dedicated:
            self._forbid(stream, "STOP")
        self._step(stream, StreamInput.RECEIVE_STOP)
        self.abuse.charge(COST_CHEAP, "STOP frames", now)
        stream.is_stopped = True
        if stream.state in MAY_SEND_DATA:
            self._finish(stream)
        events.append(StopReceived(stream, STOP.unpack(payload)[0]))

    def _on_end(self, stream_id: int, payload: bytes, events: list[Event], now: float) -> None:
        stream = self._find(stream_id, now)
        if stream is None:
            return
        if not stream.is_dedicated:
            self._forbid(stream, "END")
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
            self._end(code, f"the peer ended the session: {text}", events, is_told=True)
            return
        if self.peer_is_going_away:
            self.abuse.charge(COST_USELESS, "GOAWAY frames", now)
            return
        self.peer_is_going_away = True
        events.append(GoingAway(last_stream_id, text))
        # The answer says that no OPEN of this end is on its way any more.
        self.go_away("the peer goes away")

    def _find(self, stream_id: int, now: float) -> Stream | None:
        """The stream, or None for one that was closed while the frame was on its way.

        Raises:
            PeerProtocolError: when the stream was never opened.
        """
        stream = self.streams.get(stream_id)
        if stream is None:
            self._charge_late(stream_id, now)
        return stream

    def _charge_late(self, stream_id: int, now: float) -> None:
        self._table.check_opened(stream_id)
        self.abuse.charge(COST_CHEAP, "frames for closed streams", now)

    def _step(self, stream: Stream, stream_input: StreamInput) -> None:
        state = TRANSITIONS[stream.state].get(stream_input)
        if state is None:
            self._forbid(stream, stream_input.name)
        stream.state = state
        if state is CLOSED:
            del self.streams[stream.id]

    @staticmethod
    def _forbid(stream: Stream, what: str) -> Never:
        kind = "dedicated" if stream.is_dedicated else "shared"
        raise PeerProtocolError(
            ErrorCode.STREAM_STATE,
            f"{what} on stream {stream.id}, which is {kind} and {stream.state.name}",
        )

    def _end(self, code: int, text: str, events: list[Event], *, is_told: bool = False) -> None:
        """End the session; `is_told` when the peer knows, because it said so itself."""
        if code == ErrorCode.NONE and self.is_going_away and self._outbox.goaway_due is None:
            is_told = True
        self.is_ended = True
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.state = CLOSED
        self._outbox.end(code, text, is_told=is_told)
        events.append(SessionEnded(code, text, code == ErrorCode.NONE and not streams, streams))

    # ---------------------------------------------------------- the end, and deadlines

    @property
    def is_drained(self) -> bool:
        """Whether the link can be closed without loss.

        Both ends said GOAWAY, so that no OPEN is on its way; no stream is left, and all is said.
        """
        return (
            self.is_going_away
            and self.peer_is_going_away
            and not self.streams
            and not self._due
            and self._outbox.goaway_due is None
        )

    def next_deadline(self) -> float:
        """When `handle_deadline` wants to be called, on the clock of `now`."""
        return self.keepalive.next_deadline()

    def handle_deadline(self, now: float) -> list[Event]:
        """Serve what is due: a ping, or the end of a session whose peer is silent."""
        if not self.is_ended and self.keepalive.handle_deadline(now):
            return self.abort(ErrorCode.KEEPALIVE, "nothing was heard from the peer")
        return []
