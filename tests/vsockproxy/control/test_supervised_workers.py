"""Workers that hang, die again and again, change over to another document, and drain."""

import os
import signal

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.observation import open_sockets
from tests.support.supervision import (
    ProcesslessWorker,
    RecordingLog,
    Workers,
    accepted,
    ports,
    supervise,
)
from vsockproxy.control import supervisor as module
from vsockproxy.control.restarts import CRASH_LOOP_DEATHS, CRASH_LOOP_SECONDS
from vsockproxy.control.supervisor import AcceptedConnection, ReloadResult
from vsockproxy.passed_memory import empty_document_descriptor
from vsockproxy.worker_messages import (
    Connection,
    Heartbeat,
    ListenerSummary,
    Ready,
    Reload,
    Reloaded,
    Stop,
)

KILLED = int(signal.SIGKILL)
LISTENERS = [ListenerSummary("listen[0]", "link", "vsock://any:5000")]


async def test_a_worker_that_says_nothing_is_killed_and_replaced(
    autojump_clock: MockClock,
) -> None:
    workers, log = Workers(), RecordingLog()
    workers.make = lambda: ProcesslessWorker(beats=bool(workers.started))
    async with supervise(workers, log) as supervisor:
        await supervisor.all_ready.wait()
        await trio.sleep(module.HUNG_SECONDS)
        assert not workers.started[0].was_killed
        assert supervisor.is_alive
        await trio.sleep(2)
        assert workers.started[0].was_killed
        (hung,) = log.events("worker_hung")
        assert (hung["worker"], hung["silent_seconds"]) == (0, 11.0)
        await trio.sleep(100)
        assert len(workers.started) == 2
        assert supervisor.is_alive


async def test_a_worker_may_take_longer_to_start(autojump_clock: MockClock) -> None:
    workers, log = (
        Workers(lambda: ProcesslessWorker(beats=False, is_ready_at_once=False)),
        RecordingLog(),
    )
    async with supervise(workers, log):
        await trio.sleep(module.START_SECONDS)
        assert not workers.started[0].was_killed
        await trio.sleep(2)
        assert workers.started[0].was_killed


async def test_time_in_which_the_supervisor_did_not_run_says_nothing_of_workers(
    mock_clock: MockClock,
) -> None:
    workers, log = Workers(lambda: ProcesslessWorker(beats=False)), RecordingLog()
    async with supervise(workers, log):
        mock_clock.jump(1000)
        await wait_all_tasks_blocked()
        mock_clock.jump(module.LOOK_SECONDS)
        await wait_all_tasks_blocked()
        assert not workers.started[0].was_killed
        for _ in range(int(module.HUNG_SECONDS) + 1):
            mock_clock.jump(module.LOOK_SECONDS)
            await wait_all_tasks_blocked()
        assert workers.started[0].was_killed


async def test_a_crash_loop_is_one_line_and_in_the_status(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log, count=2) as supervisor:
        await supervisor.all_ready.wait()
        victim = workers.started[0]
        for _ in range(CRASH_LOOP_DEATHS + 3):
            victim.die(KILLED)
            await workers.next_start()
            victim = workers.started[-1]
        (line,) = log.events("crash_loop")
        assert f"died {CRASH_LOOP_DEATHS} times within" in str(line["text"])
        assert "SIGKILL" in str(line["text"])
        assert supervisor.status.crash_looping == (line["worker"],)
        await wait_all_tasks_blocked()
        assert supervisor.status.serving == 2
        await trio.sleep(CRASH_LOOP_SECONDS + 2)
        assert not supervisor.status.crash_looping
        assert len(log.events("crash_loop_over")) == 1


async def test_connections_wait_through_a_crash_loop(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log) as supervisor:
        await supervisor.all_ready.wait()
        workers.make = lambda: ProcesslessWorker(is_ready_at_once=False)
        workers.started[-1].die(KILLED)
        for port in range(CRASH_LOOP_DEATHS):
            await workers.next_start()
            supervisor.hand_over(0, accepted(port))
            workers.started[-1].die(KILLED)
        await workers.next_start()
        assert supervisor.status.serving == 0
        workers.started[-1].say(Ready())
        await wait_all_tasks_blocked()
        assert ports(workers.started[-1]) == list(range(CRASH_LOOP_DEATHS))
    assert len(log.events("crash_loop")) == 1


async def test_the_status_adds_up_what_workers_say(autojump_clock: MockClock) -> None:
    workers = Workers(lambda: ProcesslessWorker(beats=False))
    async with supervise(workers, RecordingLog(), count=2) as supervisor:
        workers.started[0].say(Heartbeat(1, 10))
        workers.started[1].say(Heartbeat(2, 300))
        await wait_all_tasks_blocked()
        assert (supervisor.status.enclaves, supervisor.status.streams) == (3, 310)
        workers.started[1].die(KILLED)
        await workers.next_start()
        assert (supervisor.status.enclaves, supervisor.status.streams) == (1, 10)


