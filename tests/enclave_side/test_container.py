"""PID 1 of a container: what is shared with other machines stays as it is."""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import Program, command_line

PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

SHOW = f"""
cat {PORT_RANGE}
hostname
ls $0
kill -TERM 1
sleep 60
"""


@pytest.mark.parametrize("names", [True, False], ids=["a network of its own", "our network"])
def test_as_pid_1_of_a_container(names: bool, tmp_path: Path) -> None:
    before = PORT_RANGE.read_text(), socket.gethostname()
    file = tmp_path / "enclave.yaml"
    shim = f"{{names: {json.dumps(names)}, http_proxy: null, streams: null}}"
    file.write_text(
        f"parent: unix://{tmp_path}/link.sock\nshim: {shim}\n"
        "machine: {hostname: inside, clock: {source: parent}, sysctls: {kernel.panic: 1}}\n"
    )
    within = [sys.executable, "-m", "tests.support.one_process_namespace"]
    enclave = command_line("enclave", "--config", str(file), "--", "sh", "-c", SHOW, str(tmp_path))
    with Program([*within, *enclave]) as program:
        code, output = program.end()
    if code == NOT_PERMITTED:
        pytest.skip(f"not permitted here: {program.lines}")
    port_range, *others = output.splitlines()
    assert code == 143
    assert others == ["inside", "enclave.yaml"], "what is in /tmp is seen"
    lines = [json.loads(line) for line in program.lines if line.startswith("{")]
    texts = [line["text"] for line in lines if line["event"] == "left_out"]
    assert "left out, since this machine is not ours: machine.clock, machine.sysctls" in texts
    has_names = not any("names are off" in text for text in texts)
    assert port_range.split() == (["10240", "65535"] if names and has_names else before[0].split())
    assert (PORT_RANGE.read_text(), socket.gethostname()) == before


LO_IS_UP = """
import os, sys
from enclave_side.namespaces import bring_up_loopback
bring_up_loopback()
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv")
def test_as_pid_1_of_a_container_that_may_not_touch_its_network(tmp_path: Path) -> None:
    file = tmp_path / "enclave.yaml"
    file.write_text(f"parent: unix://{tmp_path}/link.sock\nlog: {{to_parent: false}}\n")
    within = [sys.executable, "-m", "tests.support.one_process_namespace"]
    within += [sys.executable, "-c", LO_IS_UP]
    within += ["setpriv", "--bounding-set=-net_admin,-sys_admin", "--inh-caps=-all"]
    enclave = command_line("enclave", "--config", str(file), "--", "printenv", "HTTPS_PROXY")
    with Program([*within, *enclave]) as program:
        code, output = program.end()
    if code == NOT_PERMITTED:
        pytest.skip(f"not permitted here: {program.lines}")
    assert (code, output) == (0, "http://127.0.0.1:3128\n")
    assert any("names are off" in line for line in program.lines)
