import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import Program, environment
from vsockproxy.signals import PASSED_ON

UNBLOCKED = (sys.executable, "-m", "tests.support.unblocked")
"""Our supervisor starts with signals blocked, and takes them itself."""


def as_init(*command: str) -> list[str]:
    """Init without being PID 1: a child like any other."""
    return [sys.executable, "-m", "enclave_side.init", "exit", *UNBLOCKED, *command]


def as_pid_1(*command: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.one_process_namespace", *as_init(*command)]


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skips where there can be no PID namespace."""
    probe = Program(as_pid_1("true"))
    with probe:
        if probe.end()[0] == NOT_PERMITTED:
            pytest.skip(f"not permitted here: {probe.lines[0]}")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param("exit 0", 0, id="success"),
        pytest.param("exit 3", 3, id="an exit code"),
        pytest.param("kill -TERM $$", 143, id="128+N"),
    ],
)
def test_its_status_is_the_supervisors(script: str, code: int) -> None:
    with Program(as_init("sh", "-c", script)) as program:
        assert program.end() == (code, "")


@pytest.mark.parametrize("number", sorted(PASSED_ON))
def test_signals_are_passed_on(number: signal.Signals) -> None:
    script = (
        "import signal, sys; wanted = signal.Signals(int(sys.argv[1]));"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {wanted});"
        "print('waiting', file=sys.stderr, flush=True);"
        "sys.exit(50 + (signal.sigwait({wanted}) == wanted))"
    )
    with Program(as_init(sys.executable, "-c", script, str(int(number)))) as program:
        program.line_with("waiting")
        program.signal(number)
        assert program.end()[0] == 51


@pytest.mark.usefixtures("namespaces")
def test_orphans_are_reaped_and_statuses_kept() -> None:
    # Each inner shell leaves an orphan that outlives it, and has a status of its own.
    script = """
import os, subprocess, sys, time
codes = set()
for number in range(20):
    shell = subprocess.run(["sh", "-c", f"(sleep 0.05; exit 9) & exit {number}"])
    codes.add(shell.returncode)
assert codes == set(range(20)), codes
deadline = time.monotonic() + 20
while len(list(filter(str.isdigit, os.listdir("/proc")))) > 2 and time.monotonic() < deadline:
    time.sleep(0.01)
print(*filter(str.isdigit, os.listdir("/proc")), os.getpid())
sys.exit(42)
"""
    with Program(as_pid_1(sys.executable, "-c", script)) as program:
        assert program.end() == (42, "1 2 2\n"), "PID 1 and the script, no zombie"


@pytest.mark.usefixtures("namespaces")
def test_a_thousand_orphans_are_reaped() -> None:
    command = [sys.executable, "-m", "tests.as_init.orphans", "1000"]
    with Program(as_pid_1(*command)) as program:
        assert program.process.stdout is not None
        assert program.process.stdout.readline() == b"reaped 1000\n"


@pytest.mark.usefixtures("namespaces")
def test_pid_1_is_not_deaf_to_sigterm() -> None:
    with Program(as_pid_1("sh", "-c", "echo up >&2; exec sleep 60")) as program:
        program.line_with("up")
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 143


@pytest.mark.usefixtures("namespaces")
def test_everything_ends_with_pid_1(tmp_path: Path) -> None:
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    with Program(as_pid_1("sh", "-c", f"sleep 60 > {fifo} & exit 5")) as program:
        # The reader gets EOF once nobody holds the other end any more.
        reader = subprocess.run(["cat", str(fifo)], capture_output=True, timeout=30, check=True)
        assert reader.stdout == b""
        assert program.end()[0] == 5


def test_it_imports_the_standard_library_and_two_modules_of_ours() -> None:
    script = (
        "import sys; before = set(sys.modules); import enclave_side.init;"
        "print(*sorted(set(sys.modules) - before))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    others = [
        name
        for name in found.stdout.split()
        if name.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert others == [
        "enclave_side",
        "enclave_side.init",
        "vsockproxy",
        "vsockproxy.processes",
        "vsockproxy.signals",
    ]
