"""What the driver may do with a session: open streams, answer them, end them, and send.

The other half, what the peer's frames do, is in session.py; its docstring says how both are used.
"""

from dataclasses import replace

from vsockproxy.session.credit import ReceiveBudget
from vsockproxy.session.errors import ErrorCode, LocalProtocolError
from vsockproxy.session.frame_writer import FrameWriter
from vsockproxy.session.frames import CHECKSUM_BYTES, FrameType
from vsockproxy.session.keepalive import Keepalive
from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved
from vsockproxy.session.opening import FEATURE_CRC32, Hello
from vsockproxy.session.outbox import Outbox
from vsockproxy.session.resolves import Resolves
from vsockproxy.session.states import MAY_SEND_CREDIT, MAY_SEND_DATA, StreamInput
from vsockproxy.session.stream import Stream
from vsockproxy.session.stream_table import StreamTable


class SessionVerbs:
    """The half of a session that its driver commands; arguments as for `Session`."""

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
        self.budget = budget
        self.is_ended = False
        self.is_going_away = False
        """GOAWAY is said, or due: this end opens no more streams and takes none."""
        self.max_payload_bytes = min(max_payload_bytes, remote.max_payload_bytes)
        """Largest payload of a DATA frame that this end sends."""
        self.has_checksums = FEATURE_CRC32 in (local.features & remote.features)
        self.trailer_bytes = CHECKSUM_BYTES if self.has_checksums else 0
        self.keepalive = Keepalive(now)
        self._writer = FrameWriter(local.first_sequence, has_checksums=self.has_checksums)
        self._table = StreamTable(
            is_initiator=is_initiator, local=local, remote=remote, budget=budget
        )
        self.streams = self._table.by_id
        """Streams that frames may arrive for; closed ones are not in it."""
        self._resolves = Resolves()
        self._outbox = Outbox(self._writer, self._table, self.keepalive, self._resolves)
        self._due = self._outbox.streams

    @property
    def may_open(self) -> bool:
        """Whether `open` can succeed now, as far as this session is concerned."""
        return not self.is_ended and not self.is_going_away and self._table.local.may_open

    def open(self, request: Open, now: float) -> Stream:
        """Open a stream. Data may follow at once where the caller permits.

        Raises:
            Refused: with reason limit, when the peer or the budget of this side allows no more.
            LocalProtocolError: when the session has ended or is going away, or when the request
                is nothing that a peer would take.
        """
        if self.is_ended or self.is_going_away:
            raise LocalProtocolError("open on a session that has ended or is going away")
        payload = request.encode()
        stream = self._table.open_local(is_dedicated=request.dedicated, now=now)
        stream.open_due = payload
        self._due[stream] = None
        if self._table.local.are_used_up:
            self.go_away("all stream ids are used up")
        return stream

    def accept(self, stream: Stream, answer: Opened) -> None:
        """Answer an OPEN: the destination was reached.

        `answer.window_bytes` asks for a larger window; what the budget has left is granted.
        """
        if stream.is_closed:
            return
        if stream.is_dedicated is not (answer.token is not None):
            raise LocalProtocolError("a dedicated stream is accepted with a token, no other is")
        if answer.window_bytes is not None:
            if stream.is_dedicated:
                raise LocalProtocolError("a dedicated stream has no window")
            stream.receive.widen(answer.window_bytes)
            answer = replace(answer, window_bytes=stream.receive.granted)
            stream.credit_due = False
        payload = answer.encode()
        stream.send_input(StreamInput.SEND_OPENED)
        stream.answer_due = (FrameType.OPENED, payload)
        self._due[stream] = None

    def refuse(self, stream: Stream, reason: str, text: str) -> None:
        """Answer an OPEN: the stream is not to be. It is closed."""
        if stream.is_closed:
            return
        payload = Refusal(reason, text).encode()
        self._close(stream, StreamInput.SEND_REFUSED)
        stream.drop_due()
        stream.answer_due = (FrameType.REFUSED, payload)
        self._due[stream] = None

    def finish(self, stream: Stream) -> None:
        """No more data follows from this end (FIN), on a shared stream."""
        if stream.is_dedicated:
            raise LocalProtocolError(f"FIN on dedicated stream {stream.id}, which has END")
        if not stream.is_closed and not stream.is_stopped:
            self._finish(stream)

    def end(self, stream: Stream, total_bytes: int) -> None:
        """No more data follows from this end on a dedicated stream; so many bytes were sent."""
        if not stream.is_dedicated:
            raise LocalProtocolError(f"END on shared stream {stream.id}, which has FIN")
        if not stream.is_closed:
            self._close(stream, StreamInput.SEND_FIN)
            stream.end_due = total_bytes
            self._due[stream] = None

    def stop(self, stream: Stream, code: ErrorCode) -> None:
        """Ask the peer to send no more on a shared stream; what still arrives is dropped."""
        if stream.is_dedicated:
            raise LocalProtocolError(f"STOP on dedicated stream {stream.id}")
        if not stream.is_closed:
            stream.send_input(StreamInput.SEND_STOP)
            stream.is_stopping = True
            stream.stop_due = code
            self._due[stream] = None

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once in both directions."""
        if not stream.is_closed:
            self._close(stream, StreamInput.SEND_RESET)
            stream.drop_due()
            stream.reset_due = code
            self._due[stream] = None

    def release(self, stream: Stream) -> None:
        """Nothing is left of a closed stream; gives its window and its place back."""
        self._table.release(stream)

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
        # In any other state, nothing that was granted will come: it would only tie up budget.
        if (
            stream.receive.consume(length)
            and stream.state in MAY_SEND_CREDIT
            and not stream.is_stopping
            and stream.receive.grant(now, self.keepalive.round_trip_seconds)
        ):
            stream.credit_due = True
            self._due[stream] = None
            self.keepalive.measure(now)

    def _finish(self, stream: Stream) -> None:
        self._close(stream, StreamInput.SEND_FIN)
        stream.fin_due = True
        self._due[stream] = None

    def _close(self, stream: Stream, stream_input: StreamInput) -> None:
        stream.send_input(stream_input)
        if stream.is_closed:
            del self.streams[stream.id]

    # ---------------------------------------------------------- names, and the end

    def resolve(self, question: Resolve) -> int:
        """Ask the peer's resolver; ResolveAnswered carries the id that is returned.

        Raises:
            Refused: with reason limit, when too many questions are open.
            LocalProtocolError: when the session has ended, or a field is out of bounds.
        """
        if self.is_ended:
            raise LocalProtocolError("resolve on a session that has ended")
        return self._resolves.ask(question)

    def answer_resolve(self, request_id: int, answer: Resolved) -> None:
        """Answer a question of the peer; once each."""
        self._resolves.answer(request_id, answer)

    def go_away(self, text: str) -> None:
        """Take no new streams; those that are open go on (drain)."""
        if not self.is_ended and not self.is_going_away:
            self.is_going_away = True
            self._outbox.goaway_due = (ErrorCode.NONE, text)

    # ------------------------------------------------------------------ sending

    @property
    def has_control(self) -> bool:
        """Whether to call `control_to_send`; what was due may be void by then."""
        if self.is_ended:
            return self._outbox.goaway_due is not None
        return self._outbox.has_frames

    def control_to_send(self) -> bytearray:
        """The control frames that are due, in an order that keeps every stream's own order."""
        return self._outbox.last_word() if self.is_ended else self._outbox.frames()
