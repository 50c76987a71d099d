"""Targets: attestation documents, their payloads, and certificates signed by a trusted authority.

For a million documents: `python -m tests.fuzz.run --target attestation_document --runs 1000000`.
"""

import functools
import json
from dataclasses import replace
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fuzz.target import KIBIBYTE, Target
from tests.support.forged_documents import (
    AT,
    CHAIN,
    LEAF,
    MACHINE,
    PROTECTED,
    Certificate,
    Forge,
    der,
    der_content,
    der_elements,
)
from tests.support.raw_cbor import indefinite_map, indefinite_throughout, tagged
from tests.support.real_documents import REAL_DOCUMENTS
from vsockproxy.attestation.documents import DocumentRefused, parse_unverified
from vsockproxy.attestation.documents.chain import verify_chain
from vsockproxy.attestation.documents.cose import parse_cose_sign1
from vsockproxy.attestation.documents.payload import parse_payload


def _key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(0x5EED_0000 + number, ec.SECP384R1())


def _with_fixed_keys(*chain: Certificate) -> list[Certificate]:
    """The same keys in each run: so the same inputs."""
    return [
        replace(certificate, make_key=functools.partial(_key, number))
        for number, certificate in enumerate(chain)
    ]


_forge = functools.cache(lambda: Forge(chain=_with_fixed_keys(*CHAIN)))


def _execute_document(data: bytes) -> str:
    try:
        document = parse_unverified(data)
    except DocumentRefused as refused:
        return _outcome(refused)
    shown = document.for_display()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["verified"] is False
    assert document.claimed_time.year < 10_000
    return " ".join(name for name, value in shown.items() if value is not None)


def _outcome(refused: DocumentRefused) -> str:
    assert refused.text.isprintable()
    return f"{refused.reason} {refused.text}"


_SMALL: dict[str, Any] = {
    "module_id": "i-0-enc0",
    "digest": "SHA384",
    "timestamp": 1,
    "pcrs": {0: bytes(32)},
    "certificate": b"0",
    "cabundle": [b"0"],
}
"""As little as a document may say, so that mutations hit what there is."""


def _small(**changes: Any) -> bytes:
    payload = cbor2.dumps({**_SMALL, **changes})
    return cbor2.dumps([PROTECTED, {}, payload, bytes(96)])


_ENCODINGS = (
    b"\xff",
    b"\xf6",
    b"\xf5",
    b"\xf8\x10",
    b"\xf8\x20",
    b"\x1c",
    b"\xc2\x41\x00",
    b"\xd8\x1c",
    b"\xd8\x1d\x00",
    b"\x81" * 9,
    b"\x9f",
    b"\xbf",
    b"\x5f",
    b"\x7f",
    b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
)
"""What CBOR is made of, right and wrong."""

ATTESTATION_DOCUMENT = Target(
    "attestation_document",
    _execute_document,
    corpus=(
        REAL_DOCUMENTS["fastcrypto-indefinite-map-2025"].data,
        REAL_DOCUMENTS["base-nitro-validator-2024"].data,
        tagged(18, REAL_DOCUMENTS["evervault-debug-2022"].data),
        _small(),
        _small(public_key=b"key", user_data=b"", nonce=None),
        _small(nitrotpm_pcrs={0: bytes(32)}),
        _small(pcrs=dict.fromkeys(range(32), bytes(32))),
        _small(cabundle=[b"0"] * 8),
        indefinite_throughout([PROTECTED, {}, indefinite_map(_SMALL), bytes(96)]),
        cbor2.dumps([b"", {}, b"", bytes(96)]),
        cbor2.dumps([b"\xa0", {}, b"\xa0", b""]),
    ),
    dictionary=(
        *_ENCODINGS,
        b"\xd2",
        b"\x84",
        b"\x44\xa1\x01\x38\x22\xa0",
        b"\x44\xa1\x01\x38\x22\xa1\x04\x40",
        b"\x43\xa1\x01\x26\xa0",
        b"\x41\x80\xa0",
        b"\x58\x60" + bytes(96),
        b"\x58\x61" + bytes(97),
    ),
)


