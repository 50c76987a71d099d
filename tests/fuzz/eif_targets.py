"""Target: an enclave image file, and the signature in it."""

import random
import zlib
from collections.abc import Iterable
from itertools import pairwise

import cbor2

from tests.fuzz.target import Target
from tests.support.eif_files import SIGNATURE, Signer, make_eif, pcrs_of, signature_section
from vsockproxy.attestation.eif import EifRefused, Header
from vsockproxy.attestation.eif_reader import EifImage, EifReader
from vsockproxy.attestation.eif_signature import (
    MAX_SIGNATURE_BYTES,
    parse_cose,
    parse_signature,
)
from vsockproxy.attestation.eif_verification import SignatureRefused, verify_signature

_HEADER_BYTES = 548
_CUTS = 4
_SIGNER = Signer("ES256")


def _cut(data: bytes) -> list[bytes]:
    """A few pieces, as the checksum says: single bytes would be most of the time."""
    choice = random.Random(zlib.crc32(data))
    places = [0, *sorted(choice.randrange(len(data) + 1) for _ in range(_CUTS)), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def _read(pieces: Iterable[bytes]) -> EifImage | str:
    reader = EifReader()
    try:
        for piece in pieces:
            reader.receive(piece)
        return reader.finish()
    except EifRefused as error:
        return error.what


def _execute(data: bytes) -> str:
    """Read as it is, and once more with the checksum made right, which no mutation finds."""
    outcome = _read([data])
    if isinstance(outcome, str) and outcome.startswith("the checksum is "):
        # The text ends in what is right.
        right = bytes.fromhex(outcome.partition("bytes ")[2][:8])
        data = data[: _HEADER_BYTES - 4] + right + data[_HEADER_BYTES:]
        outcome = _read([data])
    assert _read(_cut(data)) == outcome
    if isinstance(outcome, str):
        assert outcome.isprintable()
        return outcome
    assert len(data) == outcome.sections[-1].end
    assert Header.parse(data[:_HEADER_BYTES]).places[0][0] == _HEADER_BYTES
    try:
        verify_signature(outcome)
    except SignatureRefused as error:
        return str(error)
    return "verified"


def _execute_signature(data: bytes) -> str:
    try:
        signature = parse_signature(data, 0)
        assert len(signature.certificate) <= len(data)
        data = signature.cose
    except EifRefused as error:
        section = str(error)
    else:
        section = "a section"
    try:
        cose = parse_cose(data)
    except ValueError as error:
        return f"{section}, {error}"
    return f"{section}, {len(cose.register_value)} bytes"


_SMALL = ((1, b"kernel"), (2, b"quiet"), (5, b"{}"), (3, b"init"), (3, b"app"))
_SIGNED = (*_SMALL, (SIGNATURE, _SIGNER.section(_SMALL)))
_SMALL_PCR0 = pcrs_of(_SMALL)[0]


def _signed_with(cose: bytes, pem: bytes = _SIGNER.pem) -> bytes:
    return make_eif((*_SMALL, (SIGNATURE, signature_section(pem, cose))))


def _with_a_long_signature() -> bytes:
    """One whose header and section say so, without the bytes: small inputs are fuzzed faster."""
    size = (MAX_SIGNATURE_BYTES + 1).to_bytes(8, "big")
    data = make_eif((*_SMALL, (SIGNATURE, b"")), sizes={len(_SMALL): MAX_SIGNATURE_BYTES + 1})
    return data[:-8] + size


EIF = Target(
    "eif",
    _execute,
    corpus=(
        make_eif(_SMALL),
        make_eif(_SIGNED),
        _signed_with(_SIGNER.cose(_SMALL_PCR0, index=1)),
        _signed_with(_SIGNER.cose(_SMALL_PCR0, algorithm=-37)),
        _signed_with(_SIGNER.cose(_SMALL_PCR0)[:-1] + b"\x00"),
        _signed_with(Signer("ES384").cose(_SMALL_PCR0)),
        _signed_with(b""),
        _signed_with(
            _SIGNER.cose(_SMALL_PCR0), Signer("a curve that images are not signed with").pem
        ),
        make_eif(_SMALL[:2]),
        make_eif((*_SMALL, _SMALL[0])),
        make_eif(_SMALL, version=3, flags=1),
        make_eif(_SMALL, crc=1),
        make_eif(_SMALL, sizes={1: 6}),
        make_eif(_SMALL, offsets={1: 1}),
        make_eif(_SMALL, tail=b"more"),
        _with_a_long_signature(),
        make_eif(((3, b"init"), *_SMALL)),
        make_eif(_SMALL[1:]),
        make_eif((_SMALL[0], *_SMALL[2:])),
    ),
    dictionary=(b".eif", b"\x00\x03", b"\x00\x04", b"\x00\x05", bytes(8), b"\xff" * 8),
)

_PCR0 = bytes(range(48))

EIF_SIGNATURE = Target(
    "eif_signature",
    _execute_signature,
    corpus=(
        signature_section(_SIGNER.pem, _SIGNER.cose(_PCR0)),
        signature_section(_SIGNER.pem, _SIGNER.cose(_PCR0, tagged=True)),
        signature_section(b"-----BEGIN CERTIFICATE-----\nMIH/\n-----END CERTIFICATE-----", b""),
        signature_section(b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----", b""),
        signature_section(b"-----BEGIN CERTIFICATE-----\nAAA=\n-----END CERTIFICATE-----", b""),
        signature_section(b"-----BEGIN CERTIFICATE-----\nA=A\n-----END CERTIFICATE-----", b""),
        _SIGNER.cose(_PCR0),
        _SIGNER.cose(_PCR0, tagged=True),
        b"\x80",
        b"\x81\x00",
        b"\x84\x43\xa1\x01\x26\xa0\x41\x00\x40",
        b"\x84\x43\xa1\x01\x26\xa0\x41\xa0\x40",
        b"\x84\x41\xa0\xa0\x41\xa0\x40",
        cbor2.dumps(
            [
                b"\xa1\x01\x38\x22",
                {},
                cbor2.dumps({"register_index": 0, "register_value": _PCR0}),
                bytes(96),
            ]
        ),
    ),
    dictionary=(
        b"\x81\xa2",
        b"\x73signing_certificate",
        b"\x69signature",
        b"\x6eregister_index\x00",
        b"\x6eregister_value",
        b"\x18\xff",
        b"\x19\x01\x00",
        b"\xd2\x84",
        b"\x9f",
        b"\xff",
        b"\x80",
        b"-----BEGIN CERTIFICATE-----",
        b"-----END CERTIFICATE-----",
    ),
)
