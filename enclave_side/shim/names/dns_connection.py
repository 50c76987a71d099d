"""One client of the DNS server over TCP: several questions, one after the other or at once.

RFC 7766: messages stand behind their lengths, answers may come in another order than questions, the
server may close what is idle. A client that asks more than it reads is not read from.
"""

import socket
from collections.abc import Callable

from vsockproxy.dataplane import loop
from vsockproxy.dataplane.closing import close_cleanly, reset_socket
from vsockproxy.protocols.dns import MessageReader, frame
from vsockproxy.protocols.errors import QueryError

__all__ = ("Ask", "DnsConnection", "Respond")

READ_BYTES = 2048
MESSAGES_PER_TURN = 16
"""So that one client does not keep the loop from all others."""
MOST_PENDING = 32
"""Questions of one client that wait for their answers."""
MOST_OUTPUT_BYTES = 128 * 1024
"""Answers of one client that it has not taken; two of the largest fit."""
IDLE_SECONDS = 10.0

Respond = Callable[[bytes | None], None]
"""Takes the answer to one message; None where there is none."""

Ask = Callable[["DnsConnection", bytes, Respond], None]
"""Takes one message, and calls back once, at once or later."""


class DnsConnection:
    """Serves one connection until its client ends it, breaks the rules or falls silent.

    Args:
        sock: non-blocking; owned from now on.
        ask: what answers.
        closed: called once, when the connection has ended by itself.
    """

    def __init__(
        self, sock: socket.socket, ask: Ask, closed: Callable[["DnsConnection"], None]
    ) -> None:
        self._sock = sock
        self._ask = ask
        self._on_closed = closed
        self._reader = MessageReader()
        self._output = bytearray()
        self._pending = 0
        self._is_reading = False
        self._is_writing = False
        self._has_ended = False
        """Whether the client has sent its last byte."""
        self._is_closed = False
        self._turn: loop.TimerHandle | None = None
        self._active_at = loop.now()
        self._idle = loop.call_later(IDLE_SECONDS, self._check_idle)
        self._resume()

    def close(self) -> None:
        """End it with a reset, and tell nobody."""
        if self._release():
            reset_socket(self._sock)

    # ------------------------------------------------------------- from the client

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._fail()
            return
        self._active_at = loop.now()
        if data:
            self._reader.receive(data)
        else:
            self._has_ended = True
            self._pause()
        self._serve()

    def _serve(self) -> None:
        """Serve what was received, in turns; read on once all of it is served."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        for _ in range(MESSAGES_PER_TURN):
            if self._is_closed:
                return
            if self._is_full:
                self._pause()
                return
            try:
                message = self._reader.next_message()
            except QueryError:
                self._fail()  # nothing that follows can be read
                return
            if message is None:
                self._read_on()
                return
            self._pending += 1
            self._ask(self, message, self._respond)
        self._pause()
        self._serve_later()

    def _read_on(self) -> None:
        if not self._has_ended:
            self._resume()
        elif not self._pending and not self._output:
            self._end()

    @property
    def _is_full(self) -> bool:
        return self._pending >= MOST_PENDING or len(self._output) >= MOST_OUTPUT_BYTES

    # ------------------------------------------------------------- to the client

    def _respond(self, answer: bytes | None) -> None:
        if self._is_closed:
            return
        self._pending -= 1
        self._active_at = loop.now()
        if answer is None:
            self._fail()
            return
        self._output += frame(answer)
        if not self._is_writing:
            self._flush()
        self._serve_later()

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._output)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._fail()
            return
        del self._output[:sent]
        if bool(self._output) == self._is_writing:
            return
        self._is_writing = bool(self._output)
        if self._is_writing:
            loop.add_writer(self._sock.fileno(), self._on_writable)
        else:
            loop.remove_writer(self._sock.fileno())

    def _on_writable(self) -> None:
        self._active_at = loop.now()
        self._flush()
        self._serve_later()

    def _serve_later(self) -> None:
        """Go on with what waited for room; not at once, as this may be the middle of `_serve`."""
        if not self._is_reading and not self._is_closed and self._turn is None:
            self._turn = loop.call_later(0.0, self._serve)

    # ------------------------------------------------------------- the end

    def _check_idle(self) -> None:
        left = self._active_at + IDLE_SECONDS - loop.now()
        if left > 0 or self._pending:
            self._idle = loop.call_later(max(left, 1.0), self._check_idle)
        elif self._output:
            self._fail()
        else:
            self._end()

    def _end(self) -> None:
        if self._release():
            close_cleanly(self._sock)
            self._on_closed(self)

    def _fail(self) -> None:
        if self._release():
            reset_socket(self._sock)
            self._on_closed(self)

    def _release(self) -> bool:
        """Let go of the loop; False if that was done before."""
        if self._is_closed:
            return False
        self._is_closed = True
        self._idle.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._pause()
        if self._is_writing:
            loop.remove_writer(self._sock.fileno())
        return True

    def _resume(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            loop.add_reader(self._sock.fileno(), self._on_readable)

    def _pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            loop.remove_reader(self._sock.fileno())
