"""Attestation documents of Nitro enclaves: parsing and verification.

    document = verify_document(data, Requirements(pcrs={0: measurement}, nonce=nonce), at=now)

Importing this package loads `cryptography`, which the extra `trust` brings.
"""

from vsockproxy.attestation.documents.aws_root import AWS_ROOT
from vsockproxy.attestation.documents.chain import read_roots
from vsockproxy.attestation.documents.cose import MAX_DOCUMENT_BYTES
from vsockproxy.attestation.documents.document import (
    AttestationDocument,
    UnverifiedDocument,
    time_of,
)
from vsockproxy.attestation.documents.refusal import DocumentRefused, Reason
from vsockproxy.attestation.documents.requirements import RequirementError, Requirements
from vsockproxy.attestation.documents.verification import parse_unverified, verify_document

__all__ = (
    "AWS_ROOT",
    "MAX_DOCUMENT_BYTES",
    "AttestationDocument",
    "DocumentRefused",
    "Reason",
    "RequirementError",
    "Requirements",
    "UnverifiedDocument",
    "parse_unverified",
    "read_roots",
    "time_of",
    "verify_document",
)
