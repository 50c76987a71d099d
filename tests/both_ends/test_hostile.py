"""Whatever a hostile peer or program sends costs it its own session or connection, and no more."""

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support import session_frames as wire
from tests.support.cutter import PASSED_ON, ConnectionKind, Cutter, Treatment
from tests.support.exchange_pair import HOST, PORT, ExchangePair, converse
from tests.support.hostile_frames import BROKEN, OPENINGS, WINDOW_BYTES
from tests.support.hostile_peer import RawPeer
from tests.support.observation import count, holdings, plain_lines, wait_until
from tests.support.pair import Line, Side, echo, is_refused, is_reset, resident_bytes
from tests.support.traffic import MEBIBYTE

OTHER_CID = 17
GREETING_SECONDS = 1
CLOSED_UNGREETED = {"link_refused", "link_given_up"}
GROWTH_BYTES = 16 * MEBIBYTE


@pytest.fixture(scope="module")
def rig() -> Iterator[ExchangePair]:
    limits = {"limits": {"handshake": GREETING_SECONDS}}
    with ExchangePair("unix", parent=limits, enclave=limits, other_cid=OTHER_CID) as rig:
        rig.origin.handler = echo
        yield rig
        for side in (rig.parent, rig.enclave):
            assert plain_lines(side) == []


@contextmanager
def unharmed(rig: ExchangePair) -> Iterator[None]:
    """While the body runs, another enclave's stream stands; no worker dies."""
    workers = rig.parent.workers, rig.enclave.workers
    with rig.connect("shared") as sock:
        converse(sock, b"before")
        yield
        converse(sock, b"and after " * 10_000)
    assert (rig.parent.workers, rig.enclave.workers) == workers


def the_line(side: Side, events: set[str], after: int) -> Line:
    """The one line of these events about the other enclave, from index `after` on."""

    def is_it(line: Line) -> bool:
        return line["event"] in events and line["cid"] == OTHER_CID

    side.wait_for(is_it, after=after)
    (line,) = filter(is_it, side.lines[after:])
    return line


def lines_of(side: Side, event: str, after: int) -> list[Line]:
    """The lines of an event from index `after` on, once there is one."""
    side.wait_for_event(event, after=after)
    return [line for line in side.lines[after:] if line["event"] == event]


@pytest.mark.parametrize("name", OPENINGS)
def test_an_enclave_that_says_no_hello_is_closed_with_one_line(
    rig: ExchangePair, name: str
) -> None:
    data, text = OPENINGS[name]
    after = len(rig.parent.lines)
    with unharmed(rig), RawPeer.dial(rig.other_path) as peer:
        peer.send(data)
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.last_word() is None
        line = the_line(rig.parent, CLOSED_UNGREETED, after)
    assert text in line["text"]


def test_a_token_that_no_stream_expects_is_closed_with_one_line(rig: ExchangePair) -> None:
    after = len(rig.parent.lines)
    with unharmed(rig), RawPeer.dial(rig.other_path) as peer:
        peer.send(b"vsockpd\n" + bytes(16) + b"payload")
        assert peer.last_word() is None
        line = the_line(rig.parent, CLOSED_UNGREETED, after)
    assert "a token that no stream expects" in line["text"]


@pytest.mark.parametrize("name", BROKEN)
def test_an_enclave_that_breaks_its_session_loses_it_alone(rig: ExchangePair, name: str) -> None:
    after = len(rig.parent.lines)
    broken = BROKEN[name]
    with unharmed(rig), RawPeer.dial(rig.other_path) as peer:
        peer.greet()
        peer.send(broken.frames(peer))
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.last_word() == broken.code
        line = the_line(rig.parent, {"link_down"}, after)
    assert line["code"] == broken.logged_code
    assert line["text"].isprintable()


ODD_HOSTS = {
    "255 bytes of one label": "a" * 255,
    "85 letters of three bytes": "\N{HIRAGANA LETTER A}" * 85,
    "127 dots and letters": "a." * 127,
    "only dots": "." * 255,
    "combining marks": "a" + "\N{COMBINING ACUTE ACCENT}" * 127,
    "a path": "../" * 80,
    "an unfinished literal": "[::1%eth0",
    "right to left": "\N{HEBREW LETTER ALEF}1a." * 40,
}


