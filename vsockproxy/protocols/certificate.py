"""The public key of an X.509 certificate, found in its DER: what a pin is made of.

A certificate begins (RFC 5280, section 4.1)

    Certificate  ::=  SEQUENCE { tbsCertificate  SEQUENCE {
        version [0], serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, …

and only these are walked; OpenSSL has verified the rest by the time it is asked.
"""

from vsockproxy.protocols.errors import CertificateError

__all__ = ("public_key_info",)

_SEQUENCE = 0x30
_VERSION = 0xA0
_INTEGER = 0x02

_LONGEST_LENGTH = 4
"""Bytes of a length; a certificate of 4 GiB is none."""


def public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, as it stands there.

    Args:
        certificate: in DER.

    Raises:
        CertificateError: these bytes are none.
    """
    view = memoryview(certificate)
    start, end = _content(view, 0, len(view), _SEQUENCE)
    start, end = _content(view, start, end, _SEQUENCE)
    if start < end and view[start] == _VERSION:
        start = _content(view, start, end, _VERSION)[1]
    for tag in (_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _SEQUENCE):
        start = _content(view, start, end, tag)[1]
    return bytes(view[start : _content(view, start, end, _SEQUENCE)[1]])


def _content(view: memoryview, start: int, end: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at `start` begins and ends."""
    if end - start < 2 or view[start] != tag:
        raise CertificateError("no X.509 certificate in DER")
    length = view[start + 1]
    start += 2
    if length & 0x80:
        count = length & 0x7F
        if not 0 < count <= min(_LONGEST_LENGTH, end - start):
            raise CertificateError("a length in the certificate is none")
        length = int.from_bytes(view[start : start + count], "big")
        start += count
    if length > end - start:
        raise CertificateError("the certificate is cut short")
    return start, start + length
