"""The five operations of KMS that are answered to attested enclaves alone: calls and their results.

Each function makes a call, which `for_asyncio`, `for_trio` and `blocking` carry out. The parameters
are those of AWS's KMS API reference; the proxy adds the attestation. Pure.
"""

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from vsockproxy.client.kms_errors import KmsAnswerError, KmsRequestError

__all__ = (
    "Answer",
    "Call",
    "DataKey",
    "DataKeyPair",
    "Decrypted",
    "SharedSecret",
    "decrypt",
    "derive_shared_secret",
    "generate_data_key",
    "generate_data_key_pair",
    "generate_random",
)

Result = TypeVar("Result")

_NO_CONTEXT: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Decrypted:
    """What `decrypt` gives."""

    plaintext: bytes = field(repr=False)
    key_id: str
    """The ARN of the key that it was encrypted with."""
    encryption_algorithm: str


@dataclass(frozen=True, slots=True)
class DataKey:
    """What `generate_data_key` gives."""

    plaintext: bytes = field(repr=False)
    ciphertext: bytes
    """The same key for keeping, to be decrypted again."""
    key_id: str
    """The ARN of the key that it is encrypted with."""


@dataclass(frozen=True, slots=True)
class DataKeyPair:
    """What `generate_data_key_pair` gives."""

    private_key: bytes = field(repr=False)
    """DER of a PrivateKeyInfo (PKCS #8)."""
    private_key_ciphertext: bytes
    """The same key for keeping, to be decrypted again."""
    public_key: bytes
    """DER of a SubjectPublicKeyInfo."""
    key_id: str
    """The ARN of the key that the private key is encrypted with."""
    key_pair_spec: str


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """What `derive_shared_secret` gives."""

    secret: bytes = field(repr=False)
    key_id: str
    key_agreement_algorithm: str


class Answer:
    """The fields of an answer.

    Args:
        operation: that was answered.
        body: of the answer.

    Raises:
        KmsAnswerError: it is no JSON object.
    """

    def __init__(self, operation: str, body: bytes) -> None:
        self._operation = operation
        self._fields = read_object(body)
        if self._fields is None:
            # Not where the parser's error is at hand: that holds all it was given.
            raise KmsAnswerError(f"{operation} was answered by something that is no JSON object")

    def text(self, name: str) -> str:
        """A field of text."""
        value = (self._fields or {}).get(name)
        if not isinstance(value, str) or not value:
            raise self._lacks(name)
        return value

    def data(self, name: str) -> bytes:
        """A field of bytes."""
        data = _decoded(self.text(name))
        if not data:
            raise self._lacks(name)
        return data

    def _lacks(self, name: str) -> KmsAnswerError:
        return KmsAnswerError(f"{self._operation} was answered without a proper {name}")


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """A call that nobody has made yet.

    Args:
        operation: as `Decrypt`.
        body: what is sent.
        read: the result that an answer has.
    """

    operation: str
    body: bytes = field(repr=False)
    read: Callable[[Answer], Result] = field(repr=False)


def decrypt(
    ciphertext: bytes,
    *,
    key_id: str | None = None,
    encryption_context: Mapping[str, str] = _NO_CONTEXT,
    encryption_algorithm: str | None = None,
    grant_tokens: Sequence[str] = (),
) -> Call[Decrypted]:
    """Decrypt what a key of KMS has encrypted.

    Args:
        ciphertext: as `Encrypt` or `generate_data_key` gave it.
        key_id: the id, ARN or alias of the key that it has to be of. Name it: otherwise whoever
            may use any key of yours can have anything decrypted.
        encryption_context: the same as when it was encrypted.
        encryption_algorithm: of an asymmetric key, as RSAES_OAEP_SHA_256.
        grant_tokens: of grants that are new.
    """
    fields = {
        "CiphertextBlob": _encoded("ciphertext", ciphertext),
        "KeyId": key_id,
        "EncryptionContext": dict(encryption_context),
        "EncryptionAlgorithm": encryption_algorithm,
        "GrantTokens": list(grant_tokens),
    }
    return _call(
        "Decrypt",
        fields,
        lambda answer: Decrypted(
            answer.data("Plaintext"), answer.text("KeyId"), answer.text("EncryptionAlgorithm")
        ),
    )


