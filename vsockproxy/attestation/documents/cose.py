"""The envelope of a document, as the NSM writes it: COSE_Sign1 (RFC 9052, 4.2) with ES384."""

from dataclasses import dataclass
from typing import Final

import cbor2

from vsockproxy.attestation.documents.refusal import DocumentRefused, Reason
from vsockproxy.attestation.documents.structure import decode

__all__ = ("MAX_DOCUMENT_BYTES", "SIGNATURE_BYTES", "CoseSign1", "parse_cose_sign1")

MAX_DOCUMENT_BYTES: Final = 20 * 1024
"""More than a payload of the most bytes in its envelope; the NSM itself gives 12 KiB at most."""

SIGNATURE_BYTES: Final = 96
"""r and s of P-384, 48 bytes each, big-endian (RFC 9053, section 2.1)."""

_COSE_SIGN1_TAG: Final = b"\xd2"
"""Tag 18, which may stand in front; the NSM leaves it out."""

_PEM: Final = b"-----BEGIN "
"""What certificates and keys in text begin with (RFC 7468)."""

_HEX: Final = (b"84", b"d284", b"D284")
"""What a document in hexadecimal digits begins with."""

_ARRAY: Final = 4
_TAG: Final = 6
"""Major types, RFC 8949 section 3.1."""

_ALGORITHM: Final = 1
_ES384: Final = -35


@dataclass(frozen=True, slots=True)
class CoseSign1:
    """A signed payload; the signature is not verified."""

    protected: bytes
    payload: bytes
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is over: Sig_structure, RFC 9052 section 4.4."""
        return cbor2.dumps(["Signature1", self.protected, b"", self.payload])


def parse_cose_sign1(data: bytes) -> CoseSign1:
    """Take the envelope apart.

    Raises:
        DocumentRefused: this is no COSE_Sign1 that is signed with ES384 and has nothing else in
            its headers.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise DocumentRefused(
            Reason.TOO_LARGE, f"{len(data)} bytes, a document has {MAX_DOCUMENT_BYTES} at most"
        )
    start = len(_COSE_SIGN1_TAG) if data.startswith(_COSE_SIGN1_TAG) else 0
    major = data[start] >> 5 if len(data) > start else None
    if major == _TAG:
        raise DocumentRefused(
            Reason.UNEXPECTED_TAG,
            "in front of it is another tag than 18, that of COSE_Sign1, or more than one",
        )
    if major not in (_ARRAY, None):
        text = f"byte {data[start]:#04x} begins no document, 0x84 does"
        if data.startswith(_PEM):
            text = "this is PEM, no document"
        elif data.startswith(_HEX):
            text = "these are hexadecimal digits: write the bytes, as xxd -r -p does"
        raise DocumentRefused(Reason.NOT_COSE_SIGN1, text)
    items = decode(data, "document", start=start)
    if type(items) is not list or [type(item) for item in items] != [bytes, dict, bytes, bytes]:
        raise DocumentRefused(
            Reason.NOT_COSE_SIGN1, "this is no array of protected header, map, payload, signature"
        )
    protected, unprotected, payload, signature = items
    _check_headers(protected, unprotected)
    if len(signature) != SIGNATURE_BYTES:
        raise DocumentRefused(
            Reason.SIGNATURE_LENGTH,
            f"the signature has {len(signature)} bytes, ES384 has {SIGNATURE_BYTES}",
        )
    return CoseSign1(protected, payload, signature)


def _check_headers(protected: bytes, unprotected: dict[object, object]) -> None:
    # No bytes stand for an empty map (RFC 9052, section 3).
    header = decode(protected, "protected header") if protected else {}
    if type(header) is not dict:
        raise DocumentRefused(Reason.NOT_COSE_SIGN1, "the protected header is no map")
    algorithm = next((value for key, value in header.items() if _is_algorithm(key)), None)
    if type(algorithm) is not int or algorithm != _ES384:
        raise DocumentRefused(
            Reason.WRONG_ALGORITHM, f"the algorithm is {algorithm!r:.40}, ES384 is {_ES384}"
        )
    if len(header) > 1 or unprotected:
        raise DocumentRefused(
            Reason.UNEXPECTED_HEADER, "a header has more in it than the algorithm"
        )


def _is_algorithm(key: object) -> bool:
    return type(key) is int and key == _ALGORITHM
