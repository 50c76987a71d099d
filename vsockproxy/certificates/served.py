"""A private key and the chain of its certificate, as a server presents them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from vsockproxy.certificates.errors import CertificateError

__all__ = ("MAX_PEM_BYTES", "ServedCertificate", "public_key_of")

MAX_PEM_BYTES: Final = 256 * 1024
"""Of a key and its chain together; a chain of ten certificates has some 20 KiB."""


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """What a server needs, and what has to be known of it.

    Args:
        pem: the private key, then the chain with the server's own certificate first.
        public_key: of that certificate: DER of its SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
        not_before: its certificate holds from here,
        not_after: to here; both with a time zone.
    """

    pem: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """Read one PEM text that holds the key and the chain, in any order but for the chain's own.

        Raises:
            CertificateError: it is none, or the key is another certificate's.
        """
        return cls.join(pem, pem)

    @classmethod
    def join(cls, chain: bytes, key: bytes) -> Self:
        """Read a chain and its key.

        Args:
            chain: PEM, the server's own certificate first.
            key: PEM, not encrypted.

        Raises:
            CertificateError: one of them is none, or the key is another certificate's.
        """
        if len(chain) + len(key) > 2 * MAX_PEM_BYTES:
            raise CertificateError(f"more than {MAX_PEM_BYTES} bytes, which no chain has")
        try:
            certificates = x509.load_pem_x509_certificates(chain)
            spki = public_key_of(certificates[0])
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
            raise CertificateError(
                "the chain holds no certificate in PEM: write the server's own, then its issuers'"
            ) from None
        try:
            private_key = load_pem_private_key(key, None)
        except TypeError:
            raise CertificateError(
                "the key is encrypted, and nobody could type its password: write it plain"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise CertificateError("the key is no private key in PEM") from None
        own = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if own != spki:
            raise CertificateError("the key is not that of the first certificate of the chain")
        pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem += b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
        first = certificates[0]
        return cls(pem, spki, first.not_valid_before_utc, first.not_valid_after_utc)


def public_key_of(certificate: x509.Certificate) -> bytes:
    """DER of a certificate's SubjectPublicKeyInfo, as it stands in the certificate.

    Raises:
        ValueError, UnsupportedAlgorithm: it holds no key that can be read.
    """
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
