import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.supervision import ProcesslessWorker, RecordingLog
from vsockproxy.addresses import TcpAddress, UnixAddress, VsockAddress
from vsockproxy.control.accepting import Assignment, accept_connections, peer_of
from vsockproxy.control.supervisor import Supervisor
from vsockproxy.listening import ACCEPT_PAUSE_SECONDS, Listener, open_listener
from vsockproxy.worker_messages import Configure, Connection, ListenerSummary


def test_new_cids_go_to_the_worker_with_the_fewest() -> None:
    assignment = Assignment(3)
    assert [assignment.worker_for(cid) for cid in (16, 17, 18, 19, 20, 21)] == [0, 1, 2, 0, 1, 2]


def test_a_cid_stays_with_its_worker() -> None:
    assignment = Assignment(2)
    assert [assignment.worker_for(cid) for cid in (16, 17, 16, 18, 17, 16)] == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("endpoint", "address", "peer"),
    [
        pytest.param(VsockAddress(3, 5000), (16, 1025), (16, 1025), id="vsock says it"),
        pytest.param(UnixAddress("/x", cid=9), "", (9, 0), id="a unix listener's own"),
        pytest.param(UnixAddress("/x"), "", (4, 0), id="a unix listener without one"),
        pytest.param(TcpAddress("127.0.0.1", 1), ("127.0.0.1", 2), (4, 0), id="tcp"),
    ],
)
def test_cid_and_port_of_a_peer(
    endpoint: VsockAddress | UnixAddress | TcpAddress, address: object, peer: tuple[int, int]
) -> None:
    with socket.socket() as unused:
        assert peer_of(Listener(endpoint, unused), address) == peer


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = open_listener(UnixAddress(str(tmp_path / "link.sock"), cid=3))
    yield made
    made.close()


def connect(listener: Listener) -> socket.socket:
    assert isinstance(listener.endpoint, UnixAddress)
    client = socket.socket(socket.AF_UNIX)
    client.connect(listener.endpoint.path)
    return client


def supervisor_of(
    worker: ProcesslessWorker, log: RecordingLog, *listeners: ListenerSummary
) -> Supervisor:
    configurations = [Configure(0, bytes(16), "json", "info", list(listeners))]
    return Supervisor(launch=lambda: worker, configurations=configurations, document=0, log=log)


async def test_connections_go_to_a_worker(listener: Listener) -> None:
    worker, log = ProcesslessWorker(), RecordingLog()
    summary = ListenerSummary("listen[1]", "link", str(listener.endpoint))  # a reload moved it
    supervisor = supervisor_of(worker, log, summary)

    async def accept() -> None:
        await accept_connections(
            listener,
            "listen[0]",
            supervisor=supervisor,
            assignment=Assignment(1),
            may_connect=lambda cid: True,
            log=log,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        nursery.start_soon(accept)
        with connect(listener), connect(listener):
            with trio.fail_after(10):
                await worker.has_received(3)
        nursery.cancel_scope.cancel()
    assert worker.received[1:] == [Connection("listen[1]", 3, 0)] * 2


async def test_a_cid_that_may_not_connect_is_refused_with_a_line(listener: Listener) -> None:
    log = RecordingLog()

    async def accept() -> None:
        await accept_connections(
            listener,
            "listen[0]",
            supervisor=supervisor_of(ProcesslessWorker(), log),
            assignment=Assignment(1),
            may_connect=lambda cid: cid > 3,
            log=log,
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        with connect(listener) as client:
            client.setblocking(False)
            with trio.fail_after(10):
                await trio.lowlevel.wait_readable(client)
            assert client.recv(1) == b""
        nursery.cancel_scope.cancel()
    (refused,) = log.events("connection_refused")
    assert (refused["cid"], refused["reason"]) == (3, "not_listed")
    assert "cid: 3" in str(refused["text"])


class WantingSocket:
    """A listening socket that is always readable, and whose accepts fail as told."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.tried_at: list[float] = []
        self.readable, self._other = socket.socketpair()
        self._other.send(b"x")

    def fileno(self) -> int:
        return self.readable.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        self.tried_at.append(trio.current_time())
        if not self.numbers:
            raise OSError(errno.EBADF, "closed")
        number = self.numbers.pop(0)
        raise OSError(number, os.strerror(number))

    def close(self) -> None:
        self.readable.close()
        self._other.close()


async def accept_from(wanting: WantingSocket) -> RecordingLog:
    """Accept until the listener itself is broken."""
    log = RecordingLog()
    endpoint = UnixAddress("/link.sock")
    with pytest.raises(OSError, match="closed"):
        await accept_connections(
            Listener(endpoint, wanting),  # type: ignore[arg-type]  # the two methods it uses
            "listen[0]",
            supervisor=supervisor_of(ProcesslessWorker(), log),
            assignment=Assignment(1),
            may_connect=lambda cid: True,
            log=log,
        )
    wanting.close()
    return log


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(errno.EMFILE, id="this process has too many descriptors"),
        pytest.param(errno.ENFILE, id="the system has too many descriptors"),
        pytest.param(errno.ENOBUFS, id="no buffers"),
        pytest.param(errno.ENOMEM, id="no memory"),
    ],
)
async def test_want_pauses_and_is_logged_once(number: int, autojump_clock: MockClock) -> None:
    wanting = WantingSocket([number] * 5)
    log = await accept_from(wanting)
    assert wanting.tried_at == [pytest.approx(ACCEPT_PAUSE_SECONDS * i) for i in range(6)]
    (failed,) = log.events("accept_failed")
    assert failed["text"] == os.strerror(number)


async def test_what_happened_to_one_connection_does_not_stop_the_listener(
    autojump_clock: MockClock,
) -> None:
    wanting = WantingSocket([errno.ECONNABORTED, errno.EPROTO, errno.EINTR])
    log = await accept_from(wanting)
    assert len(wanting.tried_at) == 4
    assert trio.current_time() == 0
    assert log.lines == []


async def test_nothing_to_accept_waits(listener: Listener) -> None:
    log = RecordingLog()
    async with trio.open_nursery() as nursery:

        async def accept() -> None:
            await accept_connections(
                listener,
                "listen[0]",
                supervisor=supervisor_of(ProcesslessWorker(), log),
                assignment=Assignment(1),
                may_connect=lambda cid: True,
                log=log,
            )

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert log.lines == []


async def test_a_listener_may_be_closed_the_moment_its_task_is_cancelled(tmp_path: Path) -> None:
    log = RecordingLog()
    supervisor = supervisor_of(ProcesslessWorker(), log)
    for number in range(50):  # which of two tasks that wake up together runs first is random
        made = open_listener(UnixAddress(f"{tmp_path}/{number}", cid=4))
        scope = trio.CancelScope()

        async def accept(listener: Listener = made, scope: trio.CancelScope = scope) -> None:
            with scope:
                await accept_connections(
                    listener,
                    "listen[0]",
                    supervisor=supervisor,
                    assignment=Assignment(1),
                    may_connect=lambda cid: False,
                    log=log,
                )

        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(accept)
                await wait_all_tasks_blocked()
                theirs.send(b"x")
                with connect(made):
                    await trio.lowlevel.wait_readable(ours)
                    scope.cancel()
                    made.close()
