"""The certificates of a software module: as those of Nitro in all but their names. Pure.

    root        30 years             CA
    regional    20 days and 1 hour   CA, path length 2
    zonal       5 days and 18 hours  CA, path length 1
    instance    24 hours             CA, path length 0
    leaf        3 hours and 3 s      signs documents

All keys are of P-384, all signatures ECDSA with SHA-384. Every name says that it is software, and
none is that of Nitro's own. Keys are arguments, made by whoever owns the randomness; that of a
signature is the library's own.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from vsockproxy.errors import VsockproxyError

__all__ = (
    "LEAF_VALIDITY",
    "Chain",
    "ModuleKeys",
    "SoftwareRoot",
    "SoftwareRootError",
    "issue_chain",
    "issue_root",
    "read_root",
    "write_root",
)

DOMAIN: Final = "software-nsm.test"
"""What the names end with in place of `<region>.aws.nitro-enclaves`; .test is never a real name
(RFC 2606, section 2)."""

_ORGANISATION: Final = "vsockproxy"
_UNIT: Final = "software NSM, proves nothing"
_ROOT_NAME: Final = "root of a software NSM, for tests only"
_REAL_NAME: Final = "nitro-enclaves"
"""What Nitro's own roots are called: `<partition>.nitro-enclaves`."""

LEAF_VALIDITY: Final = timedelta(hours=3)
_LEAF_BACKDATING: Final = timedelta(seconds=3)
_ROOT_VALIDITY: Final = timedelta(days=365 * 30)
_ROOT_BACKDATING: Final = timedelta(days=30)
_AUTHORITIES: Final = (
    ("regional", timedelta(days=20, hours=1), 2),
    ("zonal", timedelta(days=5, hours=18), 1),
    ("instance", timedelta(hours=24), 0),
)
"""Those between root and leaf: which, for how long, and their path length."""

_USES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_ALL_OF_AN_AUTHORITY: Final = ("digital_signature", "key_cert_sign", "crl_sign")

_SERIAL_BYTES: Final = 16
_HALF: Final = 2

PrivateKey = ec.EllipticCurvePrivateKey


class SoftwareRootError(VsockproxyError):
    """A file that holds no root for a software module; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class SoftwareRoot:
    """The trust anchor of a software module."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class ModuleKeys:
    """The keys below the root, all of P-384."""

    regional: PrivateKey = field(repr=False)
    zonal: PrivateKey = field(repr=False)
    instance: PrivateKey = field(repr=False)
    leaf: PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """What stands in documents.

    Args:
        leaf: the certificate of the key that signs them, DER.
        cabundle: the others, root first, DER.
        issued_at: when the leaf was issued.
    """

    leaf: bytes
    cabundle: tuple[bytes, ...]
    issued_at: datetime


def issue_root(key: PrivateKey, at: datetime) -> SoftwareRoot:
    """A root of its own.

    Args:
        key: its key, of P-384.
        at: now, with its zone.
    """
    name = _name(_ROOT_NAME)
    builder = _builder(name, name, key, at - _ROOT_BACKDATING, at + _ROOT_VALIDITY)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_identifier(key), critical=False)
        .add_extension(_usage(*_ALL_OF_AN_AUTHORITY), critical=True)
        .sign(key, SHA384())
    )
    return SoftwareRoot(certificate, key)


def read_root(pem: bytes) -> SoftwareRoot:
    """The root that a PEM file holds: its certificate and its key, in any order.

    Raises:
        SoftwareRootError: it does not.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise SoftwareRootError("it has no certificate in PEM") from error
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SoftwareRootError("it has no private key in PEM without a passphrase") from error
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise SoftwareRootError("its key is not of P-384")
    certificate = certificates[0]
    if _spki(key) != certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ):
        raise SoftwareRootError("its certificate is for another key")
    if _REAL_NAME in certificate.subject.rfc4514_string():
        raise SoftwareRootError(f"its name has {_REAL_NAME!r}, as if it were a real one")
    return SoftwareRoot(certificate, key)


def write_root(root: SoftwareRoot) -> bytes:
    """What `read_root` reads: the certificate, then the key."""
    return root.certificate.public_bytes(Encoding.PEM) + root.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def issue_chain(root: SoftwareRoot, keys: ModuleKeys, module_id: str, at: datetime) -> Chain:
    """Certificates for the keys of a module.

    Args:
        root: what they lead to.
        keys: whose they are.
        module_id: `<instance id>-enc<number>`, which stands in names.
        at: now, with its zone; the leaf is valid from 3 s before, for 3 hours.
    """
    instance_id = module_id.partition("-enc")[0]
    issuer, issuer_key = root.certificate.subject, root.key
    cabundle = [root.der]
    of_authorities = (keys.regional, keys.zonal, keys.instance)
    for key, (kind, validity, path_length) in zip(of_authorities, _AUTHORITIES, strict=True):
        if kind == "instance":
            name = _name(f"{instance_id}.{DOMAIN}")
            uses: tuple[str, ...] = ("key_cert_sign",)
        else:
            name = _name(f"{_fingerprint(_spki(key))}.{kind}.{DOMAIN}")
            uses = _ALL_OF_AN_AUTHORITY
        begin = at - validity / _HALF
        certificate = (
            _builder(name, issuer, key, begin, begin + validity)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
                critical=False,
            )
            .add_extension(_key_identifier(key), critical=False)
            .add_extension(_usage(*uses), critical=True)
            .sign(issuer_key, SHA384())
        )
        cabundle.append(certificate.public_bytes(Encoding.DER))
        issuer, issuer_key = name, key
    leaf = (
        _builder(
            _name(f"{module_id}.{DOMAIN}"),
            issuer,
            keys.leaf,
            at - _LEAF_BACKDATING,
            at + LEAF_VALIDITY,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature", "content_commitment"), critical=False)
        .sign(issuer_key, SHA384())
    )
    return Chain(leaf.public_bytes(Encoding.DER), tuple(cabundle), at)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    serial = sha256(_spki(key) + begin.isoformat().encode()).digest()[:_SERIAL_BYTES]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(serial, "big") | 1)
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, _UNIT),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _fingerprint(spki: bytes) -> str:
    """The 16 digits that stand in names of authorities."""
    return sha256(spki).hexdigest()[:16]


def _key_identifier(key: PrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{each: each in uses for each in _USES})
