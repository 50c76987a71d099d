"""Rates and connection limits, by enclave and by rule; and the line of what was given up."""

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import cbor2
import pytest

from tests.support import session_frames as wire
from tests.support.full_backlog import full_backlog
from tests.support.hostile_peer import RawPeer
from tests.support.pair import Pair, Side, echo, serving

SLOW = 0.001
"""A second of it is over before the next token comes: what a test takes does not come back."""

CIDS = {"first": 16, "second": 17, "own": 18}


class Parent:
    """A parent, and a link of each enclave to it."""

    def __init__(self, directory: Path, **content: Any) -> None:
        self._directory = directory
        listen = [f"unix://{directory}/{name}.sock?cid={cid}" for name, cid in CIDS.items()]
        self._content = {"listen": listen, "log": {"format": "json"}, **content}
        self.side = Side("parent", self._write())
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.side.wait_for_event("ready")
        return self

    def _write(self) -> Path:
        config = self._directory / "parent.yaml"
        config.write_text(json.dumps(self._content))
        return config

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.side.kill()

    def reload(self, **changes: Any) -> None:
        """Change keys of the file, and have it read again."""
        self._content.update(changes)
        self._write()
        after = len(self.side.lines)
        self.side.process.send_signal(signal.SIGHUP)
        self.side.wait_for_event("reloaded", after=after)

    def link(self, name: str = "first") -> RawPeer:
        """A new link of an enclave."""
        peer = self._stack.enter_context(RawPeer.dial(f"{self._directory}/{name}.sock"))
        return peer.greet()


def answer(peer: RawPeer, stream: int, host: str, port: int) -> str:
    """Open a stream; empty if it was opened, else the reason and the text of the refusal."""
    peer.open(stream, host, port)
    for frame in peer.frames():
        if frame.stream == stream and frame.type == wire.OPENED:
            return ""
        if frame.stream == stream and frame.type == wire.REFUSED:
            refusal = cbor2.loads(frame.payload)
            return f"{refusal[1]}: {refusal[2]}"
    raise AssertionError("the link ended before the answer")


def ask(peer: RawPeer, request: int, name: str) -> str:
    """Ask for a name; the reason of the answer, empty if there is none."""
    peer.send(peer.frame(wire.RESOLVE, request, cbor2.dumps({1: name, 2: 1}, canonical=True)))
    answered = cbor2.loads(peer.wait_for(wire.RESOLVED, request).payload)
    return str(answered.get(1, ""))


@pytest.fixture
def origin() -> Iterator[int]:
    with serving(echo) as port:
        yield port


def rules(port: int, **limits: float) -> list[dict[str, Any]]:
    return [
        {"address": "limited.test", "port": port, "private": True, **limits},
        {"address": "free.test", "port": port, "private": True},
    ]


STREAMS = range(1, 41, 2)
HOSTS = {"hosts": {"limited.test": ["127.0.0.1"], "free.test": ["127.0.0.1"]}}


def test_new_streams_over_the_rate_are_refused_to_that_enclave_alone(
    tmp_path: Path, origin: int
) -> None:
    with Parent(
        tmp_path,
        allowlist=rules(origin),
        limits={"rate": {"streams": SLOW, "burst": 2}},
        enclaves=[
            {
                "cid": CIDS["own"],
                "allowlist": rules(origin),
                "limits": {"rate": {"streams": SLOW, "burst": 3}},
            }
        ],
        resolver=HOSTS,
    ) as parent:
        text = f"limit: more than {SLOW:g} streams a second (limits.rate)"
        first = parent.link()
        assert answer(first, 1, "free.test", origin) == ""
        # What is not listed counts as well: it costs a line of the log.
        assert answer(first, 3, "unlisted.test", origin).startswith("not_listed: ")
        assert answer(first, 5, "free.test", origin) == text
        # Another link of that enclave has nothing more, even after all of its links are gone.
        first.sock.close()
        parent.side.wait_for_event("link_down", cid=CIDS["first"])
        assert answer(parent.link(), 1, "free.test", origin) == text
        assert answer(parent.link("second"), 1, "free.test", origin) == ""
        own = parent.link("own")
        assert [answer(own, stream, "free.test", origin) for stream in (1, 3, 5)] == [""] * 3
        assert answer(own, 7, "free.test", origin) == text
        line = parent.side.wait_for_event("decision", cid=CIDS["own"], reason="limit")
        assert (line["allowed"], line["text"]) == (False, text.removeprefix("limit: "))


def test_questions_for_names_have_a_rate_of_their_own(tmp_path: Path, origin: int) -> None:
    with Parent(
        tmp_path,
        allowlist=rules(origin),
        limits={"rate": {"streams": 1000, "lookups": SLOW, "burst": 2}},
        resolver=HOSTS,
    ) as parent:
        peer = parent.link()
        assert ask(peer, 1, "free.test") == ""
        assert ask(peer, 2, "unlisted.test") == "not_listed"
        assert ask(peer, 3, "free.test") == "limit"
        assert answer(peer, 1, "free.test", origin) == ""
        line = parent.side.wait_for_event("resolve", reason="limit")
        assert line["text"] == f"more than {SLOW:g} lookups a second (limits.rate)"


