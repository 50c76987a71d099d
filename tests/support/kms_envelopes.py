"""Writes CiphertextForRecipient: as KMS does, byte for byte, and as others might."""

import hashlib
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_END = b"\0\0"
_OAEP = OAEP(mgf=MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)

ENVELOPED_DATA = bytes.fromhex("06092a864886f70d010703")
DATA = bytes.fromhex("06092a864886f70d010701")
RSAES_OAEP = bytes.fromhex("06092a864886f70d010107")
MASK_GENERATION_1 = bytes.fromhex("06092a864886f70d010108")
SHA_256 = bytes.fromhex("0609608648016503040201")
AES_256_CBC = bytes.fromhex("060960864801650304012a")
NULL = b"\x05\0"
VERSION_2 = b"\x02\x01\x02"


def definite(tag: int, *contents: bytes) -> bytes:
    """An element with its length, in as few bytes as that takes."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def indefinite(tag: int, *contents: bytes) -> bytes:
    """An element without a length, whose end is marked."""
    return bytes([tag, 0x80]) + b"".join(contents) + _END


def oaep_label(label: bytes) -> bytes:
    """The pSourceFunc of OAEP's parameters (RFC 4055, section 4.1)."""
    return definite(
        0xA2, definite(0x30, bytes.fromhex("06092a864886f70d010109"), definite(4, label))
    )


@dataclass(frozen=True, slots=True)
class Form:
    """How an envelope is written; as it stands, as KMS does."""

    is_der: bool = False
    """Whether every element has its length."""
    has_nulls: bool = True
    """Whether the hash algorithms have their NULL."""
    is_primitive: bool = False
    """Whether the ciphertext is one primitive element (form B of AWS's SDK for C)."""
    piece_bytes: int | None = None
    """How long its pieces are; None for one piece."""
    version: bytes = VERSION_2
    recipient_version: bytes = VERSION_2
    key_identifier: bytes | None = None
    """In place of the SHA-256 of the public key."""
    copies: int = 1
    """How many recipients there are, all of them the same."""
    before_recipients: bytes = b""
    oaep_hash: bytes = SHA_256
    mask_hash: bytes = SHA_256
    after_mask: bytes = b""
    """What the parameters of OAEP end with: a label."""
    oaep: bytes = RSAES_OAEP
    content_type: bytes = ENVELOPED_DATA
    inner_type: bytes = DATA
    cipher: bytes = AES_256_CBC
    after_content: bytes = b""
    """What EnvelopedData ends with: unprotected attributes."""


LIKE_KMS = Form()


def subject_public_key(public_key: rsa.RSAPublicKey) -> bytes:
    """SubjectPublicKeyInfo in DER, as it stands in an attestation document."""
    return public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_identifier(public_key: rsa.RSAPublicKey) -> bytes:
    """What KMS names a recipient by."""
    return hashlib.sha256(subject_public_key(public_key)).digest()


def encrypt(plaintext: bytes, content_key: bytes, vector: bytes) -> bytes:
    """The ciphertext of the content."""
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(content_key), modes.CBC(vector)).encryptor()
    return encryptor.update(padder.update(plaintext) + padder.finalize())


def write_envelope(
    plaintext: bytes,
    public_key: rsa.RSAPublicKey,
    form: Form = LIKE_KMS,
    *,
    content_key: bytes | None = None,
) -> bytes:
    """An envelope for the owner of `public_key`.

    Args:
        plaintext: what is in it.
        public_key: of the recipient.
        form: how it is written.
        content_key: 32 bytes, random by default; others make an envelope that cannot be opened.
    """
    content_key = os.urandom(32) if content_key is None else content_key
    vector = os.urandom(16)
    ciphertext = encrypt(plaintext, content_key.ljust(32, b"\0")[:32], vector)
    wrapped = public_key.encrypt(content_key, _OAEP)
    identifier = form.key_identifier
    if identifier is None:
        identifier = key_identifier(public_key)
    return assemble(identifier, wrapped, vector, ciphertext, form)


def assemble(
    identifier: bytes, wrapped: bytes, vector: bytes, ciphertext: bytes, form: Form = LIKE_KMS
) -> bytes:
    """The bytes of an envelope whose parts are made."""
    outer = definite if form.is_der else indefinite
    null = NULL if form.has_nulls else b""
    parameters = (
        definite(0xA0, definite(0x30, form.oaep_hash, null)),
        definite(0xA1, definite(0x30, MASK_GENERATION_1, definite(0x30, form.mask_hash, null))),
        form.after_mask,
    )
    recipient = definite(
        0x30,
        form.recipient_version,
        definite(0x80, identifier),
        definite(0x30, form.oaep, definite(0x30, *parameters)),
        definite(0x04, wrapped),
    )
    if form.is_primitive:
        content = definite(0x80, ciphertext)
    else:
        size = form.piece_bytes or max(len(ciphertext), 1)
        pieces = [ciphertext[at : at + size] for at in range(0, len(ciphertext), size)]
        content = outer(0xA0, *(definite(0x04, piece) for piece in pieces))
    enveloped = outer(
        0x30,
        form.version,
        form.before_recipients,
        definite(0x31, recipient * form.copies),
        outer(0x30, form.inner_type, definite(0x30, form.cipher, definite(0x04, vector)), content),
        form.after_content,
    )
    return outer(0x30, form.content_type, outer(0xA0, enveloped))
