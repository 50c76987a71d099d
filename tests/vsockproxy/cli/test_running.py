"""The commands that run something, as a user types them; the sides have tests of their own."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import Program, command_line

BROKEN = "listen: vsock://any:5000\nallowlst: []\n"
LINE_OF_BROKEN = "2: allowlst: unknown key"


def run(*arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str, list[str]]:
    with Program([*before, *command_line(*arguments)]) as program:
        code, output = program.end()
    return code, output, program.lines


def as_pid_1(*arguments: str) -> tuple[int, str, list[str]]:
    before = (sys.executable, "-m", "tests.support.one_process_namespace")
    code, output, lines = run(*arguments, before=before)
    if code == NOT_PERMITTED:
        pytest.skip(f"not permitted here: {lines[0]}")
    return code, output, lines


def needs_sandbox(result: tuple[int, str, list[str]]) -> tuple[int, str, list[str]]:
    if result[0] == 1 and any("namespaces" in line for line in result[2]):
        pytest.skip(f"no sandbox here: {result[2]}")
    return result


@pytest.fixture
def enclave_file(tmp_path: Path) -> str:
    file = tmp_path / "enclave.yaml"
    file.write_text(
        f"parent: unix://{tmp_path}/link.sock\nshim: {{http_proxy: null, streams: null}}\n"
    )
    return str(file)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("parent", "--config"), id="parent"),
        pytest.param(("sandbox", "--config-parent"), id="sandbox"),
    ],
)
def test_an_invalid_file_is_the_lines_of_check_and_2(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "parent.yaml"
    file.write_text(BROKEN)
    command = ("--", "true") if arguments[0] == "sandbox" else ()
    code, output, lines = run(*arguments, str(file), *command)
    assert (code, output, len(lines)) == (2, "", 1)
    assert lines[0].startswith(f"{file}:{LINE_OF_BROKEN}")
    assert run("check", str(file))[1].splitlines() == lines


@pytest.mark.parametrize("side", ["parent", "enclave"])
def test_a_file_of_the_other_side_is_refused(side: str, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("parent: vsock://3:5000" if side == "parent" else "listen: vsock://any:5000")
    code, _, lines = run(side, "--config", str(file))
    assert code == 2
    assert lines[0].startswith(f"{file}:1: ")


@pytest.mark.parametrize("side", ["parent", "enclave"])
def test_a_file_that_is_not_there(side: str, tmp_path: Path) -> None:
    code, _, lines = run(side, "--config", f"{tmp_path}/nothing.yaml")
    assert code == 2
    assert lines[0].startswith(f"{tmp_path}/nothing.yaml: cannot be read")


def test_the_default_files_are_those_of_the_documentation() -> None:
    for side in ("parent", "enclave"):
        assert f"/etc/vsockproxy/{side}.yaml" in run(side, "--help")[1]


def test_parent_until_sigterm(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(f"listen: unix://{tmp_path}/link.sock")
    with Program(command_line("parent", "--config", f"{tmp_path}/parent.yaml")) as program:
        ready = json.loads(program.line_with('"ready"'))
        assert ready["listeners"] == f"unix://{tmp_path}/link.sock"
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "")


def test_enclave_with_a_command_and_its_options(enclave_file: str) -> None:
    code, output, lines = run(
        "enclave", "--config", enclave_file, "--", "sh", "-c", 'echo "$@"; exit 3', "x", "--config"
    )
    assert (code, output) == (3, "--config\n")
    assert any('"left_out"' in line for line in lines)


def test_enclave_as_pid_1(enclave_file: str) -> None:
    script = "cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /sys/class/net/lo/flags; exit 5"
    script = script.replace("cat /sys/class/net/lo/flags", "grep -c lo: /proc/net/dev")
    (file := Path(enclave_file)).write_text(f"parent: unix://{file.parent}/link.sock\n")
    code, output, lines = as_pid_1("enclave", "--config", enclave_file, "--", "sh", "-c", script)
    assert code == 5, lines
    assert " -m enclave_side.init " in output.splitlines()[0]
    assert not any('"left_out"' in line for line in lines)
    assert any("tcp://127.0.0.1:3128" in line for line in lines), "lo is up: it could be bound"


def test_enclave_as_pid_1_with_an_invalid_file(tmp_path: Path) -> None:
    (tmp_path / "enclave.yaml").write_text("parent: nowhere")
    code, _, lines = as_pid_1("enclave", "--config", f"{tmp_path}/enclave.yaml", "--", "true")
    assert code == 2
    assert lines[0].startswith(f"{tmp_path}/enclave.yaml:1: parent: ")


def test_take_over_without_the_right_to(enclave_file: str) -> None:
    if not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs setpriv, to give up rights, and unshare")
    # In a network of its own, whose lo is down: what is taken over is not this machine.
    rights = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    before = ("unshare", "--net", *rights)
    code, _, lines = run("enclave", "--config", enclave_file, "--take-over", before=before)
    if any("setpriv" in line or "unshare" in line for line in lines):
        pytest.skip(f"not permitted here: {lines[0]}")
    assert code == 1
    assert lines == ["vsockproxy: bringing up the interface lo: Operation not permitted"]


def test_sandbox_with_what_is_allowed() -> None:
    allow = ("--allow", "a.example:443=127.0.0.1:8443", "--allow", "[::1]:443")
    script = "echo $https_proxy; cat /etc/resolv.conf; exit 4"
    result = needs_sandbox(run("sandbox", *allow, "--", "sh", "-c", script))
    assert result[:2] == (4, "\nnameserver 198.18.0.1\noptions ndots:1\n")


def test_sandbox_takes_a_command_without_the_dashes() -> None:
    result = needs_sandbox(run("sandbox", "sh", "-c", "echo inside"))
    assert result[:2] == (0, "inside\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param(("--",), "Missing argument", id="no command"),
        pytest.param(("--allow", "kms.example", "--", "true"), "has no port", id="no port"),
        pytest.param(("--alow", "x:1", "--", "true"), "No such option", id="an unknown option"),
    ],
)
def test_sandbox_used_wrongly(arguments: tuple[str, ...], text: str) -> None:
    code, _, lines = run("sandbox", *arguments)
    assert code == 2
    assert text in " ".join(lines)


def test_the_help_says_what_a_sandbox_is_not() -> None:
    assert "a development tool, not a boundary" in " ".join(run("sandbox", "--help")[1].split())