@pytest.mark.parametrize("name", ODD_HOSTS)
def test_a_host_that_is_none_is_refused_and_the_session_goes_on(
    rig: ExchangePair, name: str
) -> None:
    with unharmed(rig), RawPeer.dial(rig.other_path) as peer:
        peer.greet().open(1, ODD_HOSTS[name], PORT)
        assert b"not_listed" in peer.wait_for(wire.REFUSED, 1).payload
        peer.open(3, HOST, PORT)
        peer.wait_for(wire.OPENED, 3)


@pytest.mark.alone
def test_hundreds_of_hostile_sessions_leave_nothing_behind(rig: ExchangePair) -> None:
    def all_of_them() -> None:
        for data, _ in OPENINGS.values():
            with RawPeer.dial(rig.other_path) as peer:
                peer.send(data)
                peer.sock.shutdown(socket.SHUT_WR)
                peer.last_word()
        for broken in BROKEN.values():
            with RawPeer.dial(rig.other_path) as peer:
                peer.greet()
                peer.send(broken.frames(peer))
                peer.sock.shutdown(socket.SHUT_WR)
                peer.last_word()

    with unharmed(rig):
        all_of_them()
    rig.wait_until_closed()
    before = holdings(rig.pair)
    for _ in range(6):
        all_of_them()
    with unharmed(rig):
        pass
    rig.wait_until_closed()
    for pid, held in holdings(rig.pair).items():
        assert held.descriptors <= before[pid].descriptors
        assert held.resident_bytes - before[pid].resident_bytes < GROWTH_BYTES


class HostileParent:
    """Serves the enclave's links but the first, one case after the other, once it is told to."""

    def __init__(self) -> None:
        self.begin = threading.Event()
        self.words: dict[str, int | None] = {}
        """What the enclave said last in each broken session."""
        self._openings = list(OPENINGS.items())
        self._broken = list(BROKEN.items())
        self._lock = threading.Lock()

    def treat(self, _: ConnectionKind, number: int) -> Treatment:
        return Treatment(handler=self.serve) if number else PASSED_ON

    def serve(self, sock: socket.socket) -> None:
        self.begin.wait(60)
        with self._lock:
            opening = self._openings.pop() if self._openings else None
            broken = self._broken.pop() if self._broken and opening is None else None
        if opening is not None:
            sock.sendall(opening[1][0])
            sock.shutdown(socket.SHUT_WR)
            RawPeer(sock).last_word()
        elif broken is not None:
            name, case = broken
            peer = RawPeer(sock, is_initiator=False).greet()
            peer.send(case.frames(peer))
            sock.shutdown(socket.SHUT_WR)
            self.words[name] = peer.last_word()


@pytest.mark.alone  # a hello that is late on a busy machine is one more kind of failure
def test_a_hostile_parent_costs_the_enclave_nothing_but_the_links_to_it() -> None:
    hostile = HostileParent()
    with Cutter(hostile.treat) as cutter:
        rig = ExchangePair("unix", enclave={"links": 16}, link_path=cutter.path, awaits_links=False)
        cutter.target = str(rig.pair.path / "link.sock")
        rig.origin.handler = echo
        with rig:
            workers = rig.enclave.workers
            with rig.connect("shared") as sock:
                converse(sock, b"over the first link")
                hostile.begin.set()
                wait_until(
                    rig.enclave,
                    lambda: count(rig.enclave, "link_down") == len(hostile.words) == len(BROKEN),
                )
                converse(sock, b"and still over it " * 10_000)
            assert rig.enclave.workers == workers
            assert plain_lines(rig.enclave) == []
            assert hostile.words == {name: case.code for name, case in BROKEN.items()}
            codes = Counter(line["code"] for line in rig.enclave.events("link_down"))
            assert codes == Counter(case.logged_code for case in BROKEN.values())
            texts = [line["text"] for line in rig.enclave.events("link_failed")]
            assert texts
            # Of each link's first failure; a peer that hangs up with bytes unread resets.
            expected = [*(known for _, known in OPENINGS.values()), "Connection reset by peer"]
            for text in texts:
                assert any(known in text for known in expected)


