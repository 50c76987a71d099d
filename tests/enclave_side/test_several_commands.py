import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.program import Program

READY_WHEN_IT_LISTENS = """
import os, socket, sys
fifo, out = sys.argv[1:]
open(fifo).read()
listener = socket.create_server(("127.0.0.1", {port}))
open(out, "a").write("listens\\n")
import signal; signal.pause()
"""


@contextmanager
def enclave(
    tmp_path: Path, commands: Sequence[Mapping[str, Any]], *words: str, more: str = ""
) -> Iterator[Program]:
    file = tmp_path / "enclave.yaml"
    file.write_text(
        f"parent: unix://{tmp_path}/link.sock\nshim: {{http_proxy: null, streams: null}}\n"
        f"{more}\ncommands: {json.dumps(commands)}\n"
    )
    line = [sys.executable, "-m", "tests.support.fake_side", "enclave", str(file), *words]
    with Program(line) as program:
        yield program


def shell(script: str, *words: str) -> list[str]:
    return ["sh", "-c", script, "sh", *words]


def lines_of(program: Program, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in program.lines if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_they_run_in_order_with_what_the_file_gives_them(tmp_path: Path) -> None:
    show = "echo $0 $1 $GREETING $PWD; read line || echo no input"
    commands: list[dict[str, Any]] = [
        {
            "name": "second",
            "run": shell(show, "b"),
            "after": ["first"],
            "environment": {"GREETING": "hello"},
            "working_directory": str(tmp_path),
        },
        {"name": "first", "run": shell("echo one"), "ready": "finished"},
    ]
    with enclave(tmp_path, commands) as program:
        assert program.end() == (0, f"one\nsh b hello {tmp_path}\nno input\n")
        assert [line["command"] for line in lines_of(program, "command_ended")] == [
            "first",
            "second",
        ]


def test_a_port_is_waited_for(tmp_path: Path) -> None:
    fifo, out = tmp_path / "fifo", tmp_path / "out"
    os.mkfifo(fifo)
    # A port of the machine, which nobody else is likely to have: below the range for clients.
    port = 20_000 + os.getpid() % 10_000
    script = READY_WHEN_IT_LISTENS.format(port=port)
    server = [sys.executable, "-c", script, str(fifo), str(out)]
    commands: list[dict[str, Any]] = [
        {"name": "db", "run": server, "ready": port},
        {
            "name": "web",
            "run": shell(f"echo web >> {out}; exit 6"),
            "after": ["db"],
            "essential": True,
        },
        {"name": "early", "run": shell(f"echo early >> {out}; echo > {fifo}")},
    ]
    with enclave(tmp_path, commands) as program:
        assert program.end()[0] == 6
    assert out.read_text() == "early\nlistens\nweb\n"


def test_one_that_fails_is_started_again(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >> {count}; test $(wc -l < {count}) = 3"
    with enclave(tmp_path, [{"name": "it", "run": shell(script), "restart": "on-failure"}]) as it:
        assert it.end()[0] == 0
        delays = [line.get("restart_after") for line in lines_of(it, "command_ended")]
    assert delays == [0.1, 0.2, None]


@pytest.mark.parametrize(
    ("run", "code"),
    [
        pytest.param(["/nowhere"], 127, id="no such program"),
        pytest.param(["/etc/passwd"], 126, id="no executable"),
        pytest.param(shell("kill -KILL $$"), 137, id="a signal"),
    ],
)
def test_the_status_is_that_of_the_essential_one(run: list[str], code: int, tmp_path: Path) -> None:
    commands: list[dict[str, Any]] = [
        {"name": "main", "run": run, "essential": True},
        {"name": "side", "run": shell("exec sleep 60")},
    ]
    with enclave(tmp_path, commands) as program:
        assert program.end()[0] == code


def test_sigterm_stops_them_in_reverse_and_kills_those_that_ignore_it(tmp_path: Path) -> None:
    loop = "for i in $(seq 999); do sleep 0.02; done"
    commands: list[dict[str, Any]] = [
        {"name": "db", "run": shell(f"trap 'echo db; exit' TERM; echo db up >&2; {loop}")},
        {
            "name": "deaf",
            # What it leaves behind goes with it.
            "run": shell(f"trap '' TERM; sleep 60 & echo deaf up >&2; {loop}"),
            "after": ["db"],
            "stop_grace": 0.2,
        },
        {
            "name": "web",
            "run": shell(f"trap 'echo web; exit' TERM; echo web up >&2; {loop}"),
            "after": ["deaf"],
        },
    ]
    with enclave(tmp_path, commands) as program:
        for name in ("db", "deaf", "web"):
            program.line_with(f"{name} up")
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "web\ndb\n")
        assert [line["command"] for line in lines_of(program, "command_killed")] == ["deaf"]


def test_each_has_a_fence_of_its_own(tmp_path: Path) -> None:
    probe = (
        "import os, socket, sys\nfound = 'vsock'\ntry: socket.socket(socket.AF_VSOCK)\n"
        "except OSError: found = 'none'\n"
        # In one write: the commands share a pipe, and print may write piece by piece.
        "os.write(1, f'{sys.argv[1]} {found}\\n'.encode())"
    )
    user = {"user": 65534} if os.geteuid() == 0 else {}
    commands: list[dict[str, Any]] = [
        {"name": "common", "run": [sys.executable, "-c", probe, "common"]},
        {"name": "open", "run": [sys.executable, "-c", probe, "open"], "vsock": "allow"},
        {"name": "user", "run": ["id", "-u"], **user},
    ]
    with enclave(tmp_path, commands) as program:
        code, output = program.end()
    assert code == 0
    number = 65534 if os.geteuid() == 0 else os.geteuid()
    assert sorted(output.splitlines()) == sorted(["common none", "open vsock", str(number)])


def test_a_command_on_the_command_line_too_is_an_error(tmp_path: Path) -> None:
    with enclave(tmp_path, [{"name": "a", "run": ["true"]}], "true") as program:
        assert program.end() == (1, "")
        assert "the file has commands, and there is one on the command line too" in program.lines[0]


def test_what_they_write_is_theirs_alone_where_nothing_is_shipped(tmp_path: Path) -> None:
    commands = [{"name": "a", "run": shell("echo out; echo err >&2")}]
    with enclave(tmp_path, commands, more="log: {to_parent: false}") as program:
        assert program.end() == (0, "out\n")
        assert "err" in program.lines


def test_what_they_write_is_copied_where_it_is_shipped(tmp_path: Path) -> None:
    commands = [{"name": "a", "run": shell("echo out; echo err >&2; exit 3")}]
    with enclave(tmp_path, commands, more="log: {to_parent: true}") as program:
        assert program.end() == (3, "out\n")
        assert "err" in program.lines
