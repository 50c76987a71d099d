"""Documents that are signed, and whose payload is not that of an attestation document."""

from collections.abc import Callable
from typing import Any

import cbor2

from tests.support.forged_documents import PCRS, TIMESTAMP_MS, Forge
from tests.support.raw_cbor import BREAK, BYTES, MAP, TEXT, array, begin, head, pairs, tagged
from tests.vsockproxy.attestation.documents.case import Case, with_fields, with_payload
from vsockproxy.attestation.documents import Reason

MANDATORY = ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")
OPTIONAL = ("public_key", "user_data", "nonce")


def _without(name: str) -> Callable[[Forge], bytes]:
    def make(forge: Forge) -> bytes:
        del forge.fields[name]
        return forge.document()

    return make


def _twice(name: str, *, value: bytes | None = None) -> Callable[[Forge], bytes]:
    """A field that is there twice, the second time with `value` or the same."""

    def make(forge: Forge) -> bytes:
        items = [(cbor2.dumps(key), cbor2.dumps(each)) for key, each in forge.fields.items()]
        again = cbor2.dumps(forge.fields[name]) if value is None else value
        return forge.envelope(pairs(*items, (cbor2.dumps(name), again)))

    return make


def _encoded(name: str, value: bytes) -> Callable[[Forge], bytes]:
    """A field whose value is encoded by hand."""

    def make(forge: Forge) -> bytes:
        items = [
            (cbor2.dumps(key), value if key == name else cbor2.dumps(each))
            for key, each in forge.fields.items()
        ]
        return forge.envelope(pairs(*items))

    return make


def _pcrs(*items: tuple[bytes, bytes]) -> Callable[[Forge], bytes]:
    """Measurements whose keys and values are encoded by hand."""
    return _encoded("pcrs", pairs(*items))


def _bundle(change: Callable[[list[Any]], list[Any]]) -> Callable[[Forge], bytes]:
    return lambda forge: forge.document(cabundle=change(list(forge.certificates[:-1])))


def _nitrotpm(forge: Forge) -> bytes:
    forge.fields["nitrotpm_pcrs"] = forge.fields.pop("pcrs")
    return forge.document()


_ZERO = cbor2.dumps(bytes(48))

