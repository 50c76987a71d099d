"""Names on a machine that is ours: `--take-over`, as in an enclave, in namespaces of a test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.names.machines import HOSTS, Machine, hosts
from tests.support.pair import Pair
from tests.support.program import Program, command_line

RESOLV_CONF = "nameserver 192.0.2.53\n"
UNSHARE = ["unshare", "--user", "--map-root-user", "--net", "--mount"]

# Files of the machine that runs the tests are never touched, even where the code is wrong.
WITH_A_FILE = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
WITHOUT_A_FILE = 'mount -t tmpfs none /etc && exec "$@"'
ON_A_NETWORK = f"ip link add here type veth peer name there && ip link set here up && {WITH_A_FILE}"
WITHOUT_MORE_NETWORKS = f"echo 0 > /proc/sys/user/max_net_namespaces && {WITH_A_FILE}"


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    probe = [*UNSHARE, "mount", "--bind", "/dev/null", "/etc/resolv.conf"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs unshare, permitted user namespaces, and an /etc/resolv.conf")


@contextmanager
def taken_over(directory: Path, prelude: str, port: int) -> Iterator[Machine]:
    rule = {"address": "open.test", "port": port, "private": True, "require_tls": False}
    dialled = [{**rule, "dial": f"{HOSTS[3]}:{port}"}]
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text(RESOLV_CONF)
    enclave = {"shim": {"http_proxy": "127.0.0.1:3128"}}
    pair = Pair("unix", [rule], parent_rules=dialled, enclave=enclave)
    try:
        pair.start_parent()
        started = command_line(
            *("enclave", "--config", str(pair.enclave_config), "--take-over"),
            *("--", sys.executable, "-m", "tests.names.agent"),
        )
        command = [*UNSHARE, "sh", "-c", prelude, str(resolv_conf), *started]
        with Program(command, stdin=subprocess.PIPE) as program:
            yield Machine(program)
    finally:
        pair.close()


@pytest.mark.parametrize(
    "prelude",
    [
        pytest.param(WITH_A_FILE, id="a machine with a resolv.conf"),
        pytest.param(WITHOUT_A_FILE, id="a machine without one"),
    ],
)
def test_names_work_and_the_files_of_the_machine_stay_as_they_are(
    tmp_path: Path, prelude: str
) -> None:
    before = Path("/etc/resolv.conf").read_bytes()
    with hosts() as port, taken_over(tmp_path, prelude, port) as machine:
        assert machine.ask("fetch", "open.test", port) == HOSTS[3]
        assert machine.error("addresses", "nobody.test") == "EAI_NONAME"
        assert machine.error("fetch", "192.0.2.1", port) == "ECONNREFUSED"
    assert (tmp_path / "resolv.conf").read_text() == RESOLV_CONF
    assert Path("/etc/resolv.conf").read_bytes() == before


def test_where_they_cannot_be_had_a_line_says_so_and_the_proxy_remains(tmp_path: Path) -> None:
    with hosts() as port, taken_over(tmp_path, WITHOUT_MORE_NETWORKS, port) as machine:
        number, status = machine.ask("open_by", "http", "open.test", port)
        assert (status, machine.ask("end_of", number)) == ("200", "end")
        line = machine.program.line_with("names are off")
    assert "new network namespaces" in line
    assert (tmp_path / "resolv.conf").read_text() == RESOLV_CONF


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to enter what cannot be traced")
def test_a_machine_that_is_on_a_network_stays_on_it(tmp_path: Path) -> None:
    with hosts() as port, taken_over(tmp_path, ON_A_NETWORK, port) as machine:
        number, status = machine.ask("open_by", "http", "open.test", port)
        assert (status, machine.ask("end_of", number)) == ("200", "end")
        line = machine.program.line_with("names are off")
        inside = ["nsenter", "-t", str(machine.program.process.pid), "-U", "-n"]
        routes = subprocess.run(
            [*inside, "ip", "route", "show", "table", "local"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert "the interface here is up" in line
    assert "--network none" in line
    assert "127.0.0.1" in routes
    assert "default" not in routes
