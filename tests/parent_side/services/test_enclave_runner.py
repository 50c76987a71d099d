import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from parent_side.services.enclave_runner import restart_delay
from tests.support import nitro_cli
from tests.support.notify_socket import FakeNotifySocket
from tests.support.program import Program, command_line


@contextmanager
def running(folder: Path, **keys: Any) -> Iterator[tuple[Program, FakeNotifySocket]]:
    """Run `vsockproxy run-enclave` on a file with `keys`, and a nitro-cli of ours."""
    program = nitro_cli.install(folder)
    file = folder / "web.yaml"
    content = {"eif": "/images/web.eif", "cpus": 2, "memory": "1GiB", "nitro_cli": str(program)}
    file.write_text(json.dumps(content | keys))
    address = f"@{uuid4()}"
    with (
        FakeNotifySocket(address) as systemd,
        Program(command_line("run-enclave", str(file)), {"NOTIFY_SOCKET": address}) as runner,
    ):
        yield runner, systemd


def test_an_enclave_is_started_announced_and_ended_with_its_unit(tmp_path: Path) -> None:
    with running(tmp_path, cid=20) as (runner, systemd):
        line = json.loads(runner.line_with('"enclave_started"'))
        assert (line["enclave"], line["cid"]) == ("web", 20)
        assert systemd.wait_for_key("READY")["STATUS"] == "web runs, CID 20"
        assert nitro_cli.calls(tmp_path)[1] == [
            *("run-enclave", "--eif-path", "/images/web.eif", "--cpu-count", "2"),
            *("--memory", "1024", "--enclave-name", "web", "--enclave-cid", "20"),
        ]
        runner.signal(signal.SIGTERM)
        assert runner.end()[0] == 0
        assert systemd.wait_for_key("STOPPING")
    assert nitro_cli.enclaves(tmp_path) == []


def test_one_that_ends_is_started_again_with_its_new_cid(tmp_path: Path) -> None:
    with running(tmp_path) as (runner, systemd):
        first = json.loads(runner.line_with('"enclave_started"'))
        nitro_cli.end(tmp_path, first["id"])
        runner.line_with('"enclave_ended"')
        second = json.loads(runner.line_with('"enclave_started"'))
        assert (first["cid"], second["cid"]) == (16, 17)
        systemd.wait_for(lambda message: message.get("STATUS") == "web runs, CID 17")


def test_one_that_cannot_be_started_is_tried_again_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "run-enclave.fails").touch()
    with running(tmp_path) as (runner, systemd):
        line = json.loads(runner.line_with('"enclave_failed"'))
        assert "E36" in line["text"]
        (tmp_path / "run-enclave.fails").unlink()
        runner.line_with('"enclave_started"')
        assert systemd.wait_for_key("READY")["STATUS"] == "web runs, CID 17"


def test_one_that_is_left_from_before_is_ended_first(tmp_path: Path) -> None:
    with running(tmp_path) as (runner, _):
        runner.line_with('"enclave_started"')
        runner.signal(signal.SIGKILL)
        runner.end()
    assert len(nitro_cli.enclaves(tmp_path)) == 1
    with running(tmp_path) as (runner, _):
        line = json.loads(runner.line_with('"enclave_left_over"'))
        assert line["cid"] == 16
        line = json.loads(runner.line_with('"enclave_started"'))
        assert [each["EnclaveCID"] for each in nitro_cli.enclaves(tmp_path)] == [line["cid"]]


def test_a_nitro_cli_that_does_not_answer_costs_no_enclave(tmp_path: Path) -> None:
    with running(tmp_path) as (runner, _):
        runner.line_with('"enclave_started"')
        (tmp_path / "describe-enclaves.fails").touch()
        runner.line_with('"enclave_unseen"')
        (tmp_path / "describe-enclaves.fails").unlink()
        runner.signal(signal.SIGTERM)
        assert runner.end()[0] == 0
    runs = [call for call in nitro_cli.calls(tmp_path) if call[0] == "run-enclave"]
    assert len(runs) == 1


def test_the_console_of_one_in_debug_mode_is_copied(tmp_path: Path) -> None:
    with running(tmp_path, debug=True) as (runner, _):
        line = json.loads(runner.line_with('"enclave_started"'))
        runner.line_with("Successfully connected to the console.")
        nitro_cli.end(tmp_path, line["id"])
        runner.line_with('"enclave_ended"')
        runner.signal(signal.SIGTERM)
        assert "a line of the console" in runner.end()[1]


def test_without_nitro_cli_the_line_says_so(tmp_path: Path) -> None:
    with running(tmp_path, nitro_cli="/nowhere/nitro-cli") as (runner, _):
        line = json.loads(runner.line_with('"enclave_failed"'))
        assert line["text"] == "/nowhere/nitro-cli cannot be run: No such file or directory"


def test_a_file_that_is_not_valid_is_an_error(tmp_path: Path) -> None:
    with running(tmp_path, memory="1MiB", cpus=0) as (runner, _):
        assert runner.end()[0] == 2
    assert [line.split(": ")[1] for line in runner.lines] == ["cpus"]


@pytest.mark.parametrize(
    ("quick_ends", "seconds"), [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (1000, 60.0)]
)
def test_starts_are_further_and_further_apart(quick_ends: int, seconds: float) -> None:
    assert restart_delay(quick_ends) == seconds


def test_it_waits_until_the_parent_says_that_it_serves(tmp_path: Path) -> None:
    admin = f"unix://{tmp_path}/admin.sock"
    with running(tmp_path, admin=admin) as (runner, _):
        line = json.loads(runner.line_with('"waiting_for_parent"'))
        assert admin in line["text"]
        assert nitro_cli.calls(tmp_path) == []
        file = tmp_path / "parent.yaml"
        listen = f"unix://{tmp_path}/link.sock"
        file.write_text(json.dumps({"listen": listen, "admin": {"listen": admin}}))
        with Program(command_line("parent", "--config", str(file))):
            runner.line_with('"enclave_started"')
