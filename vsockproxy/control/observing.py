"""What a supervisor tells whoever watches its workers."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from vsockproxy.worker_messages import FromWorker

__all__ = ("Observer", "PlaceState", "closing_descriptors")


@dataclass(frozen=True, slots=True)
class PlaceState:
    """One of the workers, through all its replacements.

    Args:
        worker: its index.
        pid: of the process that it is now; None between two of them.
        is_ready: whether that serves.
        deaths: how many processes it has had before.
        closed_connections: those that were closed because too many waited for it.
    """

    worker: int
    pid: int | None
    is_ready: bool
    deaths: int
    closed_connections: int


class Observer(Protocol):
    """Who watches workers. Nothing here waits or fails."""

    def changed(self) -> None:
        """A worker serves."""

    def died(self, worker: int) -> None:
        """A worker's process has ended; nothing more comes from it."""

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """A worker told something; its descriptors are closed when this returns."""


@contextmanager
def closing_descriptors(descriptors: Iterable[int]) -> Iterator[None]:
    """Close what came with a message, once that has been dealt with."""
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
