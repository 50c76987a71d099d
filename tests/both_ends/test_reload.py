"""The parent's file read again on SIGHUP: what opens, what ends, what stays, and mistakes."""

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.dns_server import Addresses, DnsServer, Held
from tests.support.exchange_pair import converse
from tests.support.observation import count, descriptors, wait_for_descriptors, wait_until
from tests.support.pair import Line, Pair, Side, echo, free_port, is_reset, serving
from tests.support.traffic import start

HOST = "origin.test"
OTHER = "other.test"
PORT = 443


class ReloadPair(Pair):
    """A pair whose parent reads its file again."""

    def content(self) -> dict[str, Any]:
        """What the parent's file says now."""
        content: dict[str, Any] = json.loads(self.parent_config.read_text())
        return content

    def reload(self, changes: Mapping[str, Any]) -> Line:
        """Change the parent's file, have it read, and wait for what becomes of it."""
        return self.reload_text(json.dumps({**self.content(), **changes}, indent=1))

    def reload_text(self, text: str) -> Line:
        """As `reload`, with the whole file."""
        assert self.parent is not None
        self.parent_config.write_text(text)
        return reload(self.parent)


def reload(side: Side) -> Line:
    """Have the parent read its file again, and wait for what becomes of it."""
    seen = len(side.lines)
    side.process.send_signal(signal.SIGHUP)
    return side.wait_for(lambda line: line["event"] in ("reloaded", "reload_failed"), after=seen)


def rule(host: str, port: int) -> dict[str, Any]:
    return {"address": host, "port": PORT, "private": True, "dial": f"127.0.0.1:{port}"}


@contextmanager
def pair_with_origin(parent: Mapping[str, Any] | None = None) -> Iterator[tuple[ReloadPair, int]]:
    """A pair that reaches `HOST`, and may ask for `OTHER` as far as the enclave is concerned."""
    rules = [
        {"address": host, "port": PORT, "private": True, "require_tls": False}
        for host in (HOST, OTHER)
    ]
    with (
        serving(echo) as port,
        ReloadPair("unix", rules, parent_rules=[rule(HOST, port)], parent=parent) as pair,
    ):
        yield pair, port


def is_allowed(pair: Pair, host: str) -> bool:
    """Whether a new stream to a host is opened."""
    sock, head = pair.ask(f"CONNECT {host}:{PORT} HTTP/1.1\r\nHost: {host}:{PORT}\r\n\r\n")
    with sock:
        if b" 200 " in head:
            converse(sock)
            return True
        assert b" 403 " in head
        return False


def test_new_streams_meet_the_new_lists_and_links_stay() -> None:
    with pair_with_origin() as (pair, port):
        assert pair.parent is not None
        assert pair.enclave is not None
        workers = pair.parent.workers
        assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (True, False)
        line = pair.reload({"allowlist": [rule(HOST, port), rule(OTHER, port)]})
        assert (line["event"], line["allowlist"]) == ("reloaded", 2)
        assert (line["ended_streams"], line["replaced_workers"]) == (0, 0)
        assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (True, True)
        pair.reload({"allowlist": [rule(OTHER, port)]})
        assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (False, True)
        assert pair.parent.workers == workers
        assert not pair.enclave.events("link_down")


@pytest.mark.parametrize("forbidden", ["end", "keep"])
def test_open_streams_that_the_new_lists_forbid(forbidden: str) -> None:
    with pair_with_origin({"forbidden_streams": forbidden}) as (pair, port):
        assert pair.parent is not None
        pair.reload({"allowlist": [rule(HOST, port), rule(OTHER, port)]})
        with pair.connect(HOST, PORT) as one, pair.connect(OTHER, PORT) as other:
            converse(one)
            converse(other)
            line = pair.reload({"allowlist": [rule(OTHER, port)]})
            converse(other)
            if forbidden == "keep":
                assert line["ended_streams"] == 0
                converse(one)
            else:
                assert line["ended_streams"] == 1
                assert is_reset(one)
                close = pair.parent.wait_for_event("close", ended="policy")
                assert close["host"] == HOST
        assert is_allowed(pair, HOST) is False


