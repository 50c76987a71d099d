"""What a service of ingress with `tls` presents, as a worker has it from the supervisor."""

import os
import ssl
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from vsockproxy.attestation.tls_binding import KeyOrigin
from vsockproxy.config.model import IngressTls
from vsockproxy.dataplane.loop import Event, timeout
from vsockproxy.dataplane.tls_contexts import MOST_SESSIONS, server_context
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.errors import VsockproxyError
from vsockproxy.tls_files import TlsFileError, load_authorities
from vsockproxy.worker_messages import Certificate

__all__ = ("CERTIFICATE_SECONDS", "Identity", "IdentityError", "ServiceIdentity")

CERTIFICATE_SECONDS: Final = 5.0
"""How long a connection waits for the first certificate; the parent waits longer for its answer."""


class IdentityError(VsockproxyError):
    """A certificate, its key, or the file of those who issue clients' cannot be used."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate in use.

    Args:
        context: of its connections.
        public_key: DER of its SubjectPublicKeyInfo.
        origin: where its key comes from.
    """

    context: ssl.SSLContext
    public_key: bytes = field(repr=False)
    origin: KeyOrigin


class ServiceIdentity:
    """The latest certificate of a service; connections keep the one that they began with.

    Args:
        service: its name.
        tls: the section of the file.
    """

    def __init__(self, service: str, tls: IngressTls) -> None:
        self._service = service
        self.tls = tls
        self._current: Identity | None = None
        self._descriptor = -1
        """Of the memory that the current one is from."""
        self._has_come = Event()

    def renew(self, message: Certificate, descriptor: int) -> None:
        """Take another certificate; connections from now on have it.

        Args:
            message: what it is.
            descriptor: of the memory with its key and chain; stays the caller's.

        Raises:
            IdentityError: it cannot be used; the former stays.
        """
        context = self._context(descriptor)
        kept = os.dup(descriptor)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = kept
        self._current = Identity(context, message.public_key, message.origin)
        self._has_come.set()

    def _context(self, descriptor: int) -> ssl.SSLContext:
        context = server_context(self.tls.alpn)
        try:
            # OpenSSL reads files alone. This one is memory, and no name leads to it.
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
            if self.tls.client_ca is not None:
                load_authorities(context, self.tls.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
                # A resumed handshake of TLS 1.3 would hand on, without end, what the first one saw.
                # Sessions of TLS 1.2 last two hours at most; the connection looks at the dates.
                context.num_tickets = 0
        except TlsFileError as error:
            raise IdentityError(str(error)) from None
        except OSError as error:  # ssl.SSLError among them
            raise IdentityError(self._explain(error)) from None
        return context

    def _explain(self, error: OSError) -> str:
        if not os.path.exists("/proc/self/fd"):
            return f"the certificate of {self._service} cannot be read: mount /proc"
        return f"the certificate of {self._service} cannot be used: {error.strerror or error}"

    async def get(self) -> Identity:
        """What is presented now, waiting for the first one.

        Raises:
            TlsFailed: none came in time.
        """
        if self._current is None:
            try:
                async with timeout(CERTIFICATE_SECONDS):
                    await self._has_come.wait()
            except TimeoutError:
                raise TlsFailed(
                    f"{self._service} has no certificate yet: certificate_failed in the enclave's "
                    "log says why"
                ) from None
        assert self._current is not None  # it has come
        if self._current.context.session_stats()["number"] >= MOST_SESSIONS:
            with suppress(IdentityError):  # then the old one goes on, within OpenSSL's own limit
                self._current = replace(self._current, context=self._context(self._descriptor))
        return self._current


def _no_password() -> bytes:
    """Or OpenSSL would ask on the terminal."""
    return b""
