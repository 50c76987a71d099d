"""A static program that dials the parent by itself: it can without the fence, and not within."""

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave_side.fence import plan_fence
from tests.on_vsock.machine.loopback import LOOPBACK_CID
from tests.support.launching import DEADLINE_SECONDS, launch
from tests.support.program import environment
from tests.support.static_programs import VSOCK_CALLS, build_static
from vsockproxy.config.model import Command


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_static(VSOCK_CALLS, tmp_path_factory.mktemp("static"))


@pytest.fixture
def dial(program: Path) -> Iterator[list[str]]:
    """The command that dials a listener of ours, as if that were the parent's."""
    with socket.socket(socket.AF_VSOCK) as listening:
        listening.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listening.listen()
        port = listening.getsockname()[1]
        yield [str(program), "dial", str(LOOPBACK_CID), str(port)]


def test_without_the_fence_it_connects(dial: list[str]) -> None:
    done = subprocess.run(dial, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    assert done.stdout == "0\n"


def test_with_the_fence_it_has_no_socket_to_connect(dial: list[str]) -> None:
    done = launch(plan_fence(Command()).launcher(), *dial)
    assert (done.report, done.stdout) == ("", f"{errno.EAFNOSUPPORT}\n")


def test_where_the_file_allows_vsock_it_connects(dial: list[str]) -> None:
    done = launch(plan_fence(Command(vsock="allow")).launcher(), *dial)
    assert (done.report, done.stdout) == ("", "0\n")


def test_every_way_to_call_the_kernel_is_fenced(program: Path) -> None:
    done = launch(plan_fence(Command()).launcher(), str(program))
    errors = dict(line.split() for line in done.stdout.splitlines())
    assert errors["native"] == errors["socketpair"] == str(errno.EAFNOSUPPORT)
    assert errors["io_uring_setup"] == str(errno.ENOSYS)
    assert errors["tcp"] == errors["unix"] == "0"


RESULTS = {"the fence": ("{}", errno.EAFNOSUPPORT), "vsock allowed": ("{vsock: allow}", 0)}


@pytest.mark.parametrize(("settings", "number"), RESULTS.values(), ids=RESULTS)
def test_as_the_command_of_an_enclave(
    settings: str, number: int, dial: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "enclave.yaml"
    file.write_text(
        f"parent: unix://{tmp_path}/link.sock\nshim: {{http_proxy: null, streams: null}}\n"
        f"command: {settings}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fake_side", "enclave", str(file), *dial],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert (done.returncode, done.stdout) == (0, f"{number}\n"), done.stderr
