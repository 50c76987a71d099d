"""Certificates kept for a year, on a clock that jumps."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

from enclave_side.services.certificate_keeper import CertificateKeeper
from enclave_side.services.certificate_sources import FromFiles, SelfSigned, Source
from tests.support.supervision import RecordingLog
from vsockproxy.attestation.tls_binding import KeyOrigin
from vsockproxy.certificates.errors import CertificateError
from vsockproxy.certificates.self_signed import LIFETIME
from vsockproxy.certificates.served import ServedCertificate

DAY = 86_400.0
START = 1_767_225_600.0


@dataclass
class Wall:
    """A wall clock that may be set."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return START + self.ahead + trio.current_time()

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self(), UTC)


@dataclass
class Taker:
    """Notes what is handed over, and when."""

    wall: Wall
    taken: list[ServedCertificate] = field(default_factory=list)
    at: list[datetime] = field(default_factory=list)

    async def take(self, certificate: ServedCertificate) -> None:
        await trio.lowlevel.checkpoint()
        self.taken.append(certificate)
        self.at.append(self.wall.now)


@dataclass
class Failing:
    """A source that fails so many times, and then is another."""

    inner: Source
    failures: int
    origin: KeyOrigin = "generated"

    async def obtain(self, former: ServedCertificate | None, at: datetime) -> ServedCertificate:
        if self.failures:
            self.failures -= 1
            raise CertificateError("the authority is away")
        return await self.inner.obtain(former, at)

    def due_at(self, certificate: ServedCertificate) -> datetime | None:
        return self.inner.due_at(certificate)

    def seconds_to_retry(self, error: CertificateError, failures: int, chance: float) -> float:
        return self.inner.seconds_to_retry(error, failures, chance)


WEB = SelfSigned("web", ("a.example",))


@asynccontextmanager
async def keeping(
    source: Source, taker: Taker, log: RecordingLog, held: ServedCertificate | None = None
) -> Any:
    keeper = CertificateKeeper(
        "web", source, taker.take, log, wall_clock=taker.wall, chance=lambda: 0.5
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run, held)
        yield keeper
        nursery.cancel_scope.cancel()


async def test_it_is_renewed_before_it_ends_for_a_year(autojump_clock: MockClock) -> None:
    del autojump_clock
    taker, log = Taker(Wall()), RecordingLog()
    async with keeping(WEB, taker, log):
        await trio.sleep(365 * DAY)
    assert len(taker.taken) > 5
    for (former, at), (_, renewed_at) in pairwise(zip(taker.taken, taker.at, strict=True)):
        assert renewed_at < former.not_after - timedelta(days=20)
        assert renewed_at > at + timedelta(days=40)
    assert len({each.public_key for each in taker.taken}) == 1, "clients may have pinned it"
    assert [line["service"] for line in log.events("certificate_ready")] == ["web"] * len(taker.at)


async def test_a_clock_that_is_set_forward_is_seen_soon(autojump_clock: MockClock) -> None:
    del autojump_clock
    taker = Taker(Wall())
    async with keeping(WEB, taker, RecordingLog()):
        await trio.sleep(10)
        taker.wall.ahead = LIFETIME.total_seconds()
        await trio.sleep(1000)
        assert len(taker.taken) == 2
        assert taker.taken[1].not_after > taker.wall.now + timedelta(days=80)


async def test_what_is_presented_already_stays(autojump_clock: MockClock) -> None:
    del autojump_clock
    taker, log = Taker(Wall()), RecordingLog()
    held = await WEB.obtain(None, taker.wall.now)
    async with keeping(WEB, taker, log, held):
        await trio.sleep(30 * DAY)
        assert taker.taken == []
        await trio.sleep(60 * DAY)
    assert taker.taken[0].public_key == held.public_key


async def test_failures_are_said_and_tried_again(autojump_clock: MockClock) -> None:
    del autojump_clock
    taker, log = Taker(Wall()), RecordingLog()
    async with keeping(Failing(WEB, 3), taker, log):
        await trio.sleep(60)
    assert len(taker.taken) == 1
    failed = log.events("certificate_failed")
    assert [line["text"] for line in failed] == ["the authority is away"] * 3
    delays = [line["retry_after"] for line in failed]
    assert delays == sorted(delays, key=str)
    assert {level for level, event, _ in log.lines if event == "certificate_failed"} == {"error"}


async def test_a_failed_renewal_is_a_warning_while_the_old_one_holds(
    autojump_clock: MockClock,
) -> None:
    del autojump_clock
    taker, log = Taker(Wall()), RecordingLog()
    held = await WEB.obtain(None, taker.wall.now)
    async with keeping(Failing(WEB, 5), taker, log, held):
        await trio.sleep(70 * DAY)
    assert len(taker.taken) == 1
    levels = [level for level, event, _ in log.lines if event == "certificate_failed"]
    assert levels == ["warning"] * 5
    assert log.events("certificate_failed")[0]["not_after"] == held.not_after.isoformat()


async def test_files_are_read_once(autojump_clock: MockClock, tmp_path: Path) -> None:
    del autojump_clock
    taker, log = Taker(Wall()), RecordingLog()
    made = await WEB.obtain(None, taker.wall.now)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(made.pem)
    key.write_bytes(made.pem)
    async with keeping(FromFiles(str(chain), str(key)), taker, log):
        await trio.sleep(365 * DAY)
    assert taker.taken == [made]
    assert log.events("certificate_ready")[0]["key"] == "image"


async def test_a_file_that_has_ended_is_presented_and_said(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    del autojump_clock
    taker, log = Taker(Wall()), RecordingLog()
    made = await WEB.obtain(None, taker.wall.now - 2 * LIFETIME)
    (tmp_path / "both.pem").write_bytes(made.pem)
    path = str(tmp_path / "both.pem")
    async with keeping(FromFiles(path, path), taker, log):
        await trio.sleep(1)
    assert taker.taken == [made]
    ((level, _, fields),) = [line for line in log.lines if line[1] == "certificate_ready"]
    assert level == "error"
    assert "put another one into the image" in str(fields["text"])


async def test_a_missing_file_is_named(autojump_clock: MockClock, tmp_path: Path) -> None:
    del autojump_clock
    taker, log = Taker(Wall()), RecordingLog()
    async with keeping(FromFiles(str(tmp_path / "a"), "/b"), taker, log):
        await trio.sleep(1)
    text = str(log.events("certificate_failed")[0]["text"])
    assert f"{tmp_path}/a cannot be read: No such file or directory" in text
