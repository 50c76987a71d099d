"""Python programs that a program under the shim starts: they have it too, by sitecustomize."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from enclave_side.shim.socket_shim import for_children
from tests.enclave_side.shim.socket_shim.rig import PORT, Rig
from tests.support.program import ROOT
from tests.support.shimmed import SECONDS, Agent, run_shimmed

DIRECTORY = str(Path(str(for_children.__file__)).parent)

ECHO = f"""
import socket
with socket.create_connection(("echo.test", {PORT})) as sock:
    sock.sendall(b"word")
    print(sock.recv(4).decode())
"""

CHILD_OF_CHILD = f"""
import subprocess, sys
print(subprocess.run([sys.executable, "-c", {ECHO!r}], capture_output=True, text=True).stdout)
"""


@pytest.mark.parametrize("code", [ECHO, CHILD_OF_CHILD], ids=["child", "its child"])
def test_a_child_connects(agent: Agent, code: str) -> None:
    status, stdout, stderr = agent.ask("in_subprocess", code)
    assert (status, stdout.strip(), stderr) == (0, "word", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_connect(agent: Agent, method: str) -> None:
    expected = [f"word {number}" for number in range(4)]
    assert agent.ask("in_processes", method, "echo.test", PORT) == expected


def test_a_name_has_the_same_address_in_every_process(agent: Agent) -> None:
    code = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    _, stdout, _ = agent.ask("in_subprocess", code, "echo.test")
    assert stdout.strip() == agent.ask("call", "gethostbyname", "echo.test")


def test_nothing_of_ours_is_on_the_path_of_a_child(agent: Agent) -> None:
    _, stdout, _ = agent.ask("in_subprocess", "import sys; print(sys.path)")
    plain = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.path)"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert stdout == plain.stdout
    assert sorted(name for name in os.listdir(DIRECTORY) if name.endswith(".py")) == [
        "__init__.py",
        "sitecustomize.py",
    ]


def test_a_sitecustomize_that_was_there_runs_too(running: Rig, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.argv_seen_by_site = sys.path[:]\n")
    code = """
import sys, sitecustomize, json
print(json.dumps([sitecustomize.__file__, sys.argv_seen_by_site]))
"""
    done = run_shimmed(
        running.path, "-c", code, variables={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    )
    file, path_seen = json.loads(done.stdout)
    assert file == str(tmp_path / "sitecustomize.py")
    assert DIRECTORY not in path_seen
    assert done.stderr == ""


def test_one_that_fails_is_told_as_python_tells_it(running: Rig, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise ValueError('as it was before')\n")
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = run_shimmed(running.path, "-c", ECHO, variables=variables)
    assert (done.status, done.stdout) == (0, "word\n")
    assert "ValueError: as it was before" in done.stderr


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter without our package."""
    directory = tmp_path_factory.mktemp("bare")
    venv.create(directory, with_pip=False, symlinks=True)
    return directory


def run_child(running: Rig, python: Path, code: str, **variables: str) -> list[str]:
    """Stdout and stderr of a program under the shim that runs `code` with another interpreter."""
    command = [str(python / "bin" / "python"), "-c", code]
    start = f"import subprocess, os; subprocess.run({command!r}, env=os.environ | {variables!r})"
    done = run_shimmed(running.path, "-c", start)
    return [done.stdout, done.stderr]


def test_an_interpreter_without_our_package_runs_without_and_says_so(
    running: Rig, bare: Path
) -> None:
    stdout, stderr = run_child(running, bare, "print('here')", PYTHONPATH=DIRECTORY)
    assert stdout == "here\n"
    assert stderr == (
        f"vsockproxy: no socket shim in {bare}/bin/python: No module named 'enclave_side': "
        "its connections go past the shim\n"
    )


def test_a_virtual_environment_that_has_our_package_has_the_shim(
    running: Rig, tmp_path: Path
) -> None:
    venv.create(tmp_path, with_pip=False, symlinks=True)
    (site,) = tmp_path.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    stdout, stderr = run_child(running, tmp_path, ECHO, PYTHONPATH=DIRECTORY)
    assert (stdout, stderr) == ("word\n", "")


def test_a_program_does_not_start_without_the_shim_that_it_was_started_with(
    running: Rig, bare: Path
) -> None:
    script = f"VSOCKPROXY_SHIM_MAIN=$$ exec {bare}/bin/python -c 'print(1)'"
    done = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, "PYTHONPATH": DIRECTORY},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "install vsockproxy for it" in done.stderr
    del running