def generate_data_key(
    key_id: str,
    *,
    key_spec: Literal["AES_256", "AES_128"] | None = None,
    number_of_bytes: int | None = None,
    encryption_context: Mapping[str, str] = _NO_CONTEXT,
    grant_tokens: Sequence[str] = (),
) -> Call[DataKey]:
    """Make a symmetric key, in plaintext and encrypted.

    Args:
        key_id: the id, ARN or alias of the key that encrypts it.
        key_spec: what it is for; AES_256 if neither this nor `number_of_bytes` is given.
        number_of_bytes: 1 to 1024, in place of `key_spec`.
        encryption_context: has to be given again to decrypt it.
        grant_tokens: of grants that are new.
    """
    if key_spec is None and number_of_bytes is None:
        key_spec = "AES_256"
    fields = {
        "KeyId": key_id,
        "KeySpec": key_spec,
        "NumberOfBytes": number_of_bytes,
        "EncryptionContext": dict(encryption_context),
        "GrantTokens": list(grant_tokens),
    }
    return _call(
        "GenerateDataKey",
        fields,
        lambda answer: DataKey(
            answer.data("Plaintext"), answer.data("CiphertextBlob"), answer.text("KeyId")
        ),
    )


def generate_data_key_pair(
    key_id: str,
    key_pair_spec: str,
    *,
    encryption_context: Mapping[str, str] = _NO_CONTEXT,
    grant_tokens: Sequence[str] = (),
) -> Call[DataKeyPair]:
    """Make a pair of keys, the private one in plaintext and encrypted.

    Args:
        key_id: the id, ARN or alias of the symmetric key that encrypts it.
        key_pair_spec: as ECC_NIST_P256 or RSA_2048.
        encryption_context: has to be given again to decrypt it.
        grant_tokens: of grants that are new.
    """
    fields = {
        "KeyId": key_id,
        "KeyPairSpec": key_pair_spec,
        "EncryptionContext": dict(encryption_context),
        "GrantTokens": list(grant_tokens),
    }
    return _call(
        "GenerateDataKeyPair",
        fields,
        lambda answer: DataKeyPair(
            answer.data("PrivateKeyPlaintext"),
            answer.data("PrivateKeyCiphertextBlob"),
            answer.data("PublicKey"),
            answer.text("KeyId"),
            answer.text("KeyPairSpec"),
        ),
    )


def generate_random(number_of_bytes: int, *, custom_key_store_id: str | None = None) -> Call[bytes]:
    """Get random bytes of AWS's hardware.

    Args:
        number_of_bytes: 1 to 1024.
        custom_key_store_id: of a CloudHSM cluster that is to make them.
    """
    fields = {"NumberOfBytes": number_of_bytes, "CustomKeyStoreId": custom_key_store_id}
    return _call("GenerateRandom", fields, lambda answer: answer.data("Plaintext"))


def derive_shared_secret(
    key_id: str,
    public_key: bytes,
    *,
    key_agreement_algorithm: str = "ECDH",
    grant_tokens: Sequence[str] = (),
) -> Call[SharedSecret]:
    """Agree on a secret between a key of KMS and somebody's public key.

    Args:
        key_id: the id, ARN or alias of a key for KEY_AGREEMENT.
        public_key: the other one's: DER of a SubjectPublicKeyInfo, on the same curve.
        key_agreement_algorithm: there is one.
        grant_tokens: of grants that are new.
    """
    fields = {
        "KeyId": key_id,
        "PublicKey": _encoded("public_key", public_key),
        "KeyAgreementAlgorithm": key_agreement_algorithm,
        "GrantTokens": list(grant_tokens),
    }
    return _call(
        "DeriveSharedSecret",
        fields,
        lambda answer: SharedSecret(
            answer.data("SharedSecret"), answer.text("KeyId"), answer.text("KeyAgreementAlgorithm")
        ),
    )


def read_object(body: bytes) -> Mapping[str, Any] | None:
    """The JSON object that `body` is; None if it is none."""
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _call(
    operation: str, fields: Mapping[str, Any], read: Callable[[Answer], Result]
) -> Call[Result]:
    """A call with the fields that are given: neither None nor empty."""
    sent = {name: value for name, value in fields.items() if value not in (None, [], {})}
    try:
        body = json.dumps(sent).encode()
    except (TypeError, ValueError, RecursionError):
        raise KmsRequestError(f"{operation}: an argument is of the wrong type") from None
    return Call(operation, body, read)


def _encoded(name: str, data: bytes) -> str:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise KmsRequestError(f"{name} is {type(data).__name__}, not bytes")
    return b64encode(data).decode("ascii")


def _decoded(text: str) -> bytes:
    """The bytes that base64 stands for; none if it is none."""
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
