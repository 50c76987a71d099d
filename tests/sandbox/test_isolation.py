"""What outside a sandbox answers lookups, or acts for a user, is not there in the sandbox."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.sandboxes import run_sandbox

# nscd, systemd-resolved, D-Bus and agents listen below these.
PLACES = ("/run", "/run/lock", f"/run/user/{os.getuid()}")

INSIDE = """
import errno, json, os, pathlib, socket, sys

def connect(name):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(name)
        except OSError as error:
            return errno.errorcode[error.errno]
        return "connected"

print(json.dumps({
    "below run": [str(path) for path in pathlib.Path("/run").rglob("*") if not path.is_dir()],
    "path": connect(sys.argv[1]),
    "abstract": connect("\\0" + sys.argv[2]),
}))
"""


@pytest.fixture
def place(namespaces: None) -> Iterator[Path]:
    """A directory below /run."""
    del namespaces
    writable = [place for place in PLACES if os.access(place, os.W_OK)]
    if not writable:
        pytest.skip(f"none of {', '.join(PLACES)} can be written")
    with tempfile.TemporaryDirectory(dir=writable[0], prefix="vsockproxy-test-") as directory:
        yield Path(directory)


def test_sockets_of_the_machine_are_out_of_reach(place: Path) -> None:
    name = place.name
    with socket.socket(socket.AF_UNIX) as by_path, socket.socket(socket.AF_UNIX) as abstract:
        by_path.bind(str(place / "socket"))
        abstract.bind(f"\0{name}")
        for listener in (by_path, abstract):
            listener.listen()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listener.getsockname())  # here it can be reached
        done = run_sandbox([], [sys.executable, "-c", INSIDE, str(place / "socket"), name])
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout) == {
        "below run": ["/run/vsockproxy/streams.sock"],
        "path": "ENOENT",
        "abstract": "ECONNREFUSED",
    }


def test_the_way_to_an_agent_is_not_passed_on(namespaces: None) -> None:
    del namespaces
    agents = {"SSH_AUTH_SOCK": "/tmp/agent", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/tmp/bus"}
    done = run_sandbox([], ["env"], agents)
    assert done.status == 0, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.partition("=")[0] in agents]
