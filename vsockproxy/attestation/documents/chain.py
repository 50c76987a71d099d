"""The certificates of a document, from a trusted root down to the one that signed it.

AWS issues five, all on P-384 and signed by ECDSA with SHA-384, in this order: root, region, zone,
instance, enclave. The order is fixed here: the library behind `cryptography.x509.verification`
would look for a path among shuffled and surplus ones.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from vsockproxy.attestation.documents.refusal import DocumentRefused, Reason
from vsockproxy.attestation.documents.requirements import RequirementError

__all__ = ("VerifiedLeaf", "read_roots", "verify_chain")

_MAX_DEPTH: Final = 8
"""Certificates between root and leaf that the library follows; a payload has fewer."""

_MAX_SUBJECT: Final = 200
"""Characters of a subject that are shown."""

_UNDERSTOOD: Final = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})
"""Extensions that may be critical, since they are looked at here."""

# The library warns of certificates that are not quite right, on stderr and with the line here that
# reads them: what a stranger has written would stand in the log, which is to be JSON.
warnings.filterwarnings("ignore", category=UserWarning, module=re.escape(__name__))

_AnyExtension = TypeVar("_AnyExtension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class VerifiedLeaf:
    """What a verified chain gives."""

    public_key: ec.EllipticCurvePublicKey
    """The key of the enclave's certificate, on P-384."""
    expires_at: datetime
    """When the first of its certificates expires."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A certificate and what to call it in a refusal."""

    name: str
    certificate: x509.Certificate

    def refusal(self, reason: Reason, text: str) -> DocumentRefused:
        return DocumentRefused(reason, f"{self.name}: {text}")


def read_roots(pem: bytes) -> tuple[bytes, ...]:
    """The certificates in a PEM file, DER; whatever else it holds, keys above all, is left aside.

    Raises:
        RequirementError: there is none, or it cannot be read.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion):
        raise RequirementError("no PEM certificate that can be read") from None
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def verify_chain(
    certificate: bytes, cabundle: Sequence[bytes], roots: Sequence[bytes], at: datetime
) -> VerifiedLeaf:
    """Verify that a trusted root vouches, through `cabundle`, for `certificate` at the time `at`.

    AWS's rules (attestation_process.md, "Certificates chain") and RFC 5280's; revocation is not
    looked at, as AWS says.

    Raises:
        DocumentRefused: it does not; the text names the first certificate that is wrong.
    """
    if cabundle[0] not in roots:
        raise DocumentRefused(
            Reason.UNTRUSTED_ROOT,
            "cabundle[0] is not a trusted root (AWS's, or the one given)"
            + _claimed_subject(cabundle[0]),
        )
    names = [*(f"cabundle[{number}]" for number in range(len(cabundle))), "certificate"]
    chain = [_load(name, der) for name, der in zip(names, (*cabundle, certificate), strict=True)]
    keys = [_check_form(named) for named in chain]
    for issuer, subject in pairwise(chain):
        _check_issued(issuer, subject)
    for named in chain:
        _check_validity(named, at)
    below_root = len(chain) - 2
    for position, named in enumerate(chain[:-1]):
        _check_authority(named, intermediates=below_root - position)
    _check_leaf(chain[-1])
    _ask_library([named.certificate for named in chain], at)
    expires_at = min(named.certificate.not_valid_after_utc for named in chain)
    return VerifiedLeaf(keys[-1], expires_at)


def _claimed_subject(der: bytes) -> str:
    """Whom a certificate that nobody trusts claims to be of, for people's eyes; or nothing."""
    try:
        subject = x509.load_der_x509_certificate(der).subject.rfc4514_string()
    except Exception:  # as in `_load`, of many kinds
        return ""
    return f": it calls itself {subject[:_MAX_SUBJECT]!a}" if subject else ""


def _load(name: str, der: bytes) -> _Named:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # All of these are read when they are asked for.
        _ = certificate.extensions, certificate.subject, certificate.issuer
        if certificate.serial_number <= 0:
            raise ValueError("RFC 5280, section 4.1.2.2")
    except x509.InvalidVersion:
        raise DocumentRefused(Reason.CERTIFICATE_VERSION, f"{name}: not X.509 v3") from None
    # The library raises of many kinds on bytes that are none: ValueError, TypeError, its own ones,
    # and its warning of a serial number below one, where warnings are errors.
    except Exception:
        raise DocumentRefused(Reason.MALFORMED_CERTIFICATE, f"{name}: no DER certificate") from None
    return _Named(name, certificate)


