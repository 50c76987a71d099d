"""Whether the key of a TLS connection is one that an enclave's attestation document binds."""

from datetime import datetime
from enum import StrEnum

from vsockproxy.attestation.documents import (
    AttestationDocument,
    Requirements,
    verify_document,
)
from vsockproxy.attestation.tls_binding import bound_fields, bound_user_data
from vsockproxy.errors import VsockproxyError

__all__ = ("ConnectionRefused", "TlsReason", "verify_tls_document")


class TlsReason(StrEnum):
    """Why a connection is not what it should be, where its document is not at fault."""

    TLS_FAILED = "tls_failed"
    """There is no TLS with the server, or it does not take us."""
    CUT = "cut"
    """The connection ended, or time ran out, before the document was there."""
    NO_DOCUMENT = "no_document"
    """The server answers something else than a document."""
    KEY_MISMATCH = "key_mismatch"
    """The document binds another key than the one that this connection has."""
    KEY_FROM_IMAGE = "key_from_image"
    """The key comes from a file of the image, which the parent can read."""


class ConnectionRefused(VsockproxyError):
    """A connection that is not, or not provably, with the enclave.

    Args:
        reason: what is wrong.
        text: one line for a person.
    """

    def __init__(self, reason: TlsReason, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text


def verify_tls_document(
    data: bytes,
    requirements: Requirements,
    public_key: bytes,
    at: datetime,
    *,
    allow_image_key: bool = False,
) -> AttestationDocument:
    """Verify a document that came over a TLS connection, and that it binds that connection's key.

    Args:
        data: the document.
        requirements: with the nonce that was sent for it.
        public_key: of the certificate that the server has proved, in the handshake of this very
            connection, to have the key of: DER of its SubjectPublicKeyInfo.
        at: the time.
        allow_image_key: take a key that is a file of the image, too.

    Raises:
        DocumentRefused: the document does not verify, or is not the one that is required.
        ConnectionRefused: it is good, and says nothing for this connection.
        ValueError: there is no nonce in the requirements: any old document would do.
    """
    if not requirements.nonce:
        raise ValueError("a document without a nonce of ours may be old")
    document = verify_document(data, requirements, at)
    if document.user_data == bound_user_data(public_key, "image"):
        if not allow_image_key:
            raise ConnectionRefused(
                TlsReason.KEY_FROM_IMAGE,
                "the server's key is a file of its image: whoever has the image, as the parent "
                "has, may have the key too",
            )
        origin_fields = bound_fields(public_key, "image")
    else:
        origin_fields = bound_fields(public_key, "generated")
    if (document.user_data, document.public_key) != origin_fields:
        raise ConnectionRefused(
            TlsReason.KEY_MISMATCH,
            "the document is of another key than the one of this connection: whoever ends TLS "
            "here is not the enclave",
        )
    return document
