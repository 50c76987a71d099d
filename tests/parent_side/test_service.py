import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.program import DEADLINE_SECONDS, Program


@contextmanager
def parent(tmp_path: Path, text: str, **variables: str) -> Iterator[Program]:
    file = tmp_path / "parent.yaml"
    file.write_text(text)
    command = [sys.executable, "-m", "tests.support.fake_side", "parent", str(file)]
    with Program(command, variables) as program:
        yield program


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_SECONDS)
    client.connect(str(path))
    return client


def answer(path: Path) -> tuple[int, str, int, int]:
    """What the worker that gets a new connection says: its pid, listener, CID and index."""
    with connect(path) as client:
        return read_answer(client)


def read_answer(client: socket.socket) -> tuple[int, str, int, int]:
    data = b""
    while piece := client.recv(1000):
        data += piece
    pid, listener, cid, index = data.split()
    return int(pid), listener.decode(), int(cid), int(index)


def fields(line: str) -> dict[str, object]:
    parsed = json.loads(line)
    assert isinstance(parsed, dict)
    return parsed


def test_a_life(tmp_path: Path) -> None:
    link, forward = tmp_path / "link.sock", tmp_path / "forward.sock"
    text = f"""
listen: unix://{link}?cid=16
forwards:
  - {{listen: "unix://{forward}?cid=17&mode=0660", to: "kms.example:443"}}
"""
    with parent(tmp_path, text) as program:
        ready = fields(program.line_with('"ready"'))
        assert (ready["side"], ready["level"], ready["workers"]) == ("parent", "info", 1)
        assert str(link) in str(ready["listeners"])
        assert any("parent.yaml" in line for line in program.lines), "the worker has the document"
        pid, *rest = answer(link)
        assert rest == ["listen[0]", 16, 0]
        assert answer(forward) == (pid, "forwards[0].listen", 17, 0)
        assert [path.stat().st_mode & 0o777 for path in (link, forward)] == [0o600, 0o660]
        program.signal(signal.SIGTERM)
        code, _ = program.end()
    assert code == 0
    assert fields(program.lines[-1])["event"] == "stopping"
    assert not link.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_sigint_ends_it_too(tmp_path: Path) -> None:
    with parent(tmp_path, f"listen: unix://{tmp_path}/link.sock") as program:
        program.line_with('"ready"')
        program.signal(signal.SIGINT)
        assert program.end() == (0, "")


def test_sighup_to_everybody_is_a_reload(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}") as program:
        program.line_with('"ready"')
        pid, *_ = answer(link)
        os.kill(pid, signal.SIGHUP)
        program.signal(signal.SIGHUP)
        reloaded = fields(program.line_with('"reloaded"'))
        assert reloaded["replaced_workers"] == 0
        if not any("now has" in line for line in program.lines):
            program.line_with("now has")  # which comes through another pipe
        assert answer(link)[0] == pid


def test_a_worker_that_cannot_reload_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}", FAKE_WORKER="refuses") as program:
        program.line_with('"ready"')
        pid, *_ = answer(link)
        program.signal(signal.SIGHUP)
        assert fields(program.line_with('"reloaded"'))["replaced_workers"] == 1
        (told,) = (fields(line) for line in program.lines if "worker_not_reloaded" in line)
        assert told["text"] == "as the test wants it"
        assert answer(link)[0] != pid


def test_a_killed_worker_is_replaced_and_nobody_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}") as program:
        program.line_with('"ready"')
        pids = set()
        for round_number in range(3):
            pid, *_ = answer(link)
            pids.add(pid)
            # Stopped, it takes nothing: what follows waits in its channel or in the supervisor.
            os.kill(pid, signal.SIGKILL)
            died = fields(program.line_with("worker_died"))
            assert (died["ended"], died["deaths"]) == ("SIGKILL", round_number + 1)
            with connect(link) as one, connect(link) as another:
                assert read_answer(one)[0] == read_answer(another)[0] != pid
        assert len(pids) == 3


def test_connections_wait_while_every_start_fails(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}", FAKE_WORKER="dies") as program:
        program.line_with("worker_died")
        with connect(link) as waiting:
            for deaths in (2, 3, 4):
                died = fields(program.line_with("worker_died"))
                assert (died["ended"], died["deaths"]) == ("status 3", deaths)
            assert died["waiting_connections"] == 1
            waiting.setblocking(False)
            with pytest.raises(BlockingIOError):
                waiting.recv(1)
            program.signal(signal.SIGTERM)
            assert program.end()[0] == 0
            waiting.setblocking(True)
            assert waiting.recv(1) == b""


def test_each_cid_has_one_worker(tmp_path: Path) -> None:
    links = [tmp_path / f"{cid}.sock" for cid in (16, 17, 18, 19)]
    listen = [f"unix://{link}?cid={link.stem}" for link in links]
    with parent(tmp_path, f"workers: 2\nlisten: {json.dumps(listen)}") as program:
        program.line_with('"ready"')
        first = {link: answer(link)[3] for link in links}
        assert sorted(first.values()) == [0, 0, 1, 1]
        for _ in range(3):
            assert {link: answer(link)[3] for link in links} == first


def test_a_low_cid_is_refused_at_accept(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}?cid=3") as program:
        program.line_with('"ready"')
        with connect(link) as client:
            assert client.recv(1) == b""
        refused = fields(program.line_with("connection_refused"))
        assert (refused["cid"], refused["reason"]) == (3, "not_listed")


def test_a_low_cid_with_an_entry_is_not(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}?cid=3\nenclaves: [{{cid: 3}}]") as program:
        program.line_with('"ready"')
        assert answer(link)[2] == 3


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    text = f"listen: unix://{tmp_path}/l.sock\ndrain: 0"
    with parent(tmp_path, text, FAKE_WORKER="deaf") as program:
        program.line_with('"ready"')
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0


def test_a_worker_that_sends_garbage_is_replaced(tmp_path: Path) -> None:
    with parent(tmp_path, f"listen: unix://{tmp_path}/l.sock", FAKE_WORKER="garbage") as program:
        broken = fields(program.line_with("worker_message_broken"))
        assert "no CBOR" in str(broken["text"])
        assert fields(program.line_with("worker_died"))["ended"] == "SIGKILL"


def test_workers_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}") as program:
        program.line_with('"ready"')
        pid, *_ = answer(link)
        watched = os.pidfd_open(pid)
        program.signal(signal.SIGKILL)
        program.end()
        with socket.socket(socket.AF_UNIX) as nobody, pytest.raises(ConnectionRefusedError):
            nobody.connect(str(link))
        assert select.select([watched], [], [], DEADLINE_SECONDS)[0], "the worker has ended"
        os.close(watched)
    with parent(tmp_path, f"listen: unix://{link}") as program:
        program.line_with('"ready"')  # and the socket that it left was replaced


def test_a_listener_that_cannot_be_bound_is_one_line_and_1(tmp_path: Path) -> None:
    link = tmp_path / "link.sock"
    with parent(tmp_path, f"listen: unix://{link}") as first:
        first.line_with('"ready"')
        with parent(tmp_path, f"listen: unix://{link}") as second:
            assert second.end() == (1, "")
            (line,) = second.lines
            assert f"cannot listen on unix://{link}: it is in use" in line
        assert answer(link)
