"""Drives one session over one socket: the readiness callbacks between the kernel and the core.

The reader of a link is never paused: credit bounds what arrives, so nothing is held back here.
What goes out is pulled: a stream's bytes are read from its local socket straight into the frame
that carries them, and only while the link takes frames, so that backpressure reaches the program
through its own socket and no queue of ours grows. While the link is full, streams with something to
send wait in `ready` and take turns, one read each (a turn is at most `frames_per_send` frames).
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from vsockproxy.dataplane.carriers import Carrier
from vsockproxy.dataplane.local_socket import LocalSocket
from vsockproxy.dataplane.second_look import look_again
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.session import ErrorCode, Session, Stream
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
from vsockproxy.session.messages import Open, Resolve, Resolved

READ_BYTES = 256 * 1024
"""One read of a link. Shared by all links of the process: nothing in it outlives the callback."""

READS_PER_EVENT = 4
"""Reads of one link before the rest of the loop has its turn."""

TURNS_PER_WRITABLE = 32
"""Turns given to waiting streams before the loop looks at everybody else again."""

_read_buffer = bytearray(READ_BYTES)
_read_view = memoryview(_read_buffer)


def code_name(code: int) -> str:
    """A code as logs say it; one that is not known stays a number."""
    try:
        return ErrorCode(code).name.lower()
    except ValueError:
        return str(code)


class LinkOwner(Protocol):
    """What the side that made a link does about it."""

    def stream_opened(self, link: "Link", end: StreamEnd, request: Open) -> None:
        """The peer opened a stream."""

    def resolve_received(self, link: "Link", request_id: int, question: Resolve) -> None:
        """The peer asks for a name."""

    def link_going_away(self, link: "Link", text: str) -> None:
        """The peer takes no new streams on this link."""

    def link_ended(self, link: "Link", code: int, text: str, is_clean: bool) -> None:
        """The link is closed; its streams have been reset."""


class Link:
    """One session on one connected, non-blocking socket.

    Args:
        sock: owned by the link from now on.
        session: a session whose opening exchange is over.
        carrier: sizes for this kind of socket.
        owner: told what the link does not decide by itself.
    """

    def __init__(
        self, sock: socket.socket, session: Session, carrier: Carrier, owner: LinkOwner
    ) -> None:
        self.session = session
        self.carrier = carrier
        self.is_blocked = False
        """The kernel takes no more: streams wait in `ready`."""
        self.ready: deque[StreamEnd] = deque()
        self.ends: set[StreamEnd] = set()
        """Every stream of which something is left, closed in the session or not."""
        self.began_at = asyncio.get_running_loop().time()
        self.bytes_received = 0
        self.streams_opened = 0
        """How many streams this end has opened."""
        self._owner = owner
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._is_dispatching = False
        self._is_reading_on = False
        self.has_look_due = False
        self._is_serving = False
        self._is_flush_due = False
        """`_flush_soon` is scheduled: once, however often streams queue."""
        self._output = bytearray()
        """What the kernel did not take: at most one turn and the control frames before it."""
        self._resolves: dict[int, asyncio.Future[Resolved]] = {}
        self._stride = HEADER_BYTES + session.max_payload_bytes + session.trailer_bytes
        frames = max(1, min(carrier.frames_per_send, carrier.max_send_bytes // self._stride))
        self.turn_bytes = frames * session.max_payload_bytes
        self._frame_view = memoryview(bytearray(frames * self._stride))
        self._slots = [
            self._frame_view[
                number * self._stride + HEADER_BYTES : number * self._stride
                + HEADER_BYTES
                + session.max_payload_bytes
            ]
            for number in range(frames)
        ]
        self._timer = self._loop.call_at(session.next_deadline(), self._on_deadline)

    def begin(self, first_bytes: bytes) -> None:
        """Start to read and send; `first_bytes` arrived behind the peer's hello."""
        self._loop.add_reader(self._fd, self._on_readable)
        if first_bytes:
            self._receive(memoryview(first_bytes))
        self.flush()

    # ------------------------------------------------------------------ opening

    @property
    def may_open(self) -> bool:
        """Whether a stream may be opened on this link now."""
        return not self._is_closed and self.session.may_open

    @property
    def is_closed(self) -> bool:
        """The socket is closed."""
        return self._is_closed

    def open(self, request: Open, closed: Callable[[StreamEnd], None]) -> StreamEnd:
        """Open a stream; OPEN goes out at the next flush.

        Args:
            request: where it shall lead.
            closed: called once, when nothing of the stream is left.

        Raises:
            Refused: with reason limit.
        """
        stream = self.session.open(request, self._loop.time())
        self.streams_opened += 1
        return StreamEnd(self, stream, closed)

    async def resolve(self, question: Resolve) -> Resolved:
        """Ask the peer's resolver.

        Raises:
            Refused: with reason limit.
            ConnectionResetError: when the link ends before the answer.
        """
        if self._is_closed:
            raise ConnectionResetError("the link is closed")
        request_id = self.session.resolve(question)
        future: asyncio.Future[Resolved] = self._loop.create_future()
        self._resolves[request_id] = future
        self.flush()
        try:
            return await future
        finally:
            self._resolves.pop(request_id, None)

    def answer_resolve(self, request_id: int, answer: Resolved) -> None:
        """Answer a question of the peer; nothing happens when the link has ended."""
        if not self._is_closed:
            self.session.answer_resolve(request_id, answer)
            self.flush()

    def go_away(self, text: str) -> None:
        """Take no new streams; close once the open ones have ended."""
        if not self._is_closed:
            self.session.go_away(text)
            self.flush()
            self._close_if_drained()

    def check_times(self, half_closed_seconds: float, idle_seconds: float) -> None:
        """Reset streams that have moved no byte for longer than their limit; called in turns."""
        now = self._loop.time()
        for end in list(self.ends):
            end.check_time(now, half_closed_seconds, idle_seconds)

    def abort(self, code: ErrorCode, text: str) -> None:
        """End the link at once; every stream on it is reset."""
        self._dispatch(self.session.abort(code, text), self._loop.time())
        self.flush()

    # ---------------------------------------------------------------- receiving

    def _on_readable(self) -> None:
        for _ in range(READS_PER_EVENT):
            try:
                length = self._sock.recv_into(_read_buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._lost(str(error))
                break
            if not length:
                self._dispatch(self.session.receive_eof(), self._loop.time())
                break
            self._receive(_read_view[:length])
            if self._is_closed:
                return
            if length < READ_BYTES:
                look_again(self)
                break
        else:
            # Once, though the kernel says that the link is readable as well: two of these would
            # each call for another, and reads without end keep the rest of the loop waiting.
            if not self._is_reading_on:
                self._is_reading_on = True
                self._loop.call_soon(self._read_on)
        self.flush()

    def look_again(self) -> None:
        """See `second_look`."""
        if not self._is_closed:
            self._on_readable()

    def _read_on(self) -> None:
        self._is_reading_on = False
        if not self._is_closed:
            self._on_readable()

    def _receive(self, data: memoryview) -> None:
        self.bytes_received += len(data)
        now = self._loop.time()
        self._dispatch(self.session.receive(data, now), now)

    def _dispatch(self, events: list[Event], now: float) -> None:
        """Act on events; the payloads of one stream go to its socket in one call."""
        if not events:
            return
        self._is_dispatching = True
        try:
            self._dispatch_all(events, now)
        except Exception:
            # A fault of ours. Payloads that wait in `views` are about to be overwritten, so no
            # stream of this link can be trusted any more.
            if not self._is_closed:
                ended = self.session.abort(ErrorCode.SHUTDOWN, "an internal fault")
                for event in (*events, *ended):
                    if isinstance(event, SessionEnded):
                        self._ended(event)
            for end in list(self.ends):
                if end.views:
                    end.views.clear()
                    end.reset(ErrorCode.CUT)
            raise
        finally:
            self._is_dispatching = False

    def _dispatch_all(self, events: list[Event], now: float) -> None:
        touched: list[StreamEnd] = []
        for event in events:
            if type(event) is DataReceived:
                end = event.stream.owner
                assert isinstance(end, StreamEnd)  # set before the first event can name the stream
                if not end.views:
                    touched.append(end)
                end.views.append(event.payload)
                continue
            for end in touched:
                end.deliver(now)
            touched.clear()
            self._act(event)
        for end in touched:
            end.deliver(now)

    def _act(self, event: Event) -> None:
        if isinstance(event, CreditReceived):
            self._end_of(event.stream).credit_received()
        elif isinstance(event, StreamFinished):
            self._end_of(event.stream).finished(event.total_bytes)
        elif isinstance(event, StreamOpened):
            end = StreamEnd(self, event.stream)
            self._owner.stream_opened(self, end, event.request)
        elif isinstance(event, StreamAccepted):
            self._end_of(event.stream).accepted(event.answer)
        elif isinstance(event, StreamRefused):
            self._end_of(event.stream).refused(event.refusal)
        elif isinstance(event, StreamReset):
            self._end_of(event.stream).reset_received(event.code)
        elif isinstance(event, StopReceived):
            self._end_of(event.stream).stop_received()
        elif isinstance(event, ResolveReceived):
            self._owner.resolve_received(self, event.request_id, event.question)
        elif isinstance(event, ResolveAnswered):
            future = self._resolves.get(event.request_id)
            if future is not None and not future.done():
                future.set_result(event.answer)
        elif isinstance(event, GoingAway):
            self._owner.link_going_away(self, event.text)
        elif isinstance(event, SessionEnded):
            self._ended(event)
        else:
            assert isinstance(event, StreamsAllowed | DataReceived)  # asked for when needed

    @staticmethod
    def _end_of(stream: Stream) -> StreamEnd:
        end = stream.owner
        assert isinstance(end, StreamEnd)  # set before the first event can name the stream
        return end

    # ------------------------------------------------------------------ sending

    def receive_turn(self, sock: LocalSocket, room_bytes: int) -> int:
        """Read one turn of a stream from its local socket into the frames that will carry it.

        Args:
            sock: the local socket.
            room_bytes: credit of the stream, more than 0.

        Returns:
            Bytes read, 0 at the end of file.

        Raises:
            OSError: as `recv` does, BlockingIOError included.
        """
        slots = self._slots
        largest = self.session.max_payload_bytes
        if room_bytes <= largest:
            return sock.recv_into(slots[0][:room_bytes])
        if len(slots) == 1:
            return sock.recv_into(slots[0])
        if room_bytes >= self.turn_bytes:
            return sock.recvmsg_into(slots)[0]
        full, rest = divmod(room_bytes, largest)
        return sock.recvmsg_into([*slots[:full], slots[full][:rest]] if rest else slots[:full])[0]

    def put_turn(self, data: bytes | memoryview) -> None:
        """Place bytes that did not come from a socket where `receive_turn` would."""
        largest = self.session.max_payload_bytes
        for number in range(0, len(data), largest):
            piece = data[number : number + largest]
            self._slots[number // largest][: len(piece)] = piece

    def send_turn(self, stream: Stream, length: int) -> None:
        """Send what `receive_turn` or `put_turn` placed."""
        if self.session.has_control:
            self._write(self.session.control_to_send())
        view = self._frame_view
        largest = self.session.max_payload_bytes
        end = 0
        while length > 0:
            payload = min(length, largest)
            end = self.session.seal_data(view, stream, payload, end)
            length -= payload
        self._write(view[:end])

    def queue(self, end: StreamEnd) -> None:
        """A stream has something to send: it gets its turn when the link takes frames."""
        self.ready.append(end)
        if not self.is_blocked and not self._is_serving and not self._is_dispatching:
            self._flush_later()

    def _flush_later(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._is_flush_due = False
        self.flush()

    def flush(self) -> None:
        """Send the control frames that are due, and give waiting streams their turns.

        Within a turn it does nothing: streams that end in their turns would nest without bound,
        and what they have to say is said after the turns.
        """
        if self._is_dispatching or self._is_serving or self._is_closed:
            return
        self._send_control()
        if self.ready and not self.is_blocked:
            self._serve_ready()
            self._send_control()
        self._close_if_drained()

    def _send_control(self) -> None:
        if not self.is_blocked and self.session.has_control:
            self._write(self.session.control_to_send())

    def _serve_ready(self) -> None:
        self._is_serving = True
        try:
            for _ in range(min(len(self.ready), TURNS_PER_WRITABLE)):
                if self.is_blocked or self._is_closed or not self.ready:
                    break
                self.ready.popleft().take_turn()
        finally:
            self._is_serving = False
            if self.ready and not self.is_blocked and not self._is_closed:
                self._flush_later()

    def _write(self, data: bytearray | memoryview) -> None:
        if self._is_closed or not data:
            return
        if self._output:
            self._output += data
            return
        sent = 0
        most = self.carrier.max_send_bytes
        view = memoryview(data)
        try:
            while sent < len(view):
                piece = view[sent : sent + most] if len(view) - sent > most else view[sent:]
                count = self._sock.send(piece)
                sent += count
                if count < len(piece):
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            # Told at the next step of the loop, so that no caller sees its streams end under it.
            self._loop.call_soon(self._lost, str(error))
            return
        if sent < len(view):
            self._output += view[sent:]
            self.is_blocked = True
            self._loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        try:
            with memoryview(self._output) as view:
                sent = self._sock.send(view[: self.carrier.max_send_bytes])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(str(error))
            return
        del self._output[:sent]
        if self._output:
            return
        self._output = bytearray()
        self.is_blocked = False
        self.flush()
        if not self.is_blocked and not self._is_closed:
            self._loop.remove_writer(self._fd)

    # ------------------------------------------------------------------- ending

    def _on_deadline(self) -> None:
        now = self._loop.time()
        self._dispatch(self.session.handle_deadline(now), now)
        if not self._is_closed:
            self._timer = self._loop.call_at(
                max(self.session.next_deadline(), now + 0.01), self._on_deadline
            )
        self.flush()

    def _lost(self, text: str) -> None:
        if self._is_closed:
            return
        if self.session.is_drained:
            # Both ends close after GOAWAY; bytes that crossed make an error of the second close.
            self._dispatch(self.session.receive_eof(), self._loop.time())
        else:
            self.abort(ErrorCode.LINK_LOST, f"the link broke: {text}")

    def _close_if_drained(self) -> None:
        if self.session.is_drained and not self._output and not self._is_closed:
            self._dispatch(
                self.session.abort(ErrorCode.NONE, "all streams have ended"), self._loop.time()
            )

    def _ended(self, event: SessionEnded) -> None:
        # The last word is worth one try; a peer that does not read gets the end of file alone.
        if event.code != ErrorCode.LINK_LOST and not self.is_blocked:
            self._write(self.session.control_to_send())
        self._is_closed = True
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._sock.close()
        self.ready.clear()
        self._output = bytearray()
        for stream in event.streams:
            self._end_of(stream).link_lost(event.code)
        for future in self._resolves.values():
            if not future.done():
                future.set_exception(ConnectionResetError(event.text))
        self._owner.link_ended(self, event.code, event.text, event.is_clean)
