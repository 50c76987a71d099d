"""Targets: the envelope that KMS answers with, and the signature of a request to it."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fuzz.target import Target
from tests.support import kms_envelopes
from tests.support.kms_envelopes import Form, assemble, oaep_label
from vsockproxy.attestation.kms_envelope import EnvelopeError, open_envelope, parse_envelope
from vsockproxy.protocols.errors import SignatureError
from vsockproxy.protocols.sigv4 import authorization, parse_authorization

_VECTORS = Path(__file__).parents[1] / "vectors" / "kms-cms"
_RECORDED = (_VECTORS / "edgebit-sdk-go.cms.ber").read_bytes()
_PARTS = parse_envelope(_RECORDED)
_SEVERAL_BLOCKS = 5


def _load_key() -> rsa.RSAPrivateKey:
    key = serialization.load_der_private_key(
        (_VECTORS / "edgebit-sdk-go.key.der").read_bytes(), password=None
    )
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


_KEY = _load_key()


def _execute(data: bytes) -> str:
    try:
        envelope = parse_envelope(data)
    except EnvelopeError as error:
        return f"{error.reason}: {error}"
    assert 0 < len(envelope.ciphertext) < len(data)
    assert len(envelope.initialisation_vector) == 16
    try:
        plaintext = open_envelope(data, _KEY)
    except EnvelopeError as error:
        return error.reason
    assert len(envelope.ciphertext) - 16 <= len(plaintext) < len(envelope.ciphertext)
    return "opened"


def _written(form: Form) -> bytes:
    """The recorded envelope in another form: a corpus has to be the same each time."""
    return assemble(
        _PARTS.recipient,
        _PARTS.encrypted_key,
        _PARTS.initialisation_vector,
        _PARTS.ciphertext,
        form,
    )


KMS_ENVELOPE = Target(
    "kms_envelope",
    _execute,
    corpus=(
        _RECORDED,
        (_VECTORS / "sdk-c-indefinite-content.cms.ber").read_bytes(),
        _written(Form(is_primitive=True)),
        _written(Form(piece_bytes=_SEVERAL_BLOCKS)),
        _written(Form(has_nulls=False)),
        _written(Form(is_der=True)),
        _written(Form(is_der=True, is_primitive=True, has_nulls=False)),
        # Two that are none: chance seldom makes a wrong length in several places at once.
        assemble(_PARTS.recipient, _PARTS.encrypted_key, bytes(15), bytes(32)),
        assemble(_PARTS.recipient, _PARTS.encrypted_key, bytes(16), bytes(24)),
        _written(Form(is_der=True))[:-1],
        _written(Form()).replace(b"\x04\x10", b"\x04\x80", 1),
        _written(Form()).replace(b"\x04\x10", b"\x04\x85", 1),
        _written(Form(after_mask=kms_envelopes.NULL)),
        _written(Form(after_mask=oaep_label(b""))),
        _written(Form(is_der=True, after_content=kms_envelopes.NULL)),
    ),
    dictionary=(
        kms_envelopes.ENVELOPED_DATA,
        kms_envelopes.DATA,
        kms_envelopes.SHA_256,
        kms_envelopes.AES_256_CBC,
        kms_envelopes.NULL,
        kms_envelopes.VERSION_2,
        b"\x00\x00",
        b"\x30\x80",
        b"\x80",
        b"\x84\x00\x00\x00\x01",
        b"\x85",
        b"\x24\x80\x04\x01\x00\x00\x00",
    ),
)


def _execute_authorization(data: bytes) -> str:
    value = data.decode("latin-1")
    try:
        read = parse_authorization(value)
    except SignatureError as error:
        return str(error)
    assert parse_authorization(authorization(read)) == read
    assert len(read.credential.scope.region) < 64
    return "read"


_VALID = (
    b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request, "
    b"SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, "
    b"Signature=24c85dc12f0f723e2278a7a09b05c21a93b96d201f2bed81d381b1b596708d4a"
)

AWS_AUTHORIZATION = Target(
    "aws_authorization",
    _execute_authorization,
    corpus=(
        _VALID,
        _VALID.replace(b", ", b","),
        b" ".join(reversed(_VALID.split(b" "))),
        _VALID.replace(b"host;", b"Host;"),
        _VALID.replace(b"content-type;host", b"host;content-type"),
        _VALID[:-1],
    ),
    dictionary=(
        b"AWS4-HMAC-SHA256 ",
        b"Credential=",
        b"SignedHeaders=",
        b"Signature=",
        b"/aws4_request",
        b";",
        b", ",
        b"=",
        b"host;host",
        b"Extra=1, ",
    ),
)
