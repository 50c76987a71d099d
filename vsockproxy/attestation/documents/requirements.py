"""What a verifier demands of a document, beyond that it is genuine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType

from vsockproxy.attestation.documents.aws_root import AWS_ROOT
from vsockproxy.attestation.documents.payload import MAX_PCRS, PCR_LENGTHS
from vsockproxy.errors import VsockproxyError

__all__ = ("RequirementError", "Requirements")


class RequirementError(VsockproxyError):
    """What is demanded makes no sense, or would let everybody in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a document has to be; what is left out is not looked at, but for debug mode.

    Raises:
        RequirementError: nothing could meet it, or PCR0 is to be zero, as it is in every enclave
            in debug mode, and `allow_debug` is not set.
    """

    roots: tuple[bytes, ...] = (AWS_ROOT,)
    """The certificates to trust, DER: the first one of a document's chain is one of them."""
    pcrs: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
    """The measurements that are expected, by number."""
    nonce: bytes | None = None
    user_data: bytes | None = None
    public_key: bytes | None = None
    """What the document has to hold, byte for byte."""
    max_age_seconds: float | None = None
    """How far its timestamp may be from the time of verification, in either direction."""
    allow_debug: bool = False
    """Take documents of enclaves in debug mode, which anybody on the parent can look into."""

    def __post_init__(self) -> None:
        if not self.roots:
            raise RequirementError("no root certificate to trust")
        for index, value in self.pcrs.items():
            if not 0 <= index < MAX_PCRS:
                raise RequirementError(f"PCR{index}: there are PCR0 to PCR{MAX_PCRS - 1}")
            if len(value) not in PCR_LENGTHS:
                raise RequirementError(
                    f"PCR{index}: {len(value)} bytes are no measurement, SHA-384 has 48"
                )
        if 0 in self.pcrs and not any(self.pcrs[0]) and not self.allow_debug:
            raise RequirementError(
                "PCR0 of zeros is that of every enclave in debug mode: give the measurement of "
                "your image, or allow debug mode"
            )
        age = self.max_age_seconds
        if age is not None and not (isfinite(age) and age >= 0):
            raise RequirementError(f"a document cannot be {age} seconds old")
        object.__setattr__(self, "pcrs", MappingProxyType(dict(self.pcrs)))
