"""Attestation documents as values: one that was verified, and one that was not."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vsockproxy.attestation.documents.payload import Payload

__all__ = ("MEASURED_BY_IMAGE", "AttestationDocument", "UnverifiedDocument", "time_of")

MEASURED_BY_IMAGE: Final = (0, 1, 2)
"""The PCRs of the image: whole, kernel and boot ramdisk, application. All zero in debug mode."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(timestamp_ms: int) -> datetime:
    """The moment of a document's timestamp, which counts milliseconds from 1970."""
    return _EPOCH + timedelta(milliseconds=timestamp_ms)


@dataclass(frozen=True, slots=True)
class AttestationDocument:
    """What an attestation document says, after `verify_document` has verified it.

    Nothing else makes one, so whoever has one may rely on its measurements.
    """

    module_id: str
    """The instance and the enclave on it: i-INSTANCE-encNUMBER."""
    digest: str
    """The hash that the PCRs are made with: SHA384."""
    timestamp_ms: int
    """When the hypervisor made it: milliseconds from 1970, UTC."""
    pcrs: Mapping[int, bytes]
    """The measurements by number, read-only; those that were locked, so 0 to 15 at least."""
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None
    """Whatever the enclave asked to be put in; empty is not the same as none."""
    expires_at: datetime
    """When the first certificate of its chain expires: from then on it verifies no more."""
    is_debug: bool
    """The enclave runs in debug mode, and its measurements of the image are zeros."""

    def for_display(self) -> dict[str, object]:
        """Its fields as JSON has them, bytes as hex."""
        return {"verified": True, "reason": None, **_fields_of(self)}


class UnverifiedDocument:
    """A document that nobody has verified: anybody may have written it.

    It is for people's eyes and for finding out at which time to verify. Its measurements cannot be
    read as values, only as part of what `for_display` says.
    """

    __slots__ = ("_payload",)

    def __init__(self, payload: Payload) -> None:
        self._payload = payload

    def __repr__(self) -> str:
        return "UnverifiedDocument(...)"

    @property
    def claimed_time(self) -> datetime:
        """When it says that it was made.

        To verify it at this time proves that it was good then, never that it is fresh.
        """
        return time_of(self._payload.timestamp_ms)

    def for_display(self) -> dict[str, object]:
        """Its fields as JSON has them, bytes as hex, marked as unverified."""
        return {"verified": False, "reason": "unverified", **_fields_of(self._payload)}


def _fields_of(document: Payload | AttestationDocument) -> dict[str, object]:
    return {
        "module_id": document.module_id,
        "timestamp": document.timestamp_ms,
        "digest": document.digest,
        "pcrs": {str(index): document.pcrs[index].hex() for index in sorted(document.pcrs)},
        "public_key": _hex(document.public_key),
        "user_data": _hex(document.user_data),
        "nonce": _hex(document.nonce),
    }


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
