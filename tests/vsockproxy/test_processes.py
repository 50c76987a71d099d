import fcntl
import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from tests.support.program import Program
from tests.support.temporary_signals import unchanged_signal_mask
from vsockproxy.processes import (
    MOST_DESCRIPTORS,
    descriptor_limit,
    exit_code,
    module_command,
    open_pipe,
    raise_descriptor_limit,
    start,
)


def wait(pid: int) -> int:
    return exit_code(os.waitpid(pid, 0)[1])


def output_of(command: list[str], **options: object) -> str:
    read_end, write_end = open_pipe()
    pid = start(command, output=write_end, **options)  # type: ignore[arg-type]  # passed through
    os.close(write_end)
    with os.fdopen(read_end) as reader:
        text = reader.read()
    assert wait(pid) == 0
    return text


@pytest.mark.parametrize(
    ("status", "code"),
    [
        pytest.param(0, 0, id="success"),
        pytest.param(3 << 8, 3, id="an exit code"),
        pytest.param(int(signal.SIGTERM), 143, id="a signal"),
        pytest.param(int(signal.SIGSEGV) | 0x80, 139, id="a signal with a core"),
    ],
)
def test_exit_code(status: int, code: int) -> None:
    assert exit_code(status) == code


def test_only_named_descriptors_stay_open() -> None:
    read_end, write_end = os.pipe()
    high = fcntl.fcntl(write_end, fcntl.F_DUPFD_CLOEXEC, 150)
    check = ["sh", "-c", f"[ -e /proc/self/fd/{high} ] && echo open || echo closed"]
    assert output_of(check) == "closed\n"
    assert output_of(check, passed=[high]) == "open\n"
    for descriptor in (read_end, write_end, high):
        os.close(descriptor)


def test_named_descriptors_keep_their_numbers() -> None:
    read_end, write_end = os.pipe()
    pid = start(["sh", "-c", f"echo through > /proc/self/fd/{write_end}"], passed=[write_end])
    assert wait(pid) == 0
    assert os.read(read_end, 100) == b"through\n"
    assert not os.get_inheritable(write_end), "and the next child does not get it"
    os.close(read_end)
    os.close(write_end)


def test_output_takes_both_streams_and_stdin_is_empty() -> None:
    assert output_of(["sh", "-c", "echo one; echo two >&2; cat"]) == "one\ntwo\n"


def test_a_group_of_its_own() -> None:
    script = "import os; print(os.getpgrp() == os.getpid())"
    assert output_of([sys.executable, "-c", script], in_own_group=True) == "True\n"
    assert output_of([sys.executable, "-c", script]) == "False\n"


@pytest.mark.parametrize(("keeps", "blocked"), [(False, 0), (True, 1 << (signal.SIGUSR1 - 1))])
def test_signal_mask(keeps: bool, blocked: int) -> None:
    with unchanged_signal_mask():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        command = ["grep", "SigBlk", "/proc/self/status"]
        text = output_of(command, keeps_signal_mask=keeps)
    assert int(text.split()[1], 16) & (1 << (signal.SIGUSR1 - 1)) == blocked


@pytest.mark.parametrize(
    ("program", "error"),
    [
        pytest.param("/nowhere", FileNotFoundError, id="no such file"),
        pytest.param("", FileNotFoundError, id="no name"),
        pytest.param("/", PermissionError, id="a directory"),
    ],
)
def test_what_cannot_be_started(program: str, error: type[OSError]) -> None:
    with pytest.raises(error):
        start([program])


def test_a_module_is_not_looked_for_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    command = module_command("tests.support.unblocked", "pwd")
    with Program(command, cwd=tmp_path) as program:
        assert program.end() == (0, f"{tmp_path}\n")
    assert module_command("json")[1] == "-P"


def test_limits_on_descriptors() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        assert raise_descriptor_limit() == 200
        raised = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert raised == (min(before[1], MOST_DESCRIPTORS), before[1])
        with descriptor_limit(200):
            assert output_of(["sh", "-c", "ulimit -Sn"]) == "200\n"
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_process_ends_with_its_starter() -> None:
    # The middle process starts one that asks for the signal, and ends while that one waits.
    inner = (
        "import os, signal, sys; from vsockproxy.processes import die_with_starter;"
        "die_with_starter(int(sys.argv[1]), signal.SIGKILL);"
        "print('armed', file=sys.stderr, flush=True); signal.pause()"
    )
    outer = (
        "import os, sys; from vsockproxy.processes import start;"
        f"start([sys.executable, '-c', {inner!r}, str(os.getpid())]); sys.stdin.read()"
    )
    read_end, write_end = os.pipe()
    with Program([sys.executable, "-c", outer], stdin=read_end) as program:
        os.close(read_end)
        program.line_with("armed")
        os.close(write_end)
        # stderr ends only when both have ended.
        assert program.end()[0] == 0


def test_a_process_whose_starter_has_ended_ends_at_once() -> None:
    script = (
        "import os, signal; from vsockproxy.processes import die_with_starter;"
        "die_with_starter(os.getppid() + 1, signal.SIGTERM)"
    )
    with Program([sys.executable, "-c", script]) as program:
        assert program.end()[0] == 143