def test_connections_to_what_a_rule_matches_are_limited_for_each_enclave(
    tmp_path: Path, origin: int
) -> None:
    with Parent(tmp_path, allowlist=rules(origin, connections=2), resolver=HOSTS) as parent:
        first, again, second = parent.link(), parent.link(), parent.link("second")
        assert answer(first, 1, "limited.test", origin) == ""
        assert answer(again, 1, "limited.test", origin) == ""
        refused = answer(first, 3, "limited.test", origin)
        assert refused == (
            "limit: 2 connections are open under the rule at parent.yaml:1 (connections)"
        )
        assert answer(first, 5, "free.test", origin) == ""
        assert answer(second, 1, "limited.test", origin) == ""
        first.send(first.frame(wire.RESET, 1, wire.reset(0, 0)))
        parent.side.wait_for_event("close", host="limited.test", stream=1, cid=CIDS["first"])
        assert answer(first, 7, "limited.test", origin) == ""
        assert answer(first, 9, "limited.test", origin).startswith("limit: ")
        # What a link took with it is given back, too.
        again.sock.close()
        parent.side.wait_for_event("close", host="limited.test", ended="link_lost")
        assert answer(first, 11, "limited.test", origin) == ""


def test_a_rule_with_a_rate_is_slow_and_others_are_not(tmp_path: Path, origin: int) -> None:
    with Parent(tmp_path, allowlist=rules(origin, rate=SLOW), resolver=HOSTS) as parent:
        peer = parent.link()
        assert answer(peer, 1, "limited.test", origin) == ""
        text = answer(peer, 3, "limited.test", origin)
        assert text == f"limit: more than {SLOW:g} a second under the rule at parent.yaml:1 (rate)"
        assert answer(peer, 5, "free.test", origin) == ""


def test_raw_ports_count_with_the_streams_of_their_enclave(tmp_path: Path, origin: int) -> None:
    raw = tmp_path / "raw.sock"
    with Parent(
        tmp_path,
        allowlist=rules(origin, connections=1),
        forwards=[
            {"listen": f"unix://{raw}?cid={CIDS['first']}", "to": f"limited.test:{origin}"},
        ],
        resolver=HOSTS,
    ) as parent:
        peer = parent.link()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(raw))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            assert answer(peer, 1, "limited.test", origin).startswith("limit: 1 connection is ")
        parent.side.wait_for_event("close", way="forward")
        assert answer(peer, 3, "limited.test", origin) == ""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(raw))
            assert sock.recv(1) == b""
        parent.side.wait_for_event("decision", way="forward", reason="limit")


def test_the_enclaves_own_rules_limit_its_programs(origin: int) -> None:
    rule = {"address": "127.0.0.1", "port": origin, "private": True, "require_tls": False}
    with Pair(
        "unix",
        [{**rule, "connections": 1}],
        parent_rules=[rule],
        enclave={"limits": {"rate": {"streams": SLOW, "burst": 3}}},
    ) as pair:
        assert pair.enclave is not None
        request = f"CONNECT 127.0.0.1:{origin} HTTP/1.1\r\nHost: 127.0.0.1:{origin}\r\n\r\n"
        with pair.connect("127.0.0.1", origin):
            sock, head = pair.ask(request)
            with sock:
                assert head.startswith(b"HTTP/1.1 503 ")
                assert b"(connections)" in sock.makefile("rb").read()
        pair.enclave.wait_for_event("close")
        with pair.connect("127.0.0.1", origin):
            pass
        sock, head = pair.ask(request)
        with sock:
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"(limits.rate)" in sock.makefile("rb").read()
        assert pair.enclave.wait_for_event("decision", reason="limit")["side"] == "enclave"


@pytest.mark.parametrize("ended", ["remote_reset", "link_lost"])
def test_a_stream_that_is_given_up_during_its_dial_has_its_lines(
    tmp_path: Path, ended: str
) -> None:
    with (
        full_backlog() as port,
        Parent(tmp_path, allowlist=rules(port, connections=1), resolver=HOSTS) as parent,
    ):
        peer = parent.link()
        peer.open(1, "limited.test", port)
        peer.open(3, "limited.test", port)
        peer.wait_for(wire.REFUSED, 3)  # so that the first is on its way
        if ended == "remote_reset":
            peer.send(peer.frame(wire.RESET, 1, wire.reset(0, 0)))
        else:
            peer.sock.shutdown(socket.SHUT_RDWR)
        line = parent.side.wait_for_event("decision", stream=1)
        assert (line["allowed"], line["reason"]) == (True, "listed")
        assert line["text"] == "it ended before it was connected"
        assert line["rule"] == "parent.yaml:1"
        assert "address" not in line
        line = parent.side.wait_for_event("close", stream=1)
        assert (line["ended"], line["bytes_in"], line["bytes_out"]) == (ended, 0, 0)


def test_many_that_come_at_once_never_get_more_than_the_limit(tmp_path: Path, origin: int) -> None:
    with Parent(tmp_path, allowlist=rules(origin, connections=5), resolver=HOSTS) as parent:
        opened: list[bool] = []

        def open_some(peer: RawPeer) -> None:
            opened.extend(not answer(peer, number, "limited.test", origin) for number in STREAMS)

        threads = [threading.Thread(target=open_some, args=(parent.link(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (sum(opened), len(opened)) == (5, 4 * len(STREAMS))


def test_counts_outlive_a_reload_that_changes_the_limits(tmp_path: Path, origin: int) -> None:
    rate = {"streams": SLOW, "burst": 2}
    with Parent(
        tmp_path,
        allowlist=rules(origin, connections=2),
        limits={"rate": rate},
        resolver=HOSTS,
    ) as parent:
        peer = parent.link()
        assert [answer(peer, stream, "limited.test", origin) for stream in (1, 3)] == ["", ""]
        parent.reload(limits={"rate": {**rate, "burst": 3}})
        # There is a token more, and no connection less.
        assert "(connections)" in answer(peer, 5, "limited.test", origin)
        assert "(limits.rate)" in answer(peer, 7, "free.test", origin)
        parent.reload(limits={}, allowlist=rules(origin, connections=3))
        assert answer(peer, 9, "limited.test", origin) == ""
        assert "(connections)" in answer(peer, 11, "limited.test", origin)
