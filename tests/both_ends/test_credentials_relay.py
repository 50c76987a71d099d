import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.credentials_service import running_credentials
from tests.support.metadata_service import MetadataService, serving_metadata
from tests.support.pair import LinkKind, Pair
from vsockproxy.client.errors import StreamRefused
from vsockproxy.client.for_trio import open_service
from vsockproxy.client.opening import try_to_connect
from vsockproxy.services.http_client import ask

SERVICE = "vsockproxy.credentials"


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "credentials.sock"
    with serving_metadata(MetadataService()) as service, running_credentials(path, service):
        yield path


def pair(kind: LinkKind, credentials: dict[str, Any] | None) -> Pair:
    keys = {} if credentials is None else {"credentials": credentials}
    return Pair(kind, [], parent=keys)


async def ask_over_the_link(pair: Pair, target: str) -> Any:
    stream = await open_service(try_to_connect(str(pair.streams)), SERVICE)
    answer = await ask(stream, "GET", target, host="localhost", max_body_bytes=1 << 16)
    assert answer.status == 200
    return json.loads(answer.body)


async def test_an_enclave_that_is_named_gets_them_and_both_lines_are_written(
    socket_path: Path, kind: LinkKind
) -> None:
    cid = Pair.CID if kind == "unix" else 1
    with pair(kind, {"cids": [cid], "socket": f"unix://{socket_path}"}) as both:
        assert (await ask_over_the_link(both, "/region")) == {"Region": "eu-west-1"}
        assert (await ask_over_the_link(both, "/credentials"))["Role"] == "the-role"
        assert both.parent is not None
        both.parent.wait_for_count("close", 2)
        decision = both.parent.events("decision")[0]
        assert (decision["host"], decision["cid"], decision["reason"], decision["allowed"]) == (
            *(SERVICE, cid, "listed"),
            True,
        )
        close = both.parent.events("close")[0]
        assert close["ended"] == "finished"
        assert close["bytes_in"] > 0
        assert not any("session/" in line or "secret/" in line for line in both.parent.raw)


@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        pytest.param(None, "add credentials: {cids: [16]}", id="no enclave is to have any"),
        pytest.param({"cids": [17]}, "add 16 to credentials.cids", id="another enclave is"),
    ],
)
async def test_any_other_enclave_is_refused_and_told_which_key_to_set(
    credentials: dict[str, Any] | None, text: str
) -> None:
    with pair("unix", credentials) as both:
        with pytest.raises(StreamRefused) as caught:
            await ask_over_the_link(both, "/credentials")
        assert caught.value.reason == "not_listed"
        assert both.parent is not None
        line = both.parent.wait_for_event("decision", host=SERVICE)
        assert not line["allowed"]
        assert text in line["text"]


async def test_a_service_that_does_not_run_is_a_refusal_that_names_its_unit(
    tmp_path: Path,
) -> None:
    with pair("unix", {"cids": [Pair.CID], "socket": f"unix://{tmp_path}/none.sock"}) as both:
        with pytest.raises(StreamRefused) as caught:
            await ask_over_the_link(both, "/credentials")
        assert caught.value.reason == "dial_refused"
        assert both.parent is not None
        line = both.parent.wait_for_event("decision", host=SERVICE)
        assert "vsockproxy-credentials.service" in line["text"]


async def test_an_enclave_has_few_streams_for_them_at_once(socket_path: Path) -> None:
    config = {"cids": [Pair.CID], "socket": f"unix://{socket_path}"}
    with pair("unix", config) as both:
        opened = [await open_service(try_to_connect(str(both.streams)), SERVICE) for _ in range(8)]
        with pytest.raises(StreamRefused) as caught:
            await open_service(try_to_connect(str(both.streams)), SERVICE)
        assert caught.value.reason == "limit"
        for stream in opened:
            await stream.aclose()
        assert both.parent is not None
        both.parent.wait_for_count("close", 8)
        assert (await ask_over_the_link(both, "/region")) == {"Region": "eu-west-1"}


async def test_a_reload_takes_them_away_and_ends_what_is_open(socket_path: Path) -> None:
    config = {"cids": [Pair.CID], "socket": f"unix://{socket_path}"}
    with pair("unix", config) as both:
        assert both.parent is not None
        stream = await open_service(try_to_connect(str(both.streams)), SERVICE)
        content = json.loads(both.parent_config.read_text())
        both.parent_config.write_text(json.dumps({**content, "credentials": None}))
        both.parent.process.send_signal(signal.SIGHUP)
        both.parent.wait_for_event("reloaded")
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        with pytest.raises(StreamRefused):
            await ask_over_the_link(both, "/credentials")
        both.parent_config.write_text(json.dumps(content))
        both.parent.process.send_signal(signal.SIGHUP)
        both.parent.wait_for_count("reloaded", 2)
        assert (await ask_over_the_link(both, "/credentials"))["Role"] == "the-role"
