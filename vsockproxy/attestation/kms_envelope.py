"""CiphertextForRecipient: what KMS answers in place of a plaintext to a request with a Recipient.

A CMS EnvelopedData (RFC 5652, section 6) as KMS writes it, in BER, and nothing else that CMS could
say: one recipient of version 2, found by the SHA-256 of its public key, RSA-OAEP with SHA-256 twice
and an empty label, AES-256-CBC, and the content in one or several pieces.

What this cannot detect, since AES-CBC has no integrity: a bit that is flipped in the
initialisation vector flips that bit of the plaintext's first block; one that is flipped in a block
of ciphertext garbles that block of the plaintext and flips that bit of the next. Only what meets
the padding, 1 to 16 bytes at the very end, is found out, and a garbled last block still passes once
in about 256 times. Whole blocks can be left out, and whoever has seen our public key, which is in
the attestation document, can write an envelope with a plaintext of their own. An envelope is
therefore worth what the TLS connection is worth that it came by, and that has to end in the
enclave. That everything which does not decrypt gets one answer keeps altered envelopes from being
questions about a plaintext.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from vsockproxy.attestation.ber import BerError, BerReader
from vsockproxy.errors import VsockproxyError

__all__ = ("MAX_ENVELOPE_BYTES", "Envelope", "EnvelopeError", "open_envelope", "parse_envelope")

MAX_ENVELOPE_BYTES: Final = 16 * 1024
"""KMS writes up to 6144 (API reference, CiphertextForRecipient), of plaintexts up to 4096."""

_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 16

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_NULL: Final = 0x05
_OID: Final = 0x06
_CONTEXT_0: Final = 0x80
_CONTEXT_0_CONSTRUCTED: Final = 0xA0
_CONTEXT_1_CONSTRUCTED: Final = 0xA1
_CONTEXT_2_CONSTRUCTED: Final = 0xA2

_VERSION_2: Final = b"\x02"
_ENVELOPED_DATA: Final = bytes.fromhex("2a864886f70d010703")  # 1.2.840.113549.1.7.3
_DATA: Final = bytes.fromhex("2a864886f70d010701")  # 1.2.840.113549.1.7.1
_RSAES_OAEP: Final = bytes.fromhex("2a864886f70d010107")  # 1.2.840.113549.1.1.7
_MGF1: Final = bytes.fromhex("2a864886f70d010108")  # 1.2.840.113549.1.1.8
_P_SPECIFIED: Final = bytes.fromhex("2a864886f70d010109")  # 1.2.840.113549.1.1.9
_SHA_256: Final = bytes.fromhex("608648016503040201")  # 2.16.840.1.101.3.4.2.1
_AES_256_CBC: Final = bytes.fromhex("60864801650304012a")  # 2.16.840.1.101.3.4.1.42

_DOES_NOT_DECRYPT: Final = "the envelope does not decrypt with this key"


class EnvelopeError(VsockproxyError):
    """No envelope of KMS for our key; nothing of it is to be used.

    Args:
        reason: `too_large`, `malformed`, `wrong_recipient` or `does_not_decrypt`.
        text: one line; the same for everything that is found out with the private key.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an envelope holds; nothing in it is authenticated."""

    recipient: bytes
    """The subject key identifier: the SHA-256 of the recipient's SubjectPublicKeyInfo in DER."""
    encrypted_key: bytes = field(repr=False)
    """The content's key, for the recipient."""
    initialisation_vector: bytes
    ciphertext: bytes = field(repr=False)
    """Whole blocks, at least one."""


def open_envelope(data: bytes, private_key: rsa.RSAPrivateKey) -> bytes:
    """The plaintext of an envelope.

    Args:
        data: CiphertextForRecipient, decoded from base64.
        private_key: of the public key that the attestation document held.

    Raises:
        EnvelopeError: it is no envelope, or not for this key.
    """
    envelope = parse_envelope(data)
    public_key = private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if envelope.recipient != hashlib.sha256(public_key).digest():
        raise EnvelopeError("wrong_recipient", "the envelope is for another public key than ours")
    return _decrypt(envelope, private_key)


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope without opening it.

    Raises:
        EnvelopeError: it is none.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError("too_large", f"the envelope has over {MAX_ENVELOPE_BYTES} bytes")
    try:
        return _read_content_info(BerReader(data))
    except BerError as error:
        raise EnvelopeError("malformed", f"the envelope is malformed: {error}") from error


def _read_content_info(reader: BerReader) -> Envelope:
    reader.enter(_SEQUENCE, "ContentInfo")
    _expect(reader, _OID, _ENVELOPED_DATA, "the content type")
    reader.enter(_CONTEXT_0_CONSTRUCTED, "the content")
    reader.enter(_SEQUENCE, "EnvelopedData")
    _expect(reader, _INTEGER, _VERSION_2, "the version of EnvelopedData")
    reader.enter(_SET, "the set of recipients")
    recipient, encrypted_key = _read_recipient(reader)
    reader.leave("the set of recipients")
    vector, ciphertext = _read_encrypted_content(reader)
    reader.leave("EnvelopedData")
    reader.leave("the content")
    reader.leave("ContentInfo")
    reader.finish("ContentInfo")
    return Envelope(recipient, encrypted_key, vector, ciphertext)


