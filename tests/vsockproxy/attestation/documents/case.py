"""A document that is refused: what tables of them hold."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.support.forged_documents import AT, Forge
from vsockproxy.attestation.documents import Reason


@dataclass(frozen=True, slots=True)
class Case:
    """One way to be refused."""

    make: Callable[[Forge], bytes]
    """Makes the document, by the forge whose root is trusted."""
    reason: Reason
    text: str = ""
    """What the refusal says, among other words."""
    forge: Callable[[], Forge] | None = None
    """None: one that changes nothing."""
    requirements: dict[str, Any] = field(default_factory=dict)
    """Beside the root."""
    at: datetime = AT


def with_fields(**changes: Any) -> Callable[[Forge], bytes]:
    """A document that says something else, signed."""
    return lambda forge: forge.document(**changes)


def with_payload(change: Callable[[bytes], bytes]) -> Callable[[Forge], bytes]:
    """A document with changed payload bytes, signed."""
    return lambda forge: forge.envelope(change(forge.payload()))


def around(change: Callable[[bytes], bytes]) -> Callable[[Forge], bytes]:
    """A right document, with something done to its bytes."""
    return lambda forge: change(forge.document())