PAYLOADS = {
    "an empty payload": Case(with_payload(lambda _: b""), Reason.FIELD_SIZE, "payload of 0 bytes"),
    "a payload of 16,385 bytes": Case(
        with_payload(lambda _: bytes(16_385)), Reason.FIELD_SIZE, "payload of 16385 bytes"
    ),
    "bytes behind the payload": Case(
        with_payload(lambda data: data + b"\x00"), Reason.TRAILING_BYTES, "behind the payload"
    ),
    "two payloads": Case(with_payload(lambda data: data * 2), Reason.TRAILING_BYTES),
    "a cut payload": Case(with_payload(lambda data: data[:-1]), Reason.TRUNCATED, "the payload"),
    "a map without end": Case(
        with_payload(lambda data: begin(MAP) + data[1:]), Reason.TRUNCATED, "the payload"
    ),
    "a map that ends behind a key": Case(
        with_payload(lambda data: begin(MAP) + data[1:] + b"\x61a" + BREAK),
        Reason.MALFORMED_CBOR,
        "without a beginning",
    ),
    "a map of 2^63 entries": Case(
        with_payload(lambda data: head(MAP, 2**63) + data[1:]), Reason.TRUNCATED
    ),
    "a tag around the payload": Case(
        with_payload(lambda data: tagged(18, data)), Reason.UNEXPECTED_TAG, "the payload"
    ),
    "a self-described payload": Case(
        with_payload(lambda data: tagged(55799, data)), Reason.UNEXPECTED_TAG
    ),
    "an array": Case(with_payload(lambda _: b"\x80"), Reason.NOT_A_DOCUMENT, "no map"),
    "null": Case(with_payload(lambda _: b"\xf6"), Reason.NOT_A_DOCUMENT, "no map"),
    "a payload in bytes": Case(with_payload(cbor2.dumps), Reason.NOT_A_DOCUMENT, "no map"),
    "an empty map": Case(with_payload(lambda _: b"\xa0"), Reason.MISSING_FIELD, "no module_id"),
    "numbers for names": Case(
        lambda forge: forge.envelope(cbor2.dumps(dict(enumerate(forge.fields.values())))),
        Reason.NOT_A_DOCUMENT,
        "no map with names as keys",
    ),
    "one number among the names": Case(
        with_payload(lambda data: b"\xaa\x00\x00" + data[1:]), Reason.NOT_A_DOCUMENT, "as keys"
    ),
    "bad UTF-8 in a name": Case(
        with_payload(lambda data: b"\xaa\x62\xc3\x28\x00" + data[1:]),
        Reason.MALFORMED_CBOR,
        "UTF-8",
    ),
    "an array without end": Case(
        _encoded("cabundle", b"\x9b" + b"\xff" * 8), Reason.TRUNCATED, "the payload"
    ),
    "seven levels in an unknown field": Case(
        with_payload(lambda data: b"\xaa\x61x" + b"\x81" * 8 + b"\x00" + data[1:]),
        Reason.NESTED_TOO_DEEP,
        "the payload",
    ),
    "a document of NitroTPM": Case(_nitrotpm, Reason.NITROTPM_DOCUMENT, "virtual machine"),
    "a document of both": Case(
        with_fields(nitrotpm_pcrs=PCRS), Reason.NITROTPM_DOCUMENT, "not of an enclave"
    ),
    "a document of NitroTPM that says null": Case(
        with_fields(nitrotpm_pcrs=None), Reason.NITROTPM_DOCUMENT
    ),
}
NAMES = {
    **{
        f"no {name}": Case(_without(name), Reason.MISSING_FIELD, f"there is no {name}")
        for name in MANDATORY
    },
    **{
        f"null for {name}": Case(_encoded(name, b"\xf6"), Reason.NULL_FIELD, f"{name} is null")
        for name in MANDATORY
    },
    **{
        f"{name} twice": Case(_twice(name), Reason.DUPLICATE_KEY, "the payload has a key twice")
        for name in (*MANDATORY, *OPTIONAL)
    },
    "a nonce after null": Case(_twice("nonce", value=b"\x41n"), Reason.DUPLICATE_KEY),
    "other measurements, later": Case(_twice("pcrs", value=b"\xa0"), Reason.DUPLICATE_KEY),
    "an unknown field twice": Case(
        with_payload(lambda data: b"\xab\x61x\x00\x61x\x00" + data[1:]), Reason.DUPLICATE_KEY
    ),
    "a name in another case": Case(
        with_payload(lambda data: data.replace(b"\x69module_id", b"\x69Module_id")),
        Reason.MISSING_FIELD,
        "no module_id",
    ),
}

