"""Documents whose bytes or whose COSE_Sign1 are wrong."""

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.forged_documents import PROTECTED, Forge
from tests.support.raw_cbor import (
    ARRAY,
    BREAK,
    BYTES,
    MAP,
    TAG,
    TEXT,
    array,
    begin,
    head,
    indefinite_map,
    pairs,
    tagged,
)
from tests.vsockproxy.attestation.documents.case import Case, around
from vsockproxy.attestation.documents import MAX_DOCUMENT_BYTES, Reason

_ES384_TWICE = pairs((b"\x01", b"\x38\x22"), (b"\x01", b"\x38\x22"))


def _items(document: bytes) -> list[bytes]:
    """The four encoded items of a document."""
    return [cbor2.dumps(item) for item in cbor2.loads(document)]


def _with_item(position: int, item: bytes) -> Case:
    def make(forge: Forge) -> bytes:
        items = _items(forge.document())
        items[position] = item
        return array(*items)

    return Case(make, Reason.NOT_COSE_SIGN1, "no array of protected header, map, payload")


def _protected(header: bytes, reason: Reason, text: str = "") -> Case:
    return Case(lambda forge: forge.envelope(forge.payload(), header), reason, text)


def _unprotected(item: bytes, reason: Reason, text: str = "") -> Case:
    def make(forge: Forge) -> bytes:
        protected, _, payload, signature = _items(forge.document())
        return array(protected, item, payload, signature)

    return Case(make, reason, text)


def _signature(signature: bytes, reason: Reason, text: str) -> Case:
    def make(forge: Forge) -> bytes:
        return cbor2.dumps([PROTECTED, {}, forge.payload(), signature])

    return Case(make, reason, text)


def _signed(forge: Forge, signature: bytes) -> bytes:
    return cbor2.dumps([PROTECTED, {}, forge.payload(), signature])


def _changed(**changes: object) -> Case:
    """What was signed says something else."""

    def make(forge: Forge) -> bytes:
        return cbor2.dumps([PROTECTED, {}, forge.payload(**changes), forge.sign(forge.payload())])

    return Case(make, Reason.BAD_SIGNATURE, "did not sign this document")


def _reordered(forge: Forge) -> bytes:
    payload = cbor2.dumps(dict(reversed(forge.fields.items())))
    return cbor2.dumps([PROTECTED, {}, payload, forge.sign(forge.payload())])


def _indefinite(forge: Forge) -> bytes:
    payload = indefinite_map(forge.fields)
    return cbor2.dumps([PROTECTED, {}, payload, forge.sign(forge.payload())])


def _definite(forge: Forge) -> bytes:
    signature = forge.sign(indefinite_map(forge.fields))
    return cbor2.dumps([PROTECTED, {}, forge.payload(), signature])


def _long_heads(forge: Forge) -> bytes:
    items = ((cbor2.dumps(key), cbor2.dumps(value)) for key, value in forge.fields.items())
    payload = head(MAP, 9, size=4) + b"".join(key + value for key, value in items)
    return cbor2.dumps([PROTECTED, {}, payload, forge.sign(forge.payload())])


def _swapped_halves(forge: Forge) -> bytes:
    signature = forge.sign(forge.payload())
    return _signed(forge, signature[48:] + signature[:48])


def _in_der(forge: Forge) -> bytes:
    key = forge.keys[-1]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return _signed(forge, key.sign(forge.payload(), ec.ECDSA(hashes.SHA384())))


