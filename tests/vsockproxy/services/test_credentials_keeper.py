"""Credentials kept fresh, on a clock that jumps."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.supervision import RecordingLog
from vsockproxy.credentials.documents import Credentials
from vsockproxy.credentials.errors import CredentialsError, CredentialsRefused
from vsockproxy.services.credentials_keeper import CredentialsKeeper, Trouble

HOUR = 3600.0
START = 1_767_225_600.0


def wall_clock() -> float:
    return START + trio.current_time()


@dataclass
class Source:
    """Gives credentials that live for six hours, unless it is told otherwise."""

    role: str = "the-role"
    lifetime: float = 6 * HOUR
    failure: str = ""
    refuses: bool = False
    hangs: bool = False
    fetched_at: list[float] = field(default_factory=list)
    serial: int = 0

    async def fetch(self) -> Credentials:
        self.fetched_at.append(trio.current_time())
        if self.hangs:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.failure:
            raise (CredentialsRefused if self.refuses else CredentialsError)(self.failure)
        self.serial += 1
        key = f"ASIA{self.serial}"
        return Credentials(self.role, key, "s", "t", wall_clock() + self.lifetime)


async def no_region() -> str:
    await trio.lowlevel.checkpoint()
    return "eu-west-1"


@asynccontextmanager
async def keeping(source: Source, log: RecordingLog) -> Any:
    keeper = CredentialsKeeper(
        source.fetch, no_region, log, wall_clock=wall_clock, chance=lambda: 0.5
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await keeper.has_tried.wait()
        yield keeper
        nursery.cancel_scope.cancel()


async def test_they_are_renewed_before_they_expire(autojump_clock: MockClock) -> None:
    source = Source()
    async with keeping(source, RecordingLog()) as keeper:
        for _ in range(4 * 24 * 60):
            await trio.sleep(60)
            assert keeper.holding.valid_at(keeper.now) is not None
    assert len(source.fetched_at) == 17, "four days, a fetch each 5 h 47 min 30 s"
    assert source.fetched_at[1] == pytest.approx(6 * HOUR - 750)


async def test_the_region_is_asked_for_once(autojump_clock: MockClock) -> None:
    async with keeping(Source(), RecordingLog()) as keeper:
        await trio.sleep(1)
        assert keeper.holding.region == "eu-west-1"


async def test_old_ones_are_kept_while_they_last_and_not_longer(
    autojump_clock: MockClock,
) -> None:
    source, log = Source(), RecordingLog()
    async with keeping(source, log) as keeper:
        source.failure = "the service is away"
        await trio.sleep(6 * HOUR - 1)
        assert keeper.holding.valid_at(keeper.now) is not None
        assert keeper.holding.trouble == "the service is away"
        await trio.sleep(1)
        assert keeper.holding.valid_at(keeper.now) is None
        await trio.sleep(31)
        source.failure = ""
        await trio.sleep(31)
        assert keeper.holding.valid_at(keeper.now) is not None
        assert keeper.holding.trouble == ""
    levels = [level for level, event, _ in log.lines if event == "fetch_failed"]
    assert levels == ["warning", "error"], "one line while they last, one when they do not"
    assert len(log.events("credentials_fetched")) == 2


async def test_failures_are_further_and_further_apart(autojump_clock: MockClock) -> None:
    source = Source(failure="no role")
    async with keeping(source, RecordingLog()):
        await trio.sleep(600)
    pauses = [late - early for early, late in pairwise(source.fetched_at)]
    assert pauses[:3] == pytest.approx([0.75, 1.5, 3.0])
    assert pauses[-1] == pytest.approx(22.5)


async def test_who_is_refused_asks_seldom_and_says_so(autojump_clock: MockClock) -> None:
    source, log = Source(failure="not_listed", refuses=True), RecordingLog()
    async with keeping(source, log) as keeper:
        assert keeper.is_refused
        assert not keeper.hurry(), "it was refused a moment ago"
        await trio.sleep(60)
        assert [round(at, 1) for at in source.fetched_at] == [0, 22.5, 45]
        source.refuses = False
        assert keeper.hurry()
        await keeper.changed.wait()
        assert not keeper.is_refused
    assert len(log.events("fetch_failed")) == 1


async def test_a_region_that_is_refused_says_so(autojump_clock: MockClock) -> None:
    async def refuse() -> str:
        await trio.sleep(1)
        raise CredentialsRefused("not_listed")

    keeper = CredentialsKeeper(Source().fetch, refuse, RecordingLog(), wall_clock=wall_clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await keeper.has_tried.wait()
        assert keeper.region_trouble is None
        await keeper.changed.wait()
        assert keeper.region_trouble == Trouble("not_listed", is_refusal=True)
        nursery.cancel_scope.cancel()


async def test_whoever_needs_some_brings_the_next_fetch_forward(
    autojump_clock: MockClock,
) -> None:
    source = Source(failure="no role")
    async with keeping(source, RecordingLog()) as keeper:
        await trio.sleep(600)
        source.failure = ""
        before = len(source.fetched_at)
        await trio.sleep(2)
        keeper.hurry()
        await keeper.changed.wait()
        assert keeper.holding.valid_at(keeper.now) is not None
        assert len(source.fetched_at) == before + 1


async def test_a_crowd_in_need_does_not_make_a_crowd_of_fetches(
    autojump_clock: MockClock,
) -> None:
    source = Source(failure="no role")
    async with keeping(source, RecordingLog()) as keeper:
        await trio.sleep(600)
        before = len(source.fetched_at)
        for _ in range(1000):
            keeper.hurry()
            await trio.sleep(0.01)
        assert len(source.fetched_at) - before <= 11, "ten seconds"


async def test_another_role_is_noticed_and_logged(autojump_clock: MockClock) -> None:
    source, log = Source(), RecordingLog()
    async with keeping(source, log) as keeper:
        source.role = "another"
        await trio.sleep(6 * HOUR)
        assert keeper.holding.credentials.role == "another"
    (line,) = log.events("role_changed")
    assert (line["former_role"], line["role"]) == ("the-role", "another")


async def test_a_fetch_that_hangs_is_given_up(autojump_clock: MockClock) -> None:
    source = Source(hangs=True)
    async with keeping(source, RecordingLog()) as keeper:
        assert keeper.holding.trouble == "no answer in 15 s"
        source.hangs = False
        await trio.sleep(2)
        assert keeper.holding.valid_at(keeper.now) is not None


async def test_ones_that_come_expired_are_not_taken(autojump_clock: MockClock) -> None:
    source = Source(lifetime=-1.0)
    async with keeping(source, RecordingLog()) as keeper:
        assert keeper.holding.credentials is None
        assert "is the clock right?" in keeper.holding.trouble
