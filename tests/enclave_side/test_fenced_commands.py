"""The fence around a command that the enclave's side really runs."""

import json
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enclave_side.fence import RUNS_AS_ROOT
from tests.support.intruder import ATTEMPTS
from tests.support.launching import UNFENCED, launch
from tests.support.program import Program, command_line, environment

INTRUDER = (sys.executable, "-m", "tests.support.intruder")
REFUSED = {"EPERM", "EACCES"}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change the user")


def configuration(tmp_path: Path, command: str) -> Path:
    file = tmp_path / "enclave.yaml"
    file.write_text(
        f"parent: unix://{tmp_path}/link.sock\nshim: {{http_proxy: null, streams: null}}\n"
        f"command: {command}\n"
    )
    return file


@contextmanager
def enclave(tmp_path: Path, settings: str, *command: str) -> Iterator[Program]:
    """The enclave's side in the plain way, with workers that have no data path."""
    file = configuration(tmp_path, settings)
    line = [sys.executable, "-m", "tests.support.fake_side", "enclave", str(file), *command]
    with Program(line) as program:
        yield program


def left_out(program: Program) -> list[str]:
    return [
        line["text"]
        for line in map(json.loads, filter(lambda text: text[:1] == "{", program.lines))
        if line["event"] == "left_out"
    ]


@as_root
def test_the_command_runs_as_the_user_of_the_file(tmp_path: Path) -> None:
    show = 'id -u; echo "$HOME $USER $LOGNAME"'
    with enclave(tmp_path, "{user: nobody}", "sh", "-c", show) as program:
        code, output = program.end()
    nobody = pwd.getpwnam("nobody")
    assert (code, output) == (0, f"{nobody.pw_uid}\n{nobody.pw_dir} nobody nobody\n")
    assert RUNS_AS_ROOT not in left_out(program)


@as_root
def test_a_command_that_runs_as_root_is_a_line(tmp_path: Path) -> None:
    with enclave(tmp_path, "{}", "true") as program:
        assert program.end()[0] == 0
    assert RUNS_AS_ROOT in left_out(program)


def test_a_user_who_is_missing_is_one_line_and_1(tmp_path: Path) -> None:
    with enclave(tmp_path, "{user: no-such-user}", "echo", "I run") as program:
        assert program.end() == (1, "")
    (line,) = program.lines
    assert line.startswith("vsockproxy: command.user: there is no user no-such-user in this")


SETTINGS = {"by default": ("{}", "EAFNOSUPPORT"), "where it is allowed": ("{vsock: allow}", "made")}


@pytest.mark.parametrize(("settings", "expected"), SETTINGS.values(), ids=SETTINGS)
def test_a_vsock_socket(settings: str, expected: str, tmp_path: Path) -> None:
    try_it = (
        "import errno, socket\n"
        "try: socket.socket(socket.AF_VSOCK); print('made')\n"
        "except OSError as error: print(errno.errorcode[error.errno])"
    )
    with enclave(tmp_path, settings, sys.executable, "-c", try_it) as program:
        assert program.end() == (0, f"{expected}\n")


def test_a_step_that_fails_is_an_error_and_1(tmp_path: Path) -> None:
    """A process without capabilities cannot become another user, though it is root's."""
    if os.geteuid() != 0:
        pytest.skip("needs root: others do not try to change the user")
    file = configuration(tmp_path, "{user: nobody}")
    side = [sys.executable, "-m", "tests.support.fake_side", "enclave", str(file), "echo", "I run"]
    done = launch(UNFENCED.launcher(), *side, environment=environment())
    assert (done.status, done.stdout) == (1, "")
    (told,) = (line for line in done.stderr.splitlines() if "fence_failed" in line)
    line = json.loads(told)
    assert (line["level"], line["step"], line["command"]) == ("error", "user", "echo")
    assert line["text"] == "Operation not permitted"


def refused(output: str) -> dict[str, set[str]]:
    """What the attempts on each process of ours came to; those on the intruder's own succeeded."""
    found = json.loads(output)
    assert found.pop("child") == dict.fromkeys(ATTEMPTS, "done")
    return {name: set(outcomes.values()) for name, outcomes in found.items()}


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skips where there can be no sandbox."""
    with Program(command_line("sandbox", "true")) as probe:
        code, _ = probe.end()
    if code == 1 and any("namespaces" in line for line in probe.lines):
        pytest.skip(f"no sandbox here: {probe.lines[0]}")


@pytest.mark.usefixtures("namespaces")
def test_in_a_sandbox_nobody_of_ours_can_be_traced() -> None:
    with Program(command_line("sandbox", *INTRUDER)) as program:
        code, output = program.end()
        assert code == 0, program.lines
    outcomes = refused(output)
    assert outcomes.keys() == {"supervisor", "worker", "init"}
    assert all(each <= REFUSED for each in outcomes.values()), output


def test_nobody_of_ours_can_be_traced_by_the_same_user_with_the_same_powers(
    tmp_path: Path,
) -> None:
    """As in a container without root: neither user nor capabilities stand between."""
    side = command_line("enclave", "--config", str(configuration(tmp_path, "{}")), "--", *INTRUDER)
    done = launch(UNFENCED.launcher(), *side, environment=environment())
    assert (done.status, done.report) == (0, ""), done.stderr
    outcomes = refused(done.stdout)
    assert outcomes.keys() == {"supervisor", "worker"}
    assert all(each <= REFUSED for each in outcomes.values()), done.stdout


@pytest.mark.usefixtures("namespaces")
def test_a_sandbox_leaves_the_user_out_with_a_line(tmp_path: Path) -> None:
    options = ["--verbose", "--config-enclave", str(configuration(tmp_path, "{user: nobody}"))]
    command = ["sh", "-c", "id -u; grep CapEff /proc/self/status"]
    with Program(command_line("sandbox", *options, "--", *command)) as program:
        assert program.end() == (0, f"0\nCapEff:\t{'0' * 16}\n")
    (text,) = left_out(program)
    assert text.startswith("command.user: nobody is left out, since this user namespace has no")
