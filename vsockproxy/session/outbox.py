"""What is due to be sent besides data: one value each, however much the peer asks for.

A queue of answers would grow with what a peer asks while it reads nothing (a ping flood, a reset
flood), and an answer that waits for room in one would stop the reader. Here a question only changes
what is due, and frames are written when the link takes them.
"""

from vsockproxy.session.errors import ErrorCode
from vsockproxy.session.frame_writer import FrameWriter
from vsockproxy.session.frames import FLAG_FIN, GOAWAY, PING, RESET, STOP, TOTAL, FrameType
from vsockproxy.session.keepalive import Keepalive
from vsockproxy.session.messages import printable
from vsockproxy.session.resolves import Resolves
from vsockproxy.session.states import MAY_SEND_CREDIT
from vsockproxy.session.stream import Stream
from vsockproxy.session.stream_table import StreamTable


class Outbox:
    """Writes the control frames of one session.

    Args:
        writer: numbers the frames; data goes through it too.
        table: announces what the peer may open, and knows what it has opened.
        keepalive: holds the PING and the PONG that are due.
        resolves: holds the questions and answers that are due.
    """

    __slots__ = ("_keepalive", "_resolves", "_table", "_writer", "goaway_due", "streams")

    def __init__(
        self, writer: FrameWriter, table: StreamTable, keepalive: Keepalive, resolves: Resolves
    ) -> None:
        self.streams: dict[Stream, None] = {}
        """Streams of which something is due, in the order in which that came about."""
        self.goaway_due: tuple[int, str] | None = None
        self._writer = writer
        self._table = table
        self._keepalive = keepalive
        self._resolves = resolves

    @property
    def has_frames(self) -> bool:
        """Whether to call `frames`; what was due may be void by then."""
        return bool(
            self.streams
            or self.goaway_due is not None
            or self._keepalive.ping_due is not None
            or self._keepalive.pong_due is not None
            or self._resolves.is_due
            or self._table.remote.is_announcement_due
        )

    def frames(self) -> bytearray:
        """The frames that are due, in an order that keeps every stream's own order."""
        output = bytearray()
        writer = self._writer
        keepalive = self._keepalive
        if keepalive.pong_due is not None:
            output += writer.frame(FrameType.PONG, 0, keepalive.pong_due)
            keepalive.pong_due = None
        if keepalive.ping_due is not None:
            output += writer.frame(FrameType.PING, 0, PING.pack(keepalive.ping_due))
            keepalive.ping_due = None
        if self.streams:
            for stream in self.streams:
                self._write_stream(stream, output)
            self.streams.clear()
        if self._resolves.is_due:
            self._resolves.frames(writer, output)
        if self._table.remote.is_announcement_due:
            total = TOTAL.pack(self._table.remote.announce())
            output += writer.frame(FrameType.MAX_STREAMS, 0, total)
        output += self.last_word()
        return output

    def last_word(self) -> bytearray:
        """GOAWAY, where it is due: behind all frames that came before it."""
        if self.goaway_due is None:
            return bytearray()
        code, text = self.goaway_due
        self.goaway_due = None
        payload = GOAWAY.pack(self._table.remote.highest_id, code) + printable(text).encode()
        return bytearray(self._writer.frame(FrameType.GOAWAY, 0, payload))

    def end(self, code: int, text: str, *, is_told: bool) -> None:
        """The session is over: nothing but the last word is due, and that only if it is news."""
        self.streams.clear()
        self.goaway_due = None if is_told or code == ErrorCode.LINK_LOST else (code, text)

    def _write_stream(self, stream: Stream, output: bytearray) -> None:
        writer = self._writer
        if stream.open_due is not None:
            output += writer.frame(FrameType.OPEN, stream.id, stream.open_due)
            stream.open_due = None
        if stream.answer_due is not None:
            frame_type, payload = stream.answer_due
            output += writer.frame(frame_type, stream.id, payload)
            stream.answer_due = None
        if stream.credit_due:
            # The total is that of now, and the state may have moved on since it was due.
            if stream.state in MAY_SEND_CREDIT:
                payload = TOTAL.pack(stream.receive.granted)
                output += writer.frame(FrameType.CREDIT, stream.id, payload)
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
