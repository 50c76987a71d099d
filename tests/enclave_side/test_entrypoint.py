import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import DEADLINE_SECONDS, Program

QUIET = "{http_proxy: null, streams: null}"
WAIT = "echo the command is waiting >&2; for i in $(seq 999); do sleep 0.02; done"
"""For at most 20 s; a shell runs its traps between two sleeps."""
PORT_FOR_THE_KERNEL_TO_CHOOSE = '{http_proxy: "127.0.0.1:0", streams: null}'


@contextmanager
def enclave(
    tmp_path: Path,
    *command: str,
    shim: str = QUIET,
    more: str = "",
    within: tuple[str, ...] = (),
    **variables: str,
) -> Iterator[Program]:
    file = tmp_path / "enclave.yaml"
    file.write_text(f"parent: unix://{tmp_path}/link.sock\nshim: {shim}\n{more}")
    line = [sys.executable, "-m", "tests.support.fake_side", "enclave", str(file), *command]
    with Program([*within, *line], variables) as program:
        yield program


def ask(path: Path) -> tuple[int, str]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_SECONDS)
        client.connect(str(path))
        pid, listener, *_ = client.recv(1000).split()
        return int(pid), listener.decode()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(("true",), 0, id="success"),
        pytest.param(("sh", "-c", "exit 3"), 3, id="its exit code"),
        pytest.param(("sh", "-c", "kill -INT $$"), 130, id="128+N for signal N"),
        pytest.param(("/nowhere",), 127, id="127 for no such program"),
        pytest.param(("/etc/passwd",), 126, id="126 for no executable"),
    ],
)
def test_the_status_is_the_commands(command: tuple[str, ...], code: int, tmp_path: Path) -> None:
    with enclave(tmp_path, *command) as program:
        assert program.end() == (code, "")


def test_stdout_is_the_commands_alone(tmp_path: Path) -> None:
    with enclave(tmp_path, "echo", "hello") as program:
        assert program.end() == (0, "hello\n")
        assert any('"left_out"' in line and "lo" in line for line in program.lines)


def test_the_command_gets_no_descriptor_of_ours(tmp_path: Path) -> None:
    with enclave(tmp_path, "sh", "-c", "ls /proc/$$/fd", shim=PORT_FOR_THE_KERNEL_TO_CHOOSE) as it:
        assert set(it.end()[1].split()) <= {"0", "1", "2", "10"}, "10 is a shell's own"


def test_stdin_is_the_commands(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"typed\n")
    os.close(write_end)
    file = tmp_path / "enclave.yaml"
    file.write_text(f"parent: unix://{tmp_path}/link.sock\nshim: {QUIET}\n")
    line = [sys.executable, "-m", "tests.support.fake_side", "enclave", str(file), "cat"]
    with Program(line, stdin=read_end) as program:
        os.close(read_end)
        assert program.end() == (0, "typed\n")


def test_without_a_command_it_runs_until_sigterm(tmp_path: Path) -> None:
    with enclave(tmp_path) as program:
        program.line_with('"ready"')
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "")


def test_workers_serve_the_listeners_and_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "db.sock"
    more = f'forwards: [{{listen: "unix://{path}", to: "db.example:5432"}}]\nworkers: 2'
    with enclave(tmp_path, more=more) as program:
        program.line_with('"ready"')
        pid, listener = ask(path)
        assert listener == "forwards[0].listen"
        os.kill(pid, signal.SIGKILL)
        program.line_with("worker_died")
        assert ask(path)[0] != pid
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "")
    assert not path.exists()


def test_the_command_is_told_of_the_proxy(tmp_path: Path) -> None:
    script = "echo $http_proxy $NO_PROXY $ALL_PROXY; grep -c . /proc/net/tcp"
    shim = PORT_FOR_THE_KERNEL_TO_CHOOSE
    with enclave(tmp_path, "sh", "-c", script, shim=shim, ALL_PROXY="socks5://x") as program:
        code, output = program.end()
    url, no_proxy = output.splitlines()[0].split()
    assert code == 0
    assert url.startswith("http://127.0.0.1:")
    assert int(url.rpartition(":")[2]) > 0
    assert no_proxy == "localhost,127.0.0.1,::1"


def test_signals_reach_the_command(tmp_path: Path) -> None:
    with enclave(tmp_path, "sh", "-c", f"trap 'exit 7' USR1; {WAIT}") as program:
        program.line_with("is waiting")
        program.signal(signal.SIGUSR1)
        assert program.end()[0] == 7


def test_a_command_that_ignores_sigterm_goes_on(tmp_path: Path) -> None:
    with enclave(tmp_path, "sh", "-c", f"trap 'echo not yet >&2' TERM; {WAIT}") as program:
        program.line_with("is waiting")
        program.signal(signal.SIGTERM)
        program.line_with("not yet")
        assert program.process.poll() is None
        program.signal(signal.SIGHUP)
        assert program.end()[0] == 129


