"""Unmodified programs under the shim: an allowed host answers, a forbidden one is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.enclave_side.shim.socket_shim.rig import Rig
from tests.sandbox.sandboxes import AWS_VARIABLES
from tests.support.aws_answers import KEY_ARN
from tests.support.program import ROOT
from tests.support.shimmed import run_shimmed

SOURCES = ROOT / "tests" / "sandbox" / "clients"
HELLO = "hello from tls.test, over TLSv1.3\n"

PROGRAMS: dict[str, tuple[str, str, Mapping[str, str], str]] = {
    "requests": ("with_requests.py", "tls.test", {"REQUESTS_CA_BUNDLE": "{authority}"}, HELLO),
    "httpx": ("with_httpx.py", "tls.test", {"SSL_CERT_FILE": "{authority}"}, HELLO),
    "urllib": ("with_urllib.py", "tls.test", {"SSL_CERT_FILE": "{authority}"}, HELLO),
    "aiohttp": ("with_aiohttp.py", "tls.test", {"SSL_CERT_FILE": "{authority}"}, HELLO),
    "boto3": (
        "with_boto3.py",
        "kms.test",
        {**AWS_VARIABLES, "AWS_CA_BUNDLE": "{authority}"},
        f"secret {KEY_ARN}\n",
    ),
}
"""Source, host, variables, and what it writes."""


def run(running: Rig, name: str, host: str) -> Any:
    source, _, variables, _ = PROGRAMS[name]
    filled = {key: value.format(authority=running.authority) for key, value in variables.items()}
    path = str(SOURCES / source)
    return run_shimmed(running.path, path, f"https://{host}/", variables=filled)


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_allowed_host_answers(running: Rig, name: str) -> None:
    if name == "aiohttp":
        pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    _, host, _, expected = PROGRAMS[name]
    done = run(running, name, host)
    assert (done.status, done.stdout, done.lines) == (0, expected, []), done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_forbidden_host_is_refused_and_named(running: Rig, name: str) -> None:
    if name == "aiohttp":
        pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    host = f"{name}.unlisted.test"
    done = run(running, name, host)
    assert done.status != 0
    assert [line for line in done.lines if f"not_listed: {host}: " in line] == done.lines
    assert len(done.lines) == 1


TRIO = """
import sys, trio
async def main():
    stream = await trio.open_tcp_stream("echo.test", 443)
    await stream.send_all(b"word")
    print((await stream.receive_some(4)).decode(), stream.socket.getpeername()[1])
    try:
        await trio.open_tcp_stream("closed.test", 443)
    except OSError as error:
        print(type(error.__cause__).__name__ if error.__cause__ else error)
    try:
        await trio.open_tcp_stream("unlisted.test", 443)
    except OSError as error:
        print(error.errno)
trio.run(main)
"""


def test_trio(running: Rig) -> None:
    done = run_shimmed(running.path, "-c", TRIO)
    assert done.stdout.split("\n")[0] == "word 443"
    assert "-2" in done.stdout
    assert len(done.lines) == 2


def test_uvloop_is_said_to_pass_by(running: Rig, tmp_path: Path) -> None:
    done = run_shimmed(
        running.path, "-c", "import uvloop, uvloop.loop; import uvloop", cwd=tmp_path
    )
    assert done.status == 0
    assert done.stderr == (
        "vsockproxy: uvloop connects in C, past the socket shim: use asyncio's own loop, "
        "or a way in that needs no shim\n"
    )
