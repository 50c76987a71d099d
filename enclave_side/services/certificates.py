"""Certificates of the enclave's services: made here, held by the supervisor, used by workers."""

import math
import os
from functools import cache, partial
from typing import Final

import trio

from enclave_side.services.certificate_keeper import CertificateKeeper
from enclave_side.services.certificate_sources import AccountOf, Source, source_of
from vsockproxy.certificates.errors import CertificateError
from vsockproxy.certificates.served import MAX_PEM_BYTES, ServedCertificate
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.control.observing import closing_descriptors
from vsockproxy.control.service_process import ServiceProcess
from vsockproxy.passed_memory import memory_descriptor, read_memory
from vsockproxy.services.http_server import serve_http
from vsockproxy.worker_messages import (
    Certificate,
    CertificateWanted,
    FromWorker,
    MessageError,
    NoCertificate,
)

__all__ = ("keep_certificates",)

RETRY_SECONDS: Final = 0.05
"""Until a supervisor that took no message is told again."""

CHALLENGE_SECONDS: Final = 2.0
"""For the request of an authority, which sends it at once. Anybody may connect there."""


class SupervisorsHolder:
    """The supervisor, as the holder of certificates.

    Args:
        process: what this process was given; nobody else reads its inbox.
    """

    def __init__(self, process: ServiceProcess) -> None:
        self._process = process
        self._answers: dict[str, trio.MemorySendChannel[ServedCertificate | None]] = {}

    async def run(self) -> None:
        """Take its answers until cancelled."""
        async for message, descriptors in self._process.inbox:
            with closing_descriptors(descriptors):
                match message:
                    case Certificate(service=service):
                        self._answer(service, self._read(service, descriptors[0]))
                    case NoCertificate(service=service):
                        self._answer(service, None)

    async def ask(self, service: str) -> ServedCertificate | None:
        """What a service presents, from a process before this one."""
        answered, answer = trio.open_memory_channel[ServedCertificate | None](math.inf)
        self._answers[service] = answered
        await self._say(CertificateWanted(service))
        return await answer.receive()

    async def give(self, service: str, source: Source, certificate: ServedCertificate) -> None:
        """Hand over what a service presents from now on."""
        descriptor = memory_descriptor("vsockproxy-certificate", certificate.pem)
        try:
            message = Certificate(service, certificate.public_key, source.origin)
            await self._say(message, descriptor)
        finally:
            os.close(descriptor)

    async def _say(self, message: FromWorker, *descriptors: int) -> None:
        while True:
            if self._process.say(message, descriptors):
                return
            await trio.sleep(RETRY_SECONDS)

    def _answer(self, service: str, held: ServedCertificate | None) -> None:
        if (answered := self._answers.pop(service, None)) is not None:
            answered.send_nowait(held)

    def _read(self, service: str, descriptor: int) -> ServedCertificate | None:
        try:
            return ServedCertificate.parse(read_memory(descriptor, 2 * MAX_PEM_BYTES))
        except (CertificateError, MessageError) as error:
            self._process.log.error("certificate_unreadable", service=service, text=str(error))
            return None


async def keep_certificates(process: ServiceProcess) -> None:
    """See to the certificate of each service of ingress with `tls`, until cancelled."""
    config = process.document.config
    assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
    holder = SupervisorsHolder(process)
    async with trio.open_nursery() as nursery:
        account_of = _accounts(process, config, nursery)
        nursery.start_soon(holder.run)
        for ingress in config.ingress:
            if ingress.tls is not None:
                source = source_of(ingress, account_of)
                nursery.start_soon(_keep, ingress.service, source, holder, process)


def _accounts(
    process: ServiceProcess, config: EnclaveConfig, nursery: trio.Nursery
) -> AccountOf | None:
    """Accounts with authorities, whose challenges are answered from now on."""
    listener = next((each for kind, each in process.listeners if kind.kind == "acme"), None)
    if listener is None:
        return None
    # Here, since they load the packages of the extra `acme`.
    from enclave_side.services.acme import AcmeAccount, ChallengeAnswers

    answers = ChallengeAnswers()
    streams = config.shim.streams
    assert streams is not None  # a rule of the configuration
    serve = partial(serve_http, head_seconds=CHALLENGE_SECONDS)
    nursery.start_soon(serve, listener, answers.answer, process.log)
    return cache(lambda authority: AcmeAccount(authority, streams, answers, process.log))


async def _keep(
    service: str, source: Source, holder: SupervisorsHolder, process: ServiceProcess
) -> None:
    give = partial(holder.give, service, source)
    await CertificateKeeper(service, source, give, process.log).run(await holder.ask(service))
