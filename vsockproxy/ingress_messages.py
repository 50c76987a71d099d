"""The messages of `worker_messages` that are about ingress; its table has them too."""

from typing import Annotated, Literal

import msgspec

__all__ = ("MOST_SOCKETS", "Offer", "Routed", "Sockets", "SocketsWanted")

MOST_SOCKETS = 64
"""Sockets of one answer; see `worker_messages.MAX_DESCRIPTORS`."""

_Index = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Unsigned32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable; unknown keys are errors."""


class Sockets(_Record, frozen=True, tag="sockets", tag_field="type"):
    """The answer to `sockets_wanted`."""

    ip_version: Literal[4, 6]


class SocketsWanted(_Record, frozen=True, tag="sockets_wanted", tag_field="type"):
    """The worker needs sockets that were made in the command's network."""

    ip_version: Literal[4, 6]
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST_SOCKETS)]


class Offer(_Record, frozen=True, tag="offer", tag_field="type"):
    """What an enclave offers for ingress, as the worker that has its links knows it."""

    cid: _Unsigned32
    worker: _Index
    services: list[str] = []
    """None if it is gone."""
    streams: _Unsigned32 = 0
    """Streams of ingress that are open, or being opened."""
    rests: dict[str, float] = {}
    """Services that are put aside, and until when: seconds of CLOCK_MONOTONIC, the same for all."""
    name: str | None = None
    """Its configured name."""


class Routed(_Record, frozen=True, tag="routed", tag_field="type"):
    """A connection of ingress for an enclave of another worker."""

    cid: _Unsigned32
    worker: _Index
    """Which has its links."""
    service: str
    cids: list[_Unsigned32] | None
    """The only enclaves that may have it; null for all that offer the service."""
    source: str
    """Where the file says so, for the log."""
    port: int
    client: str
    """`ADDRESS:PORT` of who connected, and of where; empty if that is not known."""
    server: str
    first_bytes: bytes
    """What was read of it already."""
    tried: list[_Unsigned32]
    """Enclaves that did not take it."""
    name: str | None = None
    """What the only enclaves are called that may have it; null for all that offer the service."""
