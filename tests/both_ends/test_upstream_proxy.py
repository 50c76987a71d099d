"""Destinations behind a company's proxy: CONNECT, credentials, exceptions, refusals, names."""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cbor2
import pytest

from tests.support import session_frames as wire
from tests.support.connect_proxy import ESTABLISHED, ConnectProxy, refusal
from tests.support.full_backlog import full_backlog
from tests.support.hostile_peer import RawPeer
from tests.support.pair import Line, Pair, Side, echo, free_port, is_reset, serving

SECRET = "user:correct-horse"
NAMES = ("inside.test", "outside.test", "named.test", "dead.test")


def rule(address: str, port: int, **more: Any) -> dict[str, Any]:
    return {"address": address, "port": port, "private": True, "require_tls": False, **more}


def greeting(connection: socket.socket) -> None:
    """An origin that speaks first."""
    connection.sendall(b"hello ")
    echo(connection)


class Company:
    """A pair whose parent is behind a proxy; origins listen on one port.

    Args:
        directory: for the file with the credentials.
        upstream: further keys of `upstream_proxy`.
        parent: further keys of parent.yaml.
        rules: further rules.
    """

    def __init__(
        self,
        directory: Path,
        *,
        upstream: dict[str, Any] | None = None,
        parent: dict[str, Any] | None = None,
        rules: list[dict[str, Any]] | None = None,
    ) -> None:
        self._stack = contextlib.ExitStack()
        self.port = self._stack.enter_context(serving(greeting))
        self.proxy = ConnectProxy(SECRET, {"named.test": ("127.0.0.1", self.port)})
        self._stack.enter_context(self.proxy)
        self.credentials = directory / "credentials"
        self.credentials.write_text(SECRET)
        self.credentials.chmod(0o600)
        settings = {
            "address": f"proxy.test:{self.proxy.port}",
            "credentials": str(self.credentials),
            **(upstream or {}),
        }
        hosts = {
            "inside.test": ["127.0.0.1"],
            "outside.test": ["127.0.0.1"],
            "guarded.test": ["10.1.2.3"],
            "proxy.test": ["127.0.0.1"],
        }
        self.pair = Pair(
            "unix",
            [*(rule(name, self.port) for name in NAMES), *(rules or ())],
            parent={
                "upstream_proxy": settings,
                "resolver": {"hosts": hosts, "servers": [f"127.0.0.1:{free_port()}"], "timeout": 1},
                **(parent or {}),
            },
        )
        self._stack.push(self.pair)

    def __enter__(self) -> Self:
        self.pair.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def parent(self) -> Side:
        """The parent's side."""
        assert self.pair.parent is not None
        return self.pair.parent

    def converse(self, host: str) -> None:
        """Hear the origin through a tunnel."""
        with self.pair.connect(host, self.port) as sock:
            sock.sendall(b"and good bye")
            sock.shutdown(socket.SHUT_WR)
            assert sock.makefile("rb").read() == b"hello and good bye"

    def refused(self, host: str, port: int | None = None) -> str:
        """What the program is told: the status and the line of text."""
        asked = f"{host}:{self.port if port is None else port}"
        sock, head = self.pair.ask(f"CONNECT {asked} HTTP/1.1\r\nHost: {asked}\r\n\r\n")
        with sock:
            return f"{head.split()[1].decode()} {sock.makefile('rb').read().decode()}"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    directory = tmp_path_factory.mktemp("company")
    with Company(directory, upstream={"except": ["inside.test"]}) as running:
        yield running
        for side in (running.parent, running.pair.enclave):
            assert side is not None
            assert not any("correct-horse" in line for line in side.raw)
            assert not any("dXNlcj" in line for line in side.raw)


def test_a_destination_is_reached_through_the_proxy_by_its_checked_address(
    company: Company,
) -> None:
    after = len(company.parent.lines)
    company.converse("outside.test")
    assert company.proxy.asked[-1].line == f"CONNECT 127.0.0.1:{company.port} HTTP/1.1"
    line = company.parent.wait_for_event("close", after=after, host="outside.test")
    assert line["address"] == "127.0.0.1"
    assert line["via"] == f"proxy.test:{company.proxy.port}"
    assert (line["ended"], line["bytes_in"]) == ("finished", len("hello and good bye"))