BYTES_OF_IT = {
    "nothing": Case(lambda forge: b"", Reason.TRUNCATED, "ends after 0 bytes"),
    "text": Case(lambda forge: b"-----BEGIN", Reason.NOT_COSE_SIGN1, "byte 0x2d begins"),
    "JSON": Case(lambda forge: b'{"document": 1}', Reason.NOT_COSE_SIGN1, "byte 0x7b"),
    "zeros": Case(lambda forge: bytes(100), Reason.NOT_COSE_SIGN1, "byte 0x00"),
    "too many bytes": Case(
        lambda forge: forge.document() + bytes(MAX_DOCUMENT_BYTES), Reason.TOO_LARGE, "20480"
    ),
    "the first byte alone": Case(lambda forge: b"\x84", Reason.TRUNCATED, "after 1 bytes"),
    "the tag alone": Case(lambda forge: b"\xd2", Reason.TRUNCATED, "after 1 bytes"),
    "one byte less": Case(around(lambda data: data[:-1]), Reason.TRUNCATED, "in the middle"),
    "one byte more": Case(
        around(lambda data: data + b"\0"), Reason.TRAILING_BYTES, "1 bytes stand"
    ),
    "two documents": Case(around(lambda data: data * 2), Reason.TRAILING_BYTES, "the document"),
    "a break behind": Case(around(lambda data: data + BREAK), Reason.TRAILING_BYTES),
    "an array without end": Case(
        around(lambda data: begin(ARRAY) + data[1:]), Reason.TRUNCATED, "in the middle"
    ),
    "a reserved length": Case(
        around(lambda data: b"\x9c" + data[1:]), Reason.MALFORMED_CBOR, "reserved length 28"
    ),
    "an array of 2^63 items": Case(
        around(lambda data: head(ARRAY, 2**63) + data[1:]), Reason.TRUNCATED
    ),
    "an array of 2^16 items": Case(
        around(lambda data: head(ARRAY, 2**16) + data[1:]), Reason.TRUNCATED
    ),
    "a header of 2^63 bytes": Case(
        around(lambda data: data[:1] + head(BYTES, 2**63) + data[2:]), Reason.TRUNCATED
    ),
    "a header of 2^64 - 1 bytes": Case(
        around(lambda data: data[:1] + head(BYTES, 2**64 - 1) + data[2:]), Reason.TRUNCATED
    ),
    "a break for an item": Case(
        around(lambda data: data[:6] + BREAK + data[7:]), Reason.MALFORMED_CBOR, "without a beginn"
    ),
    "a string of other chunks": _unprotected(
        begin(BYTES) + b"\x61a" + BREAK, Reason.MALFORMED_CBOR, "string of other things"
    ),
    "a string of strings without end": _unprotected(
        begin(TEXT) + begin(TEXT) + b"\x61a" + BREAK * 2, Reason.MALFORMED_CBOR, "string of other"
    ),
    "a number without end": _unprotected(
        begin(0) + BREAK, Reason.MALFORMED_CBOR, "without a beginning"
    ),
    "a simple value in two bytes": _unprotected(
        b"\xf8\x14", Reason.MALFORMED_CBOR, "short simple value"
    ),
    "too many levels": _unprotected(
        b"\x81" * 8 + b"\x00", Reason.NESTED_TOO_DEEP, "more than 8 levels"
    ),
    "a thousand levels": _unprotected(b"\x81" * 1000 + b"\x00", Reason.NESTED_TOO_DEEP),
    "too many levels without end": _unprotected(
        begin(ARRAY) * 1000 + b"\x00", Reason.NESTED_TOO_DEEP
    ),
}

TAGS = {
    **{
        f"tag {tag} around": Case(
            around(lambda data, tag=tag: tagged(tag, data)),  # type: ignore[misc]  # mypy has no type for a lambda's default
            Reason.UNEXPECTED_TAG,
            "another tag than 18",
        )
        for tag in (0, 1, 2, 3, 4, 16, 17, 19, 24, 28, 61, 97, 98, 256, 55799, 2**64 - 1)
    },
    "tag 18 twice": Case(
        around(lambda data: b"\xd2\xd2" + data), Reason.UNEXPECTED_TAG, "or more than one"
    ),
    "tag 18 with a longer head": Case(
        around(lambda data: head(TAG, 18, size=1) + data), Reason.UNEXPECTED_TAG
    ),
    "a tag around the header": Case(
        around(lambda data: data[:1] + tagged(24, data[1:])), Reason.UNEXPECTED_TAG, "tag inside"
    ),
    "a shared reference around the map": _unprotected(
        tagged(28, b"\xa0"), Reason.UNEXPECTED_TAG, "tag inside"
    ),
    "a circle": _unprotected(
        tagged(28, array(tagged(29, b"\x00"))), Reason.UNEXPECTED_TAG, "tag inside"
    ),
}

