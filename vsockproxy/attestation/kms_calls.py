"""Calls to KMS as SDKs send them: what they ask for, and what attestation adds to them.

KMS speaks AWS's JSON 1.1 alone: `POST /`, the operation in X-Amz-Target, the region in the scope of
the signature. Five operations take a Recipient, and then answer CiphertextForRecipient in place of
a plaintext (AWS KMS API reference; "How AWS Nitro Enclaves uses AWS KMS").
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vsockproxy.attestation.kms_errors import CallUnusable
from vsockproxy.attestation.kms_json import JsonRefused, read_object
from vsockproxy.protocols.errors import SignatureError
from vsockproxy.protocols.sigv4 import parse_authorization

__all__ = (
    "PLAINTEXT_FIELDS",
    "AttestedCall",
    "KmsCall",
    "may_repeat",
    "read_attested_call",
    "read_call",
    "with_recipient",
)

PLAINTEXT_FIELDS: Final[Mapping[str, str]] = {
    "Decrypt": "Plaintext",
    "DeriveSharedSecret": "SharedSecret",
    "GenerateDataKey": "Plaintext",
    "GenerateDataKeyPair": "PrivateKeyPlaintext",
    "GenerateRandom": "Plaintext",
}
"""The operations that take a Recipient, and where their answers have the plaintext without one."""

_CHANGES_NOTHING: Final = frozenset(PLAINTEXT_FIELDS) | {
    *("Encrypt", "ReEncrypt", "GenerateDataKeyWithoutPlaintext"),
    *("GenerateDataKeyPairWithoutPlaintext", "GenerateMac", "Sign", "Verify", "VerifyMac"),
}
"""Cryptography; AWS bills and records each call, and keeps nothing of it."""

_BY_LOWER_CASE: Final = {name.lower(): name for name in PLAINTEXT_FIELDS}

_TARGET_PREFIX: Final = "TrentService."
_TARGET = re.compile(r"TrentService\.([A-Za-z][A-Za-z0-9]{0,63})", re.ASCII | re.IGNORECASE)
_BEGINNING = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*(\}?)")

RECIPIENT: Final = "Recipient"
_RECIPIENT_TEXT: Final = (
    b'"Recipient":{"KeyEncryptionAlgorithm":"RSAES_OAEP_SHA_256","AttestationDocument":"%s"}'
)

_KEY_SPEC_BYTES: Final = {"AES_128": 16, "AES_256": 32}


@dataclass(frozen=True, slots=True)
class KmsCall:
    """A call, from its head.

    Args:
        operation: as `Decrypt`; of those that take a Recipient, in the one way of writing it.
        region: the one that the program's SDK has signed for.
    """

    operation: str
    region: str

    @property
    def target(self) -> str:
        """X-Amz-Target in KMS's own spelling, however the program has written it."""
        return _TARGET_PREFIX + self.operation

    @property
    def takes_recipient(self) -> bool:
        """Whether KMS answers it to an attested enclave alone, if asked to."""
        return self.operation in PLAINTEXT_FIELDS


@dataclass(frozen=True, slots=True)
class AttestedCall:
    """What a call that is attested wants, so that its answer can be held against it.

    Args:
        operation: one of `PLAINTEXT_FIELDS`.
        region: where.
        key_id: a key's id or ARN, an alias or its ARN; None where the call names none.
        plaintext_bytes: how long the plaintext has to be; None where the call does not say.
    """

    operation: str
    region: str
    key_id: str | None
    plaintext_bytes: int | None


def read_call(method: str, target: str, headers: Mapping[str, str]) -> KmsCall:
    """Read the head of a request.

    Args:
        method: as GET.
        target: the path, and a query if there is one.
        headers: by their names in lower case.

    Raises:
        CallUnusable: it is no signed call to KMS in AWS's JSON protocol.
    """
    if method != "POST" or target != "/":
        text = "calls to KMS are POST / in AWS's JSON protocol, and nothing else is passed on"
        raise CallUnusable("request_line", text)
    found = _TARGET.fullmatch(headers.get("x-amz-target", ""))
    if found is None:
        text = "X-Amz-Target names no operation of KMS, as TrentService.Decrypt does"
        raise CallUnusable("target", text)
    if "authorization" not in headers:
        text = (
            "the request has no signature, which says the region: SDKs sign, curl --aws-sigv4 too"
        )
        raise CallUnusable("signature", text)
    try:
        scope = parse_authorization(headers["authorization"]).credential.scope
    except SignatureError as error:
        raise CallUnusable("signature", str(error)) from None
    if scope.service != "kms":
        text = f"the request is signed for {scope.service}, and this is a way to kms alone"
        raise CallUnusable("service", text)
    operation = _BY_LOWER_CASE.get(found[1].lower(), found[1])
    return KmsCall(operation, scope.region)


def read_attested_call(call: KmsCall, body: bytes) -> AttestedCall | None:
    """What a call wants that takes a Recipient; None if it brings its own, and is left alone.

    Raises:
        CallUnusable: the body is no JSON object, or one that can be read in two ways.
    """
    try:
        fields = read_object(body)
    except JsonRefused as error:
        raise CallUnusable("body", f"the request's body cannot be used: {error}") from None
    if RECIPIENT in fields:
        if not isinstance(fields[RECIPIENT], dict):
            raise CallUnusable("body", "the request's Recipient is no object: leave it out")
        return None
    key_id = fields.get("KeyId")
    return AttestedCall(
        call.operation,
        call.region,
        key_id if isinstance(key_id, str) else None,
        _plaintext_bytes(call.operation, fields),
    )


def _plaintext_bytes(operation: str, fields: Mapping[str, Any]) -> int | None:
    if operation not in ("GenerateDataKey", "GenerateRandom"):
        return None
    number = fields.get("NumberOfBytes")
    if type(number) is int:
        return number
    key_spec = fields.get("KeySpec")
    return _KEY_SPEC_BYTES.get(key_spec) if isinstance(key_spec, str) else None


def with_recipient(body: bytes, document: bytes) -> bytes:
    """The body with a Recipient in front, and every other byte as it was.

    Args:
        body: a JSON object, as `read_attested_call` has found.
        document: an attestation document with our public key.
    """
    found = _BEGINNING.match(body)
    assert found is not None  # it is an object
    recipient = _RECIPIENT_TEXT % b64encode(document)
    comma = b"" if found[1] else b","
    at = body.index(b"{") + 1
    return b"".join((body[:at], recipient, comma, body[at:]))


def may_repeat(operation: str) -> bool:
    """Whether KMS may be asked twice: whether the operation changes nothing there.

    One that is not known here is taken for one that does.
    """
    return operation in _CHANGES_NOTHING or operation.startswith(("Describe", "Get", "List"))
