from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from tests.support.supervision import RecordingLog
from vsockproxy.config.model import Clock
from vsockproxy.control.clock import (
    START_SECONDS,
    ClockError,
    ClockKeeper,
    ask_parent,
)
from vsockproxy.control.clock_decision import Sample
from vsockproxy.errors import Refused
from vsockproxy.protocols.clock_stream import (
    QUESTION_BYTES,
    encode_answer,
    encode_question,
)

SECOND = 1_000_000_000


@dataclass
class FakeClock:
    """A clock of the machine that tells what was done to it."""

    done: list[tuple[str, int]] = field(default_factory=list)
    is_permitted: bool = True

    def now_ns(self) -> int:
        return 0

    def step(self, forward_ns: int) -> None:
        if not self.is_permitted:
            raise ClockError("the clock cannot be set: Operation not permitted")
        self.done.append(("step", forward_ns))

    def slew(self, offset_ns: int) -> None:
        self.done.append(("slew", offset_ns))


class Source:
    """Another clock: its answers in their order, the last one for ever."""

    def __init__(self, *answers: Sequence[Sample] | Exception) -> None:
        self._answers = list(answers)
        self.looks: list[float] = []

    async def measure(self) -> Sequence[Sample]:
        await trio.lowlevel.checkpoint()
        self.looks.append(trio.current_time())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def behind(seconds: float) -> list[Sample]:
    """The best sample among worse ones."""
    return [Sample(77, 2000), Sample(int(seconds * SECOND), 1000), Sample(-77, 3000)]


def keeper(
    source: Source, clock: FakeClock, interval: float = 300.0
) -> tuple[ClockKeeper, RecordingLog]:
    log = RecordingLog()
    settings = Clock(source="parent", interval=interval)
    return ClockKeeper(settings, source.measure, clock, log), log


async def test_a_step_at_the_start_and_slews_from_then_on(autojump_clock: MockClock) -> None:
    source, clock = Source(behind(5), behind(0.2), behind(-0.2), behind(0)), FakeClock()
    made, log = keeper(source, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.keep)
        await made.start()
        assert clock.done == [("step", 5 * SECOND)]
        await trio.sleep(901)
        nursery.cancel_scope.cancel()
    assert clock.done[1:] == [("slew", SECOND // 5), ("slew", -SECOND // 5)]
    assert [round(at) for at in source.looks] == [0, 300, 600, 900]
    (stepped,) = log.events("clock_stepped")
    assert stepped == {"source": "parent", "offset": 5.0, "round_trip": 1e-06}


async def test_an_interval_of_zero_looks_once(autojump_clock: MockClock) -> None:
    source, clock = Source(behind(0)), FakeClock()
    made, _ = keeper(source, clock, interval=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.keep)
        await made.start()
    assert len(source.looks) == 1


async def test_without_an_answer_the_start_goes_on_and_the_first_answer_counts(
    autojump_clock: MockClock,
) -> None:
    refused = Refused("parent_away", "no link")
    source, clock = Source(*[refused] * 15, behind(5), behind(0)), FakeClock()
    made, log = keeper(source, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.keep)
        await made.start()
        assert trio.current_time() == pytest.approx(START_SECONDS)
        assert clock.done == []
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert clock.done == [("step", 5 * SECOND)]
    assert [each["text"] for each in log.events("clock_unknown")] == ["parent_away: no link"]


async def test_a_lie_is_refused_and_told(autojump_clock: MockClock) -> None:
    source, clock = Source(behind(3600)), FakeClock()
    made, log = keeper(source, clock)
    await made.start()
    assert clock.done == []
    (refused,) = log.events("clock_refused")
    assert refused["text"] == "our clock is 3600.000 s behind, more than max_step"


async def test_a_clock_that_may_not_be_set_is_told(autojump_clock: MockClock) -> None:
    source, clock = Source(behind(5)), FakeClock(is_permitted=False)
    made, log = keeper(source, clock)
    await made.start()
    assert [each["text"] for each in log.events("clock_unknown")] == [
        "the clock cannot be set: Operation not permitted"
    ]


async def test_the_parent_is_asked_several_times_over_one_stream() -> None:
    ours, theirs = memory_stream_pair()

    async def connect() -> trio.abc.Stream:
        return ours

    async def parent() -> None:
        numbers = []
        async with theirs:
            while question := bytes(await theirs.receive_some(QUESTION_BYTES)):
                numbers.append(question)
                answer = encode_answer(question, 1000 * SECOND)
                await theirs.send_all(answer[:5])
                await theirs.send_all(answer[5:])
        assert numbers == [encode_question(number) for number in range(8)]

    ticks = count(0, 10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent)
        samples = await ask_parent(connect, lambda: 999 * SECOND, lambda: next(ticks))
    assert samples == [Sample(SECOND + 5, 10)] * 8


WRONG = {
    "the end": (b"", "the parent ended the stream before it had answered"),
    "half an answer": (bytes(9), "the parent ended the stream before it had answered"),
    "an answer to something else": (bytes(7) + b"\1" + bytes(8), "answered another question"),
}


@pytest.mark.parametrize(("answer", "text"), WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_is_an_error(answer: bytes, text: str) -> None:
    ours, theirs = memory_stream_pair()

    async def connect() -> trio.abc.Stream:
        return ours

    await theirs.send_all(answer)
    await theirs.send_eof()
    with pytest.raises(ClockError, match=text):
        await ask_parent(connect, lambda: 0)
