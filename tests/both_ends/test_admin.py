"""The parent's admin endpoint, on real processes: what it says, and what it stands."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import session_frames as wire
from tests.support.admin_client import AdminClient, parse, read_all
from tests.support.exchange_pair import HOST, PORT, ExchangePair, converse
from tests.support.hostile_peer import RawPeer, make_hello
from tests.support.logging_peer import LoggingPeer
from tests.support.observation import kill, unread
from tests.support.pair import Pair, Side, echo, free_port, is_reset
from vsockproxy.protocols.log_stream import Dropped, Exit, Line, Source

OTHER_CID = 17
NAME = "ledger"


class AdminPair(ExchangePair):
    """A pair whose parent has an admin endpoint, and a name for its enclave."""

    def __init__(self, directory: Path, *, workers: int = 1) -> None:
        path = directory / "admin.sock"
        super().__init__(
            "unix",
            parent={"admin": {"listen": f"unix://{path}"}, "workers": workers},
            other_cid=OTHER_CID,
        )
        self.admin = AdminClient(path)

    @property
    def services(self) -> int:
        """The process of services."""
        for pid in self.parent.workers:
            if b"parent_side.services.admin" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise AssertionError("there is no process of services")

    @property
    def parent_workers(self) -> list[int]:
        """The workers of the parent, by their index."""
        return [each["pid"] for each in self.admin.status()["workers"]]

    def wait_until_ready(self) -> None:
        self.admin.wait_until(lambda: self.admin.ask("/readyz").status == 200)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[AdminPair]:
    with AdminPair(tmp_path) as made:
        made.wait_until_ready()
        yield made


def test_what_streams_do_is_counted_and_shown(rig: AdminPair) -> None:
    rig.origin.handler = echo
    with rig.connect("shared") as sock, rig.connect("dedicated") as other:
        for each in (sock, other):
            converse(each, b"x" * 100_000)
        rig.admin.wait_until(lambda: rig.admin.status()["totals"]["bytes_in"] == 200_000)
        totals = rig.admin.status()["totals"]
        assert (totals["streams_open"], totals["bytes_out"]) == (2, 200_000)
        page = rig.admin.streams()
        assert {row["host"] for row in page["streams"]} == {HOST}
        assert {row["bytes_in"] for row in page["streams"]} == {100_000}
        assert (page["more"], page["unanswered"]) == (0, [])
        assert rig.admin.streams(1)["more"] == 1
    rig.admin.wait_until(lambda: rig.admin.status()["totals"]["streams_open"] == 0)
    metrics = rig.admin.metrics()
    assert metrics.of("decisions_total", enclave="16", reason="listed", allowed="true") == 2
    assert metrics.of("streams_closed_total", enclave="16", ended="finished") == 2
    assert metrics.of("stream_bytes_total", enclave="16", direction="in") == 200_000
    assert metrics.of("stream_duration_seconds_count") == 2
    assert metrics.of("dial_duration_seconds_count", outcome="connected") == 2
    assert metrics.of("links", enclave="16") == rig.links
    assert metrics.of("link_round_trip_seconds_count") >= rig.links
    (enclave,) = rig.admin.status()["enclaves"]
    assert (enclave["cids"], enclave["links_up"]) == ([16], rig.links)


def test_refusals_are_shown_with_their_reasons(rig: AdminPair) -> None:
    hostile = "<script>alert(1)</script>.test"
    with RawPeer.dial(rig.other_path) as peer:
        peer.greet()
        for stream, host in ((1, "unlisted.test"), (3, hostile)):
            peer.open(stream, host, PORT)
            peer.wait_for(wire.REFUSED, stream)
    rig.admin.wait_until(lambda: len(rig.admin.status()["refusals"]) == 2)
    latest, first = rig.admin.status()["refusals"]
    assert (first["cid"], first["host"], first["reason"]) == (17, "unlisted.test", "not_listed")
    assert "add {address:" in first["text"]
    assert latest["host"] == hostile
    metrics = rig.admin.metrics()
    assert metrics.of("decisions_total", enclave="17", reason="not_listed", allowed="false") >= 1
    assert not any(".test" in label for _, labels in metrics for _, label in labels)


def test_the_end_of_an_enclave_is_shown_and_counted(rig: AdminPair) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(rig.other_path)
        peer = LoggingPeer(sock, make_hello(instance=os.urandom(16))).greet()
        stream, _ = peer.open_log()
        line = Line(0, Source.STDOUT, b"<b>good\0bye</b>")
        peer.say(stream, line, Dropped(1, 10), Exit(11, 137, 9, 1500))
        assert peer.position(stream) == 12
    rig.admin.wait_until(lambda: len(rig.admin.status()["ends"]) == 1)
    (ended,) = rig.admin.status()["ends"]
    assert (ended["cid"], ended["status"], ended["signal"]) == (OTHER_CID, 137, "SIGKILL")
    assert ended["last_lines"] == ["<b>good\0bye</b>"]
    metrics = rig.admin.metrics()
    assert metrics.of("enclave_log_lines_total", result="written") == 1
    assert metrics.of("enclave_log_lines_total", result="dropped") == 10
    assert metrics.of("enclave_exits_total", enclave=str(OTHER_CID), result="failure") == 1


def test_a_scan_of_hosts_makes_no_series(rig: AdminPair) -> None:
    hosts = 300
    with RawPeer.dial(rig.other_path) as peer:
        peer.greet()
        for number in range(hosts):
            peer.open(2 * number + 1, f"h{number}.test", PORT)
        peer.wait_for(wire.REFUSED, 2 * hosts - 1)
    rig.admin.wait_until(lambda: rig.admin.status()["totals"]["refused"] == hosts)
    assert len(rig.admin.metrics()) < 150
    assert len(rig.admin.status()["refusals"]) <= 100


def test_no_counter_goes_backwards_when_a_worker_dies(rig: AdminPair) -> None:
    rig.complete("shared", 4, (10_000, 10_000))
    rig.wait_until_closed()
    rig.admin.wait_until(lambda: rig.admin.status()["totals"]["streams_opened"] == 4)
    before = rig.admin.metrics()
    (worker,) = rig.parent_workers
    kill(worker)
    rig.parent.wait_for_event("worker_died")
    rig.wait_for_links()
    rig.wait_until_ready()
    after = rig.admin.metrics()
    for key, value in before.items():
        if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
            assert after[key] >= value, key
    assert after.of("worker_restarts_total", worker="0") == 1
    rig.complete("shared", 1, (1000, 1000))
    rig.admin.wait_until(lambda: rig.admin.status()["totals"]["streams_opened"] == 5)


def test_services_that_die_harm_no_stream_and_forget_no_total(rig: AdminPair) -> None:
    rig.origin.handler = echo
    with rig.connect("shared") as sock:
        converse(sock)
        (worker,) = rig.parent_workers
        rig.admin.wait_until(lambda: rig.admin.status()["totals"]["streams_open"] == 1)
        kill(rig.services)
        rig.parent.wait_for_event("service_died", ended="SIGKILL")
        converse(sock)
        rig.wait_until_ready()
        assert rig.admin.metrics().of("streams_opened_total", enclave="16", way="session") == 1
        assert rig.parent_workers == [worker]


def test_services_that_hang_harm_no_stream(rig: AdminPair) -> None:
    rig.origin.handler = echo
    services = rig.services
    os.kill(services, signal.SIGSTOP)
    with rig.connect("shared") as sock:
        converse(sock, b"x" * 1_000_000)
    rig.origin.handler = rig.origin.exchange
    rig.complete("shared", 20, (1000, 1000))
    rig.parent.wait_for_event("service_hung", pid=services)  # it is replaced
    rig.wait_until_ready()


def test_a_worker_that_hangs_is_not_ready(tmp_path: Path) -> None:
    with AdminPair(tmp_path, workers=2) as rig:
        rig.wait_until_ready()
        victim = rig.parent_workers[0]
        os.kill(victim, signal.SIGSTOP)
        rig.admin.wait_until(lambda: rig.admin.ask("/readyz").status == 503)
        assert rig.admin.ask("/readyz").text.startswith("worker 0 has not reported for ")
        assert rig.admin.ask("/healthz").text == "alive\n"
        assert rig.admin.streams()["unanswered"] in ([0], [])
        os.kill(victim, signal.SIGCONT)
        rig.wait_until_ready()


def test_status_and_top_show_it(rig: AdminPair) -> None:
    rig.origin.handler = echo
    with rig.connect("shared") as sock, RawPeer.dial(rig.other_path) as peer:
        converse(sock)
        peer.greet().open(1, "[red]evil.test", PORT)
        peer.wait_for(wire.REFUSED, 1)
        rig.admin.wait_until(lambda: len(rig.admin.status()["refusals"]) == 1)
        for command in (["status"], ["top", "--once"]):
            done = run(*command, "--admin", f"unix://{rig.admin.path}")
            assert done.returncode == 0, done.stderr
            assert "● ready" in done.stdout
            assert f"[red]evil.test:{PORT}" in done.stdout, "it is no markup"
            assert (f"{HOST}:{PORT}" in done.stdout) == (command[0] == "top")
        done = run("status", "--json", "--admin", f"unix://{rig.admin.path}")
        assert '"ready": true' in done.stdout


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vsockproxy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "140"},
        check=False,
    )


# ------------------------------------------------------------- what it stands


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminClient]:
    directory = tmp_path_factory.mktemp("admin")
    config = directory / "parent.yaml"
    admin = directory / "admin.sock"
    config.write_text(
        f"listen: unix://{directory}/link.sock\nadmin: {{listen: 'unix://{admin}'}}\n"
        "log: {format: json}\n"
    )
    side = Side("parent", config)
    try:
        side.wait_for_event("ready")
        client = AdminClient(admin)
        client.wait_until(lambda: client.ask("/readyz").status == 200)
        yield client
        assert client.ask("/healthz").status == 200
        assert not side.events("service_died")
    finally:
        side.kill()


WRONG = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    "another path": (b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "a whole address": (b"GET http://x/status HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a tunnel": (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 400),
    "another method": (b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405),
    "a body": (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 413),
    "chunks": (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
    "a long path": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "a long header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 1000 + b"\r\n", 431),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "a line break in a header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
}


@pytest.mark.parametrize(("data", "status"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_answered_so(alone: AdminClient, data: bytes, status: int) -> None:
    assert parse(alone.send(data, ends=True)).status == status


def test_head_has_the_head_of_get_and_no_body(alone: AdminClient) -> None:
    for path in ("/", "/healthz"):
        got, headed = alone.ask(path), alone.ask(path, "HEAD")
        assert headed.body == b""
        assert headed.headers == got.headers
        assert int(got.headers["content-length"]) == len(got.body) > 0


def test_every_answer_is_kept_from_being_taken_for_something_else(alone: AdminClient) -> None:
    for path in ("/", "/healthz", "/metrics", "/status", "/streams", "/nowhere"):
        headers = alone.ask(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "allow" in alone.ask("/", "PUT").headers


def test_an_end_in_the_middle_of_a_request_is_no_trouble(alone: AdminClient) -> None:
    assert alone.send(b"GET / HT", ends=True) == b""
    assert alone.send(b"", ends=True) == b""


def test_slow_clients_leave_room_for_others(alone: AdminClient) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(alone.connect()) for _ in range(140)]
        for sock in slow:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
        # More than are served at once: this one waits until the first of them are given up.
        assert alone.ask("/healthz").status == 200
        assert read_all(slow[0]) == b""


def test_a_client_that_reads_nothing_is_given_up(alone: AdminClient) -> None:
    with ExitStack() as stack:
        for _ in range(150):
            sock = stack.enter_context(alone.connect())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert alone.ask("/healthz").status == 200


def test_over_tcp_it_answers_this_machine_only_by_its_names(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "parent.yaml"
    config.write_text(
        f"listen: unix://{tmp_path}/link.sock\nadmin: {{listen: 'tcp://127.0.0.1:{port}'}}\n"
        "log: {format: json}\n"
    )
    side = Side("parent", config)
    try:
        side.wait_for_event("ready")
        for host, status in ((f"127.0.0.1:{port}", 200), ("evil.example", 403)):
            with socket.create_connection(("127.0.0.1", port), 30) as sock:
                sock.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert parse(read_all(sock)).status == status
        assert run("status", "--admin", f"tcp://127.0.0.1:{port}").returncode in (0, 1)
        line = side.wait_for_event("services_share_user")
        assert line["uid"] == os.getuid()
    finally:
        side.kill()


def test_a_parent_that_stops_is_not_ready_until_it_is_gone(rig: AdminPair) -> None:
    rig.origin.handler = echo
    with rig.connect("shared") as sock:
        converse(sock)
        rig.parent.process.send_signal(signal.SIGTERM)
        rig.admin.wait_until(lambda: rig.admin.ask("/readyz").text == "the parent is stopping\n")
        assert rig.admin.ask("/readyz").status == 503
        converse(sock)
        rig.parent.process.send_signal(signal.SIGTERM)
        assert is_reset(sock)
    assert rig.parent.process.wait(20) == 0


def test_how_an_enclave_ended_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    pair = Pair(
        "unix",
        [],
        parent={"admin": {"listen": f"unix://{path}"}},
        enclave={"log": {"format": "json", "to_parent": True}},
    )
    try:
        pair.start_parent()
        enclave = Side("enclave", pair.enclave_config, ("sh", "-c", "echo '<b>so long'; exit 3"))
        try:
            assert enclave.process.wait(60) == 3
        finally:
            enclave.kill()
        admin = AdminClient(path)
        admin.wait_until(lambda: len(admin.status()["ends"]) == 1)
        (end,) = admin.status()["ends"]
        assert (end["cid"], end["status"], end["signal"]) == (Pair.CID, 3, None)
        assert end["last_lines"][-1] == "<b>so long"
        metrics = admin.metrics()
        assert metrics.of("enclave_exits_total", enclave="16", result="failure") == 1
        assert metrics.of("enclave_log_lines_total", result="written") >= 1
        assert "<b>so long" in run("status", "--admin", f"unix://{path}").stdout
    finally:
        pair.close()


def test_a_log_that_nobody_reads_stops_nothing_and_is_counted(rig: AdminPair) -> None:
    refusals = 4000
    host = ".".join(["x" * 60] * 4)[:240] + ".test"
    with unread(rig.parent), RawPeer.dial(rig.other_path) as peer:
        peer.greet()
        for number in range(refusals):
            peer.open(2 * number + 1, host, PORT)
        peer.wait_for(wire.REFUSED, 2 * refusals - 1)
        rig.admin.wait_until(lambda: rig.admin.status()["totals"]["refused"] == refusals)
        rig.admin.wait_until(lambda: rig.admin.status()["totals"]["log_lines_dropped"] > 0)
        assert rig.admin.ask("/readyz").status == 200
        rig.complete("shared", 1, (1000, 1000))
