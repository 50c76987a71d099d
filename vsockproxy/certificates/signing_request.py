"""What an authority is asked to sign (PKCS #10, RFC 2986)."""

from collections.abc import Sequence
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from vsockproxy.certificates.errors import CertificateError

__all__ = ("check_names", "general_name", "make_signing_request")


def make_signing_request(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> bytes:
    """DER of a request for a key's certificate.

    Args:
        key: on a curve that TLS has.
        names: DNS names and IP addresses, all of them in subjectAltName (RFC 8555, 7.4).
    """
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False
        )
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )


def check_names(chain: bytes, names: Sequence[str]) -> None:
    """Check that the first certificate of a chain is for all names.

    Args:
        chain: PEM.
        names: as they were asked for.

    Raises:
        CertificateError: one is missing, or there is no certificate.
    """
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
        has = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (
        *(ValueError, x509.ExtensionNotFound, x509.DuplicateExtension),
        *(x509.UnsupportedGeneralNameType, x509.InvalidVersion),
    ):
        raise CertificateError("the chain holds no certificate with names") from None
    missing = [name for name in names if general_name(name) not in has]
    if missing:
        raise CertificateError(f"the certificate is not for {', '.join(missing)}")


def general_name(name: str) -> x509.GeneralName:
    """A DNS name or an IP address, as certificates have it."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
