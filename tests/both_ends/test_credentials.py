"""Credentials of the instance's role, from the metadata service to SDKs in the enclave."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.credentials_service import running_credentials
from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.observation import kill
from tests.support.pair import Pair, Side
from tests.support.signed_service import SignedService, serving_signed

ROTATIONS = 50

INHERITED = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)


@pytest.fixture(autouse=True)
def _no_credentials_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in INHERITED:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@contextmanager
def machines(
    service: MetadataService, path: Path, enclave: dict[str, Any] | None = None
) -> Iterator[Pair]:
    """The metadata service, our service on the parent, and a pair whose parent serves."""
    socket = path / "credentials.sock"
    with serving_metadata(service), running_credentials(socket, service):
        parent = {"credentials": {"enclaves": [Pair.CID], "socket": f"unix://{socket}"}}
        keys = {"credentials": {"listen": "127.0.0.1:0", **(enclave or {})}}
        shim = {"http_proxy": None}
        pair = Pair("unix", [], parent=parent, enclave={**keys, "shim": shim})
        try:
            pair.start_parent()
            yield pair
        finally:
            pair.close()


def output_of(side: Side) -> Any:
    assert side.process.stdout is not None
    return json.loads(side.process.stdout.read())


def test_boto3_makes_no_failed_call_while_credentials_and_tokens_expire(tmp_path: Path) -> None:
    # Whole seconds, cut off: they live for 2 to 3.
    service = MetadataService(lifetime_seconds=3.0, requests_per_token=5)
    with (
        machines(service, tmp_path) as pair,
        serving_signed(SignedService(service, is_slow=True)) as sts,
    ):
        url = f"http://127.0.0.1:{sts.port}"
        side = pair.start_enclave(
            *(sys.executable, "-m", "tests.support.calls_with_boto3", url, str(ROTATIONS))
        )
        found = output_of(side)
        assert found["failures"] == []
        assert found["seen"] > ROTATIONS
        assert found["calls"] >= found["seen"]
        assert found["region"] == "eu-west-1"
        assert sts.refused == []
        assert len(service.tokens) > ROTATIONS / 5, "tokens have ended all along"
        assert sts.regions == {"eu-west-1"}


SHOW = """
import json, os, sys, urllib.error, urllib.request
url = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
token = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
def ask(token):
    request = urllib.request.Request(url, headers={"Authorization": token})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return [answer.status, json.load(answer)]
    except urllib.error.HTTPError as error:
        return [error.code, json.load(error)]
print(json.dumps({
    "answer": ask(token),
    "without the token": ask("x" + token[1:]),
    "token": token,
    "region": os.environ.get("AWS_REGION"),
    "default region": os.environ.get("AWS_DEFAULT_REGION"),
    "relative": os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
}))
"""


def show(pair: Pair) -> Any:
    return output_of(pair.start_enclave(sys.executable, "-c", SHOW))


def test_the_command_finds_an_endpoint_a_token_and_the_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would lead SDKs to the endpoint of some container.
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/x")
    with machines(MetadataService(), tmp_path) as pair:
        found = show(pair)
        status, credentials = found["answer"]
        assert status == 200
        assert credentials.pop("Expiration").endswith("Z")
        assert credentials == {
            "AccessKeyId": "ASIA0000000000000000",
            "SecretAccessKey": "secret/ASIA0000000000000000+x",
            "Token": "session/ASIA0000000000000000==",
        }
        assert found["without the token"][0] == 401
        assert len(found["token"]) >= 43  # 256 bits in base64
        assert (found["region"], found["default region"]) == ("eu-west-1", "eu-west-1")
        assert found["relative"] is None
        assert pair.enclave is not None
        assert not any(found["token"] in line for line in pair.enclave.raw)


@pytest.mark.parametrize(
    ("keys", "inherited", "expected"),
    [
        pytest.param({"region": "us-east-1"}, None, "us-east-1", id="the file's comes first"),
        pytest.param({}, "ap-south-1", "ap-south-1", id="the image's stays"),
        pytest.param({"region": "us-east-1"}, "ap-south-1", "us-east-1", id="the file's wins"),
    ],
)
def test_whose_region_the_command_gets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, Any],
    inherited: str | None,
    expected: str,
) -> None:
    if inherited is not None:
        monkeypatch.setenv("AWS_REGION", inherited)
    with machines(MetadataService(), tmp_path, keys) as pair:
        assert show(pair)["region"] == expected


def test_an_enclave_that_gets_none_says_why_to_its_programs(tmp_path: Path) -> None:
    keys = {"credentials": {"listen": "127.0.0.1:0", "region": "eu-west-1"}}
    pair = Pair("unix", [], enclave={**keys, "shim": {"http_proxy": None}})
    try:
        pair.start_parent()
        status, answer = show(pair)["answer"]
        assert status == 503
        assert answer["code"] == "Unavailable"
        assert "not_listed" in answer["message"]
        assert pair.enclave is not None
        line = pair.enclave.wait_for_event("fetch_failed", what="credentials")
        assert "add credentials: {enclaves: [16]}" in line["text"]
    finally:
        pair.close()


def test_an_enclave_whose_cid_gets_none_says_why_there_is_no_region(tmp_path: Path) -> None:
    keys = {"credentials": {"listen": "127.0.0.1:0"}, "shim": {"http_proxy": None}}
    parent = {"credentials": {"enclaves": [99], "socket": f"unix://{tmp_path}/none.sock"}}
    pair = Pair("unix", [], parent=parent, enclave=keys)
    try:
        pair.start_parent()
        show(pair)
        assert pair.enclave is not None
        line = pair.enclave.wait_for_event("region_unknown")
        assert line["text"] == (
            "AWS_REGION is not set, the parent gives no credentials: not_listed: "
            "vsockproxy.credentials: this enclave gets no credentials: "
            f"add {Pair.CID} to credentials.enclaves; or write credentials.region"
        )
    finally:
        pair.close()


CALL_TWICE = """
import json, os, signal, sys, urllib.request
url = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
token = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
request = urllib.request.Request(url, headers={"Authorization": token})
def ask():
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)["AccessKeyId"]
print(ask(), flush=True)
open(sys.argv[1]).read()
print(ask(), flush=True)
"""


def test_a_process_for_credentials_that_is_killed_is_replaced_and_nobody_is_refused(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with machines(MetadataService(), tmp_path) as pair:
        side = pair.start_enclave(sys.executable, "-c", CALL_TWICE, str(gate))
        assert side.process.stdout is not None
        first = side.process.stdout.readline()
        (pid,) = [pid for pid in side.workers if b"enclave_side.services" in command_of(pid)]
        kill(pid)
        gate.write_text("now")
        assert side.process.stdout.readline() == first
        side.wait_for_event("service_died")
        assert side.process.wait(30) == 0


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
