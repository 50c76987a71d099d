"""The messages of `worker_messages` that are about certificates; its table has them too."""

from typing import Annotated, Literal

import msgspec

__all__ = ("Certificate", "CertificateWanted", "NoCertificate")

MAX_PUBLIC_KEY_BYTES = 8192
"""RSA of 16,384 bits, the longest that OpenSSL takes, has some 2 KiB."""

_Service = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable; unknown keys are errors."""


class Certificate(_Record, frozen=True, tag="certificate", tag_field="type"):
    """What a service of ingress presents from now on; the descriptor has the key and the chain."""

    service: _Service
    public_key: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PUBLIC_KEY_BYTES)]
    """Of the certificate: DER of its SubjectPublicKeyInfo."""
    origin: Literal["generated", "image"]
    """Where the key comes from (`attestation.tls_binding`)."""


class CertificateWanted(_Record, frozen=True, tag="certificate_wanted", tag_field="type"):
    """A process of services that has begun asks what the service presents."""

    service: _Service


class NoCertificate(_Record, frozen=True, tag="no_certificate", tag_field="type"):
    """The answer to `certificate_wanted` where there is none yet."""

    service: _Service
