"""The command: a program's own command line, its surroundings, and what keeps it from starting."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from enclave_side.shim.socket_shim import for_children
from enclave_side.shim.socket_shim.launch import (
    USAGE,
    interpreter_options,
    program_environment,
)
from tests.enclave_side.shim.socket_shim.rig import Rig
from tests.support.program import environment
from tests.support.shimmed import SECONDS, Done, run_shimmed, shim_command
from vsockproxy.client.location import VARIABLE

SHOW = """
import json, os, sys
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "name": __name__, "file": main.__dict__.get("__file__"),
    "spec": main.__spec__ and main.__spec__.name, "stdin": sys.stdin.read(),
    "flags": list(sys.flags), "here": os.getcwd(), "main": sorted(main.__dict__),
}))
"""

PROGRAMS: dict[str, list[str]] = {
    "a script": ["script.py", "one", "-m", "two"],
    "a script in another directory": ["folder/script.py"],
    "a link to a script": ["link.py"],
    "a directory": ["folder", "one"],
    "a module": ["-m", "module_here", "one", "-c"],
    "a package": ["-m", "package_here"],
    "a module in one word": ["-mmodule_here"],
    "code": ["-c", SHOW, "one", "two"],
    "code in one word": [f"-c{SHOW}"],
    "a script from stdin": ["-"],
    "a script that is not there": ["nowhere.py"],
    "a module that is not there": ["-m", "nowhere"],
    "a status": ["-c", "raise SystemExit(7)"],
    "a traceback": ["-c", "1 / 0"],
    "an end by a signal": ["-c", "import os; os.kill(os.getpid(), 9)"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with programs of every form."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "package_here").mkdir()
    for name in (
        *("script.py", "folder/script.py", "folder/__main__.py", "module_here.py"),
        *("package_here/__init__.py", "package_here/__main__.py"),
    ):
        (tmp_path / name).write_text("" if name.endswith("__init__.py") else SHOW)
    (tmp_path / "link.py").symlink_to("folder/script.py")
    return tmp_path


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_runs_as_python_runs_it(running: Rig, folder: Path, program: str) -> None:
    arguments = PROGRAMS[program]
    stdin = SHOW.replace("sys.stdin.read()", "''") if arguments == ["-"] else "for the program"
    plain = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    expected = Done(plain.returncode, plain.stdout, plain.stderr)
    assert run_shimmed(running.path, *arguments, cwd=folder, stdin=stdin) == expected


def test_options_of_python_are_passed_on(running: Rig) -> None:
    code = "import json, sys; print(json.dumps([list(sys.flags), sys._xoptions, sys.warnoptions]))"
    options = ["-B", "-O", "-X", "utf8", "-W", "error::UserWarning", "-u"]
    variables = environment(**{VARIABLE: running.path})
    ends = {"plain": ["-c", code], "shim": ["-m", "enclave_side.shim", "-c", code]}
    told = {
        name: subprocess.check_output([sys.executable, *options, *end], env=variables)
        for name, end in ends.items()
    }
    assert json.loads(told["shim"]) == json.loads(told["plain"])


OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "none": (["python", "-m", "enclave_side.shim", "app.py"], []),
    "in one word": (["python", "-menclave_side.shim", "app.py"], []),
    "some": (
        ["python", "-u", "-X", "dev", "-m", "enclave_side.shim", "app.py"],
        ["-u", "-X", "dev"],
    ),
    "before the m": (["python", "-Bum", "enclave_side.shim", "app.py"], ["-Bu"]),
    "before the m, in one word": (["python", "-umenclave_side.shim", "app.py"], ["-u"]),
    "of another program": (["python", "-m", "coverage", "run", "app.py"], []),
    "of a file": (["python", "enclave_side/shim/__main__.py", "app.py"], []),
    "of nothing": (["python", "app.py"], []),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_the_options_of_python_are_found(case: str) -> None:
    original, expected = OPTIONS[case]
    assert interpreter_options(original, 1) == expected


def test_the_path_of_programs_begins_with_our_directory() -> None:
    ours = str(Path(str(for_children.__file__)).parent)
    for before, after in {
        None: [ours],
        "": [ours],
        "/a:/b": [ours, "/a", "/b"],
        f"{ours}:/a": [ours, "/a"],
        "/a:": [ours, "/a"],
    }.items():
        inherited = {"A": "1"} if before is None else {"A": "1", "PYTHONPATH": before}
        made = program_environment(inherited, 7)
        assert made.pop("PYTHONPATH").split(os.pathsep) == after
        assert made == {"A": "1", "VSOCKPROXY_SHIM_MAIN": "7"}


def test_the_program_does_not_see_how_it_was_started(running: Rig) -> None:
    code = "import os; print([name for name in os.environ if 'SHIM' in name])"
    assert run_shimmed(running.path, "-c", code).stdout == "[]\n"


@pytest.mark.parametrize("arguments", [[], [""], ["-u", "app.py"], ["--version"]])
def test_what_is_no_program_is_told_how_to_name_one(arguments: list[str]) -> None:
    assert run_shimmed("/anywhere", *arguments) == Done(2, "", USAGE)


def test_help_is_no_mistake() -> None:
    assert run_shimmed(None, "--help") == Done(0, USAGE, "")


def test_without_a_stream_socket_nothing_starts(tmp_path: Path) -> None:
    missing, left, other = (str(tmp_path / name) for name in ("missing", "left", "other"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(left)
    Path(other).write_text("")
    for path, words in {
        None: "VSOCKPROXY_STREAMS is not set",
        missing: f"{missing}: there is no such socket",
        left: f"{left}: nobody listens there",
        other: f"cannot connect to the stream socket {other}",
    }.items():
        done = run_shimmed(path, "-c", "print('started')")
        assert (done.status, done.stdout) == (2, "")
        assert done.stderr.startswith("vsockproxy: the socket shim needs a stream socket: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["-E", "-I", "-S"])
def test_options_that_keep_the_shim_out_are_refused(running: Rig, option: str) -> None:
    paths = [path for path in sys.path if path]
    code = f"import sys; sys.path += {paths!r}\nfrom enclave_side.shim.socket_shim import launch\n"
    done = subprocess.run(
        [sys.executable, option, "-c", f"{code}sys.exit(launch.main(['app.py']))"],
        env=environment(**{VARIABLE: running.path}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "keep the socket shim out" in done.stderr


def test_the_program_has_the_process_id_of_the_command(running: Rig) -> None:
    with subprocess.Popen(
        shim_command("-c", "import os; print(os.getpid())"),
        env=environment(**{VARIABLE: running.path}),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid
