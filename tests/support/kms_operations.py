"""What a KMS answers to its operations: values in, values out, errors as AWS words them.

The words of errors about attestation documents are ours; AWS does not publish its own.
"""

import base64
import binascii
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import cbor2
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.aws_signatures import AwsError
from tests.support.kms_keys import CURVES, KeyStore, KmsKey
from tests.support.nsm_server import document_fields
from vsockproxy.attestation.documents import DocumentRefused, Requirements, verify_document

ATTESTED = {
    "Decrypt": "Plaintext",
    "GenerateDataKey": "Plaintext",
    "GenerateDataKeyPair": "PrivateKeyPlaintext",
    "GenerateRandom": "Plaintext",
    "DeriveSharedSecret": "SharedSecret",
}
"""The operations that take a Recipient, and the field that an envelope replaces."""

_CALLER = "arn:aws:sts::123456789012:assumed-role/enclave/test"
_MAX_PLAINTEXT_BYTES = 4096
_RSA_BITS = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}
_KEY_SPECS = {"AES_256": 32, "AES_128": 16}

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who gets an envelope."""

    public_key: rsa.RSAPublicKey
    pcrs: Mapping[int, bytes]


@dataclass(slots=True)
class Documents:
    """What is demanded of attestation documents.

    Args:
        roots: certificates to trust, DER; None believes every document, for benchmarks that measure
            somebody else's speed: a verification takes some milliseconds.
        max_age_seconds: refuse older documents.
        are_single_use: refuse a document that has come before.
    """

    roots: Collection[bytes] | None
    max_age_seconds: float | None = None
    are_single_use: bool = False
    count: int = 0
    """How many have been accepted."""
    _seen: set[bytes] = field(default_factory=set, repr=False)

    def check(self, data: bytes, at: datetime) -> Recipient:
        """The recipient that a document names.

        Raises:
            AwsError: the document is not genuine, or not fresh, or has no public key for RSA.
        """
        try:
            public_key, pcrs = self._read(data, at)
        except DocumentRefused as error:
            text = f"The attestation document is invalid: {error.reason}: {error}"
            raise AwsError("ValidationException", text) from None
        if self.are_single_use:
            if data in self._seen:
                raise AwsError("ValidationException", "The attestation document has come before")
            self._seen.add(data)
        try:
            key = serialization.load_der_public_key(public_key or b"")
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, rsa.RSAPublicKey):
            raise AwsError("ValidationException", "The attestation document has no RSA public key")
        self.count += 1
        return Recipient(key, pcrs)

    def _read(self, data: bytes, at: datetime) -> tuple[bytes | None, Mapping[int, bytes]]:
        if self.roots is None:
            try:
                fields = document_fields(data)
                return fields["public_key"], fields["pcrs"]
            except (cbor2.CBORError, ValueError, LookupError, TypeError):
                raise AwsError("ValidationException", "this is no document") from None
        # KMS takes documents of debug mode too: their measurements are zero, and policies decide.
        requirements = Requirements(
            roots=tuple(self.roots), max_age_seconds=self.max_age_seconds, allow_debug=True
        )
        document = verify_document(data, requirements, at)
        return document.public_key, document.pcrs


@dataclass(slots=True)
class Kms:
    """A KMS of one region.

    Args:
        store: its keys.
        documents: what is demanded of attestation documents.
        random_pcrs: the measurements that whoever asks for random bytes has to have.
    """

    store: KeyStore
    documents: Documents
    random_pcrs: Mapping[int, str] = field(default_factory=dict)

    def answer(
        self, operation: str, body: Body, at: datetime
    ) -> tuple[dict[str, Any], Recipient | None]:
        """What is answered, with the plaintext still as bytes in its field; who is to get it.

        Raises:
            AwsError: nothing but that.
        """
        operate = _OPERATIONS.get(operation)
        if operate is None:
            raise AwsError("UnknownOperationException")
        recipient = None
        if "Recipient" in body:
            if operation not in ATTESTED:
                raise AwsError("ValidationException", f"{operation} takes no Recipient")
            recipient = self._recipient(body, at)
        return operate(self, body, recipient), recipient

    def _recipient(self, body: Body, at: datetime) -> Recipient:
        recipient = body["Recipient"]
        if not isinstance(recipient, dict) or set(recipient) != {
            "KeyEncryptionAlgorithm",
            "AttestationDocument",
        }:
            raise AwsError("ValidationException", "Recipient needs its two fields")
        if recipient["KeyEncryptionAlgorithm"] != "RSAES_OAEP_SHA_256":
            raise AwsError(
                "ValidationException", "KeyEncryptionAlgorithm is not RSAES_OAEP_SHA_256"
            )
        return self.documents.check(_blob(recipient, "AttestationDocument", 262_144), at)

    def _decrypt(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        ciphertext = _blob(body, "CiphertextBlob", 6144)
        if body.get("EncryptionAlgorithm", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
            raise AwsError("InvalidKeyUsageException", "the key is symmetric")
        key = self.store.key_of(ciphertext)
        if "KeyId" in body and self.store.find(_text(body, "KeyId")) is not key:
            text = (
                "The key ID in the request does not identify a CMK that can perform this operation."
            )
            raise AwsError("IncorrectKeyException", text)
        self.store.find(key.arn)
        _allow(key, "Decrypt", recipient)
        plaintext = key.decrypt(ciphertext, _context(body))
        return {
            "KeyId": key.arn,
            "Plaintext": plaintext,
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "KeyMaterialId": _material(key),
        }

    def _generate_data_key(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        key = self._symmetric_key(body)
        _allow(key, "GenerateDataKey", recipient)
        if ("KeySpec" in body) == ("NumberOfBytes" in body):
            raise AwsError(
                "ValidationException", "Please specify either number of bytes or key spec."
            )
        if "KeySpec" in body:
            size = _KEY_SPECS.get(_text(body, "KeySpec"))
            if size is None:
                raise AwsError("ValidationException", "KeySpec is neither AES_256 nor AES_128")
        else:
            size = _number(body, "NumberOfBytes", 1024)
        plaintext = os.urandom(size)
        return {
            "KeyId": key.arn,
            "Plaintext": plaintext,
            "CiphertextBlob": _base64(key.encrypt(plaintext, _context(body))),
            "KeyMaterialId": _material(key),
        }

    def _generate_data_key_pair(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        key = self._symmetric_key(body)
        _allow(key, "GenerateDataKeyPair", recipient)
        spec = _text(body, "KeyPairSpec")
        private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        if spec in CURVES:
            private = ec.generate_private_key(CURVES[spec])
        elif spec in _RSA_BITS:
            private = rsa.generate_private_key(65537, _RSA_BITS[spec])
        else:
            raise AwsError("ValidationException", f"KeyPairSpec is not {spec}")
        plaintext = private.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return {
            "KeyId": key.arn,
            "PrivateKeyPlaintext": plaintext,
            "PrivateKeyCiphertextBlob": _base64(key.encrypt(plaintext, _context(body))),
            "PublicKey": _base64(public),
            "KeyPairSpec": spec,
            "KeyMaterialId": _material(key),
        }

    def _generate_random(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        _demand(self.random_pcrs, "GenerateRandom", "*", recipient)
        return {"Plaintext": os.urandom(_number(body, "NumberOfBytes", 1024))}

    def _derive_shared_secret(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        key = self.store.find(_text(body, "KeyId"))
        if key.curve is None:
            raise AwsError("InvalidKeyUsageException", f"{key.arn} key usage is ENCRYPT_DECRYPT")
        _allow(key, "DeriveSharedSecret", recipient)
        if _text(body, "KeyAgreementAlgorithm") != "ECDH":
            raise AwsError("ValidationException", "KeyAgreementAlgorithm is not ECDH")
        return {
            "KeyId": key.arn,
            "SharedSecret": key.agree(_blob(body, "PublicKey", 8192)),
            "KeyAgreementAlgorithm": "ECDH",
            "KeyOrigin": "AWS_KMS",
        }

    def _encrypt(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        key = self._symmetric_key(body)
        plaintext = _blob(body, "Plaintext", _MAX_PLAINTEXT_BYTES)
        return {
            "KeyId": key.arn,
            "CiphertextBlob": _base64(key.encrypt(plaintext, _context(body))),
            "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
        }

    def _list_keys(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        limit = _number(body, "Limit", 1000) if "Limit" in body else 100
        names = sorted(self.store.keys)
        if "Marker" in body:
            marker = _text(body, "Marker")
            names = [name for name in names if name > marker]
        listed = names[:limit]
        answer: dict[str, Any] = {
            "Keys": [{"KeyId": name, "KeyArn": self.store.keys[name].arn} for name in listed],
            "Truncated": len(names) > limit,
        }
        if len(names) > limit:
            answer["NextMarker"] = listed[-1]
        return answer

    def _describe_key(self, body: Body, recipient: Recipient | None) -> dict[str, Any]:
        key = self.store.find(_text(body, "KeyId"))
        is_symmetric = key.curve is None
        return {
            "KeyMetadata": {
                "AWSAccountId": key.arn.split(":")[4],
                "KeyId": key.key_id,
                "Arn": key.arn,
                "CreationDate": 1_700_000_000.0,
                "Enabled": key.is_enabled,
                "Description": "",
                "KeyUsage": "ENCRYPT_DECRYPT" if is_symmetric else "KEY_AGREEMENT",
                "KeyState": "Enabled" if key.is_enabled else "Disabled",
                "Origin": "AWS_KMS",
                "KeyManager": "CUSTOMER",
                "KeySpec": key.curve or "SYMMETRIC_DEFAULT",
                "MultiRegion": False,
            }
        }

    def _symmetric_key(self, body: Body) -> KmsKey:
        key = self.store.find(_text(body, "KeyId"))
        if key.curve is not None:
            raise AwsError("InvalidKeyUsageException", f"{key.arn} key usage is KEY_AGREEMENT")
        return key


_Operate = Callable[[Kms, Body, Recipient | None], dict[str, Any]]

_OPERATIONS: Mapping[str, _Operate] = {
    "Decrypt": Kms._decrypt,
    "GenerateDataKey": Kms._generate_data_key,
    "GenerateDataKeyPair": Kms._generate_data_key_pair,
    "GenerateRandom": Kms._generate_random,
    "DeriveSharedSecret": Kms._derive_shared_secret,
    "Encrypt": Kms._encrypt,
    "ListKeys": Kms._list_keys,
    "DescribeKey": Kms._describe_key,
}


def _allow(key: KmsKey, operation: str, recipient: Recipient | None) -> None:
    _demand(key.pcrs, operation, key.arn, recipient)


def _demand(
    pcrs: Mapping[int, str], operation: str, resource: str, recipient: Recipient | None
) -> None:
    """Apply a policy: kms:RecipientAttestation:PCRn with StringEqualsIgnoreCase."""
    for index, wanted in pcrs.items():
        measured = None if recipient is None else recipient.pcrs.get(index)
        if measured is None or measured.hex() != wanted.lower():
            text = (
                f"User: {_CALLER} is not authorized to perform: kms:{operation} on resource: "
                f"{resource} because no resource-based policy allows the kms:{operation} action"
            )
            raise AwsError("AccessDeniedException", text)


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= 2048:
        text = f"1 validation error detected: Value at '{name}' failed to satisfy constraint"
        raise AwsError("ValidationException", text)
    return value


def _number(body: Body, name: str, most: int) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        text = f"1 validation error detected: Value at '{name}' failed to satisfy constraint"
        raise AwsError("ValidationException", text)
    return value


def _blob(body: Body, name: str, most: int) -> bytes:
    value = body.get(name)
    if not isinstance(value, str):
        raise AwsError("SerializationException", f"{name} is no blob")
    try:
        blob = base64.b64decode(value, validate=True)
    except binascii.Error:
        raise AwsError("SerializationException", f"{name} is no base64") from None
    if not 1 <= len(blob) <= most:
        text = f"1 validation error detected: Value at '{name}' failed to satisfy constraint"
        raise AwsError("ValidationException", text)
    return blob


def _context(body: Body) -> dict[str, str]:
    context = body.get("EncryptionContext", {})
    if not isinstance(context, dict) or not all(
        isinstance(value, str) for value in context.values()
    ):
        raise AwsError("SerializationException", "EncryptionContext is no map of texts")
    return context


def _material(key: KmsKey) -> str:
    return key.key_id.replace("-", "") * 2


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
