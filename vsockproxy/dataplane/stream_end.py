"""Our end of one stream: between the session and the local socket behind it.

Before a socket is attached, arriving bytes are kept (credit bounds them) and a coroutine may `read`
and `write`; the ways in and the parent's dial use that to look at first bytes. From `attach` on,
bytes are relayed by readiness callbacks, without tasks.
"""

import asyncio
import errno
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from vsockproxy.dataplane.closing import (
    arm_reset,
    close_cleanly,
    finish_socket,
    reset_socket,
)
from vsockproxy.dataplane.local_socket import LocalFault, LocalSocket
from vsockproxy.dataplane.second_look import look_again
from vsockproxy.errors import Refused
from vsockproxy.session import ErrorCode, Opened, Refusal, Stream
from vsockproxy.session.states import REMOTE_OPENING_STATES, StreamInput, states_that_allow

if TYPE_CHECKING:
    from vsockproxy.dataplane.link import Link

MAX_GATHERED = 64
"""Views given to one sendmsg; more (tiny frames) are joined, the kernel's own limit is 1,024."""

TURNS_PER_EVENT = 4
"""Turns of one stream before the other streams of the loop have theirs."""

OPENING_STATES = REMOTE_OPENING_STATES | states_that_allow(StreamInput.RECEIVE_OPENED)

ENDED_FINISHED = "finished"
ENDED_LOCAL_RESET = "local_reset"
ENDED_REMOTE_RESET = "remote_reset"
ENDED_LINK_LOST = "link_lost"
ENDED_TIMED_OUT = "timed_out"
ENDED_REFUSED = "refused"
ENDED_POLICY = "policy"
"""A reload brought lists that forbid it."""
ENDED_SHUTDOWN = "shutdown"
"""It outlasted the time to end that a process had which was told to stop."""


class Turn(Enum):
    """What one turn of a stream found in its local socket."""

    MORE = auto()
    """Bytes; there may be more."""
    LAST = auto()
    """Bytes, and the kernel has no more; but an error may stand behind them."""
    EMPTY = auto()
    """Nothing for now: wait until the socket is readable."""
    HALTED = auto()
    """No credit, the end of file, or a failure: nothing is to be read until told otherwise."""


_MORE, _LAST, _EMPTY, _HALTED = Turn  # to look a member up costs as much as a call


class DedicatedOwner(Protocol):
    """What relays the connection of a dedicated stream; see `dedicated.DedicatedRelay`."""

    @property
    def bytes_sent(self) -> int:
        """Bytes sent on the stream's own connection."""

    @property
    def bytes_received(self) -> int:
        """Bytes of the stream's own connection that the next hop took."""

    def peer_finished(self, total_bytes: int) -> None:
        """The peer announced how many bytes it sent."""

    def stream_closed(self, ended: str) -> None:
        """The stream ended; close both sockets unless they are closed."""


