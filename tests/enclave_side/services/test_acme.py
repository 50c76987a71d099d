"""Certificates of an authority in memory, for a year, on a clock that jumps."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock

from enclave_side.services.acme import AcmeCertificate, ChallengeAnswers
from enclave_side.services.certificate_keeper import CertificateKeeper
from tests.support.acme_server import BASE, AcmeServer, converse
from tests.support.supervision import RecordingLog
from vsockproxy.certificates.acme_messages import AcmeError, Reply
from vsockproxy.certificates.acme_order import AcmeClient
from vsockproxy.certificates.served import ServedCertificate
from vsockproxy.certificates.signing_request import make_signing_request
from vsockproxy.protocols.http_service import ServiceRequest

DAY = 86_400.0
START = 1_767_225_600.0
NAMES = ("a.test",)


@dataclass
class Authority:
    """Orders of an authority in memory, and when they were made.

    Args:
        ahead: seconds that our clock is ahead of the authority's.
        faults: servers to ask first, each once.
    """

    ahead: float = 0.0
    faults: list[AcmeServer] = field(default_factory=list)
    ordered_at: list[float] = field(default_factory=list)
    taken: list[ServedCertificate] = field(default_factory=list)
    client: AcmeClient = field(
        default_factory=lambda: AcmeClient(
            f"{BASE}/dir", ec.generate_private_key(ec.SECP256R1()), None
        )
    )
    server: AcmeServer = field(default_factory=AcmeServer)

    def clock(self) -> float:
        return START + self.ahead + trio.current_time()

    async def order(self, names: tuple[str, ...], signing_request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.ordered_at.append(trio.current_time() / DAY)
        server = self.faults.pop(0) if self.faults else AcmeServer()
        server.accounts = self.server.accounts
        server.issued_at = datetime.fromtimestamp(START + trio.current_time(), UTC)
        return converse(self.client.order(names, signing_request), server)

    async def take(self, certificate: ServedCertificate) -> None:
        await trio.lowlevel.checkpoint()
        self.taken.append(certificate)


@asynccontextmanager
async def kept(authority: Authority, log: RecordingLog) -> Any:
    keeper = CertificateKeeper(
        "web",
        AcmeCertificate(authority, NAMES),
        authority.take,
        log,
        wall_clock=authority.clock,
        chance=lambda: 0.0,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield
        nursery.cancel_scope.cancel()


async def test_it_is_renewed_with_a_third_left_for_a_year(autojump_clock: MockClock) -> None:
    del autojump_clock
    authority, log = Authority(), RecordingLog()
    async with kept(authority, log):
        await trio.sleep(365 * DAY)

    assert [round(day) for day in authority.ordered_at] == [0, 60, 120, 180, 240, 300, 360]
    assert len({certificate.public_key for certificate in authority.taken}) == 1
    assert len({certificate.not_after for certificate in authority.taken}) == 7
    assert len(authority.server.accounts) == 1
    assert log.events("certificate_failed") == []


async def test_failures_wait_for_as_long_as_the_authority_wants(autojump_clock: MockClock) -> None:
    del autojump_clock
    limited = Reply(429, {"retry-after": "7200"})
    authority, log = Authority(), RecordingLog()
    async with kept(authority, log):
        await trio.sleep(59 * DAY)
        authority.faults = [
            AcmeServer(outcome="invalid"),
            AcmeServer(outcome="invalid"),
            AcmeServer(replies={"new-Order": limited}),
        ]
        await trio.sleep(DAY * 10)

    assert [line["retry_after"] for line in log.events("certificate_failed")] == [120, 240, 7200]
    assert {level for level, event, _ in log.lines if event == "certificate_failed"} == {"warning"}
    assert len(authority.ordered_at) == 5
    assert len(authority.taken) == 2  # the old one stayed until the new one came


@pytest.mark.parametrize("days", [70, 3000], ids=["seventy days ahead", "years ahead"])
async def test_a_wrong_clock_orders_no_certificate_after_the_other(
    days: int, autojump_clock: MockClock
) -> None:
    del autojump_clock
    authority, log = Authority(ahead=days * DAY), RecordingLog()
    async with kept(authority, log):
        await trio.sleep(100 * DAY)

    assert [round(day) for day in authority.ordered_at] == [0, 30, 60, 90]


@dataclass
class WithAnotherKey(Authority):
    async def order(self, names: tuple[str, ...], signing_request: bytes) -> bytes:
        del signing_request
        other = make_signing_request(ec.generate_private_key(ec.SECP256R1()), names)
        return await super().order(names, other)


async def test_a_certificate_for_another_key_is_refused(autojump_clock: MockClock) -> None:
    del autojump_clock
    source = AcmeCertificate(WithAnotherKey(), NAMES)
    with pytest.raises(AcmeError, match="issued cannot be used: the key is not that of the first"):
        await source.obtain(None, datetime.fromtimestamp(START, UTC))


async def test_a_renewal_in_another_process_keeps_the_key(autojump_clock: MockClock) -> None:
    del autojump_clock
    at = datetime.fromtimestamp(START, UTC)
    first = await AcmeCertificate(Authority(), NAMES).obtain(None, at)
    second = await AcmeCertificate(Authority(), NAMES).obtain(first, at)
    assert second.public_key == first.public_key


TOKEN = "t" * 43
PATH = f"/.well-known/acme-challenge/{TOKEN}"

REQUESTS = {
    "the challenge": (ServiceRequest("GET", PATH), 200, b"proof"),
    "its head": (ServiceRequest("HEAD", PATH), 200, b"proof"),
    "with a query": (ServiceRequest("GET", f"{PATH}?x=y"), 200, b"proof"),
    "another token": (ServiceRequest("GET", PATH[:-1]), 404, b"no such challenge\n"),
    "the token alone": (ServiceRequest("GET", TOKEN), 404, b"no such challenge\n"),
    "nothing": (ServiceRequest("GET", "/"), 404, b"no such challenge\n"),
    "a post": (ServiceRequest("POST", PATH), 405, b"only GET\n"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_challenges_are_answered_and_nothing_else(case: str) -> None:
    request, status, body = REQUESTS[case]
    answers = ChallengeAnswers()
    answers.put({TOKEN: "proof"})

    answer = answers.answer(request)

    assert (answer.status, answer.body) == (status, body)
    answers.remove({TOKEN: "proof"})
    assert answers.answer(ServiceRequest("GET", PATH)).status == 404
