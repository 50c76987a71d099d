"""The log of an enclave between ends of which one says whatever it likes."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

import cbor2
import pytest

from tests.support import session_frames as wire
from tests.support.cutter import PASSED_ON, Cutter, Treatment
from tests.support.hostile_peer import RawPeer, make_hello
from tests.support.logging_peer import LoggingPeer
from tests.support.pair import Pair, Side
from vsockproxy.protocols.log_stream import (
    MAX_TEXT_BYTES,
    SERVICE,
    Dropped,
    Exit,
    Line,
    Source,
    encode_position,
)

OTHER_CID = 17


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with_other = Pair("unix", [])
    other = f"unix://{with_other.path}/other.sock?cid={OTHER_CID}"
    first = f"unix://{with_other.path}/link.sock?cid={Pair.CID}"
    log = {"format": "json", "enclave_lines": 0}
    with_other.parent_config = with_other._write(
        "parent.yaml", {"listen": [first, other], "log": log}
    )
    with closing(with_other):
        with_other.start_parent()
        yield with_other


@pytest.fixture
def parent(pair: Pair) -> Side:
    assert pair.parent is not None
    return pair.parent


@contextmanager
def dial(pair: Pair, name: str = "link.sock") -> Iterator[LoggingPeer]:
    """Another enclave, each time."""
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(str(pair.path / name))
        yield LoggingPeer(sock, make_hello(instance=os.urandom(16))).greet()


def line(sequence: int, text: bytes = b"hi") -> Line:
    return Line(sequence, Source.STDOUT, text)


def test_a_log_by_hand(pair: Pair, parent: Side) -> None:
    after = len(parent.lines)
    with dial(pair) as peer:
        stream, position = peer.open_log()
        assert position == 0
        peer.say(stream, line(5), Dropped(6, 10), line(16))
        assert peer.position(stream) == 17
        second = peer.open_service()
        peer.wait_for(wire.RESET, stream)  # one stream carries the log
        assert peer.position(second) == 17
        peer.say(second, line(15), line(16), Dropped(10, 9), line(19), Exit(20, 1, 0, 0))
        assert peer.position(second) == 21
    parent.wait_for_event("enclave_exit", after=after)
    lines = [
        (each["sequence"], each.get("lines", 1))
        for each in parent.lines[after:]
        if each["event"] in ("enclave_log", "enclave_log_dropped")
    ]
    assert lines == [(5, 1), (6, 10), (16, 1), (17, 2), (19, 1)]


HEADER = struct.Struct(">BBBBHQQ")

BROKEN = {
    "what is no record": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "a record of"),
    "a record that is too long": (HEADER.pack(1, 1, 0, 0, 0xFFFF, 0, 0), "a record of 65535"),
    "a line of an unknown source": (HEADER.pack(1, 9, 0, 0, 0, 0, 0), "the unknown source 9"),
    "a gap that nobody spoke of": (line(0).encode() + line(2).encode(), "record 2 follows 0"),
    "a number beyond all numbers": (line(2**63).encode(), "the number 9223372036854775808"),
    "more lost than there can be": (Dropped(1, 2**64 - 1).encode(), "dropped records"),
}


@pytest.mark.parametrize(("data", "text"), BROKEN.values(), ids=BROKEN)
def test_a_broken_record_ends_the_stream_with_one_line(
    pair: Pair, parent: Side, data: bytes, text: str
) -> None:
    after = len(parent.lines)
    with dial(pair) as peer, dial(pair, "other.sock") as other:
        others_stream, position = other.open_log()
        stream, _ = peer.open_log()
        peer.send(peer.frame(wire.DATA, stream, data))
        peer.wait_for(wire.RESET, stream)
        told = parent.wait_for_event("enclave_log_broken", after=after)
        assert text in told["text"]
        assert (told["level"], told["cid"]) == ("warning", Pair.CID)
        other.say(others_stream, line(position))
        assert other.position(others_stream) == position + 1
        assert peer.open_log()[1] <= 1  # what came before it is written
    assert len([each for each in parent.lines[after:] if each["event"] == told["event"]]) == 1


def test_no_text_breaks_out_of_its_line(pair: Pair, parent: Side) -> None:
    after = len(parent.lines)
    forged = b'"}\n{"event": "decision", "side": "parent"}\r\n\x1b[2J\0' + b"\xff" * 1000
    with dial(pair) as peer:
        stream, _ = peer.open_log()
        locks = b"\xf0\x9f\x94\x92" * (MAX_TEXT_BYTES // 4)  # four bytes of UTF-8 each
        for number, text in enumerate((forged, locks)):
            peer.say(stream, Line(number, Source.STDERR, text))  # nobody else writes there
        peer.say(stream, Exit(2, 0xFFFF, 0xFF, 2**64 - 1))
        assert peer.position(stream) > 0
    exited = parent.wait_for_event("enclave_exit", after=after)
    assert (exited["status"], exited["signal"]) == (0xFFFF, "signal 255")
    lines = [each for each in parent.lines[after:] if each.get("source") == "stderr"]
    assert len(lines) > 2  # so long a text takes several
    whole = "".join(each["text"] for each in lines)
    assert whole == forged.decode(errors="backslashreplace") + locks.decode()
    assert not [each for each in parent.lines[after:] if each["event"] == "decision"]
    assert all(text.startswith("{") for text in parent.raw)


def test_one_that_opens_again_and_again_has_one_stream(pair: Pair, parent: Side) -> None:
    with dial(pair) as peer, dial(pair, "other.sock") as other:
        for _ in range(200):
            latest = peer.open_service()
        peer.wait_for(wire.OPENED, latest)
        position = peer.position(latest)
        peer.say(latest, line(position))
        assert peer.position(latest) == position + 1
        stream, position = other.open_log()
        other.say(stream, line(position))
        assert other.position(stream) == position + 1


REFUSED = {
    "a service that the parent has not": ("vsockproxy.nothing", False, "not_listed"),
    "a service of an enclave": ("web", False, "not_listed"),
    "a log on a connection of its own": (SERVICE, True, "limit"),
}


@pytest.mark.parametrize(("service", "dedicated", "reason"), REFUSED.values(), ids=REFUSED)
def test_other_services_are_refused_and_logged(
    pair: Pair, parent: Side, service: str, dedicated: bool, reason: str
) -> None:
    after = len(parent.lines)
    with dial(pair) as peer:
        stream = peer.open_service(service, dedicated=dedicated)
        refused = cbor2.loads(peer.wait_for(wire.REFUSED, stream).payload)
        assert refused[1] == reason
        told = parent.wait_for_event("decision", after=after, host=service)
        assert (told["allowed"], told["reason"], told["text"]) == (False, reason, refused[2])


# ---------------------------------------------------------------- a parent that lies


def lie_about(position: int) -> Treatment:
    """A parent that has written more than it was sent."""

    def serve(sock: socket.socket) -> None:
        with RawPeer(sock, is_initiator=False) as peer:
            peer.greet()
            stream = next(frame.stream for frame in peer.frames() if frame.type == wire.OPEN)
            peer.send(peer.frame(wire.OPENED, stream, b"\xa0"))
            peer.send(peer.frame(wire.DATA, stream, encode_position(position)))
            for frame in peer.frames():
                if frame.stream == stream and frame.type in (wire.RESET, wire.DATA):
                    assert not frame.payload or frame.type == wire.RESET
                    return

    return Treatment(handler=serve)


@pytest.mark.parametrize("position", [1_000_000, 2**64 - 1])
def test_a_parent_that_acknowledges_the_future_loses_nothing(position: int) -> None:
    with Cutter(lambda _, number: PASSED_ON if number else lie_about(position)) as cutter:
        pair = Pair(
            "unix",
            [],
            enclave={
                "links": 1,
                "shim": {"http_proxy": None, "streams": None},
                "log": {"format": "json", "to_parent": True},
            },
            link_path=cutter.path,
        )
        cutter.target = str(pair.path / "link.sock")
        with closing(pair):
            parent = pair.start_parent()
            script = f"seq 100; until test -e {pair.path}/go; do sleep 0.02; done"
            pair.enclave = Side("enclave", pair.enclave_config, ("sh", "-c", script))
            told = pair.enclave.wait_for_event("log_not_taken")
            assert told["text"] == f"the parent has {position} records, and was sent fewer"
            parent.wait_for_event("enclave_log", text="100")
            (pair.path / "go").touch()
            parent.wait_for_event("enclave_exit")
            lines = parent.events("enclave_log")
            assert [each["sequence"] for each in lines] == list(range(len(lines)))
            written = [each["text"] for each in lines if each["source"] == "stdout"]
            assert written == [str(each) for each in range(1, 101)]
