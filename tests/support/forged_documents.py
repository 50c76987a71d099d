"""A certificate authority of its own, and attestation documents by it: right ones, and wrong ones.

`Forge()` makes what the Nitro Secure Module would; each part of it can be made otherwise, and what
is made otherwise is signed all the same, so that nothing but the part itself is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha384
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""When the documents are made."""
TIMESTAMP_MS = 1_772_366_400_000
"""The same, as documents have it."""

INSTANCE = "i-0123456789abcdef0"
MODULE_ID = f"{INSTANCE}-enc0123456789abcdef"
PROTECTED = bytes.fromhex("a1013822")

ROOT, REGION, ZONE, MACHINE, LEAF = range(5)
"""Positions in the chain."""

_AUTHORITY = ("key_cert_sign", "crl_sign")
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What goes into a certificate."""

    name: str
    issuer: str | None = None
    """None: the certificate before it."""
    begins: datetime = AT - timedelta(seconds=3)
    ends: datetime = AT + timedelta(hours=3)
    is_ca: bool | None = True
    """None: without basicConstraints."""
    path_length: int | None = None
    has_critical_constraints: bool = True
    usages: Sequence[str] | None = _AUTHORITY
    """None: without keyUsage."""
    has_critical_usage: bool = True
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = ()
    """More of them, each with whether it is critical."""
    make_key: Callable[[], Key] = field(default=lambda: ec.generate_private_key(ec.SECP384R1()))
    hash: Hash = field(default_factory=hashes.SHA384)
    """That the issuer signs it with."""
    signer: Key | None = None
    """None: the key of the certificate before it."""
    serial: int = 0x10_0001
    edit: Callable[[list[bytes]], list[bytes]] | None = None
    """What becomes of the elements of its TBSCertificate before it is signed."""


CHAIN = (
    Certificate(name="test.nitro-enclaves", ends=AT + timedelta(days=9000)),
    Certificate(name="a.region.test.nitro-enclaves", path_length=2),
    Certificate(name="b.zonal.region.test.nitro-enclaves", path_length=1),
    Certificate(name=f"{INSTANCE}.test.nitro-enclaves", path_length=0, usages=_AUTHORITY[:1]),
    Certificate(
        name=f"{MODULE_ID}.region.test",
        is_ca=False,
        usages=("digital_signature", "content_commitment"),
        has_critical_usage=False,
    ),
)
"""As AWS's are: root, region, zone, instance, enclave."""


def measurement(number: int) -> bytes:
    """What a PCR could hold, another one for each number."""
    return sha384(b"measured %d" % number).digest()


def pcr_of_instance(instance: str) -> bytes:
    """PCR4: SHA-384 of 48 zeros and the instance's id."""
    return sha384(bytes(48) + instance.encode()).digest()


PCRS = {
    **{number: bytes(48) for number in range(16)},
    **{number: measurement(number) for number in (0, 1, 2)},
    4: pcr_of_instance(INSTANCE),
}


