"""Whole connections: an enclave written by hand against a real parent's process."""

import queue
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import session_frames as wire
from tests.support.hostile_peer import RawPeer, make_hello
from tests.support.pair import Pair, serving
from tests.support.wire_rules import covers

SECONDS = 30.0
REPLY = b"the origin's answer"


@dataclass(slots=True)
class Parent:
    """A parent's process, and an origin that it may dial."""

    path: str
    port: int
    seen: "queue.Queue[bytes | str]"
    """What each connection of the origin brought, or `reset`."""


@pytest.fixture(scope="module")
def parent() -> Iterator[Parent]:
    seen: queue.Queue[bytes | str] = queue.Queue()

    def origin(connection: socket.socket) -> None:
        connection.sendall(REPLY)
        received = b""
        try:
            while data := connection.recv(65_536):
                received += data
        except ConnectionResetError:
            seen.put("reset")
        else:
            seen.put(received)

    with serving(origin) as port:
        pair = Pair("unix", [{"address": "127.0.0.1", "port": port, "private": True}])
        try:
            pair.start_parent()
            yield Parent(str(pair.path / "link.sock"), port, seen)
        finally:
            pair.close()


def open_dedicated(link: RawPeer, parent: Parent, stream: int = 1) -> bytes:
    """Open a dedicated stream to the origin; the token of the answer."""
    link.open(stream, "127.0.0.1", parent.port, dedicated=True)
    payload = link.wait_for(wire.OPENED, stream).payload
    token = payload[-16:]
    assert payload[-18:-16] == b"\x02\x50", "key 2, 16 bytes"
    return token


def present(parent: Parent, first_bytes: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(SECONDS)
    sock.connect(parent.path)
    sock.sendall(first_bytes)
    return sock


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(65_536):
        received += data
    return received


@covers("W-001", "W-083")
@pytest.mark.parametrize(
    "first_bytes",
    [
        pytest.param(b"vsockpd\n" + bytes(16), id="a token of nobody"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no magic"),
        pytest.param(b"vsockpx\n\0\0", id="an empty hello"),
    ],
)
def test_it_is_closed_without_a_byte(parent: Parent, first_bytes: bytes) -> None:
    with present(parent, first_bytes) as sock:
        assert read_all(sock) == b""


@covers("W-005", "W-008")
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"lowest_version": 2, "highest_version": 3}, id="no common version"),
        pytest.param({"refusal": "never mind"}, id="a refusal"),
    ],
)
def test_a_hello_that_comes_to_nothing_is_answered_and_closed(
    parent: Parent, fields: dict[str, Any]
) -> None:
    with RawPeer.dial(parent.path, make_hello(**fields)) as link:
        assert list(link.greet().frames()) == []
        assert link.remote is not None
        assert link.remote.lowest_version == 1


@covers("W-110", "W-113", "W-114")
@pytest.mark.parametrize(
    ("kind", "payload", "answers"),
    [
        pytest.param(wire.GOAWAY, wire.goaway(0), [0], id="GOAWAY 0 is answered"),
        pytest.param(wire.GOAWAY, wire.goaway(7), [], id="GOAWAY 7 is not"),
        pytest.param(99, b"", [1], id="an error is told"),
    ],
)
def test_the_last_word(parent: Parent, kind: int, payload: bytes, answers: list[int]) -> None:
    with RawPeer.dial(parent.path) as link:
        link.greet().send(link.frame(kind, 0, payload))
        frames = list(link.frames())
        words = [frame.payload for frame in frames if frame.type == wire.GOAWAY]
        assert [int.from_bytes(word[4:8]) for word in words] == answers
        assert not words or frames[-1].type == wire.GOAWAY


@covers("W-083")
def test_a_token_is_good_once(parent: Parent) -> None:
    with RawPeer.dial(parent.path) as link:
        token = open_dedicated(link.greet(), parent)
        with present(parent, b"vsockpd\n" + token) as first:
            assert first.recv(len(REPLY)) == REPLY
            with present(parent, b"vsockpd\n" + token) as second:
                assert read_all(second) == b""
            first.sendall(b"still here")
            first.shutdown(socket.SHUT_WR)
            link.send(link.frame(wire.END, 1, wire.total(10)))
            assert parent.seen.get(timeout=SECONDS) == b"still here"


@covers("W-084")
@pytest.mark.parametrize("is_first", [True, False], ids=["END first", "END last"])
@pytest.mark.parametrize(
    ("announced", "seen"),
    [(9, b"my payld!"), (8, "reset"), (10, "reset"), (0, "reset"), (2**64 - 1, "reset")],
)
def test_an_end_of_file_is_clean_at_the_announced_total(
    parent: Parent, announced: int, seen: bytes | str, is_first: bool
) -> None:
    with RawPeer.dial(parent.path) as link:
        token = open_dedicated(link.greet(), parent)
        end = link.frame(wire.END, 1, wire.total(announced))
        if is_first:
            link.send(end)
        with present(parent, b"vsockpd\n" + token + b"my payld!") as connection:
            assert connection.recv(len(REPLY)) == REPLY
            connection.shutdown(socket.SHUT_WR)
            if not is_first:
                link.send(end)
            assert parent.seen.get(timeout=SECONDS) == seen


@covers("W-084")
def test_the_parent_announces_what_it_sent(parent: Parent) -> None:
    with RawPeer.dial(parent.path) as link:
        token = open_dedicated(link.greet(), parent)
        with present(parent, b"vsockpd\n" + token) as connection:
            link.send(link.frame(wire.END, 1, wire.total(0)))
            connection.shutdown(socket.SHUT_WR)
            assert parent.seen.get(timeout=SECONDS) == b""
            assert link.wait_for(wire.END, 1).payload == wire.total(len(REPLY))
            assert read_all(connection) == REPLY


@covers("W-085")
@pytest.mark.parametrize("how", ["reset", "the session ends"])
def test_a_dedicated_stream_is_cut(parent: Parent, how: str) -> None:
    with RawPeer.dial(parent.path) as link:
        token = open_dedicated(link.greet(), parent)
        with present(parent, b"vsockpd\n" + token) as connection:
            assert connection.recv(len(REPLY)) == REPLY
            if how == "reset":
                link.send(link.frame(wire.RESET, 1, wire.reset(17, 0)))
            else:
                link.sock.close()
            assert parent.seen.get(timeout=SECONDS) == "reset"
            assert read_all(connection) == b""