def _execute_payload(data: bytes) -> str:
    try:
        payload = parse_payload(data)
    except DocumentRefused as refused:
        return _outcome(refused)
    assert 0 < len(payload.pcrs) <= 32
    optional = ("public_key", "user_data", "nonce")
    return " ".join(("with", *(name for name in optional if getattr(payload, name) is not None)))


_FIELDS: dict[str, tuple[object, ...]] = {
    "module_id": ("", b"", None),
    "digest": ("SHA256", 384),
    "timestamp": (0, 1.5, 2**63),
    "pcrs": ({}, {31: b""}, {32: bytes(48)}, {"0": bytes(48)}, dict.fromkeys(range(33), bytes(32))),
    "certificate": (b"", bytes(1025), "text"),
    "cabundle": ([], [b""], [None], [b"0"] * 9),
    "public_key": (b"", b"key", bytes(1025)),
    "user_data": (b"", bytes(1025)),
    "nonce": (None, "text"),
}
"""What a field must not be, for the most part."""

ATTESTATION_PAYLOAD = Target(
    "attestation_payload",
    _execute_payload,
    corpus=(
        indefinite_map(_SMALL),
        indefinite_throughout(_SMALL),
        cbor2.dumps({**_SMALL, "public_key": b"key", "user_data": b"", "nonce": None}),
        parse_cose_sign1(REAL_DOCUMENTS["fastcrypto-indefinite-map-2025"].data).payload,
        parse_cose_sign1(REAL_DOCUMENTS["veracruz-2022"].data).payload,
        *(
            indefinite_map({**_SMALL, name: value})
            for name, values in _FIELDS.items()
            for value in values
        ),
    ),
    dictionary=(
        *_ENCODINGS,
        cbor2.dumps("nitrotpm_pcrs") + b"\xa0",
        b"\x61\x80\x00",
        b"\x00\x00",
        bytes(5000),
    ),
)


def _execute_certificate(data: bytes) -> str:
    """The authority signs whatever it is given, and the leaf is that."""
    forge = _forge()
    signer = forge.keys[MACHINE]
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    signature = der(0x03, b"\x00" + signer.sign(data, ec.ECDSA(hashes.SHA384())))
    certificate = der(0x30, data + _ALGORITHM + signature)
    try:
        leaf = verify_chain(certificate, _short_chain(), _short_chain(), AT)
    except DocumentRefused as refused:
        return _outcome(refused)
    assert leaf.expires_at >= AT
    return "verified"


_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040303")
"""ecdsa-with-SHA384."""


@functools.cache
def _short_chain() -> list[bytes]:
    """The instance's certificate alone, in the place of the root."""
    return [_forge().certificates[MACHINE]]


def _to_be_signed(**changes: Any) -> bytes:
    """The TBSCertificate of a leaf."""
    chain = _with_fixed_keys(CHAIN[MACHINE], replace(CHAIN[LEAF], **changes))
    certificate = Forge(chain=chain).certificates[-1]
    return der_elements(der_content(certificate))[0]


_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")

ATTESTATION_CERTIFICATE = Target(
    "attestation_certificate",
    _execute_certificate,
    corpus=(
        _to_be_signed(),
        _to_be_signed(is_ca=True),
        _to_be_signed(is_ca=None),
        _to_be_signed(usages=None),
        _to_be_signed(usages=("crl_sign",)),
        _to_be_signed(extensions=((_UNKNOWN, True),)),
        _to_be_signed(
            extensions=(
                (x509.SubjectAlternativeName([x509.DNSName("a.test")]), False),
                (x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH]), False),
                (x509.AuthorityKeyIdentifier(bytes(20), None, None), False),
            )
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
