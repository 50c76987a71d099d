import signal
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.supervised_commands import FakeCommands, planned
from tests.support.supervision import RecordingLog
from tests.support.temporary_signals import unchanged_signal_mask
from vsockproxy.control.command_restarts import MOST_SHORT_LIVES
from vsockproxy.control.commands import PlannedCommand, run_commands
from vsockproxy.signals import PASSED_ON, SignalDescriptor


@pytest.fixture
def signals() -> Iterator[SignalDescriptor]:
    with unchanged_signal_mask(), SignalDescriptor(PASSED_ON) as made:
        yield made


class Machine:
    """Runs commands in a task, while the test looks on."""

    def __init__(self, signals: SignalDescriptor) -> None:
        self.fakes = FakeCommands()
        self.log = RecordingLog()
        self.code: int | None = None
        self._signals = signals

    async def run(self, commands: Sequence[PlannedCommand]) -> None:
        self.code = await run_commands(
            commands, launch=self.fakes.launch, signals=self._signals, log=self.log
        )


@pytest.fixture
def machine(signals: SignalDescriptor) -> Machine:
    return Machine(signals)


async def test_they_start_in_their_order_and_the_last_status_counts(
    machine: Machine, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, [planned("web", "db"), planned("db"), planned("log")])
        await trio.sleep(1)
        started = machine.fakes.started
        assert started[0] == "db"
        assert sorted(started) == ["db", "log", "web"]
        for name, code in (("web", 1), ("db", 2), ("log", 3)):
            machine.fakes.latest(name).end(code)
            await trio.sleep(1)
    assert machine.code == 3


async def test_one_that_is_ready_by_its_port_holds_the_others_back(
    machine: Machine, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, [planned("db", ready=5432), planned("web", "db")])
        await trio.sleep(60)
        assert machine.fakes.started == ["db"]
        machine.fakes.latest("db").ports.add(5432)
        await trio.sleep(1)
        assert machine.fakes.started == ["db", "web"]
        machine.fakes.latest("db").end(0)
        machine.fakes.latest("web").end(0)
    assert machine.code == 0


async def test_one_that_is_ready_when_it_has_finished(
    machine: Machine, autojump_clock: MockClock
) -> None:
    commands = [
        planned("migrate", ready="finished", restart="on-failure"),
        planned("web", "migrate"),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, commands)
        await trio.sleep(1)
        machine.fakes.latest("migrate").end(1)
        await trio.sleep(1)
        assert machine.fakes.started == ["migrate", "migrate"]
        machine.fakes.latest("migrate").end(0)
        await trio.sleep(1)
        assert machine.fakes.started == ["migrate", "migrate", "web"]
        machine.fakes.latest("web").end(5)
    assert machine.code == 5


async def test_one_that_ends_at_once_was_ready_all_the_same(
    machine: Machine, autojump_clock: MockClock
) -> None:
    machine.fakes.short["setup"] = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, [planned("setup"), planned("web", "setup")])
        await trio.sleep(1)
        machine.fakes.latest("web").end(4)
    assert machine.code == 4


@pytest.mark.parametrize(("code", "ended_with"), [(7, 7), (0, 1)])
async def test_one_that_others_wait_for_and_that_is_never_ready_ends_all(
    code: int, ended_with: int, machine: Machine, autojump_clock: MockClock
) -> None:
    commands = [planned("db", ready=5432), planned("web", "db"), planned("log")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, commands)
        await trio.sleep(1)
        machine.fakes.latest("db").end(code)
    assert machine.code == ended_with
    assert machine.fakes.started == ["db", "log"]
    assert machine.fakes.latest("log").signals == [signal.SIGTERM]
    (fields,) = machine.log.events("command_not_ready")
    assert fields["command"] == "db"


async def test_the_end_of_an_essential_one_is_the_end(
    machine: Machine, autojump_clock: MockClock
) -> None:
    commands = [
        planned("a"),
        planned("main", "a", essential=True),
        planned("side", restart="always"),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, commands)
        await trio.sleep(1)
        machine.fakes.latest("main").end(42)
    assert machine.code == 42
    assert sorted(machine.fakes.started) == ["a", "main", "side"]