TYPES = {
    "module_id as bytes": Case(
        with_fields(module_id=b"i-0"), Reason.WRONG_TYPE, "module_id is bytes, not text"
    ),
    "module_id undefined": Case(
        _encoded("module_id", b"\xf7"), Reason.WRONG_TYPE, "module_id is something else"
    ),
    "an empty module_id": Case(with_fields(module_id=""), Reason.FIELD_SIZE, "module_id is empty"),
    "bad UTF-8 in module_id": Case(
        _encoded("module_id", b"\x62\xc3\x28"), Reason.MALFORMED_CBOR, "UTF-8"
    ),
    "module_id as text in chunks of bytes": Case(
        _encoded("module_id", begin(TEXT) + b"\x41a" + BREAK), Reason.MALFORMED_CBOR, "string of"
    ),
    "digest as bytes": Case(with_fields(digest=b"SHA384"), Reason.WRONG_TYPE, "digest is bytes"),
    "digest as a number": Case(with_fields(digest=384), Reason.WRONG_TYPE, "digest is an integer"),
    "another digest": Case(with_fields(digest="SHA256"), Reason.WRONG_DIGEST, "'SHA256'"),
    "the digest in another case": Case(with_fields(digest="sha384"), Reason.WRONG_DIGEST, ""),
    "the digest and a space": Case(with_fields(digest="SHA384 "), Reason.WRONG_DIGEST, ""),
    "an empty digest": Case(with_fields(digest=""), Reason.WRONG_DIGEST, ""),
    "timestamp as text": Case(
        with_fields(timestamp=str(TIMESTAMP_MS)), Reason.WRONG_TYPE, "timestamp is text"
    ),
    "timestamp as a float": Case(
        with_fields(timestamp=float(TIMESTAMP_MS)), Reason.WRONG_TYPE, "timestamp is a float"
    ),
    "true for a timestamp": Case(
        with_fields(timestamp=True), Reason.WRONG_TYPE, "timestamp is a boolean, not an integer"
    ),
    "a simple value for a timestamp": Case(
        _encoded("timestamp", b"\xe0"), Reason.WRONG_TYPE, "timestamp is something else"
    ),
    "timestamp as a date in text": Case(
        _encoded("timestamp", tagged(0, cbor2.dumps("2026-03-01T12:00:00Z"))), Reason.UNEXPECTED_TAG
    ),
    "timestamp as seconds": Case(
        _encoded("timestamp", tagged(1, cbor2.dumps(1_772_366_400))), Reason.UNEXPECTED_TAG
    ),
    "timestamp as a bignum": Case(
        _encoded("timestamp", tagged(2, cbor2.dumps(TIMESTAMP_MS.to_bytes(8)))),
        Reason.UNEXPECTED_TAG,
    ),
    "timestamp as a negative bignum": Case(
        _encoded("timestamp", tagged(3, b"\x41\x00")), Reason.UNEXPECTED_TAG
    ),
    "a shared timestamp": Case(
        _encoded("timestamp", tagged(28, cbor2.dumps(TIMESTAMP_MS))), Reason.UNEXPECTED_TAG
    ),
    "a reference to nothing": Case(_encoded("nonce", tagged(29, b"\x00")), Reason.UNEXPECTED_TAG),
    "a timestamp of zero": Case(with_fields(timestamp=0), Reason.OUT_OF_RANGE, "timestamp is 0"),
    "a timestamp before 1970": Case(with_fields(timestamp=-1), Reason.OUT_OF_RANGE, "is -1"),
    "a timestamp after the year 9999": Case(
        with_fields(timestamp=253_402_300_800_000), Reason.OUT_OF_RANGE, "timestamp is"
    ),
    "the last timestamp": Case(with_fields(timestamp=2**64 - 1), Reason.OUT_OF_RANGE, "is 184"),
    "public_key as text": Case(
        with_fields(public_key="key"), Reason.WRONG_TYPE, "public_key is text, not bytes"
    ),
    "false for a public_key": Case(
        with_fields(public_key=False), Reason.WRONG_TYPE, "is a boolean"
    ),
    "an undefined public_key": Case(_encoded("public_key", b"\xf7"), Reason.WRONG_TYPE, ""),
    "an empty public_key": Case(
        with_fields(public_key=b""), Reason.FIELD_SIZE, "public_key has 0 bytes, 1 to 1024"
    ),
    "a public_key of 1,025 bytes": Case(
        with_fields(public_key=bytes(1025)), Reason.FIELD_SIZE, "public_key has 1025 bytes"
    ),
    "user_data as an array": Case(
        with_fields(user_data=[1]), Reason.WRONG_TYPE, "user_data is an array"
    ),
    "user_data of 1,025 bytes": Case(
        with_fields(user_data=bytes(1025)), Reason.FIELD_SIZE, "user_data has 1025 bytes, 0 to"
    ),
    "user_data in a tag": Case(
        _encoded("user_data", tagged(24, b"\x41a")), Reason.UNEXPECTED_TAG, "the payload"
    ),
    "true for a nonce": Case(with_fields(nonce=True), Reason.WRONG_TYPE, "nonce is a boolean"),
    "a nonce as text": Case(with_fields(nonce="nonce"), Reason.WRONG_TYPE, "nonce is text"),
    "a nonce of 1,025 bytes": Case(
        with_fields(nonce=bytes(1025)), Reason.FIELD_SIZE, "nonce has 1025 bytes"
    ),
    "a nonce of text chunks": Case(
        _encoded("nonce", begin(BYTES) + b"\x61a" + BREAK), Reason.MALFORMED_CBOR, "string of"
    ),
}

