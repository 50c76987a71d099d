"""What the services process says to its supervisor of certificates."""

import math
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock

from enclave_side.services.certificates import keep_certificates
from vsockproxy.addresses import TcpAddress, UnixAddress
from vsockproxy.certificates.served import ServedCertificate
from vsockproxy.config.document import Document
from vsockproxy.config.model import EnclaveConfig, EnclaveIngress, IngressTls
from vsockproxy.control.service_process import ServiceProcess
from vsockproxy.log import Log
from vsockproxy.passed_memory import memory_descriptor, read_memory
from vsockproxy.worker_messages import (
    INSTANCE_BYTES,
    Certificate,
    CertificateWanted,
    Configure,
    FromWorker,
    Message,
    NoCertificate,
)

CONFIG = EnclaveConfig(
    parent=UnixAddress("/run/link.sock"),
    ingress=[
        EnclaveIngress("web", TcpAddress("127.0.0.1", 80), tls=IngressTls()),
        EnclaveIngress("plain", TcpAddress("127.0.0.1", 81)),
    ],
)


@dataclass
class Supervisor:
    """Hears what is said, and answers as the test wants."""

    answers: trio.MemorySendChannel[tuple[Message, tuple[int, ...]]]
    heard: list[FromWorker] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    busy: int = 0

    def say(self, message: FromWorker, descriptors: Sequence[int] = ()) -> bool:
        if self.busy:
            self.busy -= 1
            return False
        self.heard.append(message)
        self.keys += [read_memory(each, 1 << 20) for each in descriptors]
        return True

    def answer(self, message: Message, *descriptors: int) -> None:
        self.answers.send_nowait((message, descriptors))


@asynccontextmanager
async def running() -> AsyncIterator[Supervisor]:
    answers, inbox = trio.open_memory_channel[tuple[Message, tuple[int, ...]]](math.inf)
    supervisor = Supervisor(answers)
    process = ServiceProcess(
        configure=Configure(0, bytes(INSTANCE_BYTES), "json", "error", []),
        document=Document(CONFIG, "enclave.yaml", {}),
        listeners=[],
        inbox=inbox,
        log=Log("enclave", "json", "error"),
        say=supervisor.say,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_certificates, process)
        yield supervisor
        nursery.cancel_scope.cancel()


async def test_it_asks_and_makes_one_where_there_is_none(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with running() as supervisor:
        await trio.sleep(1)
        assert supervisor.heard == [CertificateWanted("web")]
        supervisor.answer(NoCertificate("web"))
        await trio.sleep(1)
        _, said = supervisor.heard
        assert isinstance(said, Certificate)
        assert (said.service, said.origin) == ("web", "generated")
        assert ServedCertificate.parse(supervisor.keys[0]).public_key == said.public_key


async def test_what_is_held_is_not_made_anew(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with running() as first:
        first.answer(NoCertificate("web"))
        await trio.sleep(1)
    async with running() as supervisor:
        message = first.heard[1]
        assert isinstance(message, Certificate)
        supervisor.answer(message, memory_descriptor("test", first.keys[0]))
        await trio.sleep(10_000)
        assert supervisor.heard == [CertificateWanted("web")]


async def test_what_is_held_and_broken_is_made_anew_and_said(
    autojump_clock: MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    del autojump_clock
    async with running() as supervisor:
        message = Certificate("web", b"key", "generated")
        supervisor.answer(message, memory_descriptor("test", b"nothing"))
        await trio.sleep(1)
        assert isinstance(supervisor.heard[1], Certificate)
    assert "certificate_unreadable" in capfd.readouterr().err


async def test_a_busy_supervisor_is_told_later_and_no_descriptor_stays(
    autojump_clock: MockClock,
) -> None:
    del autojump_clock
    before = len(os.listdir("/proc/self/fd"))
    async with running() as supervisor:
        supervisor.busy = 5
        supervisor.answer(NoCertificate("web"))
        await trio.sleep(10)
        assert [type(each) for each in supervisor.heard] == [CertificateWanted, Certificate]
    assert len(os.listdir("/proc/self/fd")) <= before
