import signal
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.supervision import (
    ProcesslessWorker,
    RecordingLog,
    Workers,
    accepted,
    index_of,
    ports,
    supervise,
)
from vsockproxy.control import supervisor as module
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.worker_messages import (
    DRAIN_SECONDS,
    MAX_DESCRIPTORS,
    Configure,
    Heartbeat,
    Listeners,
    Named,
    NameOf,
    NumberName,
    Ready,
    Stop,
    Stopped,
)

KILLED = int(signal.SIGKILL)
"""A wait status."""


async def test_all_workers_are_configured_and_then_ready(autojump_clock: MockClock) -> None:
    workers = Workers()
    async with supervise(workers, RecordingLog(), count=3) as supervisor:
        await supervisor.all_ready.wait()
        assert sorted(index_of(worker) for worker in workers.started) == [0, 1, 2]
        assert supervisor.workers == 3


async def test_it_is_not_ready_before_the_last_worker(autojump_clock: MockClock) -> None:
    workers = Workers(lambda: ProcesslessWorker(is_ready_at_once=False))
    async with supervise(workers, RecordingLog(), count=2) as supervisor:
        workers.started[0].say(Ready())
        workers.started[0].say(Heartbeat())
        await wait_all_tasks_blocked()
        assert not supervisor.all_ready.is_set()
        workers.started[1].say(Ready())
        await supervisor.all_ready.wait()


async def test_a_dead_worker_is_replaced_at_once_and_early_deaths_later(
    autojump_clock: MockClock,
) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log) as supervisor:
        await supervisor.all_ready.wait()
        await trio.sleep(100)
        for _ in range(8):
            workers.started[-1].die(KILLED)
            await workers.next_start()
    starts = [worker.started_at for worker in workers.started]
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    wanted = [100, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert gaps == [pytest.approx(seconds, abs=0.01) for seconds in wanted]
    died = log.events("worker_died")
    assert [each["deaths"] for each in died] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {each["ended"] for each in died} == {"SIGKILL"}


@pytest.mark.parametrize(
    ("wait_status", "text"),
    [
        pytest.param(3 << 8, "status 3", id="an exit code"),
        pytest.param(11, "SIGSEGV", id="a signal"),
        pytest.param(40, "signal 40", id="a signal without a name"),
    ],
)
async def test_the_log_says_how_a_worker_ended(
    wait_status: int, text: str, autojump_clock: MockClock
) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log):
        workers.started[0].die(wait_status)
        await trio.sleep(0.1)
        assert [each["ended"] for each in log.events("worker_died")] == [text]
        assert workers.started[0].was_closed


