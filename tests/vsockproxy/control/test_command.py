import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.support.launching import UNFENCED
from tests.support.supervision import RecordingLog
from tests.support.temporary_signals import unchanged_signal_mask
from vsockproxy.control.command import (
    FENCE_FAILED,
    UserCommand,
    run_command,
    wait_for_ending_signal,
)
from vsockproxy.signals import PASSED_ON, SignalDescriptor

DEADLINE_SECONDS = 30

LAUNCHER = UNFENCED.launcher()


# Signals are raised in this thread: another test's thread might not block them.


@pytest.fixture
def signals() -> Iterator[SignalDescriptor]:
    with unchanged_signal_mask(), SignalDescriptor(PASSED_ON) as made:
        yield made


def user_command(
    *arguments: str, soft_descriptor_limit: int = 1000, launcher: Sequence[str] = LAUNCHER
) -> UserCommand:
    return UserCommand(arguments, dict(os.environ), soft_descriptor_limit, launcher)


async def run(command: UserCommand, signals: SignalDescriptor) -> tuple[int, RecordingLog]:
    log = RecordingLog()
    with trio.fail_after(DEADLINE_SECONDS):
        return await run_command(command, signals=signals, log=log), log


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(("true",), 0, id="success"),
        pytest.param(("sh", "-c", "exit 3"), 3, id="its exit code"),
        pytest.param(("sh", "-c", "kill -TERM $$"), 143, id="128+N for signal N"),
        pytest.param(("sh", "-c", "kill -KILL $$"), 137, id="SIGKILL too"),
        pytest.param(("/nowhere/at/all",), 127, id="127 for a path that is not there"),
        pytest.param(("no-such-program-anywhere",), 127, id="127 for a name that PATH has not"),
        pytest.param(("",), 127, id="127 for an empty name"),
        pytest.param(("/etc/hosts/x",), 127, id="127 below what is no directory"),
        pytest.param(("/",), 126, id="126 for a directory"),
        pytest.param(("/etc/passwd",), 126, id="126 for a file that is not executable"),
    ],
)
async def test_exit_codes(arguments: tuple[str, ...], code: int, signals: SignalDescriptor) -> None:
    ended, log = await run(user_command(*arguments), signals)
    assert ended == code
    assert len(log.events("command_not_started")) == (code in (126, 127))


async def test_an_executable_file_that_is_no_program_is_126(
    tmp_path: Path, signals: SignalDescriptor
) -> None:
    (tmp_path / "junk").write_bytes(b"\0\1\2\3")
    (tmp_path / "junk").chmod(0o755)
    code, log = await run(user_command(str(tmp_path / "junk")), signals)
    assert code == 126
    (told,) = log.events("command_not_started")
    assert told["text"] == "Exec format error"


FAILING_LAUNCHERS: dict[str, tuple[str, int, int, str, dict[str, object]]] = {
    "a step that failed": (
        "filter 22 Invalid argument",
        1,
        FENCE_FAILED,
        "fence_failed",
        {"step": "filter", "command": "true", "text": "Invalid argument"},
    ),
    "whatever its status says": (
        "user 1 Operation not permitted",
        42,
        FENCE_FAILED,
        "fence_failed",
        {"step": "user", "command": "true", "text": "Operation not permitted"},
    ),
    "a report of nothing but a step": (
        "start 0 ",
        0,
        FENCE_FAILED,
        "fence_failed",
        {"step": "start", "command": "true", "text": ""},
    ),
    "a program that is not there": (
        "exec 2 No such file or directory",
        1,
        127,
        "command_not_started",
        {"command": "true", "text": "No such file or directory"},
    ),
}


@pytest.mark.parametrize(
    ("report", "status", "code", "event", "fields"),
    FAILING_LAUNCHERS.values(),
    ids=FAILING_LAUNCHERS,
)
async def test_what_a_launcher_reports(
    report: str,
    status: int,
    code: int,
    event: str,
    fields: dict[str, object],
    signals: SignalDescriptor,
) -> None:
    script = f"import os, sys; os.write(int(sys.argv[1]), {report.encode()!r}); sys.exit({status})"
    launcher = [sys.executable, "-c", script]
    ended, log = await run(user_command("true", launcher=launcher), signals)
    assert ended == code
    assert log.lines == [("error", event, fields)]


async def test_a_launcher_that_cannot_be_started(signals: SignalDescriptor) -> None:
    ended, log = await run(user_command("true", launcher=["/nowhere/python"]), signals)
    assert ended == 126
    (fields,) = log.events("command_not_started")
    assert fields == {"command": "true", "text": "/nowhere/python: No such file or directory"}


async def test_a_launcher_that_dies_runs_nothing(signals: SignalDescriptor) -> None:
    launcher = ["sh", "-c", "kill -KILL $$"]
    assert (await run(user_command("true", launcher=launcher), signals))[0] == 137


