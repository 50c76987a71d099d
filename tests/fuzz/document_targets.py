"""Targets: attestation documents as they are taken apart, and their payloads.

For a million documents: `python -m tests.fuzz.run --target attestation_document --runs 1000000`.
"""

import json
from typing import Any

import cbor2

from tests.fuzz.target import Target
from tests.support.forged_documents import PROTECTED
from tests.support.raw_cbor import indefinite_map, indefinite_throughout, tagged
from tests.support.real_documents import REAL_DOCUMENTS
from vsockproxy.attestation.documents import DocumentRefused, parse_unverified
from vsockproxy.attestation.documents.cose import parse_cose_sign1
from vsockproxy.attestation.documents.payload import parse_payload


def _execute_document(data: bytes) -> str:
    try:
        document = parse_unverified(data)
    except DocumentRefused as refused:
        return outcome(refused)
    shown = document.for_display()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["verified"] is False
    assert document.claimed_time.year < 10_000
    return " ".join(name for name, value in shown.items() if value is not None)


def outcome(refused: DocumentRefused) -> str:
    """How an execution ended that refused a document."""
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


ENCODINGS = (
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
        cbor2.dumps([b"\x80", {}, b"", bytes(96)]),
        b"\x80",
        b"-----BEGIN CERTIFICATE-----",
        cbor2.dumps([PROTECTED, {}, b"", bytes(96)]).hex().encode(),
        cbor2.dumps([PROTECTED, {4: b""}, b"", bytes(96)]),
        cbor2.dumps([PROTECTED, {}, b"", bytes(95)]),
    ),
    dictionary=(
        *ENCODINGS,
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
        return outcome(refused)
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
        *ENCODINGS,
        cbor2.dumps("nitrotpm_pcrs") + b"\xa0",
        b"\x61\x80\x00",
        b"\x00\x00",
        bytes(5000),
    ),
)
