"""`vsockproxy status` and `top`: what they show, and how they say that nobody answers."""

import contextlib
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from parent_side.services.observed import Observed
from vsockproxy.cli.main import main
from vsockproxy.cli.status_view import draw, plain
from vsockproxy.worker_reports import (
    EnclaveState,
    LinkState,
    Refusal,
    Report,
    Supervision,
    WorkerState,
)

NOBODY = 65534


def status(*, refused_host: str = "evil.test") -> dict[str, Any]:
    """As the endpoint says it, of one worker."""
    observed = Observed()
    observed.supervised(Supervision(1, 0.0, False, [WorkerState(0, 2, True, 0)], [], []), 1.0)
    link = LinkState(1.0, 0, None, 9)
    report = Report(
        series=[
            ("vsockproxy_decisions_total", ["ledger", "not_listed", "false"], 3),
            ("vsockproxy_links", ["ledger"], 1),
        ],
        enclaves=[EnclaveState("ledger", 16, "ledger", [link], 0)],
        enclaves_left_out=0,
        refusals=[Refusal(0.0, 16, "ledger", refused_host, 443, "not_listed", "add a rule")],
        refusals_left_out=0,
    )
    observed.reported(0, 0, report, 1.0)
    observed.tick(1.0)
    return {"version": "1.2.3", **observed.status(1.0, 100.0)}


@contextlib.contextmanager
def answering(path: Path, head: str, body: bytes) -> Iterator[str]:
    """An endpoint that answers every request alike."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65_536)
                        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                        connection.sendall(f"{head}\r\n{length}".encode() + body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"unix://{path}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def drawn(content: dict[str, Any], width: int = 130) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, highlight=False)
    console.print(draw(content, {"streams": [], "more": 0}, width=width))
    return console.export_text()


@pytest.mark.parametrize("width", [40, 80, 130, 250])
def test_everything_is_drawn_at_any_width(width: int) -> None:
    text = drawn(status(), width)
    assert "ready" in text
    assert "not_listed" in text or width == 40
    assert max(map(len, text.splitlines())) <= width


def test_a_status_of_nothing_is_drawn() -> None:
    content = {"version": "1", **Observed().status(0.0, 0.0)}
    assert "not ready: the supervisor has not said anything yet" in drawn(content)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("evil.test", "evil.test", id="an ordinary name"),
        pytest.param("\x1b[2Jevil", "\ufffd[2Jevil", id="an escape sequence"),
        pytest.param("a\nb\x07\x9b", "a\ufffdb\ufffd\ufffd", id="control characters"),
        pytest.param("a\u202eb", "a\ufffdb", id="a change of direction"),
        pytest.param("[red]a[/red]", "[red]a[/red]", id="what would be markup"),
    ],
)
def test_what_comes_from_an_enclave_is_shown_as_text(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert shown in drawn(status(refused_host=text))


@pytest.mark.parametrize("command", ["status", "top"])
@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("unix:///nowhere/admin.sock", "nobody listens on unix:///nowhere/admin.sock: start"),
        ("tcp://127.0.0.1:1", "nobody listens on tcp://127.0.0.1:1"),
        ("vsock://3:5000", "write unix:///PATH or tcp://127.0.0.1:PORT"),
        ("nowhere", "'nowhere' is no endpoint"),
    ],
)
def test_where_nobody_can_be_asked_it_says_so(command: str, endpoint: str, said: str) -> None:
    done = CliRunner().invoke(main, [command, "--admin", endpoint])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("head", "body", "said"),
    [
        pytest.param("HTTP/1.1 503 x", b"busy\n", "said 503: busy", id="another status"),
        pytest.param("HTTP/1.1 200 OK", b"<html>", "gave no JSON", id="no JSON"),
        pytest.param("HTTP/1.1 200 OK", b"[]", "gave other JSON", id="other JSON"),
        pytest.param("SSH-2.0-x", b"", "SSH-2.0-x", id="no HTTP"),
    ],
)
def test_another_service_is_told_apart(tmp_path: Path, head: str, body: bytes, said: str) -> None:
    with answering(tmp_path / "a.sock", head, body) as endpoint:
        done = CliRunner().invoke(main, ["status", "--admin", endpoint])
    assert done.exit_code == 2
    assert said in done.output


@contextlib.contextmanager
def as_somebody() -> Iterator[None]:
    """Not as root, who may open every socket."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_socket_that_may_not_be_opened_is_explained() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "a.sock"
        with answering(path, "HTTP/1.1 200 OK", b"{}") as endpoint:
            path.chmod(0)
            with as_somebody():
                done = CliRunner().invoke(main, ["status", "--admin", endpoint])
    assert done.exit_code == 2
    assert "not permitted to open" in done.output


def test_not_ready_is_exit_status_1(tmp_path: Path) -> None:
    body = json.dumps({"version": "1", **Observed().status(0.0, 0.0)}).encode()
    with answering(tmp_path / "a.sock", "HTTP/1.1 200 OK", body) as endpoint:
        done = CliRunner().invoke(main, ["status", "--admin", endpoint])
    assert done.exit_code == 1
    assert "not ready" in done.output


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "Ctrl-C"])
def test_top_ends_by_a_key_and_leaves_the_terminal_as_it_was(tmp_path: Path, key: bytes) -> None:
    body = json.dumps({**status(), "streams": [], "more": 0}).encode()
    with answering(tmp_path / "a.sock", "HTTP/1.1 200 OK", body) as endpoint:
        master, terminal = pty.openpty()
        command = [sys.executable, "-m", "vsockproxy", "top", "--admin", endpoint]
        process = subprocess.Popen(
            command,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=take_terminal,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(terminal)
        try:
            seen = b""
            while b"ledger" not in seen:
                seen += os.read(master, 65_536)
            os.write(master, key)
            with contextlib.suppress(OSError):  # the terminal's last user has gone
                while piece := os.read(master, 65_536):
                    seen += piece
            assert process.wait(20) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait(20)
            os.close(master)
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1, "the other screen"
    assert b"Traceback" not in seen


def take_terminal() -> None:
    """Make stdin the terminal that sends signals (TIOCSCTTY, ioctl_tty(2))."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