class ScriptedParent:
    """Greets properly, and answers each OPEN as the test says."""

    def __init__(self) -> None:
        self.answer: Callable[[RawPeer, int], bytes] = lambda peer, stream: b""

    def treat(self, kind: ConnectionKind, _: int) -> Treatment:
        return Treatment(handler=self.serve if kind == "link" else self.keep)

    def serve(self, sock: socket.socket) -> None:
        peer = RawPeer(sock, is_initiator=False).greet()
        for frame in peer.frames():
            if frame.type == wire.OPEN:
                peer.send(self.answer(peer, frame.stream))

    def keep(self, sock: socket.socket) -> None:
        sock.sendall(b"123")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65_536):
            pass


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[ScriptedParent, ExchangePair]]:
    parent = ScriptedParent()
    with Cutter(parent.treat) as cutter:
        rig = ExchangePair("unix", enclave={"links": 1}, link_path=cutter.path)
        try:
            rig.pair.start_enclave()
            yield parent, rig
            assert plain_lines(rig.enclave) == []
        finally:
            rig.pair.close()


def opened(peer: RawPeer, stream: int, payload: bytes = wire.OPENED_SHARED) -> bytes:
    return peer.frame(wire.OPENED, stream, payload)


ANSWERS: dict[str, tuple[Callable[[RawPeer, int], bytes], bytes]] = {
    "a reason that nobody knows": (
        lambda peer, stream: peer.frame(wire.REFUSED, stream, bytes.fromhex("a101653c6f64643e")),
        b"HTTP/1.1 403 ",
    ),
    "a refusal with a line break": (
        lambda peer, stream: peer.frame(wire.REFUSED, stream, bytes.fromhex("a10163610d0a")),
        b"HTTP/1.1 503 ",
    ),
    "a refusal that is no CBOR": (
        lambda peer, stream: peer.frame(wire.REFUSED, stream, b"\xff"),
        b"HTTP/1.1 503 ",
    ),
    "a token that nobody asked for": (
        lambda peer, stream: opened(peer, stream, wire.OPENED_DEDICATED),
        b"HTTP/1.1 503 ",
    ),
    "data before the answer": (
        lambda peer, stream: peer.frame(wire.DATA, stream, b"early"),
        b"HTTP/1.1 503 ",
    ),
    "a reset in place of an answer": (
        lambda peer, stream: peer.frame(wire.RESET, stream, wire.reset(16, 0)),
        b"HTTP/1.1 502 ",
    ),
    "two answers": (lambda peer, stream: opened(peer, stream) + opened(peer, stream), b""),
    "more data than was granted": (
        lambda peer, stream: (
            opened(peer, stream) + peer.frame(wire.DATA, stream, bytes(WINDOW_BYTES + 1))
        ),
        b"",
    ),
    "a reset with another size": (
        lambda peer, stream: (
            opened(peer, stream)
            + peer.frame(wire.DATA, stream, b"abc")
            + peer.frame(wire.RESET, stream, wire.reset(0, 4))
        ),
        b"",
    ),
}
"""How a hostile parent answers OPEN, and what the program sees; nothing: a refusal or a reset."""


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_none_is_never_a_clean_end(
    scripted: tuple[ScriptedParent, ExchangePair], name: str
) -> None:
    parent, rig = scripted
    parent.answer, expected = ANSWERS[name]
    workers = rig.enclave.workers
    sock, head = rig.pair.ask(f"CONNECT {HOST}:{PORT} HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n\r\n")
    with sock:
        if expected:
            assert head.startswith(expected)
        else:
            assert head.startswith(b"HTTP/1.1 503 ") or is_reset(sock)
    rig.wait_for_links()
    assert rig.enclave.workers == workers