async def test_an_essential_one_that_is_started_again_ends_nothing(
    machine: Machine, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        command = planned("main", essential=True, restart="on-failure")
        nursery.start_soon(machine.run, [command, planned("side", restart="always")])
        await trio.sleep(1)
        machine.fakes.latest("main").end(1)
        await trio.sleep(1)
        assert machine.fakes.started == ["main", "side", "main"]
        machine.fakes.latest("main").end(0)
    assert machine.code == 0


async def test_a_crash_loop_is_cut(machine: Machine, autojump_clock: MockClock) -> None:
    machine.fakes.short["main"] = 3
    with trio.fail_after(600):
        await machine.run([planned("main", restart="always")])
    assert machine.code == 3
    assert len(machine.fakes.lives) == MOST_SHORT_LIVES
    starts = [life.began_at for life in machine.fakes.lives]
    delays = [later - earlier for earlier, later in pairwise(starts)]
    assert delays == pytest.approx([0.1 * 2**n for n in range(len(delays))])
    assert machine.log.events("command_given_up") == [{"command": "main", "short_lives": 10}]


async def test_one_that_cannot_be_started_ends_with_its_code(
    machine: Machine, autojump_clock: MockClock
) -> None:
    machine.fakes.broken["main"] = 126
    await machine.run([planned("main")])
    assert machine.code == 126


async def test_one_that_cannot_be_executed_was_never_ready(
    machine: Machine, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, [planned("a", ready="finished"), planned("b", "a")])
        await trio.sleep(1)
        machine.fakes.latest("a").end(127)
    assert machine.code == 127


async def test_a_signal_stops_them_in_reverse_and_is_no_failure(
    machine: Machine, autojump_clock: MockClock
) -> None:
    commands = [planned("db"), planned("web", "db"), planned("cron", "db"), planned("log")]
    machine.fakes.deaf = {"web", "cron", "db", "log"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, commands)
        await trio.sleep(1)
        signal.raise_signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        lives = {life.name: life for life in machine.fakes.lives}
        assert {name for name, life in lives.items() if life.signals} == {"web", "cron", "log"}
        lives["web"].end(0)
        await wait_all_tasks_blocked()
        assert not lives["db"].signals
        lives["cron"].end(0)
        await wait_all_tasks_blocked()
        assert lives["db"].signals == [signal.SIGTERM]
        lives["db"].end(0)
        lives["log"].end(0)
    assert machine.code == 0


async def test_who_ignores_sigterm_is_killed_after_its_grace(
    machine: Machine, autojump_clock: MockClock
) -> None:
    machine.fakes.deaf = {"main"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, [planned("main", stop_grace=3)])
        await trio.sleep(1)
        signal.raise_signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        stopped_at = trio.current_time()
    assert machine.fakes.latest("main").was_killed
    assert trio.current_time() - stopped_at == pytest.approx(3)
    assert [fields["after"] for fields in machine.log.events("command_killed")] == [3]


async def test_nothing_is_started_once_all_are_to_end(
    machine: Machine, autojump_clock: MockClock
) -> None:
    machine.fakes.deaf = {"slow"}
    commands = [
        planned("slow"),
        planned("loop", restart="always"),
        planned("late", "never"),
        planned("never", ready=1),
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, commands)
        await trio.sleep(1)
        machine.fakes.latest("loop").end(1)  # it is about to be started again
        await wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
    assert machine.fakes.started == ["slow", "loop", "never"]


async def test_other_signals_are_for_a_single_command(
    machine: Machine, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, [planned("main")])
        await trio.sleep(1)
        signal.raise_signal(signal.SIGUSR1)
        await wait_all_tasks_blocked()
        machine.fakes.latest("main").end(0)
    assert [fields["signal"] for fields in machine.log.events("signal_dropped")] == ["SIGUSR1"]
    assert machine.fakes.latest("main").signals == []
