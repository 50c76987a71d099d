"""What the supervisors of both sides have in common: a log, workers, and their end."""

import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from vsockproxy.config import model
from vsockproxy.config.document import Document
from vsockproxy.control.logs import STDERR, Tap, open_log
from vsockproxy.control.supervisor import Answer, Supervisor
from vsockproxy.control.worker_process import ExecutedWorker
from vsockproxy.control.worker_start import StartedWorker, start_worker
from vsockproxy.listening import Listener
from vsockproxy.log import Log
from vsockproxy.log_lines import LineFormat
from vsockproxy.worker_messages import (
    INSTANCE_BYTES,
    Configure,
    ListenerKind,
    ListenerSummary,
    document_descriptor,
)

__all__ = ("NamedListener", "Service", "announce_ready", "supervision")


@dataclass(frozen=True, slots=True)
class NamedListener:
    """A listening socket, its path in the configuration, and what it is for."""

    name: str
    kind: ListenerKind
    listener: Listener

    @property
    def summary(self) -> ListenerSummary:
        """What workers are told about it."""
        return ListenerSummary(self.name, self.kind, str(self.listener.endpoint))


@dataclass(frozen=True, slots=True)
class Service:
    """What the supervisors of both sides need.

    Args:
        side: `parent` or `enclave`, for the log.
        document: the configuration.
        worker_module: the module that is executed as a worker.
        listeners: all listening sockets; whoever made them closes them.
        workers: how many there are to be.
        first_workers: those that have been started already.
        log: how lines are written.
        answer: answers what workers ask of the supervisor; None if they have nothing to ask.
        tap: gets a copy of our log, if somebody wants it.
    """

    side: str
    document: Document
    worker_module: str
    listeners: Sequence[NamedListener]
    workers: int
    first_workers: Sequence[StartedWorker]
    log: model.Log
    answer: Answer | None = None
    tap: Tap | None = None

    @property
    def line_format(self) -> LineFormat:
        """The format of log lines; a worker's stderr is a pipe to us, so only we can tell."""
        if self.log.format == "auto":
            return "text" if os.isatty(STDERR) else "json"
        return self.log.format


@asynccontextmanager
async def supervision(
    service: Service, *, passes_listeners: bool
) -> AsyncIterator[tuple[Supervisor, Log]]:
    """Workers and a log while the body runs; at its end the workers are stopped."""
    document = document_descriptor(service.document)
    try:
        async with (
            open_log(service.side, service.line_format, service.log.level, service.tap) as (
                log,
                relay,
            ),
            trio.open_nursery() as nursery,
        ):
            instance = os.urandom(INSTANCE_BYTES)
            summaries = [named.summary for named in service.listeners]
            sockets = [named.listener.socket.fileno() for named in service.listeners]
            first = deque(service.first_workers)

            def launch() -> ExecutedWorker:
                started = first.popleft() if first else start_worker(service.worker_module)
                return ExecutedWorker(started, relay)

            supervisor = Supervisor(
                launch=launch,
                configurations=[
                    Configure(
                        index,
                        instance,
                        service.line_format,
                        service.log.level,
                        summaries,
                        listeners_follow=passes_listeners and bool(sockets),
                    )
                    for index in range(service.workers)
                ],
                document=document,
                listeners=sockets if passes_listeners else (),
                answer=service.answer,
                log=log,
            )
            nursery.start_soon(supervisor.run)
            try:
                yield supervisor, log
            finally:
                supervisor.stop()
    finally:
        os.close(document)


async def announce_ready(service: Service, supervisor: Supervisor, log: Log) -> None:
    """Wait until every worker serves, then write the line `ready`."""
    await supervisor.all_ready.wait()
    endpoints = [str(named.listener.endpoint) for named in service.listeners]
    log.info("ready", listeners=" ".join(endpoints), workers=supervisor.workers)
