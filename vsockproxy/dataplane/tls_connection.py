"""One TLS connection with the other end of a stream: handshake, first bytes, then a relay.

    connection = TlsConnection(end.read, end.write, TlsRecords(context, server_side=True))
    await connection.handshake(limits.handshake)      # TlsFailed says what was wrong
    connection.asked_name, connection.alpn, connection.peer_certificate
    first = await connection.read()                   # plaintext, if anybody wants to look
    await connection.write(answer)                    # and to answer
    await send_all(sock, first)                       # or to let the service have them
    connection.attach(end, sock, failed)              # from now on by readiness callbacks

Whoever gives up in between resets the stream; `finish` ends it in order.
"""

import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from vsockproxy.dataplane.loop import now, timeout
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.tls_failures import TlsFailed, TlsTruncated
from vsockproxy.dataplane.tls_records import CHUNK_BYTES, RECORD_BYTES, TlsRecords
from vsockproxy.dataplane.tls_socket import TlsSocket
from vsockproxy.protocols.client_hello import ClientHelloReader
from vsockproxy.protocols.errors import NotTls

__all__ = ("Read", "TlsConnection", "Write")

Read = Callable[[], Awaitable[bytes]]
"""Waits for bytes of the other end; empty at its end of file."""
Write = Callable[[bytes], Awaitable[None]]
"""Sends bytes to the other end."""

MAX_HELLO_BYTES: Final = 4 * 1024
"""Of the first bytes, where the server's name is looked for; a ClientHello has 300 to 1,800."""

_decrypted: Final = memoryview(bytearray(CHUNK_BYTES + 2 * RECORD_BYTES))


class TlsConnection:
    """The coroutines of one connection; one reads and one writes at a time.

    Args:
        read: for records that arrive, as `StreamEnd.read`.
        write: for records that are to be sent, as `StreamEnd.write`.
        records: of a connection that has not begun.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        read: Read,
        write: Write,
        records: TlsRecords,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.records = records
        self.secured_at = 0.0
        """When the handshake was complete, by the loop's clock."""
        self._wall_clock = wall_clock
        self._read = read
        self._write = write
        self._backlog = memoryview(b"")
        """Arrived and not yet fed."""
        self._first_bytes = b""
        """What a client began with, once it has arrived."""

    @property
    def alpn(self) -> str | None:
        """The application protocol that was agreed on."""
        return self.records.tls.selected_alpn_protocol()

    @property
    def version(self) -> str | None:
        """As OpenSSL says it: TLSv1.3."""
        return self.records.tls.version()

    @property
    def asked_name(self) -> str | None:
        """Of a server, from the handshake until a relay: the name that the client asked for."""
        # Not by Python's sni_callback: it prints a traceback for a name that is not ASCII.
        try:
            hello = ClientHelloReader().receive(self._first_bytes)
        except NotTls:
            return None
        return hello.server_name if hello is not None else None

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate, DER; of a client only if it was asked for one."""
        return self.records.tls.getpeercert(binary_form=True)

    @property
    def is_resumed(self) -> bool:
        """Whether the handshake was a resumed one, in which no chain is verified."""
        return bool(self.records.tls.session_reused)

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a client may resume; with TLS 1.3 it comes with the server's first bytes."""
        return self.records.tls.session

    async def handshake(self, seconds: float) -> None:
        """Complete the handshake; the peer is told in an alert why not.

        Raises:
            TlsFailed: with what was wrong; the stream is still to be reset.
        """
        try:
            async with timeout(seconds):
                while not await self._step():
                    await self._feed(TlsFailed("it closed before the handshake was complete"))
        except TimeoutError as error:
            if error.errno is not None:  # the kernel's ETIMEDOUT, not ours
                raise TlsFailed(f"the connection failed in the handshake: {error}") from None
            raise TlsFailed(f"the handshake was not complete in {seconds:g} s") from None
        except OSError as error:
            raise TlsFailed(f"the connection was cut in the handshake: {error}") from None
        self.secured_at = now()
        if self.is_resumed and self.records.tls.server_side:
            self._check_dates()

    def _check_dates(self) -> None:
        """A client that resumes shows no certificate: the one that it once had must still hold."""
        certificate = self.records.tls.getpeercert()
        if not certificate:
            return  # it was asked for none
        at = self._wall_clock()
        if at > ssl.cert_time_to_seconds(str(certificate["notAfter"])):
            raise TlsFailed("its certificate has expired since the session that it resumes")

    async def _step(self) -> bool:
        try:
            is_complete = self.records.handshake()
        except TlsFailed:
            with suppress(OSError):
                await self._send_records()
            raise
        await self._send_records()
        return is_complete

    async def read(self) -> bytes:
        """Plaintext that has arrived, waiting for some; empty at the peer's close_notify.

        Raises:
            TlsFailed: the peer broke the rules; TlsTruncated: it broke off.
            OSError: as from what carries the records.
        """
        while not self.records.has_peer_ended:
            length = self.records.decrypt(_decrypted)
            if length:
                return bytes(_decrypted[:length])
            if not self.records.has_peer_ended:
                await self._feed(TlsTruncated())
        return b""

    async def write(self, data: bytes) -> None:
        """Send plaintext.

        Raises:
            OSError: as from what carries the records.
        """
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            self.records.encrypt(view[start : start + CHUNK_BYTES])
            await self._send_records()

    async def finish(self) -> None:
        """Say that no more plaintext follows; the stream's own end is still to be said.

        Raises:
            OSError: as from what carries the records.
        """
        self.records.close_notify()
        await self._send_records()

    def local_socket(
        self,
        sock: socket.socket,
        failed: Callable[[str], None],
        closed: Callable[[], None] | None = None,
        peer_ended: Callable[[], None] | None = None,
    ) -> tuple[TlsSocket, bytes]:
        """What a relay takes as the local socket, and records that it is to write there first.

        Args:
            sock: the program's; owned by the first result.
            failed: called once with a line when the peer breaks the connection's rules.
            closed: called once, when it is closed.
            peer_ended: called once, when the peer sends no more and the program has been told.
        """
        rest = self.records.untouched() + bytes(self._backlog)
        self._backlog = memoryview(b"")
        self._first_bytes = b""
        return TlsSocket(sock, self.records, failed, closed, peer_ended), rest

    def attach(
        self,
        end: StreamEnd,
        sock: socket.socket,
        failed: Callable[[str], None],
        closed: Callable[[], None] | None = None,
    ) -> None:
        """Relay between a stream, whose records these are, and a program's socket from now on.

        What was read with `read` belongs to the program: send it before.

        Args:
            end: what `read` and `write` of this connection belong to.
            sock: the program's, connected and non-blocking; owned by the stream from now on.
            failed: called once with a line when the peer breaks the connection's rules.
            closed: called once, when the program's socket is closed.
        """
        local, rest = self.local_socket(sock, failed, closed, end.remote_ended_above)
        end.attach(local, to_local=rest)

    async def _feed(self, at_end: TlsFailed) -> None:
        if not self._backlog:
            self._backlog = memoryview(await self._read())
            if not self._backlog:
                raise at_end
        chunk, self._backlog = self._backlog[:CHUNK_BYTES], self._backlog[CHUNK_BYTES:]
        if self.records.tls.server_side and len(self._first_bytes) < MAX_HELLO_BYTES:
            self._first_bytes += chunk[:MAX_HELLO_BYTES]
        self.records.feed(chunk)

    async def _send_records(self) -> None:
        if self.records.has_output:
            await self._write(self.records.take())
