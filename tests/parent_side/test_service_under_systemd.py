"""The parent as systemd starts it: told when it is ready, given its sockets, reloaded, drained."""

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.notify_socket import FakeNotifySocket
from tests.support.program import DEADLINE_SECONDS, Program

SOCKET_ACTIVATE = shutil.which("systemd-socket-activate")
needs_systemd = pytest.mark.skipif(
    SOCKET_ACTIVATE is None, reason="needs systemd-socket-activate, of the package systemd"
)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeNotifySocket]:
    with FakeNotifySocket(tmp_path / "notify") as fake:
        yield fake


@contextmanager
def parent(file: Path, *prefix: str, **variables: str) -> Iterator[Program]:
    command = [*prefix, sys.executable, "-m", "tests.support.fake_side", "parent", str(file)]
    with Program(command, variables) as program:
        yield program


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "parent.yaml"
    file.write_text(text)
    return file


def worker_environment(pid: int) -> set[str]:
    """Names of the variables of a process."""
    content = Path(f"/proc/{pid}/environ").read_bytes()
    return {each.partition(b"=")[0].decode() for each in content.split(b"\0") if each}


def workers(program: Program) -> list[int]:
    pid = program.process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_it_is_ready_once_everything_serves_and_says_what_it_does(
    tmp_path: Path, systemd: FakeNotifySocket
) -> None:
    file = written(tmp_path, f"listen: unix://{tmp_path}/link.sock\nworkers: 2\ndrain: 1\n")
    variables = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "500000"}
    with parent(file, **variables) as program:
        ready = systemd.wait_for_key("READY")
        assert ready["STATUS"] == "2 of 2 workers serve 0 enclaves"
        program.line_with('"ready"')
        for pid in workers(program):
            names = worker_environment(pid)
            assert names
            assert not names & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID"}
        systemd.wait_for_key("WATCHDOG")
        systemd.wait_for_key("WATCHDOG")
        program.signal(signal.SIGHUP)
        assert systemd.wait_for_key("RELOADING")["MONOTONIC_USEC"].isdigit()
        assert "; reloaded at " in systemd.wait_for_key("READY")["STATUS"]
        program.line_with('"reloaded"')
        file.write_text("listen: nowhere")
        program.signal(signal.SIGHUP)
        systemd.wait_for_key("RELOADING")
        status = systemd.wait_for_key("READY")["STATUS"]
        assert f"failed: {file}:1: listen: " in status
        program.signal(signal.SIGTERM)
        assert systemd.wait_for_key("STOPPING")["STATUS"].startswith("draining: 0 streams")
        assert systemd.wait_for_key("EXTEND_TIMEOUT_USEC")
        assert program.end()[0] == 0


def test_it_is_not_ready_before_its_workers_and_a_reload_does_not_say_so(
    tmp_path: Path, systemd: FakeNotifySocket
) -> None:
    file = written(tmp_path, f"listen: unix://{tmp_path}/link.sock\n")
    with parent(file, NOTIFY_SOCKET=systemd.address, FAKE_WORKER="dies") as program:
        program.line_with('"crash_loop"')
        program.signal(signal.SIGHUP)
        program.line_with('"reloaded"')
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
        systemd.drop_waiting()
        assert not any("READY" in each for each in systemd.messages)


def test_a_listener_that_cannot_be_bound_is_never_ready(
    tmp_path: Path, systemd: FakeNotifySocket
) -> None:
    file = written(tmp_path, f"listen: unix://{tmp_path}/missing/link.sock\n")
    with parent(file, NOTIFY_SOCKET=systemd.address) as program:
        assert program.end()[0] == 1
    systemd.drop_waiting()
    assert systemd.messages == []


@contextmanager
def activated(
    file: Path, *options: str, link: Path, **variables: str
) -> Iterator[tuple[Program, socket.socket]]:
    """The parent under the real systemd-socket-activate, and the connection that started it."""
    assert SOCKET_ACTIVATE is not None
    prefix = (SOCKET_ACTIVATE, *options, *(f"--setenv={key}" for key in variables))
    with parent(file, *prefix, **variables) as program:
        program.line_with("Listening on")
        with socket.socket(socket.AF_UNIX) as first:
            first.settimeout(DEADLINE_SECONDS)
            first.connect(str(link))
            yield program, first


@needs_systemd
def test_sockets_of_systemd_are_used_and_stay_when_it_ends(
    tmp_path: Path, systemd: FakeNotifySocket
) -> None:
    link, forward = tmp_path / "link.sock", tmp_path / "forward.sock"
    file = written(
        tmp_path,
        f"""
listen: ["unix://{link}?cid=16", "unix://{tmp_path}/own.sock?cid=17"]
forwards:
  - {{listen: "unix://{forward}?cid=18", to: "kms.example:443"}}
""",
    )
    options = (f"--listen={forward}", f"--listen={link}", "--fdname=forward:link")
    with activated(file, *options, link=link, NOTIFY_SOCKET=systemd.address) as (program, first):
        program.line_with('"ready"')
        assert first.makefile().read().split()[1:] == ["listen[0]", "16", "0"]
        for path, name in ((forward, "forwards[0].listen"), (tmp_path / "own.sock", "listen[1]")):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE_SECONDS)
                client.connect(str(path))
                assert client.makefile().read().split()[1] == name
        # A reload that keeps them keeps their sockets.
        program.signal(signal.SIGHUP)
        reloaded = json.loads(program.line_with('"reloaded"'))
        assert (reloaded["listeners_opened"], reloaded["listeners_closed"]) == (0, 0)
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
    assert link.exists(), "its name is systemd's to remove"
    assert not (tmp_path / "own.sock").exists()


@needs_systemd
def test_sockets_that_nobody_wants_are_an_error_with_their_names(tmp_path: Path) -> None:
    link, stranger = tmp_path / "link.sock", tmp_path / "stranger.sock"
    file = written(tmp_path, f"listen: unix://{link}?cid=16\n")
    options = (f"--listen={link}", f"--listen={stranger}", "--fdname=link:stranger")
    with activated(file, *options, link=link) as (program, _):
        line = program.line_with("nowhere in the configuration")
        assert f"(stranger) at unix://{stranger}" in line
        assert "(link)" not in line
        assert program.end()[0] == 1


@needs_systemd
def test_a_datagram_socket_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    file = written(tmp_path, f"listen: unix://{link}?cid=16\n")
    assert SOCKET_ACTIVATE is not None
    prefix = (SOCKET_ACTIVATE, "--datagram", f"--listen={link}")
    with parent(file, *prefix) as program:
        program.line_with("Listening on")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", str(link))
        program.line_with("no listening stream socket: write ListenStream=")
        assert program.end()[0] == 1


def test_variables_for_another_process_are_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path, f"listen: unix://{tmp_path}/link.sock\n")
    with parent(file, LISTEN_PID=str(os.getpid()), LISTEN_FDS="5") as program:
        program.line_with('"ready"')
