"""Holds the certificates and keys of the enclave's services for processes that come and go.

The services process makes them; a worker that begins gets them, and a services process that begins
again finds what there is, so that nothing changes by its death. A key is a descriptor here: this
process never looks into it. What a worker does not take at once waits, the latest only.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from vsockproxy.control.observing import PlaceState
from vsockproxy.worker_messages import (
    Certificate,
    CertificateWanted,
    FromWorker,
    NoCertificate,
    ToWorker,
)

__all__ = ("CertificateHolder", "Processes")

RETRY_SECONDS: Final = 0.02
"""Until a process that took no message is asked again."""


class Processes(Protocol):
    """What the holder needs of a supervisor."""

    @property
    def states(self) -> list[PlaceState]:
        """How each process does."""

    def tell(self, worker: int, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        """Send a message if that can be done at once; whether it was."""


@dataclass(frozen=True, slots=True)
class _Held:
    message: Certificate
    descriptor: int


@dataclass(slots=True)
class _Told:
    """What one process of a worker has been told, by service; another process knows nothing."""

    deaths: int = 0
    held: dict[str, _Held] = field(default_factory=dict)


class CertificateHolder:
    """Stands between the services process and the workers, whose observer it is.

    Args:
        services: those that may have a certificate.
    """

    def __init__(self, services: Collection[str]) -> None:
        self._services = frozenset(services)
        self._held: dict[str, _Held] = {}
        self._told: dict[int, _Told] = {}
        self._asked: list[str] = []
        """What the services process wants to know, and was not told yet."""
        self._is_due = trio.Event()
        self._workers: Processes | None = None
        self._source: Processes | None = None

    def attach(self, workers: Processes, source: Processes) -> None:
        """Say who gets certificates, and who makes them."""
        self._workers, self._source = workers, source
        self._flush()

    async def run(self) -> None:
        """Tell what was not taken at once, until cancelled."""
        while True:
            await self._is_due.wait()
            await trio.sleep(RETRY_SECONDS)
            self._flush()

    def close(self) -> None:
        """Let go of all keys."""
        for held in self._held.values():
            os.close(held.descriptor)
        self._held.clear()

    def changed(self) -> None:
        """A worker serves."""
        self._flush()

    def died(self, worker: int) -> None:
        """A worker is gone; its successor says when it serves."""

    def source_died(self) -> None:
        """The services process is gone; what it wanted to know is of no use to the next."""
        self._asked.clear()

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """The services process has told something; the descriptors stay the caller's."""
        del worker
        match message:
            case Certificate() if message.service in self._services:
                former = self._held.get(message.service)
                self._held[message.service] = _Held(message, os.dup(descriptors[0]))
                if former is not None:
                    os.close(former.descriptor)
            case CertificateWanted():
                self._asked.append(message.service)
        self._flush()

    def _flush(self) -> None:
        if self._workers is None or self._source is None:
            return
        is_done = True
        for state in self._workers.states:
            # One that does not serve says so once it does: `changed` comes then.
            is_done &= not state.is_ready or self._tell_worker(self._workers, state)
        while self._asked and is_done:
            is_done = self._answer(self._source, self._asked[0])
            if is_done:
                self._asked.pop(0)
        if not is_done:
            self._is_due.set()
        elif self._is_due.is_set():
            self._is_due = trio.Event()

    def _tell_worker(self, workers: Processes, state: PlaceState) -> bool:
        """Tell a worker what it does not know; whether it took all of it."""
        told = self._told.get(state.worker)
        if told is None or told.deaths != state.deaths:
            told = self._told[state.worker] = _Told(state.deaths)
        for service, held in self._held.items():
            if told.held.get(service) is held:
                continue
            if not workers.tell(state.worker, held.message, [held.descriptor]):
                return False
            told.held[service] = held
        return True

    def _answer(self, source: Processes, service: str) -> bool:
        held = self._held.get(service)
        if held is None:
            return source.tell(0, NoCertificate(service))
        return source.tell(0, held.message, [held.descriptor])