async def test_a_reload_tells_every_worker_and_counts(autojump_clock: MockClock) -> None:
    workers = Workers(lambda: ProcesslessWorker(answers_reload=False))
    async with supervise(workers, RecordingLog(), count=2) as supervisor:
        results: list[ReloadResult] = []

        async def reload() -> None:
            results.append(
                await supervisor.reload(empty_document_descriptor(), LISTENERS, "warning")
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload)
            await wait_all_tasks_blocked()
            for number, worker in enumerate(workers.started, 1):
                message = worker.received[-1]
                assert message == Reload(1, "warning", LISTENERS)
                worker.say(Reloaded(1, ended_streams=number))
        assert results == [ReloadResult(3, ())]
        workers.started[0].die(KILLED)
        await workers.next_start()
        await workers.started[-1].has_received(1)
        configure = workers.started[-1].received[0]
        assert getattr(configure, "listeners", None) == LISTENERS
        assert getattr(configure, "log_level", None) == "warning"


@pytest.mark.parametrize("silent", [False, True])
async def test_a_worker_that_cannot_change_over_is_replaced_by_one_that_starts_so(
    silent: bool, autojump_clock: MockClock
) -> None:
    workers, log = Workers(), RecordingLog()
    workers.make = lambda: ProcesslessWorker(
        answers_reload=not silent, reload_error=None if workers.started else "no memory"
    )
    async with supervise(workers, log, count=1) as supervisor:
        result = await supervisor.reload(empty_document_descriptor(), LISTENERS, "info")
        assert result == ReloadResult(0, (0,))
        assert workers.started[0].was_killed
        (line,) = log.events("worker_not_reloaded")
        assert line["text"] == ("no answer for 15 s" if silent else "no memory")
        if not silent:
            await workers.next_start()
            await workers.started[-1].has_received(1)
            assert getattr(workers.started[-1].received[0], "listeners", None) == LISTENERS


async def test_a_worker_that_dies_of_a_reload_does_not_hold_it_up(
    autojump_clock: MockClock,
) -> None:
    workers = Workers(lambda: ProcesslessWorker(answers_reload=False))
    async with supervise(workers, RecordingLog()) as supervisor, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.reload, empty_document_descriptor(), LISTENERS, "info")
        await wait_all_tasks_blocked()
        workers.started[0].die(KILLED)
        await trio.lowlevel.checkpoint()
    assert trio.current_time() < 1


async def test_an_answer_that_nobody_waits_for_ends_the_worker(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log):
        workers.started[0].say(Reloaded(7))
        await workers.next_start()
    assert [each["text"] for each in log.events("worker_message_broken")] == ["unexpected Reloaded"]


async def test_connections_that_wait_meet_the_new_names(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log) as supervisor:
        (worker,) = workers.started
        worker.may_take = trio.Event()
        kept, gone = "vsock://any:8000", "vsock://any:8001"
        listeners = [
            ListenerSummary(f"forwards[{index}].listen", "forward", endpoint)
            for index, endpoint in enumerate((gone, kept))
        ]
        await supervisor.reload(empty_document_descriptor(), listeners, "info")
        for endpoint in (gone, kept, gone):
            each = accepted()
            supervisor.hand_over(0, AcceptedConnection(each.message, each.socket, endpoint))
        await wait_all_tasks_blocked()  # the first is on its way, with the name of before
        listeners = [ListenerSummary("forwards[0].listen", "forward", kept)]
        await supervisor.reload(empty_document_descriptor(), listeners, "info")
        worker.may_take.set()
        await wait_all_tasks_blocked()
        names = [each.listener for each in worker.received if isinstance(each, Connection)]
        assert names == ["forwards[0].listen", "forwards[0].listen"]


async def test_reloads_leave_no_descriptors(autojump_clock: MockClock) -> None:
    workers = Workers()
    async with supervise(workers, RecordingLog(), count=3) as supervisor:
        before = (set(os.listdir("/proc/self/fd")), open_sockets())
        for _ in range(50):
            await supervisor.reload(empty_document_descriptor(), LISTENERS, "info")
        assert (set(os.listdir("/proc/self/fd")), open_sockets()) == before


async def test_a_drain_has_its_time_and_a_second_word_shortens_it(
    autojump_clock: MockClock,
) -> None:
    workers = Workers(lambda: ProcesslessWorker(obeys_stop=False))
    async with supervise(workers, RecordingLog()) as supervisor:
        supervisor.stop(30)
        await trio.sleep(10)
        supervisor.stop(60)
        supervisor.stop(0)
        await supervisor.has_ended.wait()
    (worker,) = workers.started
    assert trio.current_time() == pytest.approx(10 + module.STOP_GRACE_SECONDS)
    stops = [each.drain_seconds for each in worker.received if isinstance(each, Stop)]
    assert (stops[0], stops[-1]) == (30, 0)
    assert worker.was_killed


async def test_nobody_is_killed_within_the_time_of_a_drain(autojump_clock: MockClock) -> None:
    workers = Workers(lambda: ProcesslessWorker(obeys_stop=False))
    async with supervise(workers, RecordingLog()) as supervisor:
        supervisor.stop(30)
        await trio.sleep(30 + module.STOP_GRACE_SECONDS - 0.1)
        assert not workers.started[0].was_killed
        await supervisor.has_ended.wait()
        assert workers.started[0].was_killed
