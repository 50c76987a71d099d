"""Targets: certificates that a trusted authority signs, and whole documents with a true signature.

Mutated bytes as they are end at the first signature. Here they are signed, whatever they say, so
that all that is looked at behind a signature meets hostile bytes too.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fuzz.document_targets import ENCODINGS, outcome
from tests.fuzz.target import KIBIBYTE, Target
from tests.support.forged_documents import (
    AT,
    CHAIN,
    LEAF,
    MACHINE,
    MODULE_ID,
    PCRS,
    TIMESTAMP_MS,
    Certificate,
    Forge,
    der,
    der_content,
    der_elements,
    measurement,
)
from vsockproxy.attestation.documents import DocumentRefused, Requirements, verify_document
from vsockproxy.attestation.documents.chain import verify_chain

_CHAIN = (CHAIN[0], CHAIN[MACHINE], CHAIN[LEAF])
"""The shortest with an authority between the root and the leaf."""

_TIMES = (AT, AT - timedelta(days=1), AT + timedelta(days=1))

_ALGORITHMS = (
    bytes.fromhex("300a06082a8648ce3d040303"),  # ecdsa-with-SHA384
    bytes.fromhex("300a06082a8648ce3d040302"),  # ecdsa-with-SHA256
)
_HASHES = (hashes.SHA384(), hashes.SHA256())


def _with_fixed_key(position: int, certificate: Certificate) -> Certificate:
    """The same key in each run: so the same inputs."""

    def key() -> ec.EllipticCurvePrivateKey:
        return ec.derive_private_key(0x5EED_0000 + position, ec.SECP384R1())

    return replace(certificate, make_key=key)


def _forge(changes: dict[int, dict[str, Any]] | None = None) -> Forge:
    chain = [_with_fixed_key(position, one) for position, one in enumerate(_CHAIN)]
    return Forge(changes, chain=chain)


_unchanged = functools.cache(_forge)


def _execute_certificate(data: bytes) -> str:
    """Four bytes of circumstances, and what the authority signs: a TBSCertificate, it believes."""
    position, time, algorithm, trusts = (byte % 12 for byte in data[:4].ljust(4, b"\x00"))
    position %= len(_CHAIN)
    forge = _unchanged()
    signer = forge.keys[max(position - 1, 0)]
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    algorithm %= len(_ALGORITHMS)
    signature = signer.sign(data[4:], ec.ECDSA(_HASHES[algorithm]))
    chain = list(forge.certificates)
    chain[position] = der(0x30, data[4:] + _ALGORITHMS[algorithm] + der(0x03, b"\x00" + signature))
    at = _TIMES[time % len(_TIMES)]
    try:
        leaf = verify_chain(chain[-1], chain[:-1], chain[trusts % 2 : 1], at)
    except DocumentRefused as refused:
        return outcome(refused)
    assert leaf.expires_at >= at
    return f"verified with another at {position}"


def _certificate(position: int, circumstances: bytes = b"", **changes: Any) -> bytes:
    """An input: the circumstances, and the certificate at `position` with `changes`."""
    certificate = _forge({position: changes}).certificates[position]
    to_be_signed = der_elements(der_content(certificate))[0]
    return bytes((position,)) + circumstances.ljust(3, b"\x00") + to_be_signed


def _first_version(elements: list[bytes]) -> list[bytes]:
    """X.509 v1 has neither a version nor extensions."""
    return elements[1:-1]


def _without_serial(elements: list[bytes]) -> list[bytes]:
    """RFC 5280, section 4.1.2.2: a serial number is positive."""
    return [elements[0], der(0x02, b"\x00"), *elements[2:]]


_TOO_EARLY, _TOO_LATE = b"\x01", b"\x02"
_BY_SHA256 = b"\x00\x01"
_UNTRUSTED = b"\x00\x00\x01"
_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
_P256 = ec.derive_private_key(7, ec.SECP256R1())
_OTHER = ec.derive_private_key(7, ec.SECP384R1())

ATTESTATION_CERTIFICATE = Target(
    "attestation_certificate",
    _execute_certificate,
    corpus=(
        _certificate(0),
        _certificate(0, _UNTRUSTED),
        _certificate(1),
        _certificate(1, _TOO_EARLY),
        _certificate(1, _TOO_LATE),
        _certificate(1, _BY_SHA256, hash=hashes.SHA256()),
        _certificate(1, is_ca=False, path_length=None),
        _certificate(1, usages=("crl_sign",)),
        _certificate(1, path_length=None),
        _certificate(1, make_key=lambda: _OTHER),
        _certificate(0, path_length=0),
        _certificate(2),
        _certificate(2, is_ca=True),
        _certificate(2, is_ca=None),
        _certificate(2, usages=None),
        _certificate(2, usages=("crl_sign",)),
        _certificate(2, usages=("digital_signature", "key_cert_sign")),
        _certificate(2, extensions=((_UNKNOWN, True),)),
        _certificate(2, make_key=lambda: _P256),
        _certificate(2, issuer="another"),
        _certificate(2, edit=_first_version),
        _certificate(2, edit=_without_serial),
        _certificate(
            2,
            extensions=(
                (x509.SubjectAlternativeName([x509.DNSName("a.test")]), False),
                (x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), False),
                (x509.AuthorityKeyIdentifier(bytes(20), None, None), False),
            ),
        ),
    ),
    dictionary=(
        b"\x30\x00",
        b"\x02\x01\x00",
        b"\x02\x01\xff",
        b"\x05\x00",
        b"\x01\x01\xff",
        b"\xa0\x03\x02\x01\x00",
        b"\x06\x03\x55\x1d\x13",
        b"\x06\x03\x55\x1d\x0f",
        b"\x06\x05\x2b\x81\x04\x00\x22",
        b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
        b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
        b"\x17\x0d260301120000Z",
        b"\x18\x0f20500301120000Z",
        b"\x30\x80",
        b"\x84\xff\xff\xff\xff",
    ),
    most_memory_bytes=1024 * KIBIBYTE,
)


@functools.cache
def _requirements() -> Sequence[Requirements]:
    """What may be demanded; each input says which."""
    roots = (_unchanged().root,)
    return (
        Requirements(roots=roots),
        Requirements(roots=roots, nonce=b"nonce", user_data=b"data", public_key=b"key"),
        Requirements(roots=roots, pcrs={0: measurement(0), 8: measurement(8)}),
        Requirements(roots=roots, max_age_seconds=60.0),
        Requirements(roots=roots, max_age_seconds=60.0, allow_debug=True),
    )


def _execute_verified(data: bytes) -> str:
    """One byte says what is demanded; what follows is the map behind the certificates."""
    forge = _unchanged()
    certificates = cbor2.dumps({name: forge.fields[name] for name in ("certificate", "cabundle")})
    payload = b"\xbf" + certificates[1:] + data[1:]
    number = data[0] % len(_requirements()) if data else 0
    demanded = _requirements()[number]
    try:
        document = verify_document(forge.envelope(payload), demanded, AT)
    except DocumentRefused as refused:
        return outcome(refused)
    assert document.expires_at > AT
    assert demanded.allow_debug or not document.is_debug
    assert all(document.pcrs[index] == value for index, value in demanded.pcrs.items())
    for name in ("nonce", "user_data", "public_key"):
        assert getattr(demanded, name) in (None, getattr(document, name))
    return f"verified for {number}"


_FIELDS: dict[str, Any] = {
    "module_id": MODULE_ID,
    "digest": "SHA384",
    "timestamp": TIMESTAMP_MS,
    "pcrs": {number: PCRS[number] for number in (0, 4)},
    "public_key": b"key",
    "user_data": b"data",
    "nonce": b"nonce",
}
_DAY_MS = 86_400_000


def _document(number: int, **changes: Any) -> bytes:
    """An input: what demand `number` wants, but for `changes`; None leaves a field out."""
    fields = {name: value for name, value in (_FIELDS | changes).items() if value is not None}
    return bytes((number,)) + cbor2.dumps(fields)[1:] + b"\xff"


ATTESTATION_VERIFIED = Target(
    "attestation_verified",
    _execute_verified,
    corpus=(
        _document(0),
        _document(0, pcrs={0: bytes(48)}),
        _document(0, module_id="none"),
        _document(0, pcrs={0: measurement(0), 4: measurement(4)}),
        _document(1),
        _document(1, nonce=None),
        _document(1, nonce=b""),
        _document(1, nonce=bytes(40)),
        _document(1, user_data=b"other"),
        _document(1, public_key=None),
        _document(2),
        _document(2, pcrs={0: measurement(0), 8: measurement(8)}),
        _document(2, pcrs={0: measurement(1), 8: measurement(8)}),
        _document(3),
        _document(3, timestamp=TIMESTAMP_MS - _DAY_MS),
        _document(3, timestamp=TIMESTAMP_MS + _DAY_MS),
        _document(4, pcrs={0: bytes(48)}),
    ),
    dictionary=(*ENCODINGS, *(cbor2.dumps(name) for name in _FIELDS), measurement(0), bytes(48)),
)
