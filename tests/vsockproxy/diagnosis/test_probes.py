import os
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.on_vsock.machine.loopback import has_loopback
from tests.support.nsm_server import nsm_socket
from tests.support.program import ROOT, environment
from vsockproxy.attestation.software_nsm import MODULE_ID
from vsockproxy.diagnosis.observations import ModuleTest
from vsockproxy.diagnosis.probes import look, look_at_module, try_small_writes
from vsockproxy.nsm_locations import NSM_DEVICE


def test_it_sees_this_machine_and_leaves_nothing_behind() -> None:
    before = os.listdir("/proc/self/fd")
    namespaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("net", "user")}
    seen = look()
    assert seen.kernel == os.uname().release
    assert seen.python_has_vsock == hasattr(socket, "AF_VSOCK")
    assert (seen.soft_descriptors, seen.hard_descriptors) == resource.getrlimit(
        resource.RLIMIT_NOFILE
    )
    assert os.listdir("/proc/self/fd") == before
    for name, namespace in namespaces.items():
        assert os.readlink(f"/proc/self/ns/{name}") == namespace


def test_it_sees_the_module_that_the_environment_names() -> None:
    assert look_at_module(NSM_DEVICE) is None
    with tempfile.TemporaryDirectory(prefix="vsockproxy-nsm-") as name:
        with nsm_socket(Path(name, "nsm.sock")) as path:
            expected = f"version 1.0.0, {MODULE_ID}, 16 of 32 registers locked"
            assert look_at_module(str(path)) == ModuleTest(str(path), True, expected)
        cause = f"{path}: Connection refused"
        assert look_at_module(str(path)) == ModuleTest(str(path), True, error=cause)


def test_small_writes_come_through() -> None:
    test = try_small_writes()
    assert test.carrier == ("vsock loopback" if has_loopback() else "a unix socket")
    assert test.error == ""
    assert test.is_intact
    assert test.read == test.written >= 10_000


def test_the_command_prints_a_line_for_each_thing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vsockproxy", "doctor"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) >= 10
    assert all(line.split()[0] in ("ok", "warning", "error") for line in lines)
    has_error = any(line.startswith("error") for line in lines)
    assert (done.returncode, done.stderr) == (int(has_error), "")


def test_strict_counts_warnings() -> None:
    # Few descriptors are a warning, and everybody may lower a limit.
    script = 'ulimit -n 1000 && exec "$@"'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "vsockproxy", "doctor"]
    done = subprocess.run(
        [*command, "--strict"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "warning  descriptors: 1000, which we raise to 1000: raise the hard" in done.stdout