def test_an_end_that_is_not_announced_as_such_is_a_reset(
    scripted: tuple[ScriptedParent, ExchangePair],
) -> None:
    parent, rig = scripted

    def answer(peer: RawPeer, stream: int) -> bytes:
        return opened(peer, stream, wire.OPENED_DEDICATED) + peer.frame(
            wire.END, stream, wire.total(5)
        )

    parent.answer = answer  # and three bytes come on the stream's own connection
    assert is_refused(rig.ports["dedicated"])


@pytest.mark.alone
def test_credit_without_end_from_a_parent_that_does_not_read_fills_no_memory() -> None:
    def serve(sock: socket.socket) -> None:
        peer = RawPeer(sock, is_initiator=False).greet()
        for frame in peer.frames():
            if frame.type == wire.OPEN:
                peer.send(opened(peer, frame.stream))
                peer.send(peer.frame(wire.CREDIT, frame.stream, wire.total((1 << 64) - 1)))
                done.wait(60)
                return

    done = threading.Event()
    with Cutter(lambda kind, number: Treatment(handler=serve)) as cutter:
        rig = ExchangePair("unix", enclave={"links": 1}, link_path=cutter.path)
        try:
            (worker,) = rig.pair.start_enclave().workers
            with rig.connect("shared") as sock:
                rig.enclave.wait_for_event("decision", allowed=True)
                before = resident_bytes(worker)
                sock.settimeout(1)
                with suppress(TimeoutError):
                    while sock.send(bytes(65_536)):
                        pass
                assert resident_bytes(worker) - before < GROWTH_BYTES
                done.set()
                sock.settimeout(30)
                assert is_reset(sock)
        finally:
            done.set()
            rig.pair.close()


CONNECT = f"CONNECT {HOST}:{PORT} HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n\r\n".encode()
UNLISTED = b"CONNECT unlisted.test:443 HTTP/1.1\r\nHost: unlisted.test:443\r\n\r\n"

REQUESTS: dict[str, tuple[bytes, int, str]] = {
    "a mebibyte of one header": (b"GET http://h/ HTTP/1.1\r\nX: " + b"x" * MEBIBYTE, 431, "bytes"),
    "a mebibyte of headers": (
        b"GET http://h/ HTTP/1.1\r\n" + b"X-Y: z\r\n" * (MEBIBYTE // 8),
        431,
        "bytes",
    ),
    "a mebibyte of one line": (b"GET http://h/" + b"x" * MEBIBYTE, 431, "bytes"),
    "binary": (bytes(range(256)) * 40, 400, "something else arrived"),
    "a TLS ClientHello": (bytes.fromhex("1603010200010001fc0303") + bytes(500), 400, "TLS arrived"),
    "lines without CR": (CONNECT.replace(b"\r", b""), 400, "ends without CRLF"),
    "a second Host": (
        CONNECT[:-2] + b"Host: other.test\r\n\r\n",
        400,
        "Host",
    ),
    "a request that never ends": (CONNECT[:-2], 408, "no whole request"),
    "nothing at all": (b"", 408, "no whole request"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_malformed_request_is_one_answer_and_one_line(rig: ExchangePair, name: str) -> None:
    data, status, text = REQUESTS[name]
    after = len(rig.enclave.lines)
    with unharmed(rig):
        with socket.create_connection(("127.0.0.1", rig.pair.proxy_port), 30) as sock:
            with suppress(ConnectionResetError, BrokenPipeError):
                sock.sendall(data)
            answer = sock.makefile("rb").read()
        (line,) = lines_of(rig.enclave, "bad_request", after)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1") == 1
    assert line["status"] == status
    assert text in line["text"]


def test_what_follows_a_refused_connect_is_never_read(rig: ExchangePair) -> None:
    after = len(rig.enclave.lines)
    with socket.create_connection(("127.0.0.1", rig.pair.proxy_port), 30) as sock:
        sock.sendall(UNLISTED + CONNECT + b"hidden")
        answer = sock.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.count(b"HTTP/1.1") == 1
    decisions = lines_of(rig.enclave, "decision", after)
    assert [line["host"] for line in decisions] == ["unlisted.test"]
