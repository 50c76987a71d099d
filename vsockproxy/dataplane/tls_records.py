"""One end of a TLS connection as bytes in and bytes out: no socket, no loop.

OpenSSL does TLS; this bounds what one call does, and turns its errors into `TlsFailed`. Records go
in with `feed` and come out with `take`, at most `CHUNK_BYTES` in one call: OpenSSL's memory buffers
never shrink, so the largest call is what an idle connection keeps.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from vsockproxy.dataplane.tls_failures import TlsFailed, describe

__all__ = ("CHUNK_BYTES", "RECORD_OVERHEAD_BYTES", "TlsRecords")

CHUNK_BYTES: Final = 32 * 1024
"""Fed, and decrypted, and encrypted in one call: two full records. More is no faster."""

RECORD_BYTES: Final = 16 * 1024
"""Plaintext of a full record (RFC 8446, section 5.1)."""

RECORD_OVERHEAD_BYTES: Final = 96
"""What a record adds to its plaintext, at most: header 5, and of TLS 1.2 with CBC an initial vector
of 16, a MAC of 48 and padding of up to 16; GCM adds 22 to 29."""

BARREN_BYTES: Final = 64 * 1024
"""So many bytes that bring no plaintext are abuse: empty records, key updates, tickets."""


class TlsRecords:
    """The records of one connection.

    Args:
        context: certificates, trust and versions.
        server_side: whether this end is the server.
        server_name: as a client, whom to ask for and whose name to check; an address too.
        session: as a client, a session to resume, made with the same context.
    """

    __slots__ = ("_barren", "_incoming", "_outgoing", "has_peer_ended", "tls")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_name,
            session=session,
        )
        """OpenSSL's connection, for what it says about its handshake."""
        self.has_peer_ended = False
        """The peer's close_notify has arrived: what follows is ignored (RFC 8446, section 6.1)."""
        self._barren = 0

    @property
    def has_output(self) -> bool:
        """Whether records are to be sent."""
        return self._outgoing.pending > 0

    def take(self, most_bytes: int = -1) -> bytes:
        """Records to be sent."""
        return self._outgoing.read(most_bytes)

    def feed(self, data: memoryview) -> None:
        """Take records that arrived, at most `CHUNK_BYTES`; `handshake` or `decrypt` is to follow.

        Raises:
            TlsFailed: too much has arrived that brought nothing.
        """
        self._incoming.write(data)
        self._barren += len(data)
        if self._barren > BARREN_BYTES + CHUNK_BYTES:
            raise TlsFailed("it sent records without end that carry nothing")

    def untouched(self) -> bytes:
        """What was fed and OpenSSL has not looked at; it is to be fed again."""
        return self._incoming.read()

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is complete.

        Raises:
            TlsFailed: the peer, or its certificate, is not what was asked for.
        """
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsFailed(describe(error)) from None
        self._barren = 0
        return True

    def decrypt(self, into: memoryview) -> int:
        """All plaintext of what was fed; afterwards OpenSSL holds less than a record.

        Args:
            into: of at least `CHUNK_BYTES`, and room for one more record.

        Raises:
            TlsFailed: a record is not what the peer would send.
        """
        length = 0
        to_be_sent = self._outgoing.pending
        read: Callable[[int, memoryview], int] = self.tls.read  # type: ignore[assignment]  # a count, where a buffer is given
        try:
            while count := read(CHUNK_BYTES, into[length:]):
                length += count
            self.has_peer_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_peer_ended = True
        except ssl.SSLError as error:
            raise TlsFailed(describe(error)) from None
        self._check_answer(to_be_sent)
        if length:
            self._barren = 0
        if self.has_peer_ended:
            self._incoming.read()
        return length

    def _check_answer(self, to_be_sent: int) -> None:
        """Look whether reading has made a record: as a server of TLS 1.2, a `no_renegotiation`.

        A client that gets it waits for more, or takes it for the end.

        Args:
            to_be_sent: how many bytes were to be sent before.

        Raises:
            TlsFailed: it has.
        """
        has_answered = self._outgoing.pending > to_be_sent
        if has_answered and self.tls.server_side and self.tls.version() == "TLSv1.2":
            raise TlsFailed("it wants to negotiate anew, which is off")

    def encrypt(self, data: memoryview) -> None:
        """Make records of plaintext, at most `CHUNK_BYTES`; `take` has them.

        Raises:
            TlsFailed: OpenSSL cannot, which no input can cause.
        """
        try:
            while data:
                data = data[self.tls.write(data) :]
        except ssl.SSLError as error:
            raise TlsFailed(describe(error)) from None

    def close_notify(self) -> None:
        """Say that no more plaintext follows; `take` has the alert. Reading goes on."""
        # It looks for the peer's own close_notify, too, which has not come yet.
        with suppress(ssl.SSLError):
            self.tls.unwrap()