def _check_form(named: _Named) -> ec.EllipticCurvePublicKey:
    """Version, curve and signature algorithm; returns the certificate's key."""
    certificate = named.certificate
    if certificate.version is not x509.Version.v3:
        raise named.refusal(Reason.CERTIFICATE_VERSION, "not X.509 v3")
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise named.refusal(
            Reason.CERTIFICATE_ALGORITHM, "not signed by ECDSA with SHA-384, as all of AWS's are"
        )
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise named.refusal(Reason.MALFORMED_CERTIFICATE, "its key cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise named.refusal(Reason.WRONG_CURVE, "its key is not on P-384, as all of AWS's are")
    return key


def _check_issued(issuer: _Named, subject: _Named) -> None:
    if subject.certificate.issuer != issuer.certificate.subject:
        raise subject.refusal(
            Reason.CHAIN_BROKEN, f"its issuer is not the subject of {issuer.name}, which precedes"
        )
    try:
        subject.certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, ValueError, TypeError):
        raise subject.refusal(
            Reason.CERTIFICATE_SIGNATURE, f"the key of {issuer.name} did not sign it"
        ) from None


def _check_validity(named: _Named, at: datetime) -> None:
    begins, ends = named.certificate.not_valid_before_utc, named.certificate.not_valid_after_utc
    if at < begins:
        raise named.refusal(
            Reason.NOT_YET_VALID, f"valid from {begins.isoformat()}, not at {at.isoformat()}"
        )
    if at > ends:
        raise named.refusal(
            Reason.EXPIRED, f"valid until {ends.isoformat()}, not at {at.isoformat()}"
        )


def _check_authority(named: _Named, *, intermediates: int) -> None:
    """Whether a certificate may issue others, with so many between it and the leaf."""
    constraints = _basic_constraints(named)
    if not constraints.ca:
        raise named.refusal(Reason.NOT_A_CA, "it issued another one and is no CA")
    if constraints.path_length is not None and constraints.path_length < intermediates:
        raise named.refusal(
            Reason.PATH_LENGTH,
            f"{intermediates} CA certificates follow, it allows {constraints.path_length}",
        )
    usage = _extension(named, x509.KeyUsage)
    if usage is None or not usage.critical or not usage.value.key_cert_sign:
        raise named.refusal(Reason.KEY_USAGE, "no critical keyUsage with keyCertSign")
    _check_critical(named)


def _check_leaf(named: _Named) -> None:
    constraints = _basic_constraints(named)
    if constraints.ca:
        raise named.refusal(Reason.LEAF_IS_CA, "it signed the document and is a CA")
    usage = _extension(named, x509.KeyUsage)
    if usage is None or not usage.value.digital_signature:
        raise named.refusal(Reason.KEY_USAGE, "no keyUsage with digitalSignature")
    if usage.value.key_cert_sign:
        raise named.refusal(Reason.KEY_USAGE, "keyCertSign, which a CA alone may have")
    _check_critical(named)


def _basic_constraints(named: _Named) -> x509.BasicConstraints:
    constraints = _extension(named, x509.BasicConstraints)
    if constraints is None or not constraints.critical:
        raise named.refusal(Reason.BASIC_CONSTRAINTS, "no critical basicConstraints")
    return constraints.value


def _check_critical(named: _Named) -> None:
    for extension in named.certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise named.refusal(
                Reason.CRITICAL_EXTENSION,
                f"the critical extension {extension.oid.dotted_string} is not understood",
            )


def _extension(named: _Named, kind: type[_AnyExtension]) -> x509.Extension[_AnyExtension] | None:
    try:
        return named.certificate.extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _ask_library(chain: Sequence[x509.Certificate], at: datetime) -> None:
    """Let the library validate the path on its own: a second pair of eyes, with all of RFC 5280."""
    # Both extensions were looked at before; the library wants it said that CAs must have them.
    of_authorities = (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.CRITICAL, None)
        .require_present(x509.KeyUsage, Criticality.CRITICAL, None)
    )
    of_leaf = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.CRITICAL, None
    )
    verifier = (
        PolicyBuilder()
        .store(Store([chain[0]]))
        .time(at)
        .max_chain_depth(_MAX_DEPTH)
        .extension_policies(ca_policy=of_authorities, ee_policy=of_leaf)
        .build_client_verifier()
    )
    upwards = list(reversed(chain))
    try:
        verified = verifier.verify(chain[-1], upwards[1:-1])
    except VerificationError as error:
        raise DocumentRefused(Reason.CHAIN_REFUSED, f"the chain: {str(error)[:200]!a}") from None
    if verified.chain != upwards:
        raise DocumentRefused(Reason.CHAIN_REFUSED, "the chain: another path leads to the root")
