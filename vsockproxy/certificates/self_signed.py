"""Certificates that vouch for nothing by themselves: an attestation document vouches for their key.

The browser's warning is right about them. A client that has verified the document of a key trusts
that key; so a renewal keeps it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vsockproxy.certificates.served import ServedCertificate
from vsockproxy.certificates.signing_request import general_name

__all__ = ("LIFETIME", "make_self_signed", "renew_self_signed")

LIFETIME: Final = timedelta(days=90)

_CLOCK_MARGIN: Final = timedelta(days=1)
"""A client's clock may be behind ours."""

_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def make_self_signed(
    key: ec.EllipticCurvePrivateKey,
    common_name: str,
    names: Sequence[str],
    at: datetime,
    serial: int,
) -> ServedCertificate:
    """Make a certificate for a key that signs it itself.

    Args:
        key: on a curve that TLS has.
        common_name: what it is called, at most 64 characters (RFC 5280, appendix A.1).
        names: DNS names and IP addresses that clients know the server by (subjectAltName); without
            any, `common_name`.
        at: when it begins to hold, with a time zone; it began a day before.
        serial: a random number of at most 159 bits.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(at - _CLOCK_MARGIN)
        .not_valid_after(at + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([general_name(each) for each in names or (common_name,)]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ServedCertificate.parse(pem + certificate.public_bytes(Encoding.PEM))


def renew_self_signed(
    former: ServedCertificate, common_name: str, names: Sequence[str], at: datetime, serial: int
) -> ServedCertificate:
    """A new certificate for the key of the former; the other arguments as above."""
    key = load_pem_private_key(former.pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # we made it
    return make_self_signed(key, common_name, names, at, serial)