def test_what_is_excepted_is_dialled_directly(company: Company) -> None:
    before = len(company.proxy.asked)
    after = len(company.parent.lines)
    company.converse("inside.test")
    assert len(company.proxy.asked) == before
    line = company.parent.wait_for_event("close", after=after, host="inside.test")
    assert "via" not in line


def test_what_the_origin_says_first_is_the_streams_even_behind_the_head_of_the_answer(
    company: Company,
) -> None:
    company.proxy.established = ESTABLISHED + b"X"  # as if it came with the same packet
    try:
        with company.pair.connect("outside.test", company.port) as sock:
            assert sock.makefile("rb").read(7) == b"Xhello "
    finally:
        company.proxy.established = ESTABLISHED


def test_the_address_guard_comes_before_the_proxy(tmp_path: Path) -> None:
    with Company(tmp_path, rules=[rule("guarded.test", 443, private=False)]) as running:
        before = len(running.proxy.asked)
        assert "not_listed" in running.refused("unlisted.test")
        assert "lookup_failed" in running.refused("dead.test")
        assert "address_private" in running.refused("guarded.test", 443)
        assert len(running.proxy.asked) == before


ANSWERS: dict[str, tuple[bytes, str, str]] = {
    "a destination that the proxy forbids": (
        refusal(403, body=b"secret"),
        "502 dial_refused: ",
        "answered 403: it forbids this destination",
    ),
    "a destination that does not answer the proxy": (
        refusal(504),
        "504 dial_timeout: ",
        "answered 504: it could not connect to it in time",
    ),
    "a proxy that closes": (b"", "502 dial_refused: ", "closed before it had answered"),
    "a proxy that speaks no HTTP": (
        b"secret?\r\n\r\n",
        "502 dial_refused: ",
        "sent a malformed response",
    ),
    "a head without an end": (
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000,
        "502 dial_refused: ",
        "sent a head of more than 16384 bytes",
    ),
}