def test_a_stream_to_a_denied_address_is_ended() -> None:
    with pair_with_origin() as (pair, _), pair.connect(HOST, PORT) as sock:
        converse(sock)
        line = pair.reload({"denylist": [{"address": "127.0.0.0/8"}]})
        assert line["ended_streams"] == 1
        assert is_reset(sock)


MISTAKES = {
    "a syntax error": ('{"listen": [', "listen: no value"),
    "an unknown key": ('{"listen": "unix:///x.sock", "allowlst": []}', "allowlst: unknown key"),
    "another kind of file": ('{"parent": "vsock://3:5000"}', "this is an enclave's file"),
    "nothing": ("", "the file is empty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_changes_nothing_and_the_log_says_why(mistake: str) -> None:
    text, why = MISTAKES[mistake]
    with pair_with_origin() as (pair, _), pair.connect(HOST, PORT) as sock:
        assert pair.parent is not None
        before = descriptors(pair.parent.process.pid)
        line = pair.reload_text(text)
        assert line["event"] == "reload_failed"
        assert f"the former file holds: {pair.parent_config}:" in line["text"]
        fault = pair.parent.wait_for_event("config_error")
        assert why in fault["text"]
        converse(sock)
        assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (True, False)
        wait_for_descriptors(pair.parent.process.pid, before)


def test_a_file_that_is_gone_changes_nothing() -> None:
    with pair_with_origin() as (pair, _):
        assert pair.parent is not None
        pair.parent_config.unlink()
        line = reload(pair.parent)
        assert "cannot be read: no such file or directory" in line["text"]
        assert is_allowed(pair, HOST)


def test_listeners_come_and_go_and_stay() -> None:
    with pair_with_origin() as (pair, _):
        assert pair.parent is not None
        link = pair.content()["listen"]
        second, third = (f"unix://{pair.path}/{name}.sock?cid=20" for name in ("second", "third"))
        forward = {"listen": second, "to": f"{HOST}:{PORT}"}
        stays = (pair.path / "link.sock").stat().st_ino
        line = pair.reload({"forwards": [forward]})
        assert (line["listeners_opened"], line["listeners_closed"]) == (1, 0)
        with connect(pair.path / "second.sock") as sock:
            converse(sock)
            # It moves to another place in the file, and what is open stays.
            line = pair.reload({"forwards": [{"listen": third, "to": f"{OTHER}:{PORT}"}, forward]})
            assert (line["listeners_opened"], line["listeners_closed"]) == (1, 0)
            converse(sock)
            with connect(pair.path / "second.sock") as again:
                converse(again)
            with connect(pair.path / "third.sock") as refused:
                assert refused.recv(1) == b""
            line = pair.reload({"forwards": [], "listen": link})
            assert (line["listeners_opened"], line["listeners_closed"]) == (0, 2)
            converse(sock)
        assert not (pair.path / "second.sock").exists()
        assert (pair.path / "link.sock").stat().st_ino == stays


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(str(path))
    return sock


def test_a_listener_that_cannot_be_bound_changes_nothing() -> None:
    with pair_with_origin() as (pair, port):
        taken = socket.socket(socket.AF_UNIX)
        taken.bind(str(pair.path / "taken.sock"))
        taken.listen()
        with taken:
            line = pair.reload(
                {
                    "allowlist": [rule(OTHER, port)],
                    "forwards": [
                        {"listen": f"unix://{pair.path}/{name}.sock", "to": f"{OTHER}:{PORT}"}
                        for name in ("new", "taken")
                    ],
                }
            )
        assert line["event"] == "reload_failed"
        assert "taken.sock: it is in use" in line["text"]
        assert not (pair.path / "new.sock").exists()
        assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (True, False)


def test_the_mode_of_a_socket_changes_in_place() -> None:
    with pair_with_origin() as (pair, _):
        path = pair.path / "link.sock"
        before = path.stat()
        pair.reload({"listen": f"unix://{path}?cid={Pair.CID}&mode=0660"})
        after = path.stat()
        assert (after.st_mode & 0o777, after.st_ino) == (0o660, before.st_ino)


def test_what_only_a_restart_changes_is_said() -> None:
    with pair_with_origin() as (pair, _):
        line = pair.reload({"workers": 2, "log": {"format": "json", "level": "warning"}})
        assert line["text"] == "only a restart changes workers"
        assert pair.parent is not None
        assert len(pair.parent.workers) == 1
        assert is_allowed(pair, OTHER) is False
        pair.parent.wait_for_event("decision", host=OTHER)
        assert count(pair.parent, "decision", host=HOST) == 0


def test_policies_by_cid_and_names_of_enclaves() -> None:
    with pair_with_origin() as (pair, port):
        entry = {"cid": Pair.CID, "name": "ledger", "allowlist": [rule(OTHER, port)]}
        pair.reload({"enclaves": [entry]})
        assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (False, True)
        assert pair.parent is not None
        assert pair.parent.wait_for_event("decision", host=OTHER)["enclave"] == "ledger"
        pair.reload({"enclaves": []})
        assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (True, False)


def test_a_low_cid_that_loses_its_entry_loses_its_links() -> None:
    with serving(echo) as port:
        rules = [{"address": HOST, "port": PORT, "private": True, "require_tls": False}]
        pair = ReloadPair("unix", rules, parent={"enclaves": [{"cid": 3, **listed(port)}]})
        text = pair.parent_config.read_text().replace(f"cid={Pair.CID}", "cid=3")
        pair.parent_config.write_text(text)
        with pair:
            assert pair.parent is not None
            assert pair.enclave is not None
            enclave = pair.enclave
            with pair.connect(HOST, PORT) as sock:
                converse(sock)
                assert pair.reload({"enclaves": []})["ended_streams"] == 1
                assert is_reset(sock)
            wait_until(enclave, lambda: count(enclave, "link_down") >= 4)
            pair.parent.wait_for_event("connection_refused", cid=3)


def listed(port: int) -> dict[str, Any]:
    return {"allowlist": [rule(HOST, port)]}


def test_time_limits_and_the_limit_of_streams_hold_at_once() -> None:
    with pair_with_origin() as (pair, _), pair.connect(HOST, PORT) as sock:
        converse(sock)
        pair.reload({"limits": {"idle": 0.2, "streams": 1, "receive_budget": "32MiB"}})
        assert is_reset(sock)
        assert pair.parent is not None
        pair.parent.wait_for_event("close", ended="timed_out")


def test_the_resolver_is_changed() -> None:
    with serving(echo) as port:
        rules = [{"address": HOST, "port": port, "private": True, "require_tls": False}]
        hosts = {"resolver": {"servers": ["127.0.0.1:1"], "timeout": 0.2}}
        with ReloadPair("unix", rules, parent=hosts) as pair:
            sock, head = pair.ask(f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n")
            with sock:
                assert b" 502 " in head
            pair.reload({"resolver": {"hosts": {HOST: ["127.0.0.1"]}}})
            with pair.connect(HOST, port) as sock:
                converse(sock)


def test_connections_of_raw_ports_and_dedicated_streams_are_ended_too() -> None:
    rules = [{"address": HOST, "port": PORT, "private": True, "require_tls": False}]
    local = free_port()
    forwards = [
        {"listen": f"tcp://127.0.0.1:{local}", "to": f"{HOST}:{PORT}", "carrier": "dedicated"}
    ]
    with serving(echo) as port:
        pair = ReloadPair(
            "unix",
            rules,
            parent_rules=[rule(HOST, port)],
            parent={"forwards": [{"listen": "unix:///PATH", "to": f"{HOST}:{PORT}"}]},
            enclave={"forwards": forwards},
        )
        raw = pair.path / "raw.sock"
        text = pair.parent_config.read_text().replace("/PATH", str(raw))
        pair.parent_config.write_text(text)
        with (
            pair,
            socket.create_connection(("127.0.0.1", local), 30) as dedicated,
            connect(raw) as plain,
        ):
            assert pair.parent is not None
            converse(dedicated)
            converse(plain)
            assert pair.reload({"allowlist": []})["ended_streams"] == 2
            assert is_reset(dedicated)
            assert plain.recv(1) == b""
            parent = pair.parent
            wait_until(parent, lambda: count(parent, "close", ended="policy") == 2)


def test_streams_that_are_on_their_way_meet_the_new_lists() -> None:
    with DnsServer() as dns, serving(echo) as port:
        dns.set(HOST, Held(Addresses("127.0.0.1")))
        rules = [{"address": HOST, "port": port, "private": True, "require_tls": False}]
        parent = {
            "resolver": {"servers": [dns.address], "timeout": 30},
            "forwards": [{"listen": "unix:///PATH?cid=20", "to": f"{HOST}:{port}"}],
        }
        pair = ReloadPair("unix", rules, parent=parent)
        raw = pair.path / "raw.sock"
        pair.parent_config.write_text(pair.parent_config.read_text().replace("/PATH", str(raw)))
        with pair, connect(raw) as plain:
            assert pair.parent is not None
            request = f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n"
            asking = start(partial(pair.ask, request))
            dns.wait_for_questions(2)  # one for each CID
            assert pair.reload({"allowlist": []})["ended_streams"] == 0
            dns.release(HOST)
            sock, head = asking.result(60)
            with sock:
                assert b" 403 " in head
                assert b"error=not_listed" in head
            assert plain.recv(1) == b""
            for cid in (Pair.CID, 20):
                pair.parent.wait_for_event("decision", cid=cid, reason="not_listed", allowed=False)
            assert not pair.parent.events("close")


RELOADS = 100
BROKEN = 3
"""Every so many-th file is broken."""


@pytest.mark.alone
def test_a_hundred_reloads_under_load_refuse_nobody_and_leave_nothing_behind() -> None:
    is_over = threading.Event()

    def go_on(pair: Pair) -> Counter[str]:
        seen: Counter[str] = Counter()
        while not is_over.is_set():
            try:
                with pair.connect(HOST, PORT) as sock:
                    for _ in range(10):
                        converse(sock)
                seen["served"] += 1
            except (OSError, AssertionError) as error:
                seen[repr(error)] += 1
        return seen

    with pair_with_origin() as (pair, port):
        assert pair.parent is not None
        processes = pair.parent.processes
        lists = {
            False: {"allowlist": [rule(HOST, port)], "forwards": []},
            True: {
                "allowlist": [rule(HOST, port), rule(OTHER, port)],
                "forwards": [
                    {"listen": f"unix://{pair.path}/forward.sock", "to": f"{HOST}:{PORT}"}
                ],
            },
        }
        # What a first reload needs (a pool of threads) stays.
        assert pair.reload(lists[False])["event"] == "reloaded"
        before = {pid: descriptors(pid) for pid in processes}
        running = [start(partial(go_on, pair)) for _ in range(4)]
        is_open = False
        with pair.connect(HOST, PORT) as lasting:
            for number in range(1, RELOADS + 1):
                if number % BROKEN:
                    is_open = not is_open
                    assert pair.reload(lists[is_open])["event"] == "reloaded"
                else:
                    good = pair.parent_config.read_text()
                    wrong = {**pair.content(), **lists[not is_open], "allowlst": []}
                    assert pair.reload_text(json.dumps(wrong))["event"] == "reload_failed"
                    pair.parent_config.write_text(good)
                assert (is_allowed(pair, HOST), is_allowed(pair, OTHER)) == (True, is_open)
                converse(lasting)
        is_over.set()
        seen = sum((future.result(60) for future in running), Counter[str]())
        assert seen.keys() == {"served"}
        assert pair.reload(lists[False])["event"] == "reloaded"
        for side in (pair.parent, pair.enclave):
            assert side is not None
            wait_until(side, partial(is_closed, side))
        assert pair.parent.processes == processes
        assert {pid: descriptors(pid) for pid in processes} == before


def is_closed(side: Side) -> bool:
    """Whether every stream that was opened has its close line."""
    return count(side, "decision", allowed=True) == count(side, "close")