async def test_a_worker_that_cannot_be_started_is_tried_again(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    workers.failures = 3
    async with supervise(workers, log) as supervisor:
        await supervisor.all_ready.wait()
        assert trio.current_time() == pytest.approx(0.15, abs=0.01)
    assert [each["ended"] for each in log.events("worker_died")] == [
        "could not be started: Cannot allocate memory"
    ] * 3


async def test_connections_go_to_their_worker(autojump_clock: MockClock) -> None:
    workers = Workers()
    async with supervise(workers, RecordingLog(), count=2) as supervisor:
        for port in range(5):
            supervisor.hand_over(port % 2, accepted(port))
        await wait_all_tasks_blocked()
        assert {index_of(each): ports(each) for each in workers.started} == {
            0: [0, 2, 4],
            1: [1, 3],
        }


async def test_connections_wait_for_a_worker_that_is_not_ready(autojump_clock: MockClock) -> None:
    workers = Workers(lambda: ProcesslessWorker(is_ready_at_once=False))
    async with supervise(workers, RecordingLog()) as supervisor:
        supervisor.hand_over(0, accepted(1))
        await trio.sleep(10)
        assert ports(workers.started[0]) == []
        workers.started[0].say(Ready())
        await wait_all_tasks_blocked()
        assert ports(workers.started[0]) == [1]


async def test_what_a_dead_worker_did_not_take_goes_to_its_replacement(
    autojump_clock: MockClock,
) -> None:
    workers = Workers()
    async with supervise(workers, RecordingLog()) as supervisor:
        first = workers.started[0]
        first.may_take = trio.Event()
        connections = [accepted(port) for port in range(3)]
        for connection in connections:
            supervisor.hand_over(0, connection)
        await wait_all_tasks_blocked()
        first.die(KILLED)
        supervisor.hand_over(0, accepted(3))
        await trio.sleep(0.01)
        assert ports(first) == []
        assert ports(workers.started[1]) == [0, 1, 2, 3]
        assert {each.socket.fileno() for each in connections} == {-1}


async def test_too_many_waiting_connections_are_closed_and_counted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING_CONNECTIONS", 4)
    workers, log = Workers(lambda: ProcesslessWorker(is_ready_at_once=False)), RecordingLog()
    async with supervise(workers, log) as supervisor:
        connections = [accepted(port) for port in range(7)]
        for connection in connections:
            supervisor.hand_over(0, connection)
        assert [each.socket.fileno() == -1 for each in connections] == [False] * 4 + [True] * 3
        assert len(log.events("connections_closed")) == 1
        workers.started[0].die(KILLED)
        await trio.sleep(0.01)
        (died,) = log.events("worker_died")
        assert (died["waiting_connections"], died["closed_connections"]) == (4, 3)
    assert {each.socket.fileno() for each in connections} == {-1}, "what still waits is closed"


async def test_a_worker_that_obeys_ends_at_once(autojump_clock: MockClock) -> None:
    workers = Workers()
    async with supervise(workers, RecordingLog(), count=2):
        await trio.sleep(50)
    assert trio.current_time() == pytest.approx(50)
    assert [worker.received[-1] for worker in workers.started] == [Stop(), Stop()]
    assert not any(worker.was_killed for worker in workers.started)


async def test_a_worker_that_does_not_obey_is_killed_after_the_grace(
    autojump_clock: MockClock,
) -> None:
    workers = Workers(lambda: ProcesslessWorker(obeys_stop=False))
    async with supervise(workers, RecordingLog(), count=2):
        await trio.sleep(1)
    grace = DRAIN_SECONDS + module.STOP_GRACE_SECONDS
    assert trio.current_time() == pytest.approx(1 + grace)
    assert all(worker.was_killed for worker in workers.started)


async def test_stopped_does_not_end_the_grace(autojump_clock: MockClock) -> None:
    workers = Workers(lambda: ProcesslessWorker(obeys_stop=False))
    async with supervise(workers, RecordingLog()) as supervisor:
        supervisor.stop()
        workers.started[0].say(Stopped())
        await trio.sleep(1)
        workers.started[0].die(0)
    assert trio.current_time() == pytest.approx(1)
    assert not workers.started[0].was_killed


async def test_nothing_is_restarted_while_stopping(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log):
        for _ in range(3):
            workers.started[-1].die(KILLED)
            await trio.sleep(0.06)  # the third replacement comes after 0.1 s
    assert trio.current_time() == pytest.approx(0.18)
    assert len(workers.started) == len(log.events("worker_died")) == 3


async def test_cancelling_leaves_nobody_behind(autojump_clock: MockClock) -> None:
    workers = Workers()
    with trio.move_on_after(5):
        async with supervise(workers, RecordingLog(), count=2):
            await trio.sleep_forever()
    assert all(worker.was_killed and worker.was_closed for worker in workers.started)


async def test_a_worker_that_breaks_the_rules_is_killed(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log):
        workers.started[0].say(Ready())
        await trio.sleep(0.01)
        assert [each["text"] for each in log.events("worker_message_broken")] == [
            "unexpected Ready"
        ]
        assert workers.started[0].was_killed
        assert len(workers.started) == 2


async def test_a_worker_without_a_channel_is_killed_after_a_moment(
    autojump_clock: MockClock,
) -> None:
    workers = Workers()
    async with supervise(workers, RecordingLog()):
        workers.started[0].hang_up()
        await trio.sleep(module.EXIT_GRACE_SECONDS - 0.1)
        assert not workers.started[0].was_killed
        await trio.sleep(0.2)
        assert workers.started[0].was_killed
        assert len(workers.started) == 2


async def test_listeners_follow_in_as_many_messages_as_it_takes() -> None:
    workers, log = Workers(), RecordingLog()
    supervisor = Supervisor(
        launch=workers,
        configurations=[Configure(0, bytes(16), "json", "info", [], listeners_follow=True)],
        document=0,
        listeners=range(MAX_DESCRIPTORS + 1),
        log=log,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await supervisor.all_ready.wait()
        (worker,) = workers.started
        await worker.has_received(3)
        assert worker.received[1:] == [Listeners(), Listeners()]
        supervisor.stop()


async def test_questions_are_answered_to_whoever_asked() -> None:
    workers, log = Workers(), RecordingLog()

    def answer(question: NumberName | NameOf) -> Named:
        return Named(question.request, "a.test", 7)

    supervisor = Supervisor(
        launch=workers,
        configurations=[Configure(0, bytes(16), "json", "info", [])],
        document=0,
        answer=answer,
        log=log,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await supervisor.all_ready.wait()
        (worker,) = workers.started
        worker.say(NumberName(3, "a.test"))
        worker.say(NameOf(4, 7))
        await worker.has_received(3)
        assert worker.received[1:] == [Named(3, "a.test", 7), Named(4, "a.test", 7)]
        supervisor.stop()


async def test_a_question_that_nobody_answers_ends_the_worker(autojump_clock: MockClock) -> None:
    workers, log = Workers(), RecordingLog()
    async with supervise(workers, log):
        (worker,) = workers.started
        worker.say(NameOf(4, 7))
        await workers.next_start()
        assert worker.was_killed
    assert log.events("worker_message_broken")
