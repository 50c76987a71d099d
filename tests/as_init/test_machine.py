"""PID 1 of a machine: what it mounts and sets, whom it reaps, how it ends."""

import sys

import pytest

from tests.as_init.conftest import RunAsInit
from tests.on_vsock.machine.failure import MachineError

pytestmark = pytest.mark.machine

SETTINGS = ("net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse", "net.core.somaxconn")
SHOW = """
echo "host $(hostname)"
for name in net/ipv4/ip_local_port_range net/ipv4/tcp_tw_reuse net/core/somaxconn; do
    echo "setting" $(cat /proc/sys/$name)
done
while read -r _ target kind _; do echo "mounted $target $kind"; done </proc/mounts
for name in /dev/fd /dev/stdin; do echo "link $(readlink $name)"; done
echo "path $PATH"
exit 42
"""


def test_what_is_missing_is_mounted_and_the_status_is_the_commands(run_init: RunAsInit) -> None:
    ended = run_init(
        ["sh", "-c", SHOW],
        document="machine: {at_end: exit, hostname: e-1, sysctls: {net.core.somaxconn: 5000}}",
        before="rm /dev/fd /dev/stdin\numount /dev/shm /dev/pts /sys /proc\nunset PATH",
    )
    lines = ended.output.splitlines()
    assert ended.status == 42, ended.output
    for mount in (
        *("/proc proc", "/sys sysfs", "/dev devtmpfs", "/dev/pts devpts", "/dev/shm tmpfs"),
        *("/run tmpfs", "/tmp tmpfs", "/sys/fs/cgroup cgroup2", "/etc/resolv.conf tmpfs"),
    ):
        assert f"mounted {mount}" in lines
    # In the command's own network namespace.
    assert [line for line in lines if line.startswith("setting")] == [
        "setting 10240 65535",
        "setting 1",
        "setting 5000",
    ]
    assert "host e-1" in lines
    assert "link /proc/self/fd" in lines
    assert "link /proc/self/fd/0" in lines
    assert "path /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert [text for text in ended.texts("left_out") if "command.user" not in text] == []


def test_a_thousand_orphans_are_reaped_and_who_ignores_sigterm_is_killed(
    run_init: RunAsInit,
) -> None:
    ended = run_init(
        [sys.executable, "-m", "tests.as_init.orphans", "1000"],
        document="machine: {at_end: exit}\ncommand: {stop_grace: 1}",
    )
    assert "reaped 1000" in ended.output.splitlines()
    assert ended.status == 137
    assert [line["after"] for line in ended.log if line["event"] == "command_killed"] == [1]


def test_signals_reach_the_command(run_init: RunAsInit) -> None:
    script = "trap 'exit 7' USR1; kill -USR1 1; for i in $(seq 999); do sleep 0.02; done"
    assert run_init(["sh", "-c", script], document="machine: {at_end: exit}").status == 7


def test_at_the_end_the_machine_is_powered_off(run_init: RunAsInit) -> None:
    # No status is left, and no panic either.
    with pytest.raises(MachineError, match=r"stopped early: (?!.*panic)"):
        run_init(["true"], document="machine: {at_end: power_off}")


SEVERAL = """
machine: {at_end: exit}
commands:
  - {name: setup, run: [sh, -c, "echo setup; exit 0"], ready: finished}
  - name: service
    run: [sh, -c, "trap 'echo service ends; exit 0' TERM; while :; do sleep 0.05; done"]
    after: [setup]
    restart: always
  - {name: main, run: [sh, -c, "sleep 0.5; echo main ends; exit 23"], after: [service],
     essential: true}
"""


def test_several_commands_and_the_status_of_the_essential_one(run_init: RunAsInit) -> None:
    ended = run_init(document=SEVERAL)
    lines = [line for line in ended.output.splitlines() if not line.startswith("{")]
    assert lines == ["setup", "main ends", "service ends"]
    assert ended.status == 23
