"""A stream whose payload travels alone on a connection of its own (design: dedicated streams).

vsock reports an end of file for every kind of end. So each end says in the session how many bytes
it sent (END), and an end of file is clean only when exactly that many have arrived; otherwise, or
when the session is gone, the program gets a reset.
"""

import asyncio
import socket

from vsockproxy.dataplane.carriers import Carrier
from vsockproxy.dataplane.local_socket import LocalSocket
from vsockproxy.dataplane.socket_relay import SocketRelay
from vsockproxy.dataplane.stream_end import (
    ENDED_FINISHED,
    ENDED_LOCAL_RESET,
    ENDED_REMOTE_RESET,
    StreamEnd,
)

END_WAIT_SECONDS = 10.0
"""How long END may take after the end of file that it explains; they travel on different links."""


class DedicatedRelay(SocketRelay):
    """Relays between the local socket and the connection of one dedicated stream.

    Args:
        end: the stream in its session, answered with OPENED.
        local: the program's or the destination's socket; owned from now on.
        connection: the stream's own connection; owned from now on.
        carrier: sizes for the connection's kind of socket.
        to_carrier: bytes that were read from `local` already.
        to_local: bytes that followed the preface on `connection`.
    """

    def __init__(
        self,
        end: StreamEnd,
        local: LocalSocket,
        connection: socket.socket,
        carrier: Carrier,
        *,
        to_carrier: bytes = b"",
        to_local: bytes = b"",
    ) -> None:
        super().__init__(
            local,
            connection,
            to_carrier=to_carrier,
            to_local=to_local,
            most_bytes=carrier.max_send_bytes,
            closed=self._relay_closed,
        )
        self._end = end
        self._peer_total = end.peer_total
        self._timer: asyncio.TimerHandle | None = None
        end.dedicated = self
        if end.is_closed:
            self.close(is_clean=False)

    @property
    def bytes_sent(self) -> int:
        """Bytes sent on the stream's own connection."""
        return self.outward.total_bytes

    @property
    def bytes_received(self) -> int:
        """Bytes of the stream's own connection that the next hop took."""
        return self.inward.total_bytes

    def count_earlier(self, *, sent_bytes: int, taken_bytes: int) -> None:
        """Bytes that went over the connection before the relay: END counts them too."""
        self.outward.total_bytes += sent_bytes
        self.inward.total_bytes += taken_bytes

    def local_finished(self) -> None:
        """Say in the session how many bytes were sent, then end the direction."""
        self._end.end_dedicated(self.outward.total_bytes)
        super().local_finished()

    def carrier_finished(self) -> None:
        """An end of file; whether it is clean, only END can tell."""
        if self._peer_total is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(END_WAIT_SECONDS, self._unexplained)
        elif self._peer_total == self.inward.total_bytes:
            if self.finish_local():
                self._end.is_remote_finished = True
                self.close_if_done()
        else:
            self.close(is_clean=False)

    def peer_finished(self, total_bytes: int) -> None:
        """The session: the peer sent so many bytes on the stream's connection."""
        self._peer_total = total_bytes
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.inward.is_finished:
            self.carrier_finished()

    def close_if_done(self) -> None:
        """Close cleanly once both directions have ended and the peer's total has arrived."""
        if self._peer_total == self.inward.total_bytes:
            super().close_if_done()

    def stream_closed(self, ended: str) -> None:
        """The session: the stream is over."""
        self.close(is_clean=ended == ENDED_FINISHED)

    def _unexplained(self) -> None:
        self._timer = None
        self.close(is_clean=False)

    def _relay_closed(self, is_clean: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if is_clean:
            self._end.close_dedicated(ENDED_FINISHED)
        else:
            is_local = self.failed is self.local
            self._end.close_dedicated(ENDED_LOCAL_RESET if is_local else ENDED_REMOTE_RESET)
