"""A TLS connection to a service in an enclave that proves, before it is used, where it ends.

No authority vouches for such a server: its own attestation document does, asked for over the very
connection, with a nonce of ours. Blocking, for any program:

    connection = connect_attested("enclave.example", 443, Requirements(pcrs={0: measurement}))
    connection.socket.sendall(secret)
"""

import secrets
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from vsockproxy.addresses import format_authority
from vsockproxy.attestation.documents import (
    MAX_DOCUMENT_BYTES,
    AttestationDocument,
    DocumentRefused,
    Reason,
    Requirements,
)
from vsockproxy.attestation.tls_verification import (
    ConnectionRefused,
    TlsReason,
    verify_tls_document,
)
from vsockproxy.certificates.served import public_key_of
from vsockproxy.errors import VsockproxyError
from vsockproxy.protocols.attestation_request import ATTESTATION_PATH
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.protocols.http_service import AnswerReader, ServiceAnswer
from vsockproxy.tls_files import load_authorities, load_certificate

__all__ = ("AttestedConnection", "Unreachable", "client_context", "connect_attested")

NONCE_BYTES: Final = 32

SECONDS: Final = 10.0
"""For all of it, unless the caller says otherwise."""

_READ_BYTES: Final = 16 * 1024
_SHOWN_CHARACTERS: Final = 200


class Unreachable(VsockproxyError):
    """There is no connection with the server, so nothing can be said of it."""


@dataclass(frozen=True, slots=True)
class AttestedConnection:
    """A connection that ends in an enclave.

    Args:
        socket: ready for requests of the caller, who closes it.
        document: what the enclave is.
        public_key: of the server's certificate: DER of its SubjectPublicKeyInfo.
    """

    socket: ssl.SSLSocket
    document: AttestationDocument
    public_key: bytes

    def close(self) -> None:
        """Say that nothing follows, and close; nothing is waited for."""
        self.socket.settimeout(0)
        with suppress(OSError):
            self.socket.unwrap()
        self.socket.close()


