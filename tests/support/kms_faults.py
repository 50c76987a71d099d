"""What a KMS does wrong when a test wants it to: one fault for each thing that can be odd."""

import base64
import json
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.aws_signatures import AwsError
from tests.support.kms_envelopes import Form, key_identifier, write_envelope

OVERSIZE_BYTES = 8 * 1024 * 1024
DEEP = 100_000


class Fault(StrEnum):
    """What an answer is like in place of the right one; those marked so are right all the same."""

    # Errors.
    THROTTLED = auto()
    INTERNAL_ERROR = auto()
    DEPENDENCY_TIMEOUT = auto()
    KEY_UNAVAILABLE = auto()
    UNAVAILABLE_PAGE = auto()
    """503 with a page of HTML, as of a load balancer."""
    STALE_DOCUMENT = auto()
    """Every document is too old."""
    NAMESPACED_ERROR = auto()
    """An error whose type has a prefix."""

    # The envelope.
    WRONG_KEY = auto()
    """Its key is encrypted for somebody else, under our identifier."""
    WRONG_IDENTIFIER = auto()
    """It is for us, under an identifier that is not ours."""
    OTHER_RECIPIENT = auto()
    """It is for somebody else altogether."""
    REPLAYED_ENVELOPE = auto()
    """An earlier one, of the same operation for another public key if there is one."""
    REPEATED_ENVELOPE = auto()
    """An earlier one for the same public key: it opens, and only TLS keeps it out."""
    CORRUPT_ENVELOPE = auto()
    TRUNCATED_ENVELOPE = auto()
    OVERSIZE_ENVELOPE = auto()
    EMPTY_ENVELOPE = auto()
    NULL_ENVELOPE = auto()
    NUMBER_FOR_ENVELOPE = auto()
    NO_ENVELOPE = auto()
    BAD_BASE64 = auto()
    PRIMITIVE_ENVELOPE = auto()
    """Right: another form that KMS has."""
    ENVELOPE_IN_PIECES = auto()
    """Right."""

    # The other fields.
    PLAINTEXT_INSTEAD = auto()
    PLAINTEXT_BESIDE = auto()
    NULL_PLAINTEXT_BESIDE = auto()
    """Right: null or empty is as good as none."""
    EMPTY_PLAINTEXT_BESIDE = auto()
    """Right."""
    WRONG_KEY_ID = auto()
    NO_KEY_ID = auto()
    NUMBER_FOR_KEY_ID = auto()

    # The body.
    FIELD_TWICE = auto()
    BAD_JSON = auto()
    NOT_AN_OBJECT = auto()
    NOT_UTF8 = auto()
    DEEP_JSON = auto()
    EMPTY_BODY = auto()
    OVERSIZE_BODY = auto()

    # The message.
    OTHER_CONTENT_TYPE = auto()
    NO_CONTENT_TYPE = auto()
    CHUNKED = auto()
    """Right: chunked transfer."""
    CONTINUED = auto()
    """Right: 100 Continue comes first."""
    WITHOUT_LENGTH = auto()
    """The body ends with the connection."""
    TWO_LENGTHS = auto()
    COMPRESSED = auto()
    """It says that it is compressed, and is not."""
    NO_CONTENT = auto()
    """204."""
    REDIRECTED = auto()
    """307, to somewhere else."""
    NOT_HTTP = auto()
    ENDLESS_HEAD = auto()

    # Time, and the connection.
    SLOW = auto()
    """Right, after `KmsServer.slow_seconds`."""
    HELD = auto()
    """Right, once `KmsServer.release` is called."""
    DRIBBLING = auto()
    """Right, a few bytes at a time."""
    CUT_BEFORE = auto()
    """The end of the connection in place of an answer, without TLS's own word for it."""
    CUT_IN_HEAD = auto()
    CUT_IN_BODY = auto()
    RESET = auto()
    """A TCP reset in place of an answer."""
    CLOSED_AFTER = auto()
    """Right, with Connection: close."""
    CLOSED_SILENTLY_AFTER = auto()
    """Right, and then the connection is closed although it should have been kept."""


_ERRORS = {
    Fault.THROTTLED: AwsError("ThrottlingException", "Rate exceeded"),
    Fault.INTERNAL_ERROR: AwsError("KMSInternalException", "internal", 500),
    Fault.DEPENDENCY_TIMEOUT: AwsError("DependencyTimeoutException", "timed out", 503),
    Fault.KEY_UNAVAILABLE: AwsError("KeyUnavailableException", "not available", 500),
    Fault.NAMESPACED_ERROR: AwsError("com.amazonaws.kms#NotFoundException", "no such key"),
    Fault.STALE_DOCUMENT: AwsError(
        "ValidationException", "The attestation document is invalid: too_old: by this test's wish"
    ),
}

_FORMS = {
    Fault.PRIMITIVE_ENVELOPE: Form(is_primitive=True),
    Fault.ENVELOPE_IN_PIECES: Form(piece_bytes=24),
    Fault.WRONG_IDENTIFIER: Form(key_identifier=bytes(32)),
}