@pytest.fixture
def descriptor() -> Iterator[int]:
    with open(os.devnull, "rb") as file:
        yield file.fileno()


async def test_descriptors_for_the_launcher_are_passed(
    descriptor: int, signals: SignalDescriptor
) -> None:
    script = f"[ -e /proc/self/fd/{descriptor} ] && exit 5"
    command = user_command("true", launcher=["sh", "-c", script])
    assert (await run(command, signals))[0] == 1
    assert (await run(replace(command, passed=[descriptor]), signals))[0] == 5
    assert not os.get_inheritable(descriptor)


async def test_no_descriptor_is_left_open(signals: SignalDescriptor) -> None:
    before = os.listdir("/proc/self/fd")
    await run(user_command("true"), signals)
    await run(user_command("/nowhere"), signals)
    await run(user_command("true", launcher=["/nowhere/python"]), signals)
    assert os.listdir("/proc/self/fd") == before


async def test_the_command_starts_with_signals_as_if_we_were_not_there(
    signals: SignalDescriptor, tmp_path: Path
) -> None:
    script = f"grep -E 'SigBlk|SigIgn' /proc/self/status > {tmp_path}/signals"
    await run(user_command("sh", "-c", script), signals)
    masks = dict(line.split() for line in (tmp_path / "signals").read_text().splitlines())
    ours = sum(1 << (number - 1) for number in PASSED_ON | {signal.SIGPIPE, signal.SIGXFSZ})
    assert {name: int(mask, 16) & ours for name, mask in masks.items()} == {
        "SigBlk:": 0,
        "SigIgn:": 0,
    }


async def test_the_command_gets_the_soft_limit_back(
    signals: SignalDescriptor, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = user_command("sh", "-c", f"ulimit -Sn > {tmp_path}/limit", soft_descriptor_limit=321)
    await run(command, signals)
    assert (tmp_path / "limit").read_text() == "321\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


async def test_the_command_has_our_process_group_and_environment_only(
    signals: SignalDescriptor, tmp_path: Path
) -> None:
    script = (
        f"import os; open({str(tmp_path / 'out')!r}, 'w').write(f'{{os.getpgrp()}} {{os.environ}}')"
    )
    command = UserCommand((sys.executable, "-c", script), {"ONLY": "this"}, 1000, LAUNCHER)
    await run(command, signals)
    group, environment = (tmp_path / "out").read_text().split(" ", 1)
    assert int(group) == os.getpgrp()
    assert "'ONLY': 'this'" in environment
    assert "HOME" not in environment


@pytest.mark.parametrize("number", sorted(PASSED_ON))
async def test_signals_are_passed_on(
    number: signal.Signals, signals: SignalDescriptor, tmp_path: Path
) -> None:
    ready, got = tmp_path / "ready", tmp_path / "got"
    os.mkfifo(ready)
    name = number.name.removeprefix("SIG")
    wait = "for i in $(seq 999); do sleep 0.02; done"
    script = f"trap 'echo {name} > {got}; exit 0' {name}; echo > {ready}; {wait}"
    async with trio.open_nursery() as nursery:
        results: list[int] = []

        async def run_it() -> None:
            code, _ = await run(user_command("sh", "-c", script), signals)
            results.append(code)

        nursery.start_soon(run_it)
        await trio.to_thread.run_sync(ready.read_text)
        signal.raise_signal(number)
    assert results == [0]
    assert got.read_text() == f"{name}\n"


async def test_a_command_that_ignores_sigterm_is_killed_after_its_grace(
    signals: SignalDescriptor, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    script = f"trap '' TERM; echo > {ready}; for i in $(seq 999); do sleep 0.02; done"
    command = replace(user_command("sh", "-c", script), stop_grace=0.1)
    results: list[tuple[int, RecordingLog]] = []
    async with trio.open_nursery() as nursery:

        async def run_it() -> None:
            results.append(await run(command, signals))

        nursery.start_soon(run_it)
        await trio.to_thread.run_sync(ready.read_text)
        signal.raise_signal(signal.SIGTERM)
    ((code, log),) = results
    assert code == 137
    assert [fields["after"] for fields in log.events("command_killed")] == [0.1]


async def test_only_signals_that_end_a_program_end_the_wait(signals: SignalDescriptor) -> None:
    signal.raise_signal(signal.SIGWINCH)
    signal.raise_signal(signal.SIGUSR1)
    with trio.move_on_after(0.05) as scope:
        await wait_for_ending_signal(signals)
    assert scope.cancelled_caught
    signal.raise_signal(signal.SIGHUP)
    with trio.fail_after(DEADLINE_SECONDS):
        assert await wait_for_ending_signal(signals) == signal.SIGHUP
