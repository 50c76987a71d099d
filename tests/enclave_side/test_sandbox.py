import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.program import Program, command_line, processes_with
from tests.support.terminal import INTERRUPT, SUSPEND, Shell

NO_BASH = "needs bash, for its job control"


def fake_sandbox(*command: str) -> list[str]:
    """A sandbox whose workers have no data path."""
    return [sys.executable, "-m", "tests.support.fake_side", "sandbox", *command]


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    with Program(fake_sandbox("true")) as probe:
        code, _ = probe.end()
    refusals = [line for line in probe.lines if line.startswith("vsockproxy: ")]
    if code == 1 and refusals and "namespaces" in refusals[0]:
        pytest.skip(f"no sandbox here: {refusals[0]}")


@pytest.fixture
def temporary() -> Iterator[Path]:
    """An own directory for temporary files; short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as name:
        path = Path(name) / "t"
        path.mkdir()
        yield path


def run(*command: str, **variables: str) -> tuple[int, str]:
    with Program(fake_sandbox(*command), variables) as program:
        return program.end()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(("true",), 0, id="success"),
        pytest.param(("sh", "-c", "exit 3"), 3, id="its exit code"),
        pytest.param(("sh", "-c", "kill -TERM $$"), 143, id="128+N for signal N"),
        pytest.param(("/nowhere",), 127, id="127 for no such program"),
        pytest.param(("/etc/passwd",), 126, id="126 for no executable"),
    ],
)
def test_the_status_is_the_commands(command: tuple[str, ...], code: int) -> None:
    assert run(*command) == (code, "")


def test_it_is_a_machine_of_its_own() -> None:
    script = r"""
id -u
cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '
$PYTHON -c "$LISTEN" && echo lo is up
ls -A /run
cat /etc/hosts
grep hosts: /etc/nsswitch.conf
cat /etc/resolv.conf
uname -n
echo /proc/[0-9]*
"""
    listen = (
        "import socket; socket.create_server(('127.0.0.1', 80));"
        "socket.create_server(('::1', 80), family=socket.AF_INET6)"
    )
    code, output = run("sh", "-c", script, PYTHON=sys.executable, LISTEN=listen)
    assert code == 0
    assert output.splitlines()[:-1] == [
        "0",
        "lo",
        "vsc-rest",
        "lo is up",
        "vsockproxy",
        "127.0.0.1 localhost enclave",
        "::1 localhost",
        "hosts: files dns",
        "nameserver 198.18.0.1",
        "options ndots:1",
        "enclave",
    ]
    assert 3 <= len(output.splitlines()[-1].split()) <= 6, "init, supervisor, worker, command"


def test_nothing_outside_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        script = f"""
import errno, socket
for address in ("127.0.0.1", {port}), ("192.0.2.1", 443):
    with socket.socket() as client:
        print(errno.errorcode[client.connect_ex(address)])
"""
        assert run(sys.executable, "-c", script) == (0, "ECONNREFUSED\nECONNREFUSED\n")
        code, output = run(sys.executable, "-c", script, FAKE_NAMES="off")
        assert (code, output) == (0, "ECONNREFUSED\nENETUNREACH\n")


def test_without_names_the_proxy_is_told() -> None:
    script = """
import os, socket
host, _, port = os.environ["https_proxy"].removeprefix("http://").rpartition(":")
with socket.create_connection((host, int(port))) as client:
    print(client.makefile().read().split()[1])
