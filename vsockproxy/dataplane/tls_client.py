"""Our side as a TLS client: whom it trusts, what it presents, and the session it may resume."""

import base64
import hashlib
import ssl
from collections.abc import Iterable
from typing import Final, Self

from vsockproxy.config.model import EnclaveForward, ForwardTls
from vsockproxy.dataplane.loop import now
from vsockproxy.dataplane.tls_connection import Read, TlsConnection, Write
from vsockproxy.dataplane.tls_contexts import client_context
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.dataplane.tls_records import TlsRecords
from vsockproxy.protocols.certificate import public_key_info
from vsockproxy.protocols.errors import CertificateError
from vsockproxy.tls_files import load_authorities, load_certificate

__all__ = ("TlsClient",)

SESSION_SECONDS: Final = 600.0
"""How long a session is resumed after the whole handshake that it is of. Meanwhile the server's
certificate is not looked at again: one that expires, or is taken out of use, is noticed that much
later."""

ASKING_SECONDS: Final = 1.0
"""How long after one connection left nothing to resume the next one is asked."""


class TlsClient:
    """Connects to one server, again and again.

    Args:
        context: whom to trust and what to present.
        server_name: a name or an address; its certificate has to be for it.
        pins: SHA-256 of the SubjectPublicKeyInfo that the server may have; empty for any.
    """

    def __init__(
        self, context: ssl.SSLContext, server_name: str, pins: Iterable[bytes] = ()
    ) -> None:
        self.server_name = server_name
        self._context = context
        self._pins = frozenset(pins)
        self._session: ssl.SSLSession | None = None
        self._session_at = 0.0
        self._asked_at = -ASKING_SECONDS

    @classmethod
    def for_forward(cls, forward: EnclaveForward) -> Self:
        """As a forward with `tls` wants it.

        Raises:
            TlsFileError: a file that it names cannot be used.
        """
        section = forward.tls if isinstance(forward.tls, ForwardTls) else ForwardTls()
        context = client_context(section.alpn)
        load_authorities(context, section.ca)
        if section.client_cert is not None:
            load_certificate(context, section.client_cert)
        name = section.server_name or forward.to.host.text
        return cls(context, name, map(base64.b64decode, section.pin_spki))

    async def connect(self, read: Read, write: Write, seconds: float) -> TlsConnection:
        """Complete a handshake with the server.

        Args:
            read: for records that arrive.
            write: for records that are to be sent.
            seconds: how long the handshake may take.

        Raises:
            TlsFailed: the server is not who it has to be, or there was no handshake.
        """
        if self._session is not None and now() - self._session_at > SESSION_SECONDS:
            self._session = None
        records = TlsRecords(
            self._context,
            server_side=False,
            server_name=self.server_name,
            session=self._session,
        )
        connection = TlsConnection(read, write, records)
        await connection.handshake(seconds)
        self._check_pin(connection.peer_certificate or b"")
        return connection

    def remember(self, connection: TlsConnection) -> None:
        """A connection ends: its session may be resumed by the next ones."""
        # A resumed one would hand on, without end, what was seen of a certificate long ago.
        if connection.is_resumed or now() - connection.secured_at > SESSION_SECONDS:
            return
        # To ask costs a third of a handshake, and many a server gives no session.
        if self._session is None and now() - self._asked_at >= ASKING_SECONDS:
            self._asked_at = now()
            session = connection.session
            if session is not None and session.has_ticket:
                self._session = session
                self._session_at = connection.secured_at

    def _check_pin(self, certificate: bytes) -> None:
        if not self._pins:
            return
        try:
            digest = hashlib.sha256(public_key_info(certificate)).digest()
        except CertificateError as error:
            raise TlsFailed(f"pin mismatch: {error.text}") from None
        if digest not in self._pins:
            found = base64.b64encode(digest).decode()
            raise TlsFailed(f"pin mismatch: the key has {found}, which is not in pin_spki")
