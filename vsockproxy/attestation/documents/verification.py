"""Verification of attestation documents: genuine, consistent, and what is required."""

import hmac
from datetime import datetime
from hashlib import sha384
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from vsockproxy.attestation.documents.chain import verify_chain
from vsockproxy.attestation.documents.cose import SIGNATURE_BYTES, CoseSign1, parse_cose_sign1
from vsockproxy.attestation.documents.document import (
    MEASURED_BY_IMAGE,
    AttestationDocument,
    UnverifiedDocument,
    time_of,
)
from vsockproxy.attestation.documents.payload import Payload, parse_payload
from vsockproxy.attestation.documents.refusal import DocumentRefused, Reason
from vsockproxy.attestation.documents.requirements import Requirements

__all__ = ("parse_unverified", "verify_document")

_SHOWN_BYTES: Final = 64
"""Of a nonce, in a refusal."""

_ZERO_PCR: Final = bytes(48)
_OF_INSTANCE: Final = 4
"""PCR4 is extended with the id of the parent instance."""


def parse_unverified(data: bytes) -> UnverifiedDocument:
    """Take a document apart and verify nothing.

    Raises:
        DocumentRefused: this is no attestation document.
    """
    return UnverifiedDocument(parse_payload(parse_cose_sign1(data).payload))


def verify_document(data: bytes, requirements: Requirements, at: datetime) -> AttestationDocument:
    """Verify a document as AWS's attestation_process.md says, and that it is what is required.

    Args:
        data: the document as the NSM gave it: COSE_Sign1, with or without its tag.
        requirements: what it has to be; `Requirements()` takes any genuine one of AWS that is not
            of an enclave in debug mode.
        at: the time at which it has to be valid: the clock's, but for archived documents.

    Raises:
        DocumentRefused: it is none, or does not verify, or is another one; with the first reason
            in the order of `Reason`.
        ValueError: `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError("the time of verification needs a time zone")
    envelope = parse_cose_sign1(data)
    payload = parse_payload(envelope.payload)
    leaf = verify_chain(payload.certificate, payload.cabundle, requirements.roots, at)
    _verify_signature(envelope, leaf.public_key)
    _check_instance(payload)
    document = AttestationDocument(
        module_id=payload.module_id,
        digest=payload.digest,
        timestamp_ms=payload.timestamp_ms,
        pcrs=MappingProxyType(dict(payload.pcrs)),
        public_key=payload.public_key,
        user_data=payload.user_data,
        nonce=payload.nonce,
        expires_at=leaf.expires_at,
        is_debug=not any(any(payload.pcrs.get(index, b"")) for index in MEASURED_BY_IMAGE),
    )
    _check_requirements(document, requirements, at)
    return document


def _verify_signature(envelope: CoseSign1, key: ec.EllipticCurvePublicKey) -> None:
    half = SIGNATURE_BYTES // 2
    r = int.from_bytes(envelope.signature[:half], "big")
    s = int.from_bytes(envelope.signature[half:], "big")
    try:
        key.verify(encode_dss_signature(r, s), envelope.signed_bytes, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise DocumentRefused(
            Reason.BAD_SIGNATURE, "the key of its certificate did not sign this document"
        ) from None


def _check_instance(payload: Payload) -> None:
    """PCR4 and module_id have to speak of the same instance."""
    measured = payload.pcrs.get(_OF_INSTANCE)
    if measured is None:
        return
    instance, _, _ = payload.module_id.rpartition("-enc")
    expected = sha384(_ZERO_PCR + instance.encode()).digest()
    if not instance or not hmac.compare_digest(measured, expected):
        raise DocumentRefused(
            Reason.PCR4_MISMATCH,
            f"PCR4 is not that of the instance in module_id, {payload.module_id!r:.80}",
        )


def _check_requirements(
    document: AttestationDocument, requirements: Requirements, at: datetime
) -> None:
    if document.is_debug and not requirements.allow_debug:
        raise DocumentRefused(
            Reason.DEBUG_MODE,
            "PCR0, PCR1 and PCR2 are zero: this enclave runs in debug mode, which hides nothing",
        )
    _check_age(document, requirements.max_age_seconds, at)
    _check_nonce(document.nonce, requirements.nonce)
    for index, expected in sorted(requirements.pcrs.items()):
        measured = document.pcrs.get(index)
        if measured is None:
            raise DocumentRefused(Reason.PCR_MISSING, f"PCR{index} is not in the document")
        if not hmac.compare_digest(measured, expected):
            raise DocumentRefused(
                Reason.PCR_MISMATCH,
                f"PCR{index} is another than the one expected, {expected.hex()}",
            )
    _check_bytes(document.user_data, requirements.user_data, "user_data", Reason.USER_DATA_MISMATCH)
    _check_bytes(
        document.public_key, requirements.public_key, "public_key", Reason.PUBLIC_KEY_MISMATCH
    )


def _check_age(document: AttestationDocument, most: float | None, at: datetime) -> None:
    if most is None:
        return
    age = (at - time_of(document.timestamp_ms)).total_seconds()
    if age > most:
        raise DocumentRefused(
            Reason.TOO_OLD, f"it is {age:.3f} seconds old, at most {most:g} are allowed"
        )
    if age < -most:
        raise DocumentRefused(
            Reason.FROM_THE_FUTURE,
            f"it was made {-age:.3f} seconds after the time of verification, at most {most:g} "
            "are allowed: does the clock go right?",
        )


def _check_nonce(found: bytes | None, expected: bytes | None) -> None:
    """Says both values: the document is verified so far, and nonces are no secrets."""
    try:
        _check_bytes(found, expected, "nonce", Reason.NONCE_MISMATCH)
    except DocumentRefused as error:
        if found is None or expected is None:
            raise
        text = f"{error.text}: {_digits(found)}, not {_digits(expected)}"
        raise DocumentRefused(error.reason, text) from None


def _digits(value: bytes) -> str:
    shown = value[:_SHOWN_BYTES].hex() or "empty"
    return f"{shown}… ({len(value)} bytes)" if len(value) > _SHOWN_BYTES else shown


def _check_bytes(found: bytes | None, expected: bytes | None, name: str, reason: Reason) -> None:
    if expected is None:
        return
    if found is None:
        raise DocumentRefused(reason, f"there is no {name} in it")
    if not hmac.compare_digest(found, expected):
        raise DocumentRefused(reason, f"{name} is another than the one expected")
