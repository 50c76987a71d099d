"""What an attestation document says of the key that a TLS server has.

`public_key` holds the DER of the certificate's SubjectPublicKeyInfo where it fits, and `user_data`
a line of text with its SHA-256 and where the key comes from. That line is what binds: no other
document of ours has one that begins so, and the parent chooses no byte of it.
"""

import hashlib
from typing import Literal

from vsockproxy.attestation.nsm_messages import MAX_FIELD_BYTES

__all__ = ("KeyOrigin", "bound_fields", "bound_user_data")

KeyOrigin = Literal["generated", "image"]
"""`generated`: in the enclave, which it never left. `image`: from a file of the image, which
whoever has the image may read; such a document proves where the file is, not who has the key."""


def bound_user_data(public_key: bytes, origin: KeyOrigin) -> bytes:
    """The line of text for a key, given by the DER of its SubjectPublicKeyInfo."""
    digest = hashlib.sha256(public_key).hexdigest()
    return f"vsockproxy tls-key v1 {origin} sha256:{digest}".encode("ascii")


def bound_fields(public_key: bytes, origin: KeyOrigin) -> tuple[bytes, bytes | None]:
    """`user_data` and `public_key` of a document for a key.

    The latter is None where the key's SubjectPublicKeyInfo is longer than the NSM takes.
    """
    fits = len(public_key) <= MAX_FIELD_BYTES
    return bound_user_data(public_key, origin), public_key if fits else None
