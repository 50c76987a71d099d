import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.notify_socket import FakeNotifySocket
from tests.support.supervision import RecordingLog
from vsockproxy.control import notify
from vsockproxy.control.notify import NotifySettings, NotifySocket
from vsockproxy.control.notifying import EXTENSION_SECONDS, Notifier

PID = 4711


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param(notify.status("all is well"), "STATUS=all is well", id="a status"),
        pytest.param(notify.status("one\ntwo\r\nREADY=1"), "STATUS=one two READY=1", id="one line"),
        pytest.param(notify.ready("here"), "READY=1\nSTATUS=here", id="ready"),
        pytest.param(
            notify.reloading(123_456, "busy"),
            "RELOADING=1\nMONOTONIC_USEC=123456\nSTATUS=busy",
            id="reloading",
        ),
        pytest.param(notify.extend_timeout(1.5), "EXTEND_TIMEOUT_USEC=1500000", id="more time"),
        pytest.param(notify.STOPPING, "STOPPING=1", id="stopping"),
        pytest.param(notify.WATCHDOG, "WATCHDOG=1", id="watchdog"),
    ],
)
def test_messages(message: bytes, text: str) -> None:
    assert message.decode() == text


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        pytest.param({}, NotifySettings(), id="nobody wants to know"),
        pytest.param({"NOTIFY_SOCKET": "/run/n"}, NotifySettings("/run/n"), id="a path"),
        pytest.param({"NOTIFY_SOCKET": "@n"}, NotifySettings("@n"), id="an abstract name"),
        pytest.param({"NOTIFY_SOCKET": "vsock:2:1"}, NotifySettings(), id="a machine's host"),
        pytest.param({"NOTIFY_SOCKET": "@"}, NotifySettings(), id="no name"),
        pytest.param(
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000"},
            NotifySettings("/n", 30.0),
            id="a watchdog",
        ),
        pytest.param(
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)},
            NotifySettings("/n", 30.0),
            id="a watchdog for us",
        ),
        pytest.param(
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
            NotifySettings("/n"),
            id="a watchdog for another",
        ),
        pytest.param(
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, NotifySettings("/n"), id="nonsense"
        ),
        pytest.param({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, NotifySettings("/n"), id="off"),
    ],
)
def test_settings(variables: dict[str, str], settings: NotifySettings) -> None:
    environment = {"PATH": "/bin", **variables}
    assert NotifySettings.take(environment, PID) == settings
    assert environment == {"PATH": "/bin"}, "children do not inherit them"


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeNotifySocket]:
    address = str(tmp_path / "n") if request.param == "path" else f"@vsockproxy-test-{os.getpid()}"
    with FakeNotifySocket(address) as fake:
        yield fake


def test_a_message_arrives_whole(systemd: FakeNotifySocket) -> None:
    sender = NotifySocket(systemd.address)
    sender.send(notify.ready("here"))
    assert systemd.receive() == {"READY": "1", "STATUS": "here"}
    sender.close()


@pytest.mark.skipif(shutil.which("systemd-notify") is None, reason="needs systemd-notify")
def test_the_fake_is_as_systemd_for_systemd_notify(systemd: FakeNotifySocket) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": systemd.address}
    command = ["systemd-notify", "--ready", "--status=from systemd's own"]
    with subprocess.Popen(command, env=environment) as process:
        assert systemd.wait_for_key("READY")["STATUS"] == "from systemd's own"
        systemd.wait_for_key("BARRIER")  # it waits until the descriptor is closed
        assert process.wait(20) == 0


class Rig:
    """A notifier, and what it asks."""

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        self.log = RecordingLog()
        self.text = "starting"
        self.is_alive = True
        self.notifier = Notifier(
            NotifySettings(address, watchdog_seconds),
            describe=lambda: self.text,
            is_alive=lambda: self.is_alive,
            log=self.log,
        )


def heard(systemd: FakeNotifySocket) -> list[dict[str, str]]:
    """What has been said since the last time."""
    systemd.messages.clear()
    systemd.drop_waiting()
    return list(systemd.messages)


async def test_a_life(systemd: FakeNotifySocket, autojump_clock: MockClock) -> None:
    rig = Rig(systemd.address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.notifier.run)
        await trio.sleep(10)
        assert heard(systemd) == [], "nothing before it is ready"
        rig.text = "1 of 1 workers"
        await rig.notifier.ready()
        await trio.sleep(10)
        assert heard(systemd) == [{"READY": "1", "STATUS": "1 of 1 workers"}]
        rig.text = "0 of 1 workers"
        await trio.sleep(10)
        assert heard(systemd) == [{"STATUS": "0 of 1 workers"}]
        await rig.notifier.reloading()
        (message,) = heard(systemd)
        assert (message["RELOADING"], message["STATUS"]) == ("1", "reloading")
        assert int(message["MONOTONIC_USEC"]) > 0
        rig.text = "reloaded"
        await rig.notifier.ready()
        assert heard(systemd) == [{"READY": "1", "STATUS": "reloaded"}]
        rig.text = "draining"
        await rig.notifier.stopping()
        assert heard(systemd) == [{"STOPPING": "1", "STATUS": "draining"}]
        with trio.move_on_after(EXTENSION_SECONDS):
            await rig.notifier.extend()
        extensions = heard(systemd)
        assert len(extensions) >= 3
        assert {each["EXTEND_TIMEOUT_USEC"] for each in extensions} == {"15000000"}
        nursery.cancel_scope.cancel()
    rig.notifier.close()
    assert rig.log.lines == []


async def test_the_watchdog_is_fed_at_half_its_time_while_all_is_well(
    systemd: FakeNotifySocket, autojump_clock: MockClock
) -> None:
    rig = Rig(systemd.address, watchdog_seconds=30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.notifier.run)
        await trio.sleep(61)
        assert heard(systemd) == [{"WATCHDOG": "1"}] * 5
        rig.is_alive = False
        await trio.sleep(60)
        assert heard(systemd) == []
        nursery.cancel_scope.cancel()
    rig.notifier.close()


async def test_nobody_there_is_one_line(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(str(tmp_path / "nobody"))
    await rig.notifier.ready()
    await rig.notifier.stopping()
    assert len(rig.log.events("notify_failed")) == 1


async def test_somebody_who_leaves_is_one_line(tmp_path: Path, autojump_clock: MockClock) -> None:
    with FakeNotifySocket(tmp_path / "n") as systemd:
        rig = Rig(systemd.address)
        await rig.notifier.ready()
        assert systemd.receive()["READY"] == "1"
    await rig.notifier.ready()
    await rig.notifier.ready()
    assert len(rig.log.events("notify_failed")) == 1


async def test_nobody_who_wants_to_know_is_no_line(autojump_clock: MockClock) -> None:
    rig = Rig(None)
    await rig.notifier.ready()
    assert rig.log.lines == []


async def test_a_systemd_that_does_not_read_gets_it_later(tmp_path: Path) -> None:
    with FakeNotifySocket(tmp_path / "n") as systemd:
        rig = Rig(systemd.address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            sent = 0
            with suppress(BlockingIOError):
                while sent < 100_000:
                    other.sendto(b"STATUS=noise", systemd.address)
                    sent += 1
            assert sent < 100_000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.notifier.ready)
                await wait_all_tasks_blocked(0.05)
                for _ in range(sent):
                    assert systemd.receive() == {"STATUS": "noise"}
            assert systemd.receive()["READY"] == "1"
        rig.notifier.close()