ENVELOPES = {
    "three items": Case(lambda forge: array(*_items(forge.document())[:3]), Reason.NOT_COSE_SIGN1),
    "five items": Case(
        lambda forge: array(*_items(forge.document()), b"\xf6"), Reason.NOT_COSE_SIGN1
    ),
    "no items": Case(lambda forge: b"\x80", Reason.NOT_COSE_SIGN1),
    "a map": Case(
        lambda forge: pairs(
            *((bytes((n,)), item) for n, item in enumerate(_items(forge.document())))
        ),
        Reason.NOT_COSE_SIGN1,
        "byte 0xa4 begins no document",
    ),
    "PEM": Case(lambda forge: forge.root_pem(), Reason.NOT_COSE_SIGN1, "this is PEM, no document"),
    "the payload alone": Case(lambda forge: forge.payload(), Reason.NOT_COSE_SIGN1, "byte 0xa9"),
    "a protected header as a map": _with_item(0, b"\xa1\x01\x38\x22"),
    "a protected header as text": _with_item(0, b"\x64abcd"),
    "no unprotected header": _with_item(1, b"\xf6"),
    "an unprotected header as an array": _with_item(1, b"\x80"),
    "an unprotected header as bytes": _with_item(1, b"\x40"),
    "a detached payload": _with_item(2, b"\xf6"),
    "a payload as text": _with_item(2, b"\x61a"),
    "a payload as a map": _with_item(2, b"\xa0"),
    "a signature as text": _with_item(3, head(TEXT, 96) + b"a" * 96),
    "a signature of null": _with_item(3, b"\xf6"),
    "several signatures": _with_item(3, array(b"\x40", b"\x40")),
    "no protected header": _protected(b"", Reason.WRONG_ALGORITHM, "the algorithm is None"),
    "an empty protected header": _protected(b"\xa0", Reason.WRONG_ALGORITHM, "is None"),
    "ES256": _protected(b"\xa1\x01\x26", Reason.WRONG_ALGORITHM, "is -7, ES384 is -35"),
    "ES512": _protected(b"\xa1\x01\x38\x23", Reason.WRONG_ALGORITHM, "is -36"),
    "no algorithm, as from QEMU": _protected(b"\xa1\x01\x20", Reason.WRONG_ALGORITHM, "is -1"),
    "the algorithm as text": _protected(b"\xa1\x01\x65ES384", Reason.WRONG_ALGORITHM, "is 'ES384'"),
    "the algorithm as a float": _protected(
        cbor2.dumps({1: -35.0}), Reason.WRONG_ALGORITHM, "is -35.0"
    ),
    "the algorithm as a bignum": _protected(
        b"\xa1\x01\xc3\x41\x22", Reason.UNEXPECTED_TAG, "protected header has a tag"
    ),
    "true for the key of the algorithm": _protected(
        b"\xa1\xf5\x38\x22", Reason.WRONG_ALGORITHM, "is None"
    ),
    "the key of the algorithm as text": _protected(
        b"\xa1\x611\x38\x22", Reason.WRONG_ALGORITHM, "is None"
    ),
    "a protected header as an array in bytes": _protected(
        b"\x82\x01\x38\x22", Reason.NOT_COSE_SIGN1, "header is no map"
    ),
    "the algorithm twice": _protected(_ES384_TWICE, Reason.DUPLICATE_KEY, "protected header"),
    "the algorithm twice, differently": _protected(
        pairs((b"\x01", b"\x26"), (b"\x01", b"\x38\x22")), Reason.DUPLICATE_KEY
    ),
    "bytes behind the protected header": _protected(
        PROTECTED + b"\x00", Reason.TRAILING_BYTES, "behind the protected header"
    ),
    "a cut protected header": _protected(PROTECTED[:-1], Reason.TRUNCATED, "protected header"),
    "critical header parameters": _protected(
        cbor2.dumps({1: -35, 2: [4], 4: b"key"}), Reason.UNEXPECTED_HEADER, "more in it"
    ),
    "a key id, protected": _protected(cbor2.dumps({1: -35, 4: b"k"}), Reason.UNEXPECTED_HEADER, ""),
    "a key id, unprotected": _unprotected(
        cbor2.dumps({4: b"key"}), Reason.UNEXPECTED_HEADER, "more in it"
    ),
    "the algorithm, unprotected too": _unprotected(cbor2.dumps({1: -35}), Reason.UNEXPECTED_HEADER),
    "an unprotected key twice": _unprotected(
        pairs((b"\x04", b"\x41k"), (b"\x04", b"\x41k")), Reason.DUPLICATE_KEY, "the document"
    ),
}

