"""Credentials that the parent's side fetches itself, in a process beside its workers."""

import json
import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.observation import kill
from tests.support.pair import Pair, Side
from vsockproxy.client.errors import StreamRefused
from vsockproxy.client.for_trio import open_service
from vsockproxy.client.opening import try_to_connect
from vsockproxy.services.http_client import ask

SERVICE = "vsockproxy.credentials"


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the parent's side makes its private directory; pytest's own has too long a name."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        yield Path(name)


@contextmanager
def machines(service: MetadataService, **credentials: Any) -> Iterator[tuple[Pair, Side]]:
    """A metadata service, and a pair whose parent asks it."""
    with serving_metadata(service):
        imds = f"http://127.0.0.1:{service.port}"
        keys = {"credentials": {"imds": imds, "enclaves": [Pair.CID], **credentials}}
        with Pair("unix", [], parent=keys) as pair:
            assert pair.parent is not None
            yield pair, pair.parent


def directories(temporary: Path) -> list[Path]:
    return list(temporary.glob("vsockproxy-[!t]*/"))  # the rest are a test's own


async def role(pair: Pair) -> Any:
    """What the enclave is told."""
    stream = await open_service(try_to_connect(str(pair.streams)), SERVICE)
    answer = await ask(stream, "GET", "/credentials", host="localhost", max_body_bytes=1 << 16)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)["Role"]


def services_of(side: Side) -> list[int]:
    """The processes for credentials."""
    return [pid for pid in side.workers if b"services.credentials" in command_of(pid)]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_the_first_question_is_answered_and_one_user_is_said_to_run_all(
    temporary: Path,
) -> None:
    with machines(MetadataService()) as (pair, parent):
        assert await role(pair) == "the-role"
        line = parent.wait_for_event("services_share_user")
        assert line["uid"] == os.getuid()
        assert "credentials" in line["text"]
        (directory,) = directories(temporary)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (path,) = directory.iterdir()
        assert (stat.S_ISSOCK(path.stat().st_mode), path.stat().st_mode & 0o777) == (True, 0o600)
        assert parent.wait_for_event("decision", host=SERVICE)["address"] == str(path)
        assert not any("session/" in each or "secret/" in each for each in parent.raw)
        parent.process.send_signal(signal.SIGTERM)
        assert parent.process.wait(30) == 0
        assert directories(temporary) == []


async def test_a_process_that_is_killed_is_replaced_and_nobody_is_refused() -> None:
    with machines(MetadataService()) as (pair, parent):
        assert await role(pair) == "the-role"
        (pid,) = services_of(parent)
        kill(pid)
        assert await role(pair) == "the-role"
        parent.wait_for_event("service_died")
        assert services_of(parent) != [pid]


async def test_another_enclave_gets_none() -> None:
    with machines(MetadataService(), enclaves=[Pair.CID + 1]) as (pair, _):
        with pytest.raises(StreamRefused) as caught:
            await role(pair)
        assert caught.value.reason == "not_listed"


def reload(pair: Pair, parent: Side, count: int, credentials: dict[str, Any] | None) -> str | None:
    """Have the parent read another file; what it says of it."""
    content = json.loads(pair.parent_config.read_text())
    pair.parent_config.write_text(json.dumps({**content, "credentials": credentials}))
    parent.process.send_signal(signal.SIGHUP)
    parent.wait_for_count("reloaded", count)
    return parent.events("reloaded")[-1].get("text")


async def test_a_reload_changes_who_gets_them_and_a_restart_whom_we_ask() -> None:
    with machines(MetadataService()) as (pair, parent):
        former = json.loads(pair.parent_config.read_text())["credentials"]
        others = {**former, "enclaves": [Pair.CID + 1]}
        assert reload(pair, parent, 1, others) is None
        with pytest.raises(StreamRefused):
            await role(pair)
        elsewhere = {**former, "imds": "http://127.0.0.1:1"}
        said = "only a restart changes credentials.imds"
        assert reload(pair, parent, 2, elsewhere) == said
        assert await role(pair) == "the-role"


async def test_a_reload_does_not_begin_to_ask_and_the_refusal_says_so() -> None:
    with Pair("unix", []) as pair:
        assert pair.parent is not None
        credentials = {"imds": "http://127.0.0.1:1", "enclaves": [Pair.CID]}
        said = "only a restart changes credentials.imds"
        assert reload(pair, pair.parent, 1, credentials) == said
        with pytest.raises(StreamRefused) as caught:
            await role(pair)
        assert caught.value.reason == "dial_refused"
        line = pair.parent.wait_for_event("decision", host=SERVICE)
        assert "restart the parent's side" in line["text"]


def test_where_the_socket_cannot_be_the_parent_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Short: a long one would not do for a socket, and not be used.
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"/tmp/none-{os.getpid()}")
    config = tmp_path / "parent.yaml"
    credentials = {"imds": "http://127.0.0.1:1", "enclaves": [16]}
    content = {"listen": f"unix://{tmp_path}/link.sock", "credentials": credentials}
    config.write_text(json.dumps(content))
    side = Side("parent", config)
    try:
        assert side.process.wait(30) == 1
    finally:
        side.kill()
    assert any("cannot make a directory in" in line for line in side.raw)