MEASUREMENTS = {
    "measurements as an array": Case(
        with_fields(pcrs=[bytes(48)] * 16), Reason.WRONG_TYPE, "pcrs is an array, not a map"
    ),
    "no measurements": Case(with_fields(pcrs={}), Reason.FIELD_SIZE, "pcrs has 0 entries"),
    "33 measurements": Case(
        with_fields(pcrs=dict.fromkeys(range(33), bytes(48))), Reason.FIELD_SIZE, "33 entries"
    ),
    "PCR32": Case(with_fields(pcrs={32: bytes(48)}), Reason.OUT_OF_RANGE, "there is no PCR32"),
    "PCR-1": Case(with_fields(pcrs={-1: bytes(48)}), Reason.OUT_OF_RANGE, "there is no PCR-1"),
    "a number as text": Case(
        with_fields(pcrs={"0": bytes(48)}),
        Reason.WRONG_TYPE,
        "a key of pcrs is text, not an integer",
    ),
    "true for a number": Case(
        _pcrs((b"\xf5", _ZERO)), Reason.WRONG_TYPE, "is a boolean, not an integer"
    ),
    "a number as a float": Case(
        _pcrs((b"\xf9\x3c\x00", _ZERO)), Reason.WRONG_TYPE, "is a float, not an integer"
    ),
    "null for a number": Case(_pcrs((b"\xf6", _ZERO)), Reason.WRONG_TYPE, "is null"),
    "a number as an array": Case(_pcrs((b"\x81\x00", _ZERO)), Reason.WRONG_TYPE, "is an array"),
    "a number as a bignum": Case(_pcrs((b"\xc2\x41\x00", _ZERO)), Reason.UNEXPECTED_TAG, ""),
    "PCR0 twice": Case(_pcrs((b"\x00", _ZERO), (b"\x00", _ZERO)), Reason.DUPLICATE_KEY, ""),
    "PCR0 twice, in two lengths": Case(
        _pcrs((b"\x00", _ZERO), (b"\x18\x00", _ZERO)), Reason.DUPLICATE_KEY, ""
    ),
    "PCR1 and true": Case(_pcrs((b"\x01", _ZERO), (b"\xf5", _ZERO)), Reason.DUPLICATE_KEY, ""),
    "a measurement as text": Case(
        with_fields(pcrs={0: "0" * 48}), Reason.WRONG_TYPE, "PCR0 is text, not bytes"
    ),
    "a measurement of null": Case(with_fields(pcrs={7: None}), Reason.WRONG_TYPE, "PCR7 is null"),
    "a measurement of 47 bytes": Case(
        with_fields(pcrs={**PCRS, 15: bytes(47)}), Reason.FIELD_SIZE, "PCR15 has 47 bytes"
    ),
    "a measurement of 49 bytes": Case(
        with_fields(pcrs={0: bytes(49)}), Reason.FIELD_SIZE, "PCR0 has 49 bytes"
    ),
    "a measurement without bytes": Case(
        with_fields(pcrs={0: b""}), Reason.FIELD_SIZE, "PCR0 has 0 bytes"
    ),
}

CERTIFICATES_AS_FIELDS = {
    "certificate as text": Case(
        with_fields(certificate="-----BEGIN"), Reason.WRONG_TYPE, "certificate is text"
    ),
    "certificate as an array": Case(
        lambda forge: forge.document(certificate=[forge.certificates[-1]]),
        Reason.WRONG_TYPE,
        "certificate is an array",
    ),
    "an empty certificate": Case(
        with_fields(certificate=b""), Reason.FIELD_SIZE, "certificate has 0 bytes"
    ),
    "a certificate of 1,025 bytes": Case(
        with_fields(certificate=bytes(1025)), Reason.FIELD_SIZE, "certificate has 1025 bytes"
    ),
    "cabundle as bytes": Case(
        lambda forge: forge.document(cabundle=forge.root), Reason.WRONG_TYPE, "cabundle is bytes"
    ),
    "cabundle as a map": Case(with_fields(cabundle={}), Reason.WRONG_TYPE, "cabundle is a map"),
    "an empty cabundle": Case(with_fields(cabundle=[]), Reason.FIELD_SIZE, "cabundle has 0 entr"),
    "nine certificates in the cabundle": Case(
        _bundle(lambda bundle: [*bundle, *[bundle[-1]] * 5]), Reason.FIELD_SIZE, "has 9 entries"
    ),
    "null in the cabundle": Case(
        _bundle(lambda bundle: [*bundle, None]), Reason.WRONG_TYPE, "cabundle[4] is null"
    ),
    "text in the cabundle": Case(
        _bundle(lambda bundle: ["root", *bundle]), Reason.WRONG_TYPE, "cabundle[0] is text"
    ),
    "an array in the cabundle": Case(
        _bundle(lambda bundle: [bundle]), Reason.WRONG_TYPE, "cabundle[0] is an array"
    ),
    "nothing in the cabundle": Case(
        _bundle(lambda bundle: [*bundle, b""]), Reason.FIELD_SIZE, "cabundle[4] has 0 bytes"
    ),
    "1,025 bytes in the cabundle": Case(
        _bundle(lambda bundle: [*bundle, bytes(1025)]), Reason.FIELD_SIZE, "cabundle[4] has 1025"
    ),
    "an array within the cabundle, by hand": Case(
        _encoded("cabundle", array(array(b"\x40"))), Reason.WRONG_TYPE, "cabundle[0] is an array"
    ),
}