def _read_recipient(reader: BerReader) -> tuple[bytes, bytes]:
    """KeyTransRecipientInfo: whose it is, and the encrypted key."""
    reader.enter(_SEQUENCE, "the recipient")
    _expect(reader, _INTEGER, _VERSION_2, "the version of the recipient")
    recipient = reader.primitive(_CONTEXT_0, "the recipient's key identifier")
    reader.enter(_SEQUENCE, "the key's encryption")
    _expect(reader, _OID, _RSAES_OAEP, "the key's encryption")
    reader.enter(_SEQUENCE, "the parameters of OAEP")
    reader.enter(_CONTEXT_0_CONSTRUCTED, "the hash of OAEP")
    _read_sha_256(reader)
    reader.leave("the hash of OAEP")
    reader.enter(_CONTEXT_1_CONSTRUCTED, "the mask of OAEP")
    reader.enter(_SEQUENCE, "the mask of OAEP")
    _expect(reader, _OID, _MGF1, "the mask of OAEP")
    _read_sha_256(reader)
    reader.leave("the mask of OAEP")
    reader.leave("the mask of OAEP")
    if reader.next_is(_CONTEXT_2_CONSTRUCTED):  # no label, said explicitly (RFC 4055, section 4.1)
        reader.enter(_CONTEXT_2_CONSTRUCTED, "the label of OAEP")
        reader.enter(_SEQUENCE, "the label of OAEP")
        _expect(reader, _OID, _P_SPECIFIED, "the label of OAEP")
        _expect(reader, _OCTET_STRING, b"", "the label of OAEP")
        reader.leave("the label of OAEP")
        reader.leave("the label of OAEP")
    reader.leave("the parameters of OAEP")
    reader.leave("the key's encryption")
    encrypted_key = reader.primitive(_OCTET_STRING, "the encrypted key")
    reader.leave("the recipient")
    return recipient, encrypted_key


def _read_sha_256(reader: BerReader) -> None:
    """AlgorithmIdentifier: its parameters are NULL or left out (RFC 4055, section 2.1)."""
    reader.enter(_SEQUENCE, "a hash algorithm")
    _expect(reader, _OID, _SHA_256, "a hash algorithm")
    if reader.next_is(_NULL):
        _expect(reader, _NULL, b"", "the parameters of a hash algorithm")
    reader.leave("a hash algorithm")


def _read_encrypted_content(reader: BerReader) -> tuple[bytes, bytes]:
    """EncryptedContentInfo: initialisation vector and ciphertext."""
    reader.enter(_SEQUENCE, "the encrypted content")
    _expect(reader, _OID, _DATA, "the type of the encrypted content")
    reader.enter(_SEQUENCE, "the content's encryption")
    _expect(reader, _OID, _AES_256_CBC, "the content's encryption")
    vector = reader.primitive(_OCTET_STRING, "the initialisation vector")
    reader.leave("the content's encryption")
    if reader.next_is(_CONTEXT_0_CONSTRUCTED):
        pieces = []
        reader.enter(_CONTEXT_0_CONSTRUCTED, "the ciphertext")
        while not reader.at_end():
            pieces.append(reader.primitive(_OCTET_STRING, "a piece of the ciphertext"))
        reader.leave("the ciphertext")
        ciphertext = b"".join(pieces)
    else:
        ciphertext = reader.primitive(_CONTEXT_0, "the ciphertext")
    reader.leave("the encrypted content")
    if len(vector) != _BLOCK_BYTES:
        raise BerError(f"the initialisation vector has {len(vector)} bytes")
    if not ciphertext or len(ciphertext) % _BLOCK_BYTES:
        raise BerError(f"the ciphertext has {len(ciphertext)} bytes, which is no number of blocks")
    return vector, ciphertext


def _expect(reader: BerReader, tag: int, content: bytes, name: str) -> None:
    found = reader.primitive(tag, name)
    if found != content:
        raise BerError(f"{name} is not what KMS writes")


def _decrypt(envelope: Envelope, private_key: rsa.RSAPrivateKey) -> bytes:
    """The plaintext; one error and one course for every way in which there is none."""
    scheme = OAEP(mgf=MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    try:
        key = private_key.decrypt(envelope.encrypted_key, scheme)
    except ValueError:
        key = b""
    has_key = len(key) == _KEY_BYTES
    cipher = Cipher(
        algorithms.AES256(key if has_key else bytes(_KEY_BYTES)),
        modes.CBC(envelope.initialisation_vector),
    )
    padded = cipher.decryptor().update(envelope.ciphertext)
    unpadder = padding.PKCS7(8 * _BLOCK_BYTES).unpadder()
    try:
        plaintext = unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        has_key = False
    if not has_key:
        raise EnvelopeError("does_not_decrypt", _DOES_NOT_DECRYPT)
    return plaintext