class StreamEnd:
    """Relays one stream. `ended` says how it ended, once `closed` was called.

    Args:
        link: the link that carries the stream.
        stream: its bookkeeping in the session.
        closed: called once, when nothing of the stream is left.
    """

    __slots__ = (
        "_answer",
        "_closed",
        "_counted",
        "_fd",
        "_has_remote_ended_above",
        "_holds",
        "_is_cut",
        "_is_discarding",
        "_is_reading",
        "_is_waiting_for_credit",
        "_mark",
        "_marked_at",
        "_pending",
        "_prefix",
        "_read_waiter",
        "_sock",
        "_write_waiter",
        "dedicated",
        "ended",
        "has_look_due",
        "is_local_finished",
        "is_remote_finished",
        "link",
        "peer_total",
        "stream",
        "token",
        "views",
    )

    def __init__(
        self, link: "Link", stream: Stream, closed: Callable[["StreamEnd"], None] | None = None
    ) -> None:
        self.link = link
        self.stream = stream
        stream.owner = self
        link.ends.add(self)
        self.views: list[memoryview] = []
        """Payloads of the read that is being dispatched; the link fills it and calls `deliver`."""
        self.dedicated: DedicatedOwner | None = None
        """Whoever relays the connection of a dedicated stream."""
        self.is_local_finished = False
        self.is_remote_finished = False
        self.peer_total: int | None = None
        """What END said, for a dedicated stream."""
        self.token: bytes | None = None
        """What the connection of a dedicated stream presents."""
        self.ended = ""
        self._closed = closed
        self._sock: LocalSocket | None = None
        self._fd = -1
        self._pending = bytearray()
        """Arrived and not yet taken by the local socket; never more than was granted."""
        self._prefix = b""
        """To be sent before anything is read from the local socket."""
        self._counted = 0
        """How many of the pending bytes were consumed when a coroutine read them."""
        self._is_reading = False
        self.has_look_due = False
        self._is_waiting_for_credit = False
        self._is_discarding = False
        self._has_remote_ended_above = False
        self._is_cut = False
        """The program's connection was reset, and a write took the error that told."""
        self._answer: asyncio.Future[Opened] | None = None
        self._read_waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._holds = 0
        self._mark = -1
        self._marked_at = 0.0

    @property
    def is_closed(self) -> bool:
        """Nothing of the stream is left."""
        return bool(self.ended)

    @property
    def bytes_sent(self) -> int:
        """Payload bytes sent on the stream."""
        return self.dedicated.bytes_sent if self.dedicated else self.stream.send.sent

    @property
    def bytes_received(self) -> int:
        """Payload bytes of the stream that the next hop took."""
        return self.dedicated.bytes_received if self.dedicated else self.stream.receive.consumed

    def when_closed(self, closed: Callable[["StreamEnd"], None]) -> None:
        """Call `closed` once, when nothing of the stream is left."""
        self._closed = closed

    def hold(self) -> None:
        """Work for the stream begins (a lookup, a dial): it counts until `let_go`."""
        self._holds += 1

    def let_go(self) -> None:
        """The work that `hold` announced is gone."""
        self._holds -= 1
        if self.ended and not self._holds:
            self.link.session.release(self.stream)
            self.link.flush()

    # ------------------------------------------------------------------ opening

    async def opened(self, seconds: float) -> Opened:
        """Wait for the peer's answer to OPEN, for so long.

        Raises:
            Refused: with the peer's reason.
            ConnectionResetError: when the stream or its link ended before the answer.
            TimeoutError: there was no answer; nothing else has happened.
        """
        loop = asyncio.get_running_loop()
        if self._answer is None:
            self._answer = loop.create_future()
            if self.ended:
                raise ConnectionResetError("the stream ended before it was answered")
        # Each stream waits here once, and a context manager would cost three times as much.
        timer = loop.call_later(seconds, self._fail_answer, TimeoutError())
        try:
            answer = await self._answer
        finally:
            timer.cancel()
        if self.ended:  # since the answer came, and before its reader ran
            raise ConnectionResetError(f"the stream ended: {self.ended}")
        return answer

    def accept(self, answer: Opened) -> None:
        """Answer the peer's OPEN: the destination was reached."""
        if not self.ended:
            self.link.session.accept(self.stream, answer)
            self.link.flush()

    def refuse(self, reason: str, text: str) -> None:
        """Answer the peer's OPEN: the stream is not to be."""
        if not self.ended:
            self.link.session.refuse(self.stream, reason, text)
            self._close(ENDED_REFUSED)
            self.link.flush()

    def accepted(self, answer: Opened) -> None:
        """The link: OPENED arrived."""
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
        if not self._answer.done():
            self._answer.set_result(answer)

    def refused(self, refusal: Refusal) -> None:
        """The link: REFUSED arrived."""
        self._fail_answer(Refused(refusal.reason, refusal.text))
        self._close(ENDED_REFUSED)

    def _fail_answer(self, error: Exception) -> None:
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
        if not self._answer.done():
            self._answer.set_exception(error)
            self._answer.exception()  # whoever awaits it sees it; nobody has to

    # ---------------------------------------------------------------- coroutines

    async def read(self) -> bytes:
        """All bytes that have arrived, waiting for at least one; empty once the peer has finished.

        Raises:
            ConnectionResetError: when the stream is over otherwise.
        """
        while not self._pending:
            if self.ended:
                raise ConnectionResetError(self.ended)
            if self.is_remote_finished:
                return b""
            self._read_waiter = asyncio.get_running_loop().create_future()
            await self._read_waiter
        data = bytes(self._pending)
        self._pending = bytearray()
        self._consumed(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting for credit and for the link. Who gives up waiting writes no more.

        Raises:
            ConnectionResetError: when the stream is over.
            RuntimeError: an earlier call's bytes have not been sent, and would be lost.
        """
        self._check_writable()
        if self._prefix:
            raise RuntimeError("write() while bytes of an earlier one wait to be sent")
        if not data:
            return
        self._prefix = data
        self.link.queue(self)
        self.link.flush()
        # The turns send it, as they send what sockets have: a task that is woken for its turn would
        # find a busy link full again, every time.
        while self._prefix:  # emptied when the stream ends, too
            self._write_waiter = asyncio.get_running_loop().create_future()
            await self._write_waiter
        self._check_writable()

    def _check_writable(self) -> None:
        if self.ended or self.is_local_finished:
            raise ConnectionResetError(self.ended or "the peer stopped listening")

    def finish(self) -> None:
        """No more bytes follow from this end."""
        if not self.ended and not self.is_local_finished:
            self.is_local_finished = True
            self.link.session.finish(self.stream)
            self._close_if_done()
            self.link.flush()

    def _wake(self) -> None:
        for waiter in (self._read_waiter, self._write_waiter):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._read_waiter = self._write_waiter = None

    # ------------------------------------------------------------------ relaying

    def attach(self, sock: LocalSocket, to_stream: bytes = b"", to_local: bytes = b"") -> None:
        """Relay between the stream and a connected, non-blocking socket from now on.

        Args:
            sock: owned by the stream from now on.
            to_stream: bytes that were read from it already.
            to_local: bytes that were read from the stream already, with `read`.
        """
        if self.ended:
            reset_socket(sock)
            return
        arm_reset(sock)
        self._sock = sock
        self._fd = sock.fileno()
        self._prefix = to_stream
        if to_local:
            self._pending[:0] = to_local
            self._counted = len(to_local)
        if not self.is_local_finished:
            if to_stream:
                self.link.queue(self)
            else:
                self._resume_reading()
        if self._pending:
            asyncio.get_running_loop().add_writer(self._fd, self._on_writable)
        elif self.is_remote_finished:
            self._finish_local()

    def _on_readable(self) -> None:
        turns = TURNS_PER_EVENT
        while turns and not self.link.is_blocked:
            turns -= 1
            turn = self._turn()
            if turn is not _MORE:
                if turn is _LAST:
                    look_again(self)
                return
        self._pause_reading()
        self.link.queue(self)

    def look_again(self) -> None:
        """See `second_look`."""
        if self._is_reading and not self.ended:
            self._on_readable()

    def take_turn(self) -> None:
        """The link: the stream waited in `ready`, and the link takes frames again."""
        if self.ended:
            return
        has_source = self._prefix or (self._sock is not None and not self._is_reading)
        if has_source and not self.is_local_finished:
            turn = self._turn()
            if turn is _MORE:
                self.link.queue(self)
            elif turn is not _HALTED:
                self._resume_reading()

    def _turn(self) -> Turn:
        """Send one turn of local bytes."""
        stream = self.stream
        room = stream.send.limit - stream.send.sent
        if room <= 0:
            stream.send.stalls += 1
            self._pause_reading()
            self._is_waiting_for_credit = True
            return _HALTED
        link = self.link
        if self._prefix:
            length = min(room, link.turn_bytes, len(self._prefix))
            link.put_turn(self._prefix[:length])
            link.send_turn(stream, length)
            self._prefix = self._prefix[length:]
            if not self._prefix and self._write_waiter is not None:
                self._wake()
            return _MORE
        assert self._sock is not None
        try:
            length = link.receive_turn(self._sock, room)
        except (BlockingIOError, InterruptedError):
            return _EMPTY
        except OSError as error:
            self._cut(error)
            return _HALTED
        if length:
            link.send_turn(stream, length)
            return _MORE if length >= min(room, link.turn_bytes) else _LAST
        if self._is_cut:
            self.reset(ErrorCode.CUT, ENDED_LOCAL_RESET)
            return _HALTED
        self._pause_reading()
        self.finish()
        return _HALTED

    def deliver(self, now: float) -> None:
        """The link: hand the payloads in `views` to the local socket."""
        views = self.views
        if self.ended:
            views.clear()
            return
        sock = self._sock
        if self._is_discarding:
            self._consumed(sum(map(len, views)), now)
        elif sock is None or self._pending:
            for view in views:
                self._pending += view
            self._wake()
        else:
            data = views
            if len(data) > MAX_GATHERED:
                data = [memoryview(b"".join(data))]
            try:
                sent = sock.sendmsg(data) if len(data) > 1 else sock.send(data[0])
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                views.clear()
                self._local_write_failed(error)
                return
            if sent:
                self._consumed(sent, now)
            for view in data:
                if sent >= len(view):
                    sent -= len(view)
                else:
                    self._pending += view[sent:]
                    sent = 0
            if self._pending:
                asyncio.get_running_loop().add_writer(self._fd, self._on_writable)
        views.clear()

    def _on_writable(self) -> None:
        assert self._sock is not None
        try:
            with memoryview(self._pending) as view:
                sent = self._sock.send(view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._local_write_failed(error)
            return
        del self._pending[:sent]
        if not self._pending:
            self._pending = bytearray()
            asyncio.get_running_loop().remove_writer(self._fd)
        counted = min(sent, self._counted)
        self._counted -= counted
        if sent > counted:
            self._consumed(sent - counted)
        if not self._pending and self.is_remote_finished:
            self._finish_local()
        self.link.flush()

    def _consumed(self, length: int, now: float | None = None) -> None:
        if not self.stream.is_closed:
            if now is None:
                now = asyncio.get_running_loop().time()
            self.link.session.consume(self.stream, length, now)
        else:
            self.stream.receive.consumed += length
        self.link.flush()

    def _resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            asyncio.get_running_loop().add_reader(self._fd, self._on_readable)

    def _pause_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            asyncio.get_running_loop().remove_reader(self._fd)

    # -------------------------------------------------------- events from the link

    def credit_received(self) -> None:
        """The link: the stream may send again."""
        if self._is_waiting_for_credit:
            self._is_waiting_for_credit = False
            self.link.queue(self)

    def finished(self, total_bytes: int) -> None:
        """The link: the peer sent its last byte."""
        if self.stream.is_dedicated:
            self.peer_total = total_bytes
            if self.dedicated is not None:
                self.dedicated.peer_finished(total_bytes)
            return
        self.is_remote_finished = True
        if self._sock is None:
            self._wake()
            self._close_if_done()
        elif not self._pending:
            self._finish_local()

    def stop_received(self) -> None:
        """The link: the peer drops what this end still sends; the session said FIN already."""
        self.is_local_finished = True
        self._prefix = b""
        if self._sock is not None and self.dedicated is None:
            self._pause_reading()
        self._wake()
        self._close_if_done()

    def reset_received(self, code: int) -> None:
        """The link: the peer reset the stream."""
        timed_out = code == ErrorCode.TIMED_OUT
        self._close(ENDED_TIMED_OUT if timed_out else ENDED_REMOTE_RESET)

    def link_lost(self, code: int) -> None:
        """The link: it has ended, and every stream on it."""
        del code
        self._close(ENDED_LINK_LOST)

    # -------------------------------------------------------------------- ending

    def reset(self, code: ErrorCode, ended: str = ENDED_LOCAL_RESET) -> None:
        """End the stream at once in both directions; the local program sees a reset too."""
        if not self.ended:
            self.link.session.reset(self.stream, code)  # nothing happens if it is closed there
            self._close(ended)
            self.link.flush()

    def check_time(self, now: float, half_closed_seconds: float, idle_seconds: float) -> None:
        """Reset a stream that has moved no byte for longer than its limit (0: no limit)."""
        mark = self.bytes_sent + self.bytes_received
        # What takes long before the answer has limits of its own: the lookup and the dial.
        if mark != self._mark or self.stream.state in OPENING_STATES:
            self._mark = mark
            self._marked_at = now
            return
        is_half_closed = (
            self.is_local_finished or self.is_remote_finished or self._has_remote_ended_above
        )
        limit = half_closed_seconds if is_half_closed and half_closed_seconds else idle_seconds
        if limit and now - self._marked_at >= limit:
            self.reset(ErrorCode.TIMED_OUT, ENDED_TIMED_OUT)

    def remote_ended_above(self) -> None:
        """The peer ended what the stream carries, as TLS does; the stream's own end is to come."""
        self._has_remote_ended_above = True

    def _local_write_failed(self, error: OSError) -> None:
        """The program reads no more. It may still have sent bytes that wait to be read.

        A socket tells of a reset once. After the write that was told, reads give the bytes that
        came before, and then what looks like an end of file. Only EPIPE says that a true one came
        first (tcp_reset in net/ipv4/tcp_input.c).
        """
        if isinstance(error, LocalFault):
            self._cut(error)
            return
        self._is_cut = error.errno != errno.EPIPE
        self._pending = bytearray()
        asyncio.get_running_loop().remove_writer(self._fd)
        if self.is_local_finished or self.is_remote_finished:
            self.reset(ErrorCode.CUT, ENDED_LOCAL_RESET)
            return
        self._is_discarding = True
        self.link.session.stop(self.stream, ErrorCode.CUT)
        self.link.flush()

    def _finish_local(self) -> None:
        assert self._sock is not None
        try:
            is_finished = finish_socket(self._sock)
        except LocalFault as fault:
            self._cut(fault)
            return
        if not is_finished and not self.is_local_finished:
            self.reset(ErrorCode.CUT, ENDED_LOCAL_RESET)
            return
        self._close_if_done()

    def _cut(self, error: OSError) -> None:
        """The local side has failed."""
        ended = error.ended if isinstance(error, LocalFault) else ENDED_LOCAL_RESET
        self.reset(ErrorCode.CUT, ended)

    def _close_if_done(self) -> None:
        if self.is_local_finished and self.is_remote_finished and not self._pending:
            self._close(ENDED_FINISHED)

    def end_dedicated(self, total_bytes: int) -> None:
        """So many bytes were sent on a dedicated stream, and no more follow."""
        if not self.ended and not self.is_local_finished:
            self.is_local_finished = True
            self.link.session.end(self.stream, total_bytes)
            self.link.flush()

    def close_dedicated(self, ended: str) -> None:
        """The relay of a dedicated stream is over; its sockets are closed already."""
        if not self.stream.is_closed:
            self.link.session.reset(self.stream, ErrorCode.CUT)
        self._close(ended)
        self.link.flush()

    def _close(self, ended: str) -> None:
        if self.ended:
            return
        self.ended = ended
        self.link.ends.discard(self)
        if self._sock is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._fd)
            loop.remove_writer(self._fd)
            if ended == ENDED_FINISHED:
                close_cleanly(self._sock)
            else:
                reset_socket(self._sock)
            self._sock = None
        if self.dedicated is not None:
            self.dedicated.stream_closed(ended)
        self._pending = bytearray()
        self._prefix = b""
        if self._answer is not None:
            self._fail_answer(ConnectionResetError(f"the stream ended: {ended}"))
        self._wake()
        if not self._holds:
            self.link.session.release(self.stream)
        # Once, and not kept: it refers to this end, and would wait for the garbage collector.
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(self)
