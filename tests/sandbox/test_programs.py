"""Unmodified programs, by every way in that each supports: an allowed host, and a forbidden one."""

import dataclasses
from pathlib import Path

import pytest

from tests.sandbox.clients.client import Places
from tests.sandbox.clients.table import CLIENTS
from tests.sandbox.sandboxes import SandboxWith
from tests.sandbox.trust import trust_files
from tests.sandbox.ways import Way
from tests.support.certificates import Authority

USES = [
    pytest.param(name, way, id=f"{name} by {way}")
    for name, client in CLIENTS.items()
    for way in client.uses
]

DISTRUSTFUL = [name for name, client in CLIENTS.items() if client.distrusts is not None]


@pytest.mark.parametrize(("name", "way"), USES)
def test_an_allowed_host_answers(
    sandbox_with: SandboxWith, places: Places, name: str, way: Way
) -> None:
    client = CLIENTS[name]
    done = client.fetch(sandbox_with(way), way, places)
    assert (done.status, done.stdout) == (0, client.expected(way, places)), done.stderr


@pytest.mark.parametrize(("name", "way"), USES)
def test_a_host_that_is_not_listed_is_refused_and_the_program_says_so(
    sandbox_with: SandboxWith, places: Places, name: str, way: Way
) -> None:
    client, sandbox = CLIENTS[name], sandbox_with(way)
    host = f"program-{list(CLIENTS).index(name)}.forbidden.test"
    done = client.fetch(sandbox, way, places, host)
    assert done.status != 0
    assert places.fill(client.uses[way].shows, host) in done.stderr
    line = sandbox.refusal(host)
    assert (line["reason"], line["side"], line["way"]) == ("not_listed", "enclave", way)
    assert host in line["text"]


@pytest.mark.parametrize("name", DISTRUSTFUL)
def test_a_program_verifies_the_origin_itself(
    sandbox_with: SandboxWith, places: Places, tmp_path: Path, name: str
) -> None:
    directory = tmp_path / "stranger"
    directory.mkdir()
    strangers = trust_files(Authority(directory), directory)
    client, way = CLIENTS[name], Way.NAMES
    done = client.fetch(sandbox_with(way), way, dataclasses.replace(places, **strangers))
    assert (done.status != 0, done.stdout) == (True, "")
    assert client.distrusts is not None
    assert client.distrusts in done.stderr