def client_context(ca: str | None = None, client_cert: str | None = None) -> ssl.SSLContext:
    """What a client speaks TLS with.

    Args:
        ca: a PEM file with authorities, one of which has to have issued the server's certificate
            for the server's name, beside all that attestation demands; without it, that is not
            looked at.
        client_cert: a PEM file with a certificate and its key, for servers that want one.

    Raises:
        TlsFileError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        load_authorities(context, ca)
    if client_cert is not None:
        load_certificate(context, client_cert)
    return context


def connect_attested(
    host: str,
    port: int,
    requirements: Requirements,
    *,
    server_name: str | None = None,
    context: ssl.SSLContext | None = None,
    allow_image_key: bool = False,
    seconds: float = SECONDS,
) -> AttestedConnection:
    """Connect, and verify that the other end is the enclave that is required.

    Args:
        host: a name or an address.
        port: its port.
        requirements: of the document; its nonce is made here.
        server_name: what the server is asked for (SNI, Host), if not `host`; in normal form.
        context: of `client_context`; by default one without files.
        allow_image_key: as `verify_tls_document` says.
        seconds: for the connection, the handshake and the document.

    Raises:
        Unreachable: there is no connection.
        ConnectionRefused: it does not, or not provably, end in the enclave.
        DocumentRefused: the enclave is not the one that is required.
    """
    ends_at = time.monotonic() + seconds
    name = server_name or host
    try:
        plain = socket.create_connection((host, port), seconds)
    except (OSError, UnicodeError) as error:
        text = f"{format_authority(host, port)} cannot be connected to: {_explain(error)}"
        raise Unreachable(text) from None
    connection: socket.socket = plain
    try:
        secured = connection = _handshake(plain, context or client_context(), name, ends_at)
        certificate = secured.getpeercert(binary_form=True)
        assert certificate is not None  # every handshake of TLS 1.2 and 1.3 here brings one
        public_key = _public_key(certificate)
        nonce = secrets.token_bytes(NONCE_BYTES)
        answer = _ask(secured, format_authority(name, port), nonce, ends_at)
        if answer.status != 200:
            text = (
                f"the server has no document for us, it answers {answer.status}: {_shown(answer)}"
            )
            raise ConnectionRefused(TlsReason.NO_DOCUMENT, text)
        try:
            document = verify_tls_document(
                answer.body,
                replace(requirements, nonce=nonce),
                public_key,
                datetime.now(UTC),
                allow_image_key=allow_image_key,
            )
        except DocumentRefused as error:
            if error.reason is not Reason.NOT_COSE_SIGN1:
                raise
            text = f"the server answers with something else than a document: {_shown(answer)}"
            raise ConnectionRefused(TlsReason.NO_DOCUMENT, text) from None
    except BaseException:
        connection.close()
        raise
    secured.settimeout(None)
    return AttestedConnection(secured, document, public_key)


def _handshake(
    plain: socket.socket, context: ssl.SSLContext, name: str, ends_at: float
) -> ssl.SSLSocket:
    try:
        plain.settimeout(_left(ends_at))
        return context.wrap_socket(plain, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        text = f"the server's certificate is not one that was demanded: {error.verify_message}"
        raise ConnectionRefused(TlsReason.TLS_FAILED, text) from None
    except ssl.SSLError as error:
        text = f"no TLS with the server: {_reason(error)}"
        raise ConnectionRefused(TlsReason.TLS_FAILED, text) from None
    except TimeoutError:
        text = "the handshake was not complete in time: is it TLS that is spoken there?"
        raise ConnectionRefused(TlsReason.TLS_FAILED, text) from None
    except (OSError, ValueError) as error:
        text = f"the connection was cut in the handshake: {_explain(error)}"
        raise ConnectionRefused(TlsReason.TLS_FAILED, text) from None


def _public_key(certificate: bytes) -> bytes:
    try:
        return public_key_of(x509.load_der_x509_certificate(certificate))
    except Exception:  # cryptography raises what it likes for keys that it does not know
        text = "the server's certificate has no key that can be read"
        raise ConnectionRefused(TlsReason.TLS_FAILED, text) from None


def _ask(connection: ssl.SSLSocket, host: str, nonce: bytes, ends_at: float) -> ServiceAnswer:
    request = (
        f"GET {ATTESTATION_PATH}?nonce={nonce.hex()} HTTP/1.1\r\n"
        f"Host: {host}\r\nUser-Agent: vsockproxy\r\nAccept: */*\r\n\r\n"
    )
    reader = AnswerReader("GET", MAX_DOCUMENT_BYTES)
    try:
        connection.settimeout(_left(ends_at))
        connection.sendall(request.encode("ascii"))
        while True:
            connection.settimeout(_left(ends_at))
            answer = reader.receive(connection.recv(_READ_BYTES))
            if answer is not None:
                return answer
    except HttpResponseError as error:
        text = f"what the server answers is no document: {error}"
        raise ConnectionRefused(TlsReason.NO_DOCUMENT, text) from None
    except ssl.SSLError as error:
        # With TLS 1.3 a server says only now that it does not take our certificate.
        text = f"the server ends TLS: {_reason(error)}"
        raise ConnectionRefused(TlsReason.TLS_FAILED, text) from None
    except TimeoutError:
        text = "the document did not come in time"
        raise ConnectionRefused(TlsReason.CUT, text) from None
    except OSError as error:
        text = f"the connection was cut before the document came: {_explain(error)}"
        raise ConnectionRefused(TlsReason.CUT, text) from None


def _shown(answer: ServiceAnswer) -> str:
    """The beginning of a body, for people's eyes."""
    said = answer.body[:_SHOWN_CHARACTERS].decode("ascii", "replace").strip()
    return "".join(each if each.isprintable() else "?" for each in said)


def _left(ends_at: float) -> float:
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _explain(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
