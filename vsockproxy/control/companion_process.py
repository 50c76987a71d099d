"""Keeps a process of services running beside the workers.

The parent's is for credentials; the enclave's has all services of the enclave's own.
"""

import os
from collections.abc import Collection, MutableMapping, Sequence
from typing import Final

import trio

from vsockproxy.control.certificate_holder import CertificateHolder
from vsockproxy.control.logs import EventLog, Relay
from vsockproxy.control.services import NamedListener, Service, run_service_process
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.credentials.locations import REGION_VARIABLES
from vsockproxy.log import Log
from vsockproxy.worker_messages import FromWorker, RegionKnown, RegionMissing

__all__ = ("CompanionProcess", "EnclaveServices")

ONE_USER_TEXT: Final = (
    "the credentials service runs in this unit, as the user that the workers have too; "
    "vsockproxy-credentials.service has a user of its own"
)

REGION_SECONDS: Final = 5.0
"""How long the command's start waits for the region: a link, and an answer of the parent."""


class CompanionProcess:
    """A companion of workers (`services.Companion`).

    Args:
        module: what is executed.
        listeners: its listening sockets.
        secret: what requests have to show, from start to end; empty for nothing.
        memory: the descriptor of what a process leaves to the one that replaces it, if it does;
            whoever made it closes it.
    """

    def __init__(
        self,
        module: str,
        listeners: Sequence[NamedListener],
        secret: str = "",
        memory: int | None = None,
    ) -> None:
        self._module = module
        self._listeners = listeners
        self._secret = secret
        self._memory = memory

    async def run(self, service: Service, workers: Supervisor, relay: Relay, log: Log) -> None:
        """Keep it running until the workers have ended."""
        if service.side == "parent":
            log.info("services_share_user", uid=os.getuid(), text=ONE_USER_TEXT)
        await run_service_process(
            service,
            workers,
            relay,
            log,
            module=self._module,
            listeners=self._listeners,
            observer=self,
            begin=lambda nursery, process: self._begin(nursery, workers, process),
            secret=self._secret,
            memory=self._memory,
        )

    def _begin(self, nursery: trio.Nursery, workers: Supervisor, process: Supervisor) -> None:
        """Nothing runs beside the process."""

    async def ready(self, log: Log) -> None:
        """Wait for nothing: its sockets are here, so whoever connects waits until it serves."""

    # ------------------------------------------------------- as the process's observer

    def changed(self) -> None:
        """Nothing: its sockets are here, so programs only wait meanwhile."""

    def died(self, worker: int) -> None:
        """Nothing: another one is started."""

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """Nothing that anybody waits for."""


class EnclaveServices(CompanionProcess):
    """That of the enclave, which may learn the region for the command.

    Args:
        module: what is executed.
        listeners: its listening sockets.
        secret: what requests have to show, from start to end.
        environment: the command's, which gets the region when it is known. What it says of one
            already stays.
        has_region: whether the process says which region it is, so that the command waits for it.
        tls_services: services of ingress that it makes certificates for.
        memory: as of every such process.
    """

    def __init__(
        self,
        module: str,
        listeners: Sequence[NamedListener],
        secret: str,
        environment: MutableMapping[str, str],
        *,
        has_region: bool,
        tls_services: Collection[str] = (),
        memory: int | None = None,
    ) -> None:
        super().__init__(module, listeners, secret, memory)
        self._certificates = CertificateHolder(tls_services)
        self._environment = environment
        self._is_region_wanted = has_region and not any(
            environment.get(name) for name in REGION_VARIABLES
        )
        self._region_settled = trio.Event()
        """Set once it is known, or known that it will not be soon."""
        self._region_trouble = ""
        if not self._is_region_wanted:
            self._region_settled.set()

    async def run(self, service: Service, workers: Supervisor, relay: Relay, log: Log) -> None:
        """Keep it running until the workers have ended, and its certificates."""
        try:
            await super().run(service, workers, relay, log)
        finally:
            self._certificates.close()

    def _begin(self, nursery: trio.Nursery, workers: Supervisor, process: Supervisor) -> None:
        workers.observe(self._certificates)
        self._certificates.attach(workers, process)
        nursery.start_soon(self._certificates.run)

    async def ready(self, log: EventLog) -> None:
        """Wait until the command may start: the region is known or refused, or time is over."""
        with trio.move_on_after(REGION_SECONDS):
            await self._region_settled.wait()
        if self._is_region_wanted:
            cause = self._region_trouble or f"the parent named none in {REGION_SECONDS:g} s"
            text = f"AWS_REGION is not set, {cause}; or write credentials.region"
            log.write("warning", "region_unknown", {"text": text})

    def died(self, worker: int) -> None:
        """Another one is started, which asks anew."""
        self._certificates.source_died()

    def received(self, worker: int, message: FromWorker, descriptors: tuple[int, ...]) -> None:
        """The region, and certificates."""
        self._certificates.received(worker, message, descriptors)
        match message:
            case RegionKnown(region=region) if self._is_region_wanted:
                for name in REGION_VARIABLES:
                    self._environment.setdefault(name, region)
                self._is_region_wanted = False
                self._region_settled.set()
            case RegionMissing(text=text, is_refusal=is_refusal):
                self._region_trouble = text
                if is_refusal:
                    self._region_settled.set()
