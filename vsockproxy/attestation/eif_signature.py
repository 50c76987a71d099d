"""The signature section of an enclave image file, as far as no cryptography is needed.

An array of one map, `{"signing_certificate": PEM, "signature": COSE_Sign1}`, both as arrays of
integers, not as byte strings (aws-nitro-enclaves-image-format, src/utils/mod.rs). What is signed is
`{"register_index": 0, "register_value": PCR0}`.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cbor2

from vsockproxy.attestation.eif import EifRefused
from vsockproxy.attestation.whole_cbor import decode_whole

__all__ = ("MAX_SIGNATURE_BYTES", "CoseSign1", "EifSignature", "parse_cose", "parse_signature")

MAX_SIGNATURE_BYTES: Final = 32_768
"""Of the section."""

_COSE_SIGN1_TAG: Final = 18
_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----", re.ASCII
)


@dataclass(frozen=True, slots=True)
class EifSignature:
    """A signature section that was read and not verified.

    Args:
        certificate: what PCR8 measures, in DER.
        cose: the COSE_Sign1.
    """

    certificate: bytes
    cose: bytes


@dataclass(frozen=True, slots=True)
class CoseSign1:
    """A COSE_Sign1 (RFC 9052, 4.2) over the register of an image.

    Args:
        algorithm: of its protected header.
        signed: the bytes that the signature is over.
        signature: r and s.
        register_index: which register.
        register_value: what it has to be.
    """

    algorithm: int
    signed: bytes
    signature: bytes
    register_index: int
    register_value: bytes


def parse_signature(data: bytes, offset: int) -> EifSignature:
    """Read the data of a signature section.

    Args:
        data: the section.
        offset: its place in the file.

    Raises:
        EifRefused: it is malformed, or has other than one signature.
    """
    try:
        content = decode_whole(data)
        if not isinstance(content, Sequence) or isinstance(content, str | bytes):
            raise ValueError("no array")
        if len(content) != 1:
            raise ValueError(f"{len(content)} signatures; PCR8 is of exactly one")
        entry = content[0]
        if not isinstance(entry, Mapping):
            raise ValueError("no map in its array")
        pem = _octets(entry.get("signing_certificate"), "signing_certificate")
        return EifSignature(_der_of(pem), _octets(entry.get("signature"), "signature"))
    except ValueError as error:
        raise EifRefused(offset, f"the signature section: {error}") from error


def parse_cose(data: bytes) -> CoseSign1:
    """Read what is in the signature.

    Raises:
        ValueError: it is no COSE_Sign1 over a register.
    """
    content = decode_whole(data)
    if isinstance(content, cbor2.CBORTag) and content.tag == _COSE_SIGN1_TAG:
        content = content.value
    if not isinstance(content, list | tuple) or len(content) != 4:
        raise ValueError("its signature is no COSE_Sign1")
    protected, _, payload, signature = content
    if not (type(protected) is type(payload) is type(signature) is bytes):
        raise ValueError("its COSE_Sign1 has other things than bytes")
    header, register = decode_whole(protected), decode_whole(payload)
    algorithm = header.get(1) if isinstance(header, Mapping) else None
    if type(algorithm) is not int:
        raise ValueError("its COSE_Sign1 names no algorithm")
    if not isinstance(register, Mapping):
        raise ValueError("its COSE_Sign1 is over something else than a register")
    index = register.get("register_index")
    if type(index) is not int:
        raise ValueError("its COSE_Sign1 names no register")
    value = _octets(register.get("register_value"), "register_value")
    signed = cbor2.dumps(["Signature1", protected, b"", payload])
    return CoseSign1(algorithm, signed, signature, index, value)


def _octets(value: object, name: str) -> bytes:
    """The bytes that an array of integers, or a byte string, stands for."""
    if type(value) is bytes:
        return value
    if not isinstance(value, list | tuple) or not all(
        type(each) is int and 0 <= each < 256 for each in value
    ):
        raise ValueError(f"{name} is no array of bytes")
    return bytes(value)


def _der_of(pem: bytes) -> bytes:
    """The first certificate of a PEM text: exactly one ASN.1 SEQUENCE."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("signing_certificate holds no certificate in PEM")
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"signing_certificate is not in base64: {error}") from error
    if len(der) < 2 or der[0] != 0x30:
        raise ValueError("signing_certificate is no SEQUENCE of ASN.1")
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if start + length != len(der):
        raise ValueError(
            f"signing_certificate says {start + length} bytes of ASN.1 and has {len(der)}"
        )
    return der