@pytest.mark.parametrize(("answer", "told", "words"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_proxy_refuses_is_a_refusal_with_its_status(
    company: Company, answer: bytes, told: str, words: str
) -> None:
    company.proxy.answers[f"127.0.0.1:{company.port}"] = answer
    try:
        text = company.refused("outside.test")
    finally:
        company.proxy.answers.clear()
    assert text.startswith(told)
    assert f"the upstream proxy proxy.test:{company.proxy.port} {words}" in text
    assert "secret" not in text


def test_wrong_credentials_say_which_key_to_look_at(company: Company) -> None:
    company.proxy.credentials = "somebody:else"
    try:
        text = company.refused("outside.test")
    finally:
        company.proxy.credentials = SECRET
    assert text.startswith("502 dial_refused: ")
    assert "answered 407" in text
    assert "upstream_proxy.credentials" in text


def test_addresses_that_are_excepted_are_dialled_directly(tmp_path: Path) -> None:
    with Company(tmp_path, upstream={"except": ["127.0.0.0/8"]}) as running:
        running.converse("outside.test")
        assert running.proxy.asked == []


def test_the_next_address_is_tried_when_the_proxy_cannot_reach_one(tmp_path: Path) -> None:
    port = free_port()
    hosts = {"hosts": {"two.test": ["127.0.0.3", "127.0.0.2"], "proxy.test": ["127.0.0.1"]}}
    two = rule("two.test", port)
    with Company(tmp_path, parent={"resolver": hosts}, rules=[two]) as running:
        with socket.create_server(("127.0.0.2", port)):
            running.pair.connect("two.test", port).close()
        asked = [each.authority for each in running.proxy.asked]
        assert asked == [f"127.0.0.3:{port}", f"127.0.0.2:{port}"]


def test_names_go_to_a_proxy_that_resolves_and_the_log_says_what_is_not_guarded(
    tmp_path: Path,
) -> None:
    literal = rule("10.9.9.9", 443, private=False)
    with Company(tmp_path, upstream={"resolve": "upstream"}, rules=[literal]) as running:
        line = running.parent.wait_for_event("upstream_proxy")
        assert "address guard and denied ranges see literals only" in line["text"]
        running.converse("named.test")  # which nobody else could resolve
        assert running.proxy.asked[-1].authority == f"named.test:{running.port}"
        line = running.parent.wait_for_event("close", host="named.test")
        assert "address" not in line
        assert line["via"] == f"proxy.test:{running.proxy.port}"
        assert "address_private" in running.refused("10.9.9.9", 443)
        # A program that asks for its address is not told that there is no such name.
        with RawPeer.dial(f"{running.pair.path}/link.sock") as peer:
            peer.greet()
            question = cbor2.dumps({1: "named.test", 2: 1}, canonical=True)
            peer.send(peer.frame(wire.RESOLVE, 1, question))
            answered = cbor2.loads(peer.wait_for(wire.RESOLVED, 1).payload)
        assert 1 not in answered  # no reason


def test_a_silent_proxy_is_a_timeout(tmp_path: Path) -> None:
    with (
        full_backlog() as port,
        Company(
            tmp_path,
            upstream={"address": f"127.0.0.1:{port}"},
            parent={"limits": {"connect": 0.3}, "resolver": {"hosts": {"a.test": ["127.0.0.1"]}}},
            rules=[rule("a.test", 443)],
        ) as running,
    ):
        text = running.refused("a.test", 443)
        assert text.startswith("504 dial_timeout: ")
        assert f"the upstream proxy 127.0.0.1:{port}" in text


def test_a_parent_does_not_start_with_credentials_that_it_may_not_use(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(SECRET)
    credentials.chmod(0o644)
    config = tmp_path / "parent.yaml"
    settings = {"address": "127.0.0.1:3128", "credentials": str(credentials)}
    content = {"listen": f"unix://{tmp_path}/link.sock", "upstream_proxy": settings}
    config.write_text(json.dumps(content, indent=1))
    side = Side("parent", config)
    try:
        assert side.process.wait(60) == 2
    finally:
        side.kill()
    (text,) = side.raw
    assert f"{config}:5: upstream_proxy.credentials: {credentials}: has mode 0644" in text


def reload(side: Side) -> Line:
    """Have the parent read its file again; the line that says what came of it."""
    after = len(side.lines)
    side.process.send_signal(signal.SIGHUP)
    return side.wait_for(lambda line: line["event"].startswith("reload"), after=after)


def test_a_reload_reads_the_credentials_again_and_keeps_what_works(tmp_path: Path) -> None:
    with Company(tmp_path) as running:
        running.credentials.write_text("user:other")
        running.proxy.credentials = "user:other"
        assert "answered 407" in running.refused("outside.test")
        assert reload(running.parent)["event"] == "reloaded"
        running.converse("outside.test")
        running.credentials.chmod(0o644)
        line = reload(running.parent)
        assert line["event"] == "reload_failed"
        assert "has mode 0644" in json.dumps(line)
        running.converse("outside.test")


def test_a_reload_ends_what_a_resolving_proxy_reached_and_is_not_listed_any_more(
    tmp_path: Path,
) -> None:
    with (
        Company(tmp_path, upstream={"resolve": "upstream"}) as running,
        running.pair.connect("named.test", running.port) as sock,
    ):
        assert sock.makefile("rb").read(6) == b"hello "
        text = running.pair.parent_config.read_text()
        running.pair.parent_config.write_text(text.replace('"named.test"', '"gone.test"'))
        assert reload(running.parent)["ended_streams"] == 1
        assert is_reset(sock)


def test_dialled_sockets_come_from_the_source_address(tmp_path: Path) -> None:
    seen: list[str] = []

    def serve(connection: socket.socket) -> None:
        seen.append(connection.getpeername()[0])
        echo(connection)

    with serving(serve) as port:
        more = [rule("direct.test", port), rule("six.test", port)]
        hosts = {
            "direct.test": ["127.0.0.1"],
            "six.test": ["::1"],
            "proxy.test": ["127.0.0.1"],
            "outside.test": ["127.0.0.1"],
        }
        with Company(
            tmp_path,
            upstream={"except": ["direct.test", "six.test"]},
            parent={"source_address": "127.0.0.7", "resolver": {"hosts": hosts}},
            rules=more,
        ) as running:
            with running.pair.connect("direct.test", port) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
            assert seen == ["127.0.0.7"]
            running.converse("outside.test")
            assert running.proxy.sources == ["127.0.0.7"]
            text = running.refused("six.test", port)
            assert text.startswith("502 dial_refused: ")
            assert "not dialled: source_address has no IPv6 address" in text
