"""Keys for a software module, from the system's randomness."""

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec

from vsockproxy.attestation.software_pki import ModuleKeys, SoftwareRoot, issue_root

__all__ = ("make_keys", "make_root")


def make_root() -> SoftwareRoot:
    """A new root, from now on."""
    return issue_root(_make_key(), datetime.now(UTC))


def make_keys() -> ModuleKeys:
    """New keys below a root."""
    return ModuleKeys(_make_key(), _make_key(), _make_key(), _make_key())


def _make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())
