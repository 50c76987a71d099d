"""The DNS server of the command's network: one UDP socket and one TCP listener, by callbacks.

Whoever asks byte for byte what was asked before is answered from what was answered before, without
reading the question again: a program's questions for one name differ in their id alone.
"""

import socket
from collections.abc import Callable
from typing import Final

from enclave_side.shim.names.dns_connection import DnsConnection, Respond
from enclave_side.shim.names.expiring_cache import ExpiringCache
from enclave_side.shim.names.lookups import Answer, LookupCounts, Lookups
from vsockproxy.dataplane import loop
from vsockproxy.dataplane.sockets import Acceptor
from vsockproxy.protocols.dns import MOST_QUERY_BYTES, MOST_TCP_BYTES, encode, read_query
from vsockproxy.protocols.errors import QueryError

__all__ = ("DnsServer",)

DATAGRAMS_PER_TURN: Final = 16
"""Served before others have their turn; uncached ones take some 0.2 ms each."""

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Some 5,000 questions that wait for this process; a lost one costs its program five seconds."""

MOST_CACHED: Final = 4096
MOST_CONNECTIONS: Final = 64
"""Over TCP; one more takes the place of the one that was silent for longest."""

_ID_BYTES: Final = 2

_SO_RCVBUFFORCE: Final = 33  # include/uapi/asm-generic/socket.h; Python does not export it

Client = tuple[str, int]


class DnsServer:
    """Serves both sockets until it is closed.

    Args:
        udp: non-blocking, bound to the server's address alone, so that answers come from there.
        listener: non-blocking and listening on the same address. Both are owned from now on.
        lookups: what is answered.
    """

    def __init__(self, udp: socket.socket, listener: socket.socket, lookups: Lookups) -> None:
        self._udp = udp
        self._lookups = lookups
        self._cache: ExpiringCache[bytes, bytes] = ExpiringCache(MOST_CACHED)
        """Answers over UDP by question, both without their ids."""
        self._connections: dict[DnsConnection, None] = {}
        """In the order in which they were last heard of."""
        self._is_closed = False
        _widen(udp)
        self._acceptor = Acceptor(listener, self._accepted, self._exhausted)
        loop.add_reader(udp.fileno(), self._on_readable)

    @property
    def counts(self) -> LookupCounts:
        """How lookups ended."""
        return self._lookups.counts

    def close(self) -> None:
        """Serve no more; lookups under way are given up, connections are reset."""
        if self._is_closed:
            return
        self._is_closed = True
        self._acceptor.close()
        loop.remove_reader(self._udp.fileno())
        self._udp.close()
        self._lookups.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    # ------------------------------------------------------------- UDP

    def _on_readable(self) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                # One byte more than a query has shows that a datagram is too long.
                message, client = self._udp.recvfrom(MOST_QUERY_BYTES + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # An earlier answer's client is gone. After an error uvloop watches no more.
                loop.remove_reader(self._udp.fileno())
                loop.add_reader(self._udp.fileno(), self._on_readable)
                return
            self._serve_datagram(message, client)

    def _serve_datagram(self, message: bytes, client: Client) -> None:
        question = message[_ID_BYTES:]
        known = self._cache.get(question, loop.now())
        if known is not None:
            self.counts.answered += 1
            self._send(message[:_ID_BYTES] + known, client)
            return

        def respond(answer: bytes | None) -> None:
            if answer is not None:
                self._send(answer, client)

        def keep(answer: bytes, seconds: float) -> None:
            self._cache.put(question, answer[_ID_BYTES:], loop.now() + seconds)

        self._serve(message, respond, keep)

    def _send(self, answer: bytes, client: Client) -> None:
        try:
            self._udp.sendto(answer, client)
        except OSError:
            # The buffer is full, or the client is gone: datagrams get lost, programs ask again.
            # And after `close` there is no socket.
            return

    # ------------------------------------------------------------- TCP

    def _accepted(self, sock: socket.socket, address: object) -> None:
        del address
        if len(self._connections) >= MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.close()
        connection = DnsConnection(sock, self._serve_message, self._connection_closed)
        self._connections[connection] = None

    def _serve_message(self, connection: DnsConnection, message: bytes, respond: Respond) -> None:
        del self._connections[connection]
        self._connections[connection] = None
        self._serve(message, respond)

    def _connection_closed(self, connection: DnsConnection) -> None:
        del self._connections[connection]

    def _exhausted(self, error: OSError) -> None:
        self._lookups.log.warning("accept_paused", str(error), loop.now())

    # ------------------------------------------------------------- both

    def _serve(
        self,
        message: bytes,
        respond: Respond,
        keep: Callable[[bytes, float], None] | None = None,
    ) -> None:
        """Answer one message: over UDP if the answer may be kept, else over TCP."""
        try:
            query = read_query(message)
        except QueryError as error:
            self.counts.malformed += 1
            self._lookups.log.warning("bad_lookup", error.text, loop.now())
            respond(error.answer)
            return

        def answered(answer: Answer | None) -> None:
            if answer is None:
                respond(None)
                return
            most_bytes = MOST_TCP_BYTES if keep is None else query.most_udp_bytes
            encoded = encode(query, answer.reply, most_bytes)
            if keep is not None and answer.lifetime_seconds > 0:
                keep(encoded, answer.lifetime_seconds)
            respond(encoded)

        self._lookups.ask(query, answered)


def _widen(udp: socket.socket) -> None:
    """Let many questions wait in the kernel: past the machine's limit if we may, else up to it."""
    try:
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