"""
    code, output = run(sys.executable, "-c", script, FAKE_NAMES="off")
    assert (code, output) == (0, "shim.http_proxy\n")


def test_files_and_working_directory_are_the_users(tmp_path: Path) -> None:
    script = f"pwd; echo written > {tmp_path}/file; stat -c %u {tmp_path}/file"
    with Program(fake_sandbox("sh", "-c", script), cwd=tmp_path) as program:
        assert program.end() == (0, f"{tmp_path}\n0\n")
    assert (tmp_path / "file").stat().st_uid == os.geteuid()


def test_stdin_and_stdout_pass_through() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"typed\n")
    os.close(write_end)
    with Program(fake_sandbox("cat"), stdin=read_end) as program:
        os.close(read_end)
        assert program.end() == (0, "typed\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_command(number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    wait = "for i in $(seq 999); do sleep 0.02; done"
    script = f"trap 'exit 7' {name}; echo the command waits >&2; {wait}"
    with Program(fake_sandbox("sh", "-c", script)) as program:
        program.line_with("the command waits")
        program.signal(number)
        assert program.end()[0] == 7


def test_orphans_are_reaped() -> None:
    script = "(sleep 0.1 & ) ; sleep 0.4; grep -s ^State: /proc/[0-9]*/status | grep -c zombie"
    assert run("sh", "-c", script)[1] == "0\n"


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(None, id="the command's end"),
        pytest.param("outer", id="SIGKILL for the sandbox"),
        pytest.param("parent_side.service", id="SIGKILL for the parent service"),
        pytest.param("enclave_side.entrypoint", id="SIGKILL for the supervisor"),
    ],
)
def test_nothing_is_left_behind(victim: str | None, temporary: Path) -> None:
    mark = f"mark-of-{temporary.parent.name}"
    script = f": {mark}; sleep 60 & echo the command waits >&2; [ {victim} = None ] || wait"
    variables = {"TMPDIR": str(temporary)}
    with Program(fake_sandbox("sh", "-c", script), variables) as program:
        program.line_with("the command waits")
        (directory,) = temporary.iterdir()
        service = pid_of("parent_side.service", str(directory))
        match victim:
            case None:
                pass
            case "outer":
                program.signal(signal.SIGKILL)
            case "parent_side.service":
                os.kill(service, signal.SIGKILL)
            case _:
                os.kill(pid_of("enclave_side.entrypoint", mark), signal.SIGKILL)
        code, _ = program.end()
    assert (
        code
        == {
            None: 0,
            "outer": -signal.SIGKILL,
            "parent_side.service": 1,
            "enclave_side.entrypoint": 128 + signal.SIGKILL,
        }[victim]
    )
    # stderr is at its end: everybody who could write to it has gone.
    assert processes_with(mark) == processes_with(str(directory)) == []
    assert list(temporary.iterdir()) == []


def pid_of(*texts: str) -> int:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = path.read_bytes().decode(errors="replace").split("\0")
            if words[2:3] == ["-m"] and all(text in " ".join(words) for text in texts):
                found.add(int(path.parent.name))
    # A child that it is starting has its command line too, until it execs.
    (pid,) = (pid for pid in found if parent_of(pid) not in found)
    return pid


def parent_of(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def test_a_parent_service_that_cannot_start_ends_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no socket")
    forward = {"listen": f"unix://{tmp_path}/taken", "to": "db.example:5432"}
    (tmp_path / "parent.yaml").write_text(
        f"listen: vsock://any:5000\nforwards: {json.dumps([forward])}"
    )
    config = ("--config-parent", str(tmp_path / "parent.yaml"))
    with Program(command_line("sandbox", *config, "--", "sleep", "60")) as program:
        assert program.end() == (1, "")
    assert any("exists and is no socket" in line for line in program.lines)
    assert program.lines[-1] == "vsockproxy: the parent service ended with status 1"


@pytest.mark.skipif(not shutil.which("bash"), reason=NO_BASH)
def test_interrupt_reaches_the_command_once(tmp_path: Path) -> None:
    count = tmp_path / "count.py"
    count.write_text(
        "import signal, time\n"
        "counted = 0\n"
        "def count(*_):\n"
        "    global counted\n"
        "    counted += 1\n"
        "signal.signal(signal.SIGINT, count)\n"
        "print('count' + 'ing', flush=True)\n"
        "while not counted:\n"
        "    signal.pause()\n"
        "time.sleep(0.5)\n"
        "print('inter' + 'rupts:', counted)\n"
    )
    with Shell() as shell:
        shell.type(f"{' '.join(fake_sandbox(sys.executable, str(count)))}; echo sta''tus $?\n")
        shell.wait_for("counting")
        shell.type(INTERRUPT)
        assert shell.wait_for("status 0").count("interrupts: 1") == 1


@pytest.mark.skipif(not shutil.which("bash"), reason=NO_BASH)
def test_suspend_and_resume() -> None:
    # Not a command that reads: on a busy machine it might take a letter meant for the shell.
    wait = "for i in $(seq 999); do sleep 0.02; done"
    script = f"trap 'echo re''sumed; exit 5' CONT; echo started; {wait}"
    with Shell(SCRIPT=script) as shell:
        shell.type(f'{" ".join(fake_sandbox("sh", "-c"))} "$SCRIPT"\n')
        shell.wait_for("started")
        shell.type(SUSPEND)
        shell.wait_for("Stopped")
        shell.type("fg; echo sta''tus $?\n")
        assert "resumed" in shell.wait_for("status 5")


@pytest.mark.skipif(not shutil.which("bash"), reason=NO_BASH)
def test_a_new_size_of_the_terminal_reaches_the_command() -> None:
    wait = "for i in $(seq 999); do sleep 0.02; done"
    script = f"trap 'stty size; exit 8' WINCH; echo star''ted; {wait}"
    with Shell(SCRIPT=script) as shell:
        shell.resize(24, 80)
        shell.type(f"{' '.join(fake_sandbox('sh', '-c'))} \"$SCRIPT\"; echo sta''tus $?\n")
        shell.wait_for("started")
        shell.resize(41, 123)
        assert "41 123" in shell.wait_for("status 8")


@pytest.mark.skipif(not shutil.which("bash"), reason=NO_BASH)
def test_a_shell_inside_has_job_control() -> None:
    with Shell() as shell:
        shell.type(f"{' '.join(fake_sandbox('bash', '--norc', '-i'))}\n")
        shell.wait_for("ready")
        shell.type("sh -c 'echo slee''ping; exec sleep 60'\n")
        assert "no job control" not in shell.wait_for("sleeping")
        shell.type(SUSPEND)
        shell.wait_for("Stopped")
        shell.type("exec sh -c 'echo lea''ving; exit 6'\n")
        shell.wait_for("leaving")
        shell.type("echo sta''tus $?\n")
        shell.wait_for("status 6")


NO_MORE_NAMESPACES = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
"""Switches user namespaces off, in a user namespace of its own."""


def without_user_namespaces(*command: str) -> list[str]:
    shell = ("sh", "-c", NO_MORE_NAMESPACES, "sh")
    return ["unshare", "--user", "--map-root-user", *shell, *command]


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_root_needs_no_user_namespace() -> None:
    command = fake_sandbox("sh", "-c", "ls -A /run; cut -d: -f1 /proc/net/dev | tail -1; exit 4")
    with Program(without_user_namespaces(*command)) as program:
        code, output = program.end()
    assert (code, output.split()) == (4, ["vsockproxy", "vsc-rest"])


@pytest.mark.skipif(
    not (shutil.which("unshare") and shutil.which("setpriv")), reason="needs unshare and setpriv"
)
def test_where_it_is_not_permitted_it_says_what_is_missing(temporary: Path) -> None:
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    command = without_user_namespaces(*powerless, *fake_sandbox("true"))
    with Program(command, {"TMPDIR": str(temporary)}) as program:
        assert program.end()[0] == 1
    (line,) = [line for line in program.lines if line.startswith("vsockproxy: ")]
    assert "user namespaces are switched off: sysctl -w user.max_user_namespaces=" in line
    assert list(temporary.iterdir()) == []
