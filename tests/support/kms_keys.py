"""Keys of a KMS that lives in memory: what they do, and who may use them."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.aws_signatures import AwsError

ACCOUNT = "123456789012"

_MAGIC = b"\x01\x02\x02\x00x"
"""What ciphertexts of ours begin with; KMS's own begin alike, and are as opaque."""
_ID_BYTES = 16
_NONCE_BYTES = 12

CURVES: Mapping[str, ec.EllipticCurve] = {
    "ECC_NIST_P256": ec.SECP256R1(),
    "ECC_NIST_P384": ec.SECP384R1(),
    "ECC_NIST_P521": ec.SECP521R1(),
    "ECC_SECG_P256K1": ec.SECP256K1(),
}


@dataclass(slots=True)
class KmsKey:
    """One key.

    Args:
        arn: its name all over the world.
        pcrs: the measurements, in hexadecimal digits, that its policy demands of whoever decrypts,
            derives or asks for data keys; empty for a policy without that condition.
        curve: of a key for agreements, as KMS calls it; None of a symmetric one.
        is_enabled: whether it can be used.
    """

    arn: str
    pcrs: Mapping[int, str] = field(default_factory=dict)
    curve: str | None = None
    is_enabled: bool = True
    aliases: list[str] = field(default_factory=list)
    _secret: AESGCM = field(default_factory=lambda: AESGCM(os.urandom(32)), repr=False)
    _agreement: ec.EllipticCurvePrivateKey | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.curve is not None:
            self._agreement = ec.generate_private_key(CURVES[self.curve])

    @property
    def key_id(self) -> str:
        """The last part of the ARN, a UUID."""
        return self.arn.rpartition("/")[2]

    @property
    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo of a key for agreements."""
        assert self._agreement is not None
        return self._agreement.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """A ciphertext that names its key; the encryption context is bound to it."""
        nonce = os.urandom(_NONCE_BYTES)
        header = _MAGIC + uuid.UUID(self.key_id).bytes
        sealed = self._secret.encrypt(nonce, plaintext, header + _bound(context))
        return header + nonce + sealed

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """The plaintext.

        Raises:
            AwsError: it is no ciphertext of this key with this context.
        """
        start = len(_MAGIC) + _ID_BYTES
        nonce, sealed = ciphertext[start : start + _NONCE_BYTES], ciphertext[start + _NONCE_BYTES :]
        try:
            return self._secret.decrypt(nonce, sealed, ciphertext[:start] + _bound(context))
        except (InvalidTag, ValueError):
            raise AwsError("InvalidCiphertextException") from None

    def agree(self, public_key: bytes) -> bytes:
        """The raw secret shared with the owner of a public key.

        Raises:
            AwsError: that is no point on this key's curve.
        """
        assert self._agreement is not None
        try:
            other = serialization.load_der_public_key(public_key)
        except ValueError:
            other = None
        if not isinstance(other, ec.EllipticCurvePublicKey):
            raise AwsError("ValidationException", "the public key is malformed")
        if other.curve.name != self._agreement.curve.name:
            raise AwsError("ValidationException", "the public key is of another curve")
        return self._agreement.exchange(ec.ECDH(), other)


class KeyStore:
    """All keys of a region.

    Args:
        region: in their names.
    """

    def __init__(self, region: str) -> None:
        self.region = region
        self.keys: dict[str, KmsKey] = {}

    def create(
        self,
        *,
        alias: str | None = None,
        pcrs: Mapping[int, str] | None = None,
        curve: str | None = None,
        key_id: str | None = None,
    ) -> KmsKey:
        """Add a key: symmetric, or for agreements on a curve."""
        key_id = str(uuid.uuid4()) if key_id is None else key_id
        key = KmsKey(f"arn:aws:kms:{self.region}:{ACCOUNT}:key/{key_id}", pcrs or {}, curve)
        if alias is not None:
            key.aliases.append(f"alias/{alias}")
        self.keys[key_id] = key
        return key

    def find(self, name: str) -> KmsKey:
        """The key with an id, an ARN, an alias, or the ARN of an alias.

        Raises:
            AwsError: there is none, or it is disabled.
        """
        prefix = f"arn:aws:kms:{self.region}:{ACCOUNT}:"
        if name.startswith("arn:") and not name.startswith(prefix):
            raise AwsError("NotFoundException", f"Invalid arn {name}")
        local = name.removeprefix(prefix)
        found = self.keys.get(local.removeprefix("key/"))
        if found is None:
            found = next((key for key in self.keys.values() if local in key.aliases), None)
        if found is None:
            kind = "Alias" if local.startswith("alias/") else "Key"
            raise AwsError("NotFoundException", f"{kind} '{prefix}{local}' does not exist")
        if not found.is_enabled:
            raise AwsError("DisabledException", f"{found.arn} is disabled.")
        return found

    def key_of(self, ciphertext: bytes) -> KmsKey:
        """The key that a ciphertext names.

        Raises:
            AwsError: it names none of ours.
        """
        start = len(_MAGIC)
        name = ciphertext[start : start + _ID_BYTES]
        if not ciphertext.startswith(_MAGIC) or len(name) < _ID_BYTES:
            raise AwsError("InvalidCiphertextException")
        key = self.keys.get(str(uuid.UUID(bytes=name)))
        if key is None:
            raise AwsError("InvalidCiphertextException")
        return key


def _bound(context: Mapping[str, str]) -> bytes:
    return json.dumps(context, sort_keys=True, separators=(",", ":")).encode()
