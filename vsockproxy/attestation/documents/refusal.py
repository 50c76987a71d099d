"""Why an attestation document is refused: one reason each.

The groups of `Reason` stand in the order in which they are looked for: bytes, envelope, fields,
certificates, signature, requirements. So whoever sees a reason knows what was right before it.
"""

from enum import StrEnum

from vsockproxy.errors import VsockproxyError

__all__ = ("DocumentRefused", "Reason")


class Reason(StrEnum):
    """What is wrong with a document, as a slug for logs, JSON and counters."""

    # The bytes (RFC 8949).
    TOO_LARGE = "too_large"
    """More bytes than any document has."""
    TRUNCATED = "truncated"
    """The bytes end before the item does; no bytes at all."""
    MALFORMED_CBOR = "malformed_cbor"
    NESTED_TOO_DEEP = "nested_too_deep"
    UNEXPECTED_TAG = "unexpected_tag"
    """A tag other than 18 around the whole, or any tag inside."""
    TRAILING_BYTES = "trailing_bytes"
    """Something stands behind the item: of the whole, of the protected header or of the payload."""
    DUPLICATE_KEY = "duplicate_key"

    # COSE_Sign1 (RFC 9052, section 4.2).
    NOT_COSE_SIGN1 = "not_cose_sign1"
    WRONG_ALGORITHM = "wrong_algorithm"
    """The protected header says another algorithm than ES384, or none."""
    UNEXPECTED_HEADER = "unexpected_header"
    """A header parameter beside the algorithm."""
    SIGNATURE_LENGTH = "signature_length"

    # The payload (AWS, attestation_process.md, "Attestation document specification").
    NOT_A_DOCUMENT = "not_a_document"
    """The payload is no map with text keys."""
    NITROTPM_DOCUMENT = "nitrotpm_document"
    """Signed for a virtual machine with NitroTPM, not for an enclave."""
    MISSING_FIELD = "missing_field"
    NULL_FIELD = "null_field"
    """A mandatory field is null; the optional ones may be."""
    WRONG_TYPE = "wrong_type"
    FIELD_SIZE = "field_size"
    """A field has too few or too many bytes or entries."""
    OUT_OF_RANGE = "out_of_range"
    """A timestamp or the number of a PCR that cannot be."""
    WRONG_DIGEST = "wrong_digest"

    # The certificates (RFC 5280, and AWS's rules on them).
    UNTRUSTED_ROOT = "untrusted_root"
    """The first certificate of the chain is none of the trusted roots."""
    MALFORMED_CERTIFICATE = "malformed_certificate"
    CERTIFICATE_VERSION = "certificate_version"
    WRONG_CURVE = "wrong_curve"
    CERTIFICATE_ALGORITHM = "certificate_algorithm"
    """A certificate is signed otherwise than by ECDSA with SHA-384."""
    CHAIN_BROKEN = "chain_broken"
    """A certificate names another issuer than the one before it: missing, surplus, out of order."""
    CERTIFICATE_SIGNATURE = "certificate_signature"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    BASIC_CONSTRAINTS = "basic_constraints"
    """The extension is missing or not critical."""
    NOT_A_CA = "not_a_ca"
    LEAF_IS_CA = "leaf_is_ca"
    PATH_LENGTH = "path_length"
    KEY_USAGE = "key_usage"
    CRITICAL_EXTENSION = "critical_extension"
    """A critical extension that nobody here understands."""
    CHAIN_REFUSED = "chain_refused"
    """The library's own path validation says no, where all of the above said yes."""

    # The signature of the document, and what it then says.
    BAD_SIGNATURE = "bad_signature"
    PCR4_MISMATCH = "pcr4_mismatch"
    """PCR4 is not that of the instance that module_id names."""

    # What the verifier requires.
    DEBUG_MODE = "debug_mode"
    """PCR0, 1 and 2 are zero: anybody on the parent can read and change this enclave."""
    TOO_OLD = "too_old"
    FROM_THE_FUTURE = "from_the_future"
    NONCE_MISMATCH = "nonce_mismatch"
    PCR_MISSING = "pcr_missing"
    PCR_MISMATCH = "pcr_mismatch"
    USER_DATA_MISMATCH = "user_data_mismatch"
    PUBLIC_KEY_MISMATCH = "public_key_mismatch"


class DocumentRefused(VsockproxyError):
    """A document that is none, does not verify, or is not the one that is required.

    Args:
        reason: what is wrong, one of `Reason`.
        text: one line for a person: which field or certificate, and what is wrong with it.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason: Reason = reason
        self.text = text
