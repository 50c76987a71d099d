"""A machine's clock and its random numbers, set for real."""

import sys

import pytest

from tests.as_init.conftest import RunAsInit
from tests.as_init.worker_ahead import AHEAD_SECONDS

pytestmark = pytest.mark.machine

PARENT = f"""
printf 'listen: unix:///tmp/link.sock?cid=16\\nversion: 1\\n' >/tmp/parent.yaml
{sys.executable} -m tests.as_init.parent_ahead /tmp/parent.yaml 2>/tmp/parent.log &
"""

DOCUMENT = """
machine:
  at_end: exit
  entropy: {source: hw_random}
  clock: {source: parent, interval: 0}
"""


def test_the_clock_is_put_forward_before_the_command_starts(run_init: RunAsInit) -> None:
    ended = run_init(["date", "+now %s"], document=DOCUMENT, before=f"{PARENT}\ndate '+then %s'")
    assert ended.status == 0, ended.output
    (stepped,) = (line for line in ended.log if line["event"] == "clock_stepped")
    assert abs(stepped["offset"] - AHEAD_SECONDS) < 1
    times = dict(line.split() for line in ended.output.splitlines() if line[:4] in ("then", "now "))
    assert int(times["now"]) - int(times["then"]) >= AHEAD_SECONDS


def test_the_kernel_takes_what_we_tell_it(run_init: RunAsInit) -> None:
    ended = run_init(
        [sys.executable, "-m", "tests.as_init.kernel_calls"],
        document="machine: {at_end: exit}\ncommand: {capabilities: [SYS_TIME, SYS_ADMIN, SETUID]}",
    )
    assert ended.status == 0, ended.output
    lines = [line for line in ended.output.splitlines() if not line.startswith("{")]
    assert lines == [
        "stepped 7.0",
        "slews by -1.5",
        "offset of itself 0.0",
        "credited",
        "credit refused: machine.entropy.seed: /dev/random: Operation not permitted",
        "step refused: the clock cannot be set: Operation not permitted",
        "slew refused: the clock cannot be slewed: Operation not permitted",
    ]


def test_another_generator_than_the_files_starts_nothing(run_init: RunAsInit) -> None:
    document = "machine: {at_end: exit, entropy: {source: nsm-hwrng}}"
    ended = run_init(["echo", "never"], document=document)
    assert ended.status == 1
    assert ended.output.splitlines() == [
        "vsockproxy: machine.entropy.source: the kernel's generator is 'hw_random', not "
        "'nsm-hwrng' (/sys/class/misc/hw_random/rng_current): boot a kernel that has it, or write "
        "another"
    ]


def test_a_seed_without_the_module_starts_nothing(run_init: RunAsInit) -> None:
    ended = run_init(["echo", "never"], document="machine: {at_end: exit, entropy: {seed: true}}")
    assert ended.status == 1
    assert "vsockproxy: machine.entropy.seed: /dev/nsm: No such file or directory" in ended.output


def test_a_heartbeat_that_is_demanded_and_not_answered_starts_nothing(run_init: RunAsInit) -> None:
    ended = run_init(["echo", "never"], document="machine: {at_end: exit, heartbeat: on}")
    assert ended.status == 1
    assert ended.output.splitlines() == [
        "vsockproxy: the heartbeat to vsock://3:9000 failed: No such device: write "
        "machine.heartbeat: off if nitro-cli did not start this machine"
    ]
