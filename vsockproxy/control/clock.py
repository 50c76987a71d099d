"""Keeps the machine's clock right by another one: the parent's, or the hypervisor's."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from vsockproxy.config.model import Clock
from vsockproxy.control.clock_decision import (
    Keep,
    Refuse,
    Sample,
    Slew,
    Step,
    choose_sample,
    decide,
)
from vsockproxy.control.logs import EventLog
from vsockproxy.errors import VsockproxyError
from vsockproxy.protocols.clock_stream import ANSWER_BYTES, encode_question, parse_answer

__all__ = ("START_SECONDS", "ClockError", "ClockKeeper", "Measure", "SystemClock", "ask_parent")

QUESTIONS: Final = 8
"""The best of so many answers counts."""

START_SECONDS: Final = 10.0
"""How long the commands wait for the clock; without an answer they start all the same."""

RETRY_SECONDS: Final = 1.0
"""Between two attempts as long as none has succeeded."""

MEASURE_SECONDS: Final = 30.0
"""For all questions of one attempt."""

NANOSECONDS: Final = 1_000_000_000

Measure = Callable[[], Awaitable[Sequence[Sample]]]
"""Looks at the other clock a few times; raises what `ClockKeeper` names."""


class ClockError(VsockproxyError):
    """The other clock cannot be looked at, or ours cannot be set."""


class SystemClock(Protocol):
    """The machine's clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""

    def step(self, forward_ns: int) -> None:
        """Put it forward; ClockError if that is not permitted."""

    def slew(self, offset_ns: int) -> None:
        """Have it run faster, or slower; ClockError if that is not permitted."""


class ClockKeeper:
    """Sets the clock at the start, and keeps it right from then on.

    Args:
        settings: the section of the file.
        measure: looks at the other clock; a VsockproxyError, an OSError or a broken trio stream
            says that this cannot be done now.
        system_clock: ours.
        log: is told what was done.
    """

    def __init__(
        self, settings: Clock, measure: Measure, system_clock: SystemClock, log: EventLog
    ) -> None:
        self._settings = settings
        self._measure = measure
        self._clock = system_clock
        self._log = log
        self._is_first = True
        self._last_text = ""
        self._has_started = trio.Event()

    async def start(self) -> None:
        """Set the clock for the first time; gives up, and says so, after `START_SECONDS`."""
        with trio.move_on_after(START_SECONDS):
            while not await self._look():  # noqa: ASYNC110 — nobody tells that it would work now
                await trio.sleep(RETRY_SECONDS)
        self._has_started.set()

    async def keep(self) -> None:
        """Look again and again, from the end of `start` on, as the file says."""
        await self._has_started.wait()
        while self._settings.interval or self._is_first:
            await trio.sleep(RETRY_SECONDS if self._is_first else self._settings.interval)
            await self._look()

    async def _look(self) -> bool:
        """Look once, and act on it; whether there was an answer."""
        try:
            with trio.fail_after(MEASURE_SECONDS):
                sample = choose_sample(await self._measure())
            self._act(sample)
        except (VsockproxyError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            self._complain(str(error) or "no answer")
            return False
        self._is_first = False
        return True

    def _act(self, sample: Sample) -> None:
        max_step_ns = int(self._settings.max_step * NANOSECONDS)
        fields: dict[str, object] = {
            "source": self._settings.source,
            "offset": sample.offset_ns / NANOSECONDS,
            "round_trip": sample.round_trip_ns / NANOSECONDS,
        }
        match decide(sample, max_step_ns=max_step_ns, is_first=self._is_first):
            case Keep():
                self._log.write("debug", "clock_kept", fields)
            case Step(forward_ns):
                self._clock.step(forward_ns)
                self._log.write("warning", "clock_stepped", fields)
            case Slew(offset_ns):
                self._clock.slew(offset_ns)
                self._log.write("info", "clock_slewed", fields)
            case Refuse(text):
                self._log.write("warning", "clock_refused", {**fields, "text": text})
        self._last_text = ""

    def _complain(self, text: str) -> None:
        """Say that there was no answer; the same once in a row."""
        if text != self._last_text:
            fields: dict[str, object] = {"source": self._settings.source, "text": text}
            self._log.write("warning", "clock_unknown", fields)
        self._last_text = text


async def ask_parent(
    connect: Callable[[], Awaitable[trio.abc.Stream]],
    now_ns: Callable[[], int],
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
) -> list[Sample]:
    """Ask the parent for the time, a few times.

    Args:
        connect: opens a stream to its service.
        now_ns: our clock, in nanoseconds since the epoch.
        monotonic_ns: a clock that is never set.

    Raises:
        ClockError: the parent's answer is none.
        VsockproxyError, OSError, trio.BrokenResourceError: there is no stream.
    """
    samples = []
    stream = await connect()
    async with stream:
        for number in range(QUESTIONS):
            asked_at = monotonic_ns()
            await stream.send_all(encode_question(number))
            answer = b""
            while len(answer) < ANSWER_BYTES:
                data = await stream.receive_some(ANSWER_BYTES - len(answer))
                if not data:
                    raise ClockError("the parent ended the stream before it had answered")
                answer += data
            round_trip_ns = monotonic_ns() - asked_at
            ours_ns = now_ns()
            answered, their_time_ns = parse_answer(answer)
            if answered != number:
                raise ClockError("the parent answered another question")
            samples.append(Sample.of(their_time_ns, ours_ns, round_trip_ns))
    return samples
