"""What the parent believes of an enclave's attestation document, and what it makes of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from vsockproxy.config.model import ParentAttestation
from vsockproxy.errors import Refused
from vsockproxy.session.attesting import session_user_data
from vsockproxy.trusted_roots import read_trusted_roots

__all__ = ("Attested", "Trust")

INSTANCE_FILE: Final = Path("/sys/devices/virtual/dmi/id/board_asset_tag")
"""Holds the instance's id on EC2's Nitro instances (AWS, "Detect whether a host is an EC2
instance")."""

_INSTANCE_PREFIX: Final = "i-"
_OF_INSTANCE: Final = "-enc"
"""Stands behind the instance's id in a document's module_id."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Under which conditions documents are believed.

    Args:
        roots: root certificates, DER.
        allow_debug: whether enclaves in debug mode are taken.
        instance: the id of the instance that an enclave has to be on; None for any.
        max_age_seconds: how far a document's time may be from ours.
    """

    roots: tuple[bytes, ...]
    allow_debug: bool
    instance: str | None
    max_age_seconds: float

    @classmethod
    def read(cls, settings: ParentAttestation, *, instance_file: Path = INSTANCE_FILE) -> "Trust":
        """What a file says; reads the roots that it names. It needs the extra `trust`.

        Raises:
            RootsNotUsable: they cannot be read.
        """
        return cls(
            roots=read_trusted_roots(settings.root),
            allow_debug=settings.allow_debug,
            instance=settings.instance or _own_instance(instance_file),
            max_age_seconds=settings.max_age,
        )

    def verify(self, document: bytes, nonce: bytes, cid: int | None, at: datetime) -> "Attested":
        """Verify what an enclave shows for one link; takes some 7 ms.

        Args:
            document: as it came.
            nonce: of the link's opening exchange.
            cid: the other end of the link; None where that is no vsock.
            at: the time.

        Raises:
            Refused: with the reason of the document's refusal, or `other_instance`.
        """
        from vsockproxy.attestation.documents import (
            DocumentRefused,
            Requirements,
            verify_document,
        )

        requirements = Requirements(
            roots=self.roots,
            nonce=nonce,
            user_data=session_user_data(cid),
            max_age_seconds=self.max_age_seconds,
            allow_debug=self.allow_debug,
        )
        try:
            verified = verify_document(document, requirements, at)
        except DocumentRefused as error:
            raise Refused(error.reason, error.text) from error
        instance = verified.module_id.rpartition(_OF_INSTANCE)[0]
        if self.instance is not None and instance != self.instance:
            text = f"the document is of an enclave on {instance}, and this is {self.instance}"
            raise Refused("other_instance", text)
        return Attested(
            pcrs=MappingProxyType(dict(verified.pcrs)),
            module_id=verified.module_id,
            is_debug=verified.is_debug,
            trust=self,
        )

    def holds_for(self, attested: "Attested") -> bool:
        """Whether what was believed under other conditions is believed under these as well."""
        return (
            attested.trust.roots == self.roots
            and attested.trust.instance == self.instance
            and (self.allow_debug or not attested.is_debug)
        )


@dataclass(frozen=True, slots=True)
class Attested:
    """What is known of an enclave by a document that was verified."""

    pcrs: Mapping[int, bytes]
    """The registers that were locked, by number: they keep these values for the enclave's life."""
    module_id: str
    """The instance, and which enclave on it."""
    is_debug: bool
    trust: Trust
    """The conditions under which it was verified."""

    def is_extended_by(self, other: "Attested") -> bool:
        """Whether `other` can be of the same enclave, later: registers are locked, never freed."""
        return self.module_id == other.module_id and self.pcrs.items() <= other.pcrs.items()


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def _own_instance(file: Path) -> str | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError):
        return None
    return text if text.startswith(_INSTANCE_PREFIX) else None
