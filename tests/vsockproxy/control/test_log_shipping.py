"""The shipper between a ring and a parent that listens, lies, stops or goes away."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from tests.support.supervision import RecordingLog
from vsockproxy.client.errors import OpeningCut
from vsockproxy.control.log_shipping import (
    END_SECONDS,
    LAST_BYTES,
    MOST_PAUSE_SECONDS,
    OPEN_SECONDS,
    UNWANTED_PAUSE_SECONDS,
    LogShipper,
)
from vsockproxy.errors import Refused
from vsockproxy.protocols.log_stream import (
    Dropped,
    Exit,
    Line,
    Record,
    RecordReader,
    Source,
    encode_position,
)

ROOM = 1 << 20
NOW_SECONDS = 1_700_000_000.5
NOW_MS = 1_700_000_000_500


class Parent:
    """Takes streams, one after the other."""

    def __init__(self) -> None:
        self.attempts: list[float] = []
        """When each stream was asked for."""
        self.trouble: Exception | None = None
        """Raised in place of a stream."""
        self.never_answers = False
        self._send, self.streams = trio.open_memory_channel[trio.abc.Stream](9)

    async def connect(self) -> trio.abc.Stream:
        self.attempts.append(trio.current_time())
        if self.never_answers:
            await trio.sleep_forever()
        if self.trouble is not None:
            raise self.trouble
        ours, theirs = trio.testing.memory_stream_pair()
        self._send.send_nowait(theirs)
        return ours


class Stream:
    """The parent's end of one stream.

    Args:
        end: as it was accepted.
    """

    def __init__(self, end: trio.abc.Stream) -> None:
        self._end = end
        self._records = RecordReader()
        self._waiting: list[Record] = []

    async def say(self, position: int) -> None:
        await self._end.send_all(encode_position(position))

    async def next(self) -> Record:
        while not self._waiting:
            data = await self._end.receive_some()
            assert data, "the enclave closed the stream"
            self._waiting = self._records.receive(bytes(data))
        return self._waiting.pop(0)

    async def is_closed(self) -> bool:
        """Read to the end; an error counts as one."""
        try:
            while await self._end.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        return True

    async def cut(self) -> None:
        await trio.aclose_forcefully(self._end)


Script = Callable[[LogShipper, Parent, RecordingLog], Awaitable[None]]


async def run(script: Script, most_bytes: int = ROOM) -> None:
    shipper = LogShipper(most_bytes, lambda: NOW_SECONDS)
    parent = Parent()
    log = RecordingLog()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shipper.run, parent.connect, log)
        await script(shipper, parent, log)
        nursery.cancel_scope.cancel()


async def accept(parent: Parent) -> Stream:
    return Stream(await parent.streams.receive())


def line(number: int, text: bytes, source: Source = Source.STDOUT, label: str = "") -> Line:
    return Line(number, source, text, label, False, NOW_MS)


async def test_lines_are_sent_as_they_come(autojump_clock: trio.testing.MockClock) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        shipper.receive(Source.STDOUT, b"one\ntw")
        stream = await accept(parent)
        await stream.say(0)
        assert await stream.next() == line(0, b"one")
        shipper.receive(Source.STDERR, b"oops\n")
        shipper.receive(Source.STDOUT, b"o\n")
        shipper.receive(Source.STDOUT, b"x\n", "web")
        shipper.receive_own(b"{}\n")
        assert [await stream.next() for _ in range(4)] == [
            line(1, b"oops", Source.STDERR),
            line(2, b"two"),
            line(3, b"x", label="web"),
            line(4, b"{}", Source.VSOCKPROXY),
        ]
        assert log.lines == []

    await run(script)


async def test_after_a_cut_it_goes_on_from_the_parents_position(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        shipper.receive(Source.STDOUT, b"0\n1\n2\n")
        stream = await accept(parent)
        await stream.say(0)
        for number in range(3):
            assert (await stream.next()).sequence == number
        await stream.cut()
        again = await accept(parent)
        await again.say(1)
        assert (await again.next()).sequence == 1
        assert log.lines == []  # the links have lines of their own

    await run(script)


async def test_a_parent_that_is_away_is_one_line_and_asked_each_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        parent.trouble = Refused("parent_away", "no link")
        await trio.sleep(100)
        assert log.events("log_not_taken") == [{"text": "parent_away: no link"}]
        gaps = [
            later - earlier
            for earlier, later in zip(parent.attempts, parent.attempts[1:], strict=False)
        ]
        assert gaps[-1] == pytest.approx(MOST_PAUSE_SECONDS)
        assert max(gaps) == pytest.approx(MOST_PAUSE_SECONDS)
        parent.trouble = None
        shipper.receive(Source.STDOUT, b"late\n")
        stream = await accept(parent)
        await stream.say(0)
        assert await stream.next() == line(0, b"late")

    parent_started = trio.current_time()
    await run(script)
    assert trio.current_time() - parent_started < 110


@pytest.mark.parametrize("trouble", [OpeningCut(), OSError(24, "Too many open files")])
async def test_a_worker_that_fails_is_tried_again(
    trouble: Exception, autojump_clock: trio.testing.MockClock
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        parent.trouble = trouble
        await trio.sleep(1)
        parent.trouble = None
        await (await accept(parent)).say(0)
        assert len(log.events("log_not_taken")) == 1

    await run(script)


async def test_a_worker_that_never_answers_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        parent.never_answers = True
        await trio.sleep(2.5 * OPEN_SECONDS)
        assert len(parent.attempts) == 3
        assert log.events("log_not_taken") == [{"text": "no answer for 30 s"}]

    await run(script)


async def test_a_parent_without_the_service_is_asked_once_a_minute_and_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        parent.trouble = Refused("not_listed", "no such service")
        await trio.sleep(2.5 * UNWANTED_PAUSE_SECONDS)
        assert len(parent.attempts) == 3
        began = trio.current_time()
        assert not await shipper.end(0, 0, 1.0)
        assert trio.current_time() == began

    await run(script)


@pytest.mark.parametrize("lie", [1, 2**64 - 1])
async def test_a_parent_that_lies_is_one_line_and_tried_again(
    lie: int, autojump_clock: trio.testing.MockClock
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        shipper.receive(Source.STDOUT, b"0\n")
        for _ in range(3):
            stream = await accept(parent)
            await stream.say(lie)
            assert await stream.is_closed()
        assert len(log.events("log_not_taken")) == 1
        honest = await accept(parent)
        await honest.say(0)
        assert (await honest.next()).sequence == 0

    await run(script)


async def test_what_does_not_fit_is_dropped_and_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        stream = await accept(parent)
        shipper.receive(Source.STDOUT, b"x\n" * 1000)
        await stream.say(0)
        dropped = await stream.next()
        assert dropped == Dropped(0, shipper.dropped)
        assert (await stream.next()).sequence == shipper.dropped > 900

    await run(script, most_bytes=4096)


# ---------------------------------------------------------------- the end


async def test_the_end_waits_for_the_parent_to_have_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        shipper.receive(Source.STDOUT, b"no end of line")
        stream = await accept(parent)
        await stream.say(0)

        async def hear() -> None:
            assert await stream.next() == line(0, b"no end of line")
            assert await stream.next() == Exit(1, 143, 15, 61_500, NOW_MS)
            await trio.sleep(0.5)
            await stream.say(1)
            await trio.sleep(0.5)
            await stream.say(2)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            assert await shipper.end(143, 15, 61.5)
        assert trio.current_time() - began == pytest.approx(1)

    await run(script)


async def test_a_parent_that_is_slow_gets_the_end_on_a_stream_of_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        lines = 10_000
        shipper.receive(Source.STDOUT, b"x\n" * lines)
        stream = await accept(parent)
        await stream.say(0)
        assert (await stream.next()).sequence == 0
        await stream.say(1)

        async def hear() -> None:
            assert await stream.is_closed()
            again = await accept(parent)
            await again.say(1)
            dropped = await again.next()
            assert isinstance(dropped, Dropped)
            assert dropped.sequence == 1
            assert lines - dropped.count < LAST_BYTES / 50
            for number in range(1 + dropped.count, lines):
                assert await again.next() == line(number, b"x")
            assert isinstance(await again.next(), Exit)
            await again.say(lines + 1)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            assert await shipper.end(0, 0, 1.0)
        assert trio.current_time() - began < END_SECONDS

    await run(script)


async def test_the_end_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    async def script(shipper: LogShipper, parent: Parent, log: RecordingLog) -> None:
        await accept(parent)
        began = trio.current_time()
        assert not await shipper.end(0, 0, 1.0)
        assert trio.current_time() - began == pytest.approx(END_SECONDS)

    await run(script)