class Forge:
    """Certificates, and documents that are signed by the last one's key.

    Args:
        changes: what is different from `CHAIN`, by position.
        certificates: how many certificates the chain has; those before the leaf are left out.
    """

    def __init__(
        self,
        changes: Mapping[int, Mapping[str, Any]] | None = None,
        *,
        chain: Sequence[Certificate] = CHAIN,
    ) -> None:
        self.keys: list[Key] = []
        self.certificates: list[bytes] = []
        issuer = None
        for position, plain in enumerate(chain):
            spec = replace(plain, **(changes or {}).get(position, {}))
            key = spec.make_key()
            signer = spec.signer or (self.keys[-1] if self.keys else key)
            self.certificates.append(_issue(spec, issuer or spec.name, key, signer))
            self.keys.append(key)
            issuer = spec.name
        self.fields: dict[Any, Any] = {
            "module_id": MODULE_ID,
            "digest": "SHA384",
            "timestamp": TIMESTAMP_MS,
            "pcrs": dict(PCRS),
            "certificate": self.certificates[-1],
            "cabundle": self.certificates[:-1],
            "public_key": None,
            "user_data": None,
            "nonce": None,
        }
        """What documents say, in the order of real ones; for changing before one is made."""

    @property
    def root(self) -> bytes:
        """The root certificate, DER."""
        return self.certificates[0]

    def root_pem(self, *, with_key: bool = False) -> bytes:
        """The root certificate, PEM, and its private key behind it."""
        certificate = x509.load_der_x509_certificate(self.root).public_bytes(Encoding.PEM)
        key = self.keys[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate + key if with_key else certificate

    def payload(self, **changes: Any) -> bytes:
        """The payload of the fields with changes; definite lengths throughout."""
        return cbor2.dumps({**self.fields, **changes})

    def sign(
        self,
        payload: bytes,
        protected: bytes = PROTECTED,
        *,
        context: str = "Signature1",
        hash_algorithm: Hash | None = None,
        key: Key | None = None,
    ) -> bytes:
        """The signature of ES384 over a payload: r and s; empty if the key cannot make one."""
        key = key or self.keys[-1]
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return bytes(96)
        signed = cbor2.dumps([context, protected, b"", payload])
        signature = key.sign(signed, ec.ECDSA(hash_algorithm or hashes.SHA384()))
        r, s = decode_dss_signature(signature)
        half = max(48, (key.key_size + 7) // 8)
        return (r.to_bytes(half, "big") + s.to_bytes(half, "big"))[:96]

    def envelope(self, payload: bytes, protected: bytes = PROTECTED) -> bytes:
        """A document with this payload, whatever it is; signed."""
        return cbor2.dumps([protected, {}, payload, self.sign(payload, protected)])

    def document(self, **changes: Any) -> bytes:
        """A document with these changes in its fields; signed."""
        return self.envelope(self.payload(**changes))


def _issue(spec: Certificate, issuer: str, key: Key, signer: Key) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(spec.name))
        .issuer_name(_name(spec.issuer or issuer))
        .public_key(key.public_key())
        .serial_number(spec.serial)
        .not_valid_before(spec.begins)
        .not_valid_after(spec.ends)
    )
    if spec.is_ca is not None:
        constraints = x509.BasicConstraints(ca=spec.is_ca, path_length=spec.path_length)
        builder = builder.add_extension(constraints, critical=spec.has_critical_constraints)
    if spec.usages is not None:
        usage = x509.KeyUsage(**{name: name in spec.usages for name in _USAGES})
        builder = builder.add_extension(usage, critical=spec.has_critical_usage)
    for extension, is_critical in spec.extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    certificate = builder.sign(signer, spec.hash).public_bytes(Encoding.DER)
    return certificate if spec.edit is None else _edited(certificate, spec, signer)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _edited(certificate: bytes, spec: Certificate, signer: Key) -> bytes:
    """The certificate with its TBSCertificate changed, and signed again."""
    tbs, algorithm, _ = der_elements(der_content(certificate))
    assert spec.edit is not None
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    changed = der(0x30, b"".join(spec.edit(der_elements(der_content(tbs)))))
    signature = signer.sign(changed, ec.ECDSA(spec.hash))
    return der(0x30, changed + algorithm + der(0x03, b"\x00" + signature))


def der(tag: int, content: bytes) -> bytes:
    """One element of DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def der_content(element: bytes) -> bytes:
    """What is in an element."""
    return element[_header_bytes(element) :]


def der_elements(content: bytes) -> list[bytes]:
    """The elements that stand one behind the other."""
    found = []
    while content:
        header = _header_bytes(content)
        long = content[1] & 0x7F if content[1] & 0x80 else 0
        size = int.from_bytes(content[2 : 2 + long], "big") if long else content[1]
        found.append(content[: header + size])
        content = content[header + size :]
    return found


def _header_bytes(element: bytes) -> int:
    return 2 + (element[1] & 0x7F if element[1] & 0x80 else 0)
