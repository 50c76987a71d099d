"""What a command writes goes on to where ours leads, and to the log; nobody waits for long."""

import os
import pty
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
import trio

from enclave_side.fence import plan_fence
from tests.support.launching import UNFENCED
from tests.support.supervision import RecordingLog
from tests.support.temporary_signals import unchanged_signal_mask
from vsockproxy.config.model import Command
from vsockproxy.control.command import UserCommand, run_command
from vsockproxy.control.command_output import CommandOutput, open_output
from vsockproxy.protocols.log_stream import Source
from vsockproxy.signals import PASSED_ON, SignalDescriptor

DEADLINE_SECONDS = 30
NOBODY = "nobody"


class Copies:
    """What the log got."""

    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""

    def receive(self, source: Source, data: bytes) -> None:
        if source is Source.STDOUT:
            self.stdout += data
        else:
            self.stderr += data


@contextmanager
def instead_of(number: int, descriptor: int) -> Iterator[None]:
    """Have another descriptor in place of stdout (1) or stderr (2) while the body runs."""
    saved = os.dup(number)
    os.dup2(descriptor, number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


@contextmanager
def pipe_instead_of_stdout() -> Iterator[int]:
    """The read end of a pipe in place of stdout."""
    read_end, write_end = os.pipe()
    with instead_of(1, write_end):
        os.close(write_end)
        yield read_end
    with suppress(OSError):
        os.close(read_end)


@pytest.fixture
def signals() -> Iterator[SignalDescriptor]:
    with unchanged_signal_mask(), SignalDescriptor(PASSED_ON) as made:
        yield made


@asynccontextmanager
async def run(
    script: str, signals: SignalDescriptor, copies: Copies, log: RecordingLog
) -> AsyncIterator[tuple[int, CommandOutput]]:
    """Run a shell script to its end."""
    arguments = ("sh", "-c", script)
    command = UserCommand(arguments, dict(os.environ), 1000, UNFENCED.launcher())
    with trio.fail_after(DEADLINE_SECONDS):
        async with open_output(copies.receive, None, log) as output:
            status = await run_command(command, signals=signals, log=log, output=output)
        yield status, output


async def test_both_are_copied_and_passed_on(
    signals: SignalDescriptor, capfd: pytest.CaptureFixture[str]
) -> None:
    copies = Copies()
    script = "echo out; echo err >&2; printf end; exit 3"
    async with run(script, signals, copies, RecordingLog()) as (status, _):
        assert status == 3
    assert (copies.stdout, copies.stderr) == (b"out\nend", b"err\n")
    assert capfd.readouterr() == ("out\nend", "err\n")


async def test_the_signal_that_ended_it_is_known(signals: SignalDescriptor) -> None:
    async with run("kill -9 $$", signals, Copies(), RecordingLog()) as (status, output):
        assert status == 137
        assert output.wait_status is not None
        assert os.WTERMSIG(output.wait_status) == signal.SIGKILL


async def test_a_pipe_gets_every_byte_however_late_it_is_read(signals: SignalDescriptor) -> None:
    length = 1_000_000
    got = 0
    copies = Copies()
    with pipe_instead_of_stdout() as read_end:

        def read_all() -> None:
            nonlocal got
            while got < length:
                got += len(os.read(read_end, 50_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, read_all)
            script = f"head -c {length} /dev/zero"
            async with run(script, signals, copies, RecordingLog()) as (status, _):
                assert status == 0
    assert got == len(copies.stdout) == length


async def test_who_writes_to_a_pipe_that_nobody_reads_gets_sigpipe(
    signals: SignalDescriptor,
) -> None:
    with pipe_instead_of_stdout() as read_end:
        os.close(read_end)
        async with run("exec yes", signals, Copies(), RecordingLog()) as (status, output):
            assert status == 128 + signal.SIGPIPE
            assert output.wait_status == signal.SIGPIPE


async def test_a_console_that_nobody_reads_holds_nobody_back(signals: SignalDescriptor) -> None:
    length = 10_000_000
    copies, log = Copies(), RecordingLog()
    controller, terminal = pty.openpty()
    with os.fdopen(controller, "rb"), os.fdopen(terminal, "wb"), instead_of(1, terminal):
        script = f"head -c {length} /dev/zero"
        async with run(script, signals, copies, log) as (status, _):
            assert status == 0
        os.read(controller, 1)
    assert len(copies.stdout) == length
    assert log.events("console_slow") == [{"source": "stdout"}]
    (left_out,) = log.events("console_left_out")
    left_out_bytes = left_out["bytes"]
    assert isinstance(left_out_bytes, int)
    assert length - 1_000_000 < left_out_bytes <= length


async def test_what_was_written_is_copied_though_another_holds_the_pipes(
    signals: SignalDescriptor,
) -> None:
    copies = Copies()
    began = trio.current_time()
    async with run("sleep 60 & echo $!; seq 10000", signals, copies, RecordingLog()) as (status, _):
        assert status == 0
    sleeper, *numbers = copies.stdout.split()
    os.kill(int(sleeper), signal.SIGKILL)
    assert len(numbers) == 10_000
    assert trio.current_time() - began < DEADLINE_SECONDS


async def test_without_a_stdout_the_log_still_gets_all(signals: SignalDescriptor) -> None:
    copies = Copies()
    read_end, write_end = os.pipe()  # a read end cannot be written to
    with instead_of(1, read_end):
        async with run("seq 3", signals, copies, RecordingLog()) as (status, _):
            assert status == 0
    os.close(read_end)
    os.close(write_end)
    assert copies.stdout == b"1\n2\n3\n"


async def test_what_cannot_be_started_has_no_status_of_its_own(signals: SignalDescriptor) -> None:
    copies, log = Copies(), RecordingLog()
    command = UserCommand(("/nowhere",), dict(os.environ), 1000, UNFENCED.launcher())
    with trio.fail_after(DEADLINE_SECONDS):
        async with open_output(copies.receive, None, log) as output:
            assert await run_command(command, signals=signals, log=log, output=output) == 127
    assert output.wait_status is None
    assert copies.stdout == b""


async def test_it_leaves_no_descriptor(signals: SignalDescriptor) -> None:
    async with run("echo", signals, Copies(), RecordingLog()):
        pass
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        async with run("echo; echo >&2", signals, Copies(), RecordingLog()):
            pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_command_of_another_user_may_open_its_stderr_anew(
    signals: SignalDescriptor,
) -> None:
    fence = plan_fence(Command(user=NOBODY))
    assert fence.account is not None
    owner = (fence.account.user, fence.account.group)
    copies, log = Copies(), RecordingLog()
    arguments = ("sh", "-c", "echo again > /dev/stderr")
    command = UserCommand(arguments, dict(os.environ), 1000, fence.launcher())
    with trio.fail_after(DEADLINE_SECONDS):
        async with open_output(copies.receive, owner, log) as output:
            assert await run_command(command, signals=signals, log=log, output=output) == 0
    assert copies.stderr == b"again\n"
