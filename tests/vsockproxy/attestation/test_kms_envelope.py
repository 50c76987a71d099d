"""KMS's envelopes: recorded ones, those of our builder, OpenSSL's, and everything that is none."""

import contextlib
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.support import kms_envelopes
from tests.support.kms_envelopes import (
    LIKE_KMS,
    Form,
    assemble,
    definite,
    oaep_label,
    write_envelope,
)
from vsockproxy.attestation.kms_envelope import (
    MAX_ENVELOPE_BYTES,
    Envelope,
    EnvelopeError,
    open_envelope,
    parse_envelope,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "kms-cms"
KEYED = (VECTORS / "edgebit-sdk-go.cms.ber").read_bytes()
PLAINTEXT = (VECTORS / "edgebit-sdk-go.plaintext.bin").read_bytes()
KEYLESS = (VECTORS / "sdk-c-indefinite-content.cms.ber").read_bytes()
BLOCK = 16


def load_key() -> rsa.RSAPrivateKey:
    key = serialization.load_der_private_key(
        (VECTORS / "edgebit-sdk-go.key.der").read_bytes(), password=None
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


KEY = load_key()
PUBLIC_KEY = KEY.public_key()
OTHER_KEY = rsa.generate_private_key(65537, 2048)

FORMS = {
    "as KMS writes it": LIKE_KMS,
    "one primitive ciphertext": Form(is_primitive=True),
    "in pieces of a block": Form(piece_bytes=16),
    "in pieces that are no blocks": Form(piece_bytes=7),
    "without NULL": Form(has_nulls=False),
    "an empty label, said explicitly": Form(after_mask=oaep_label(b"")),
    "without NULL, primitive": Form(has_nulls=False, is_primitive=True),
    "DER": Form(is_der=True),
    "DER, primitive, without NULL": Form(is_der=True, is_primitive=True, has_nulls=False),
}


def reason_of(data: bytes, key: rsa.RSAPrivateKey = KEY) -> str:
    with pytest.raises(EnvelopeError) as caught:
        open_envelope(data, key)
    assert caught.value.text.isprintable()
    return caught.value.reason


# --- What is opened


def test_a_recorded_answer_of_kms() -> None:
    assert open_envelope(KEYED, KEY) == PLAINTEXT


def test_a_recorded_answer_whose_key_nobody_has() -> None:
    parts = json.loads((VECTORS / "sdk-c-indefinite-content.json").read_text())["expected_parse"]

    envelope = parse_envelope(KEYLESS)

    assert envelope.encrypted_key.hex() == parts["encrypted_key_hex"]
    assert envelope.initialisation_vector.hex() == parts["iv_hex"]
    assert envelope.ciphertext.hex() == parts["ciphertext_hex"]
    assert len(envelope.recipient) == 32
    assert reason_of(KEYLESS) == "wrong_recipient"


@pytest.mark.parametrize("recorded", [KEYED, KEYLESS], ids=["keyed", "keyless"])
def test_our_builder_writes_what_kms_wrote(recorded: bytes) -> None:
    parts = parse_envelope(recorded)

    written = assemble(
        parts.recipient, parts.encrypted_key, parts.initialisation_vector, parts.ciphertext
    )

    assert written == recorded


@pytest.mark.parametrize("size", [0, 1, 15, 16, 32, 5000])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_size_is_opened(form: str, size: int) -> None:
    plaintext = os.urandom(size)

    assert open_envelope(write_envelope(plaintext, PUBLIC_KEY, FORMS[form]), KEY) == plaintext


@given(st.binary(max_size=200), st.integers(1, 40), st.booleans(), st.booleans())
def test_what_is_written_is_read(data: bytes, piece: int, is_der: bool, has_nulls: bool) -> None:
    form = Form(is_der=is_der, has_nulls=has_nulls, piece_bytes=piece)

    assert open_envelope(write_envelope(data, PUBLIC_KEY, form), KEY) == data


def test_lengths_may_have_more_bytes_than_they_need() -> None:
    """As BER allows, up to four."""
    vector = KEYED.index(b"\x04\x10" + parse_envelope(KEYED).initialisation_vector)
    algorithm = KEYED.index(b"\x30\x1d" + kms_envelopes.AES_256_CBC)
    longer = bytearray(KEYED)
    longer[vector + 1 : vector + 2] = b"\x84\0\0\0\x10"
    longer[algorithm + 1 : algorithm + 2] = b"\x82\0\x21"

    assert open_envelope(bytes(longer), KEY) == PLAINTEXT


@pytest.mark.parametrize("bits", [3072, 4096])
def test_longer_keys_open_too(bits: int) -> None:
    key = rsa.generate_private_key(65537, bits)

    assert open_envelope(write_envelope(b"secret", key.public_key()), key) == b"secret"


def test_what_is_in_it_is_not_shown() -> None:
    shown = repr(parse_envelope(KEYED))

    assert "ciphertext" not in shown
    assert "encrypted_key" not in shown


# --- OpenSSL


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(
        KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


def openssl(*arguments: str | Path, data: bytes) -> bytes:
    return subprocess.run(
        ["openssl", *arguments], input=data, stdout=subprocess.PIPE, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize("size", [0, 5, 32, 5000])
@pytest.mark.parametrize("form", FORMS)
def test_openssl_opens_what_our_builder_writes(form: str, size: int, key_file: Path) -> None:
    plaintext = os.urandom(size)
    written = write_envelope(plaintext, PUBLIC_KEY, FORMS[form])

    # -binary: otherwise it turns line feeds into pairs.
    opened = openssl(
        "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", key_file, data=written
    )

    assert opened == plaintext


@pytest.mark.parametrize("size", [0, 32, 4096])
def test_what_openssl_writes_is_opened(size: int, key_file: Path, tmp_path: Path) -> None:
    """OpenSSL's key identifier is a SHA-1: a certificate with that of KMS makes it write ours."""
    identifier = kms_envelopes.key_identifier(PUBLIC_KEY)
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text(
        "[req]\ndistinguished_name=name\nx509_extensions=extensions\n[name]\n"
        f"[extensions]\nsubjectKeyIdentifier={identifier.hex(':')}\n"
    )
    certificate = tmp_path / "certificate.pem"
    openssl(
        *("req", "-new", "-x509", "-key", key_file, "-subj", "/CN=enclave", "-days", "1"),
        *("-config", configuration, "-out", certificate),
        data=b"",
    )
    plaintext = os.urandom(size)

    written = openssl(
        *("cms", "-encrypt", "-binary", "-outform", "DER", "-aes-256-cbc", "-keyid", "-stream"),
        *("-recip", certificate, "-keyopt", "rsa_padding_mode:oaep"),
        *("-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"),
        data=plaintext,
    )

    assert open_envelope(written, KEY) == plaintext


# --- What is refused


@pytest.mark.parametrize("recorded", [KEYED, KEYLESS], ids=["keyed", "keyless"])
def test_every_truncation_is_refused(recorded: bytes) -> None:
    assert {reason_of(recorded[:length]) for length in range(len(recorded))} == {"malformed"}


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_of_every_form_is_refused(form: str) -> None:
    written = write_envelope(PLAINTEXT, PUBLIC_KEY, FORMS[form])

    assert {reason_of(written[:length]) for length in range(len(written))} == {"malformed"}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_bit_is_refused_or_one_that_cbc_cannot_see() -> None:
    """The plaintext has two blocks and is followed by one of padding."""
    parts = parse_envelope(KEYED)
    vector = KEYED.index(parts.initialisation_vector)
    first = KEYED.index(parts.ciphertext)
    last = first + 2 * BLOCK
    passed: dict[int, bytes] = {}
    for bit in range(8 * len(KEYED)):
        with contextlib.suppress(EnvelopeError):
            passed[bit] = open_envelope(flipped(KEYED, bit), KEY)

    def bits(start: int) -> set[int]:
        return set(range(8 * start, 8 * (start + BLOCK)))

    # A garbled last block ends as padding would once in about 256 times.
    assert passed.keys() - bits(last) == bits(vector) | bits(first)
    assert len(passed.keys() & bits(last)) <= 4
    for bit in bits(vector):
        assert passed[bit] == flipped(PLAINTEXT, bit - 8 * vector)
    for bit in bits(first):
        assert passed[bit][BLOCK:] == flipped(PLAINTEXT, bit - 8 * first + 8 * BLOCK)[BLOCK:]
        assert passed[bit][:BLOCK] != PLAINTEXT[:BLOCK]


def test_every_bit_of_an_envelope_without_a_key_is_seen_or_in_its_contents() -> None:
    parts = parse_envelope(KEYLESS)
    contents = (
        parts.recipient,
        parts.encrypted_key,
        parts.initialisation_vector,
        parts.ciphertext,
    )
    free = {
        8 * KEYLESS.index(content) + bit for content in contents for bit in range(8 * len(content))
    }
    for bit in range(8 * len(KEYLESS)):
        changed = flipped(KEYLESS, bit)
        if bit in free:
            assert parse_envelope(changed) != parts
        else:
            with pytest.raises(EnvelopeError):
                parse_envelope(changed)


MALFORMED = {
    "another content type": Form(content_type=kms_envelopes.DATA),
    "another inner type": Form(inner_type=kms_envelopes.ENVELOPED_DATA),
    "version 0": Form(version=b"\x02\x01\x00"),
    "version 2 in two bytes": Form(version=b"\x02\x02\x00\x02"),
    "a recipient of version 0": Form(recipient_version=b"\x02\x01\x00"),
    "no recipient": Form(copies=0),
    "two recipients": Form(copies=2),
    "information of the originator": Form(before_recipients=definite(0xA0)),
    "unprotected attributes": Form(after_content=definite(0xA1)),
    "PKCS #1 v1.5": Form(oaep=bytes.fromhex("06092a864886f70d010101")),
    "OAEP with SHA-1": Form(oaep_hash=bytes.fromhex("06052b0e03021a")),
    "OAEP with SHA-512": Form(oaep_hash=bytes.fromhex("0609608648016503040203")),
    "MGF1 with SHA-1": Form(mask_hash=bytes.fromhex("06052b0e03021a")),
    "a label": Form(after_mask=oaep_label(b"label")),
    "two empty labels": Form(after_mask=oaep_label(b"") * 2),
    "AES-128": Form(cipher=bytes.fromhex("0609608648016503040102")),
    "AES-256-GCM": Form(cipher=bytes.fromhex("060960864801650304012e")),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_kms_does_not_write_is_refused(case: str) -> None:
    for form in (MALFORMED[case], replace(MALFORMED[case], is_der=True)):
        assert reason_of(write_envelope(PLAINTEXT, PUBLIC_KEY, form)) == "malformed"


def test_bytes_behind_it_are_refused() -> None:
    assert reason_of(KEYED + b"\0") == "malformed"
    assert reason_of(KEYED + KEYED) == "malformed"


CHANGED_BYTES = {
    "nothing at all": b"",
    "an end and nothing else": b"\0\0",
    "a tag of two bytes": b"\x3f\x81\x01\x00" + KEYED[2:],
    "a length of five bytes": b"\x30\x85\0\0\0\1\xff" + KEYED[2:],
    "a length that is reserved": b"\x30\xff" + KEYED[2:],
    "a length beyond the data": b"\x30\x82\xff\xff" + KEYED[2:],
    "a primitive without a length": KEYED.replace(b"\x04\x10", b"\x04\x80"),
    "a primitive in place of a constructed": b"\x10" + KEYED[1:],
    "an end too few": KEYED[:-2],
    "an end too early": KEYED[:2] + b"\0\0" + KEYED[2:],
    "a piece in pieces": KEYED.replace(b"\xa0\x80\x04\x30", b"\xa0\x80\x24\x30"),
    "parameters that are no NULL": KEYED.replace(b"\x05\0", b"\x04\0"),
    "a NULL with a content": write_envelope(PLAINTEXT, PUBLIC_KEY, Form(has_nulls=False)).replace(
        b"\xa0\x0d\x30\x0b" + kms_envelopes.SHA_256,
        b"\xa0\x10\x30\x0e" + kms_envelopes.SHA_256 + b"\x05\x01\0",
    ),
    "a long vector": assemble(bytes(32), bytes(256), bytes(17), bytes(16)),
    "a short vector": assemble(bytes(32), bytes(256), bytes(15), bytes(16)),
    "no ciphertext": assemble(bytes(32), bytes(256), bytes(16), b""),
    "no ciphertext, primitive": assemble(
        bytes(32), bytes(256), bytes(16), b"", Form(is_primitive=True)
    ),
    "half a block": assemble(bytes(32), bytes(256), bytes(16), bytes(24)),
}


@pytest.mark.parametrize("case", CHANGED_BYTES)
def test_malformed_bytes_are_refused(case: str) -> None:
    assert reason_of(CHANGED_BYTES[case]) == "malformed"


def test_one_that_is_too_large_is_refused_unread() -> None:
    assert reason_of(b"\x30\x80" + bytes(MAX_ENVELOPE_BYTES)) == "too_large"


WRONG_RECIPIENTS = {
    "of another key": write_envelope(PLAINTEXT, OTHER_KEY.public_key()),
    "without a key identifier": write_envelope(PLAINTEXT, PUBLIC_KEY, Form(key_identifier=b"")),
    "with that of a certificate": write_envelope(
        PLAINTEXT, PUBLIC_KEY, Form(key_identifier=bytes(20))
    ),
}


@pytest.mark.parametrize("case", WRONG_RECIPIENTS)
def test_one_for_another_recipient_is_refused(case: str) -> None:
    assert reason_of(WRONG_RECIPIENTS[case]) == "wrong_recipient"


def rewritten(parts: Envelope, **changes: bytes) -> bytes:
    changed = replace(parts, **changes)
    return assemble(
        changed.recipient, changed.encrypted_key, changed.initialisation_vector, changed.ciphertext
    )


def test_everything_that_does_not_decrypt_has_one_answer() -> None:
    parts = parse_envelope(KEYED)
    of_other_key = parse_envelope(write_envelope(PLAINTEXT, OTHER_KEY.public_key()))
    last_but_one = parts.ciphertext[BLOCK : 2 * BLOCK]
    cases = {
        "a key for somebody else": rewritten(parts, encrypted_key=of_other_key.encrypted_key),
        "an encrypted key that is short": rewritten(parts, encrypted_key=bytes(255)),
        "no encrypted key": rewritten(parts, encrypted_key=b""),
        "a content key of AES-128": write_envelope(PLAINTEXT, PUBLIC_KEY, content_key=bytes(16)),
        "no content key": write_envelope(PLAINTEXT, PUBLIC_KEY, content_key=b""),
        "wrong padding": rewritten(
            parts, ciphertext=parts.ciphertext.replace(last_but_one, flipped(last_but_one, 120))
        ),
        "no padding at all": rewritten(parts, ciphertext=parts.ciphertext[: 2 * BLOCK]),
    }
    for data in cases.values():
        with pytest.raises(EnvelopeError) as caught:
            open_envelope(data, KEY)
        assert caught.value.reason == "does_not_decrypt"
        assert caught.value.text == "the envelope does not decrypt with this key"
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