SIGNATURES = {
    "a signature of 95 bytes": _signature(bytes(95), Reason.SIGNATURE_LENGTH, "95 bytes"),
    "a signature of 97 bytes": _signature(bytes(97), Reason.SIGNATURE_LENGTH, "97 bytes"),
    "no signature": _signature(b"", Reason.SIGNATURE_LENGTH, "0 bytes"),
    "a signature in DER": Case(_in_der, Reason.SIGNATURE_LENGTH, "ES384 has 96"),
    "a signature of zeros": _signature(bytes(96), Reason.BAD_SIGNATURE, "did not sign"),
    "a signature of ones": _signature(b"\xff" * 96, Reason.BAD_SIGNATURE, "did not sign"),
    "r and s swapped": Case(_swapped_halves, Reason.BAD_SIGNATURE),
    "a signature by the instance's key": Case(
        lambda forge: _signed(forge, forge.sign(forge.payload(), key=forge.keys[-2])),
        Reason.BAD_SIGNATURE,
    ),
    "a signature by a key of the signer's choice": Case(
        lambda forge: _signed(
            forge, forge.sign(forge.payload(), key=ec.generate_private_key(ec.SECP384R1()))
        ),
        Reason.BAD_SIGNATURE,
    ),
    "a signature over SHA-256": Case(
        lambda forge: _signed(forge, forge.sign(forge.payload(), hash_algorithm=hashes.SHA256())),
        Reason.BAD_SIGNATURE,
    ),
    "a signature for another structure": Case(
        lambda forge: _signed(forge, forge.sign(forge.payload(), context="Signature")),
        Reason.BAD_SIGNATURE,
    ),
    "a signature over another header": Case(
        lambda forge: _signed(forge, forge.sign(forge.payload(), b"\xa0")), Reason.BAD_SIGNATURE
    ),
    "the payload re-encoded, indefinite": Case(_indefinite, Reason.BAD_SIGNATURE),
    "the payload re-encoded, definite": Case(_definite, Reason.BAD_SIGNATURE),
    "the payload re-encoded, with longer heads": Case(_long_heads, Reason.BAD_SIGNATURE),
    "the payload in another order": Case(_reordered, Reason.BAD_SIGNATURE),
    "another timestamp": _changed(timestamp=1_772_366_400_001),
    "another nonce": _changed(nonce=b"fresh"),
    "another public key": _changed(public_key=b"mine"),
    "empty user data for none": _changed(user_data=b""),
    "a measurement more": _changed(pcrs={0: bytes(48)}),
    "one field more": _changed(more=1),
}
