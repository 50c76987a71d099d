"""Verifies the signature of an enclave image file; needs cryptography."""

import re
import warnings
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import InvalidVersion, load_der_x509_certificate

from vsockproxy.attestation.eif_reader import EifImage
from vsockproxy.attestation.eif_signature import parse_cose
from vsockproxy.errors import VsockproxyError

__all__ = ("SignatureRefused", "verify_signature")

# The library warns of odd certificates on stderr; what is wrong with one is the caller's to say.
warnings.filterwarnings("ignore", category=UserWarning, module=re.escape(__name__))

_HASHES: Final[Mapping[int, hashes.HashAlgorithm]] = {
    -7: hashes.SHA256(),
    -35: hashes.SHA384(),
    -36: hashes.SHA512(),
}
"""ES256, ES384 and ES512 (RFC 9053, 2.1)."""

_CURVE_BYTES: Final = {"secp256r1": 32, "secp384r1": 48, "secp521r1": 66}
"""Of r, and of s."""


class SignatureRefused(VsockproxyError):
    """The image was not signed with the key of its certificate; the text says what is wrong."""


def verify_signature(image: EifImage) -> None:
    """Verify that the key of its certificate signed the image's PCR0.

    The certificate's dates and issuer are not looked at: PCR8 says which one it is.

    Args:
        image: one with a signature.

    Raises:
        SignatureRefused: it is not so.
    """
    if image.signature is None:
        raise SignatureRefused("there is no signature")
    try:
        cose = parse_cose(image.signature.cose)
        key = load_der_x509_certificate(image.signature.certificate).public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidVersion) as error:
        raise SignatureRefused(f"it cannot be read: {error}") from error
    if cose.register_index != 0 or cose.register_value != image.measurements.pcr0:
        raise SignatureRefused(
            f"it is for PCR{cose.register_index} = {cose.register_value.hex()}, another image"
        )
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVE_BYTES:
        raise SignatureRefused("the certificate's key is on none of the curves of ECDSA")
    algorithm = _HASHES.get(cose.algorithm)
    if algorithm is None:
        raise SignatureRefused(f"algorithm {cose.algorithm} is none of ES256, ES384 and ES512")
    size_bytes = _CURVE_BYTES[key.curve.name]
    if len(cose.signature) != 2 * size_bytes:
        raise SignatureRefused(f"{len(cose.signature)} bytes do not fit {key.curve.name}")
    r, s = (
        int.from_bytes(half, "big")
        for half in (cose.signature[:size_bytes], cose.signature[size_bytes:])
    )
    try:
        key.verify(encode_dss_signature(r, s), cose.signed, ec.ECDSA(algorithm))
    except InvalidSignature:
        raise SignatureRefused("the certificate's key did not make it") from None