_ENVELOPE_VALUES: dict[Fault, object] = {
    Fault.EMPTY_ENVELOPE: "",
    Fault.NULL_ENVELOPE: None,
    Fault.NUMBER_FOR_ENVELOPE: 1,
    Fault.BAD_BASE64: "MIAGCSqGSIb3DQEHA6CA%%%",
    Fault.OVERSIZE_ENVELOPE: base64.b64encode(b"\x30\x80" + bytes(100_000)).decode(),
}

_BODIES = {
    Fault.BAD_JSON: b'{"KeyId": "a", ',
    Fault.NOT_AN_OBJECT: b'["CiphertextForRecipient"]',
    Fault.NOT_UTF8: b'{"KeyId": "\xff\xfe"}',
    Fault.DEEP_JSON: b"[" * DEEP + b"]" * DEEP,
    Fault.EMPTY_BODY: b"",
}


def error_of(fault: Fault | None) -> AwsError | None:
    """The error that a fault answers with, if it does."""
    return None if fault is None else _ERRORS.get(fault)


@dataclass(slots=True)
class Envelopes:
    """Writes envelopes as faults want them, and remembers earlier ones."""

    stranger: rsa.RSAPrivateKey
    """Somebody else."""
    by_operation: dict[str, list[tuple[bytes, bytes]]]
    """The first envelope of each operation for each public key: (key, envelope)."""

    @classmethod
    def new(cls) -> "Envelopes":
        """Without any yet."""
        return cls(rsa.generate_private_key(65537, 2048), {})

    def write(
        self, operation: str, plaintext: bytes, key: rsa.RSAPublicKey, fault: Fault | None
    ) -> bytes:
        """An envelope, or what stands in its place."""
        identity = key.public_numbers().n.to_bytes(512, "big")
        stranger = self.stranger.public_key()
        earlier = self.by_operation.setdefault(operation, [])
        if fault is Fault.REPLAYED_ENVELOPE:
            others = [envelope for owner, envelope in earlier if owner != identity]
            return others[0] if others else write_envelope(plaintext, stranger)
        if fault is Fault.REPEATED_ENVELOPE:
            own = [envelope for owner, envelope in earlier if owner == identity]
            if own:
                return own[0]
        if fault is Fault.OTHER_RECIPIENT:
            return write_envelope(plaintext, stranger)
        if fault is Fault.WRONG_KEY:
            return write_envelope(plaintext, stranger, Form(key_identifier=key_identifier(key)))
        envelope = write_envelope(plaintext, key, _FORMS.get(fault, Form()) if fault else Form())
        if fault is Fault.CORRUPT_ENVELOPE:
            # Within the encrypted key: seen with certainty, whatever the plaintext.
            at = len(envelope) // 3
            return envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]
        if fault is Fault.TRUNCATED_ENVELOPE:
            return envelope[:-3]
        if not any(owner == identity for owner, _ in earlier):
            earlier.append((identity, envelope))
        return envelope


def change_fields(answer: dict[str, Any], name: str, plaintext: bytes, fault: Fault) -> None:
    """Change an attested answer, which has its envelope already.

    Args:
        answer: is changed.
        name: of the field for the plaintext.
        plaintext: what would be in it.
        fault: what to do.
    """
    if fault is Fault.PLAINTEXT_INSTEAD:
        del answer["CiphertextForRecipient"]
    if fault in (Fault.PLAINTEXT_INSTEAD, Fault.PLAINTEXT_BESIDE):
        answer[name] = base64.b64encode(plaintext).decode()
    elif fault is Fault.NULL_PLAINTEXT_BESIDE:
        answer[name] = None
    elif fault is Fault.EMPTY_PLAINTEXT_BESIDE:
        answer[name] = ""
    elif fault is Fault.NO_ENVELOPE:
        del answer["CiphertextForRecipient"]
    elif fault in _ENVELOPE_VALUES:
        answer["CiphertextForRecipient"] = _ENVELOPE_VALUES[fault]


def change_key_id(answer: dict[str, Any], fault: Fault) -> None:
    """Change the KeyId of an answer that has one."""
    if "KeyId" not in answer:
        return
    if fault is Fault.WRONG_KEY_ID:
        answer["KeyId"] = (
            answer["KeyId"].rpartition("/")[0] + "/00000000-dead-4000-8000-000000000000"
        )
    elif fault is Fault.NO_KEY_ID:
        del answer["KeyId"]
    elif fault is Fault.NUMBER_FOR_KEY_ID:
        answer["KeyId"] = 1


def write_body(answer: dict[str, Any], fault: Fault | None) -> bytes:
    """The body of an answer."""
    if fault in _BODIES:
        return _BODIES[fault]
    body = json.dumps(answer).encode()
    if fault is Fault.FIELD_TWICE and answer:
        name, value = next(reversed(answer.items()))
        body = body[:-1] + b", " + json.dumps({name: value})[1:].encode()
    if fault is Fault.OVERSIZE_BODY:
        body = body[:-1] + b', "Padding": "' + b"x" * OVERSIZE_BYTES + b'"}'
    return body