def test_a_signal_before_the_workers_are_ready_ends_it(tmp_path: Path) -> None:
    with enclave(tmp_path, "echo", "never", FAKE_WORKER="dies") as program:
        program.line_with("worker_died")
        program.signal(signal.SIGTERM)
        assert program.end() == (143, "")


def test_what_a_worker_writes_without_an_end_is_relayed(tmp_path: Path) -> None:
    with enclave(tmp_path, "true", FAKE_WORKER="noisy") as program:
        assert program.end()[0] == 0
    assert sum(line.count("n") for line in program.lines if line.startswith("nnn")) >= 100_000


def test_a_listener_that_cannot_be_bound_is_one_line_and_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with enclave(tmp_path, "true", shim=f'{{http_proxy: "{address}"}}') as program:
            assert program.end() == (1, "")
            (line,) = program.lines
    assert line.startswith(f"vsockproxy: cannot listen on tcp://{address}: it is in use")


def test_more_listeners_than_one_message_carries(tmp_path: Path) -> None:
    forwards = [
        {"listen": f"unix://{tmp_path}/{number}.sock", "to": "db.example:5432"}
        for number in range(130)
    ]
    with enclave(tmp_path, "sh", "-c", WAIT, more=f"forwards: {json.dumps(forwards)}") as program:
        program.line_with("the command is waiting")
        for number in (0, 63, 64, 129):
            assert ask(tmp_path / f"{number}.sock")[1] == f"forwards[{number}].listen"
        program.signal(signal.SIGTERM)
        program.end()


# ---------------------------------------------------------------- the stream socket

SHOW_STREAMS = (
    *("sh", "-c"),
    'echo "${VSOCKPROXY_STREAMS-none}"; test -z "$VSOCKPROXY_STREAMS" || '
    'stat -c "%F %a" "${VSOCKPROXY_STREAMS%/*}" "$VSOCKPROXY_STREAMS"',
)


def own_run(options: str) -> tuple[str, ...]:
    """Begins a command line with a /run of its own, which is empty."""
    script = f'mount -t tmpfs -o {options} none /run && exec "$@"'
    return (sys.executable, "-m", "tests.support.one_process_namespace", "sh", "-c", script, "sh")


def end_of(program: Program) -> tuple[int, str]:
    code, output = program.end()
    if code == NOT_PERMITTED:
        pytest.skip(f"no namespaces here: {program.lines}")
    return code, output


def test_the_command_is_told_of_the_stream_socket(tmp_path: Path) -> None:
    path = tmp_path / "vsockproxy" / "streams.sock"
    shim = f"{{http_proxy: null, streams: {path}}}"
    with enclave(tmp_path, *SHOW_STREAMS, shim=shim, VSOCKPROXY_STREAMS="/an/outer/one") as it:
        assert it.end() == (0, f"{path}\ndirectory 755\nsocket 666\n")
        assert any('"ready"' in line and f"unix://{path}?mode=0666" in line for line in it.lines)
    assert not path.exists()


def test_by_default_the_stream_socket_is_below_run(tmp_path: Path) -> None:
    within = own_run("mode=0755")
    with enclave(tmp_path, *SHOW_STREAMS, shim="{http_proxy: null}", within=within) as program:
        output = "/run/vsockproxy/streams.sock\ndirectory 755\nsocket 666\n"
        assert end_of(program) == (0, output)


def test_where_run_cannot_be_written_to_one_line_says_so_and_the_rest_runs(tmp_path: Path) -> None:
    within = own_run("ro")
    with enclave(tmp_path, *SHOW_STREAMS, shim="{http_proxy: null}", within=within) as program:
        assert end_of(program) == (0, "none\n")
        (line,) = (line for line in program.lines if "stream socket" in line)
    assert json.loads(line)["event"] == "left_out"
    assert "/run/vsockproxy/streams.sock: its directory cannot be made: Read-only" in line


def test_switched_off_there_is_none_and_no_variable(tmp_path: Path) -> None:
    with enclave(tmp_path, *SHOW_STREAMS, VSOCKPROXY_STREAMS="/an/outer/one") as program:
        assert program.end() == (0, "none\n")
        assert not any("stream socket" in line for line in program.lines)


def test_one_that_is_written_and_cannot_be_bound_is_one_line_and_1(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "else" / "streams.sock"
    shim = f"{{http_proxy: null, streams: {path}}}"
    with enclave(tmp_path, "true", shim=shim) as program:
        assert program.end() == (1, "")
        (line,) = program.lines
    assert line.startswith(f"vsockproxy: cannot listen on unix://{path}: its directory cannot be")
