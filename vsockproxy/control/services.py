"""What runs on trio on each side, from its listeners to its exit code."""

import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import trio

from vsockproxy.config import model
from vsockproxy.config.document import Document
from vsockproxy.control.accepting import Assignment, accept_connections
from vsockproxy.control.command import UserCommand, run_command, wait_for_ending_signal
from vsockproxy.control.logs import STDERR, open_log
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.control.worker_process import ExecutedWorker
from vsockproxy.listening import Listener
from vsockproxy.log import Log
from vsockproxy.log_lines import LineFormat
from vsockproxy.processes import SIGNAL_BASE
from vsockproxy.signals import SignalDescriptor
from vsockproxy.worker_messages import (
    INSTANCE_BYTES,
    Configure,
    ListenerKind,
    ListenerSummary,
    document_descriptor,
)

__all__ = ("NamedListener", "Service", "serve_enclave", "serve_parent")


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
        workers: how many, or `auto` for one for each processor.
        log: how lines are written.
    """

    side: str
    document: Document
    worker_module: str
    listeners: Sequence[NamedListener]
    workers: int | Literal["auto"]
    log: model.Log

    @property
    def line_format(self) -> LineFormat:
        """The format of log lines; a worker's stderr is a pipe to us, so only we can tell."""
        if self.log.format == "auto":
            return "text" if os.isatty(STDERR) else "json"
        return self.log.format

    def count_workers(self) -> int:
        """How many worker processes there are to be."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers


def serve_parent(service: Service, may_connect: Callable[[int], bool]) -> int:
    """Accept connections for the workers until SIGTERM or SIGINT; the exit code."""
    return trio.run(_serve_parent, service, may_connect)


def serve_enclave(
    service: Service,
    command: UserCommand | None,
    *,
    signals: SignalDescriptor,
    left_out: str | None,
) -> int:
    """Run the workers, and the command as soon as they serve; the exit code.

    Args:
        service: the enclave's side.
        command: the user's command; None to run until a signal.
        signals: the signals of this process.
        left_out: what this start does not set up, for one log line; None if nothing.
    """
    return trio.run(_serve_enclave, service, command, signals, left_out)


async def _serve_parent(service: Service, may_connect: Callable[[int], bool]) -> int:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            _supervision(service, passes_listeners=False) as (supervisor, log),
            trio.open_nursery() as nursery,
        ):
            assignment = Assignment(supervisor.workers)
            for named in service.listeners:
                accept = partial(
                    accept_connections,
                    named.listener,
                    named.name,
                    supervisor=supervisor,
                    assignment=assignment,
                    may_connect=may_connect,
                    log=log,
                )
                nursery.start_soon(accept)
            nursery.start_soon(_announce_ready, service, supervisor, log)
            number = await anext(signals)
            log.info("stopping", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()
    return 0


async def _serve_enclave(
    service: Service, command: UserCommand | None, signals: SignalDescriptor, left_out: str | None
) -> int:
    async with _supervision(service, passes_listeners=True) as (supervisor, log):
        if left_out is not None:
            log.info("left_out", text=left_out)
        ended_by: int | None = None
        async with trio.open_nursery() as nursery:

            async def watch_signals() -> None:
                nonlocal ended_by
                ended_by = await wait_for_ending_signal(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch_signals)
            await _announce_ready(service, supervisor, log)
            if command is not None:
                nursery.cancel_scope.cancel()
        if ended_by is not None:
            log.info("stopping", signal=signal.Signals(ended_by).name)
            return 0 if command is None else SIGNAL_BASE + ended_by
        assert command is not None  # without one, only a signal ends the nursery
        return await run_command(command, signals=signals, log=log)


@asynccontextmanager
async def _supervision(
    service: Service, *, passes_listeners: bool
) -> AsyncIterator[tuple[Supervisor, Log]]:
    """Workers and a log while the body runs; at its end the workers are stopped."""
    document = document_descriptor(service.document)
    try:
        async with (
            open_log(service.side, service.line_format, service.log.level) as (log, relay),
            trio.open_nursery() as nursery,
        ):
            instance = secrets.token_bytes(INSTANCE_BYTES)
            summaries = [named.summary for named in service.listeners]
            sockets = [named.listener.socket.fileno() for named in service.listeners]
            supervisor = Supervisor(
                launch=partial(ExecutedWorker, service.worker_module, relay),
                configurations=[
                    Configure(index, instance, service.line_format, service.log.level, summaries)
                    for index in range(service.count_workers())
                ],
                descriptors=[document, *sockets] if passes_listeners else [document],
                log=log,
            )
            nursery.start_soon(supervisor.run)
            try:
                yield supervisor, log
            finally:
                supervisor.stop()
    finally:
        os.close(document)


async def _announce_ready(service: Service, supervisor: Supervisor, log: Log) -> None:
    await supervisor.all_ready.wait()
    endpoints = [str(named.listener.endpoint) for named in service.listeners]
    log.info("ready", listeners=" ".join(endpoints), workers=supervisor.workers)
