"""What the supervisors of both sides have in common: a log, workers, and their end."""

import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from vsockproxy.config import model
from vsockproxy.config.document import Document
from vsockproxy.control.ingress_relay import IngressRelay
from vsockproxy.control.listeners import NamedListener
from vsockproxy.control.logs import STDERR, Relay, Tap, open_log
from vsockproxy.control.observing import Observer
from vsockproxy.control.supervisor import Answer, MakeSockets, Supervisor
from vsockproxy.control.watching import ServicesObserver, Watching
from vsockproxy.control.worker_process import ExecutedWorker
from vsockproxy.control.worker_start import StartedWorker, start_worker
from vsockproxy.log import Log
from vsockproxy.log_lines import LineFormat
from vsockproxy.passed_memory import document_descriptor
from vsockproxy.worker_messages import INSTANCE_BYTES, Configure, ListenerSummary
from vsockproxy.worker_reports import ListenerState

__all__ = (
    "Companion",
    "NamedListener",
    "Service",
    "announce_ready",
    "run_service_process",
    "run_services",
    "supervision",
)

ONE_USER_TEXT: Final = "the admin endpoint runs in this unit, as the user that the workers have too"


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
        make_sockets: makes sockets of the command's network; None where there are no commands.
        router: passes on what workers tell each other of ingress; None if they do not.
        tap: gets a copy of our log, if somebody wants it.
        services_module: the module that is executed as a process of services, which watches the
            workers; None if there is none.
        services_listeners: the listening sockets of that process.
        named_listeners: sockets of other processes that workers are told of, to connect to.
        companions: what else runs for as long as the workers do.
    """

    side: str
    document: Document
    worker_module: str
    listeners: Sequence[NamedListener]
    workers: int
    first_workers: Sequence[StartedWorker]
    log: model.Log
    answer: Answer | None = None
    make_sockets: MakeSockets | None = None
    router: IngressRelay | None = None
    tap: Tap | None = None
    services_module: str | None = None
    services_listeners: Sequence[NamedListener] = ()
    named_listeners: Sequence[NamedListener] = ()
    companions: Sequence["Companion"] = ()

    def summaries(self, listeners: Sequence[NamedListener]) -> list[ListenerSummary]:
        """What workers are told of sockets, while they serve `listeners`."""
        return [named.summary for named in (*listeners, *self.named_listeners)]

    @property
    def line_format(self) -> LineFormat:
        """The format of log lines; a worker's stderr is a pipe to us, so only we can tell."""
        if self.log.format == "auto":
            return "text" if os.isatty(STDERR) else "json"
        return self.log.format


class Companion(Protocol):
    """Something that runs beside the workers."""

    async def run(self, service: Service, workers: Supervisor, relay: Relay, log: Log) -> None:
        """Run until the workers have ended."""

    async def ready(self, log: Log) -> None:
        """Wait until the command may start."""


@asynccontextmanager
async def supervision(
    service: Service, *, passes_listeners: bool
) -> AsyncIterator[tuple[Supervisor, Log]]:
    """Workers and a log while the body runs; at its end the workers are stopped."""
    document = document_descriptor(service.document)
    supervisor: Supervisor | None = None
    try:
        async with (
            open_log(service.side, service.line_format, service.log.level, service.tap) as (
                log,
                relay,
            ),
            trio.open_nursery() as nursery,
        ):
            instance = os.urandom(INSTANCE_BYTES)
            summaries = service.summaries(service.listeners)
            sockets = [named.listener.socket.fileno() for named in service.listeners]
            first = deque(service.first_workers)

            def launch() -> ExecutedWorker:
                started = first.popleft() if first else start_worker(service.worker_module)
                return ExecutedWorker(started, relay)

            watching = Watching(_listener_states(service), log)
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
                        workers=service.workers,
                        reports=service.services_module is not None,
                    )
                    for index in range(service.workers)
                ],
                document=document,
                listeners=sockets if passes_listeners else (),
                answer=service.answer,
                make_sockets=service.make_sockets,
                router=service.router,
                log=log,
                observer=watching if service.services_module is not None else None,
            )
            if service.router is not None:
                service.router.attach(supervisor)
                nursery.start_soon(_until_the_end, service.router.run, supervisor)
            nursery.start_soon(supervisor.run)
            if service.services_module is not None:
                nursery.start_soon(run_services, service, supervisor, watching, relay, log)
            for companion in service.companions:
                nursery.start_soon(companion.run, service, supervisor, relay, log)
            try:
                yield supervisor, log
            finally:
                supervisor.stop()
    finally:
        os.close(document if supervisor is None else supervisor.document)


async def run_services(
    service: Service, workers: Supervisor, watching: Watching, relay: Relay, log: Log
) -> None:
    """Keep the process of services that watches the workers running until they have ended."""
    assert service.services_module is not None  # or there is nothing to run
    log.info("services_share_user", uid=os.getuid(), text=ONE_USER_TEXT)

    def begin(nursery: trio.Nursery, services: Supervisor) -> None:
        watching.attach(workers, services)
        nursery.start_soon(watching.run)

    await run_service_process(
        service,
        workers,
        relay,
        log,
        module=service.services_module,
        listeners=service.services_listeners,
        observer=ServicesObserver(watching),
        begin=begin,
    )


async def run_service_process(
    service: Service,
    workers: Supervisor,
    relay: Relay,
    log: Log,
    *,
    module: str,
    listeners: Sequence[NamedListener],
    observer: Observer,
    begin: Callable[[trio.Nursery, Supervisor], None],
    secret: str = "",
    memory: int | None = None,
) -> None:
    """Keep a process of services running until the workers have ended.

    Args:
        service: what it serves beside.
        workers: those that it ends after.
        relay: takes what it writes.
        log: gets a line for each death.
        module: what is executed.
        listeners: its listening sockets.
        observer: gets what it says.
        begin: starts what runs for as long as it does, given its supervisor.
        secret: what requests have to show; empty for nothing.
        memory: the descriptor of what a process leaves to the one that replaces it, if it does.
    """
    document = document_descriptor(service.document)
    process = Supervisor(
        launch=lambda: ExecutedWorker(start_worker(module), relay),
        configurations=[
            Configure(
                0,
                bytes(INSTANCE_BYTES),
                service.line_format,
                service.log.level,
                [named.summary for named in listeners],
                listeners_follow=bool(listeners),
                secret=secret.encode("ascii"),
            )
        ],
        document=document,
        listeners=[named.listener.socket.fileno() for named in listeners],
        memory=memory,
        log=log,
        observer=observer,
        kind="service",
    )
    try:
        async with trio.open_nursery() as nursery:
            begin(nursery, process)
            nursery.start_soon(process.run)
            await workers.has_ended.wait()
            process.stop()
            await process.has_ended.wait()
            nursery.cancel_scope.cancel()
    finally:
        os.close(document)


def _listener_states(service: Service) -> list[ListenerState]:
    return [
        ListenerState(named.name, named.kind, str(named.listener.endpoint))
        for named in (*service.listeners, *service.services_listeners)
    ]


async def _until_the_end(run: Callable[[], Awaitable[None]], supervisor: Supervisor) -> None:
    """Run something for as long as there are workers."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await supervisor.has_ended.wait()
        nursery.cancel_scope.cancel()


async def announce_ready(
    supervisor: Supervisor, listeners: Sequence[NamedListener], log: Log
) -> None:
    """Wait until every worker serves, then write the line `ready`."""
    await supervisor.all_ready.wait()
    endpoints = [str(named.listener.endpoint) for named in listeners]
    log.info("ready", listeners=" ".join(endpoints), workers=supervisor.workers)
