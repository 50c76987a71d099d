"""What a hostile peer says: openings that are none, and frames that end a session.

Each case says what the other side makes of it. Sessions are the same from both ends, but for the
ids of streams: a peer's own begin with `RawPeer.first_stream`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import cbor2

from tests.support import session_frames as wire
from tests.support.hostile_peer import RawPeer, make_hello, open_payload
from vsockproxy.session import ErrorCode
from vsockproxy.session.opening import SESSION_MAGIC

WINDOW_BYTES = 16 * 1024
"""The first window of either side."""

PROTOCOL, SEQUENCE, FLOW_CONTROL, STREAM_LIMIT, STREAM_STATE, CHECKSUM, ABUSE = range(1, 8)


@dataclass(frozen=True, slots=True)
class Broken:
    """One way to break a session.

    Args:
        frames: what is sent after the opening exchange, all at once.
        code: what the other side ends the session with; None where it has no word to say.
        named: the code in its log, where it says nothing.
    """

    frames: Callable[[RawPeer], bytes]
    code: int | None
    named: str = ""

    @property
    def logged_code(self) -> str:
        """The code as the other side logs it."""
        return self.named if self.code is None else ErrorCode(self.code).name.lower()


def _hello_with(**fields: object) -> bytes:
    return make_hello(**fields).encode()


def _hello_of(fields: dict[int, object]) -> bytes:
    body = cbor2.dumps(fields, canonical=True)
    return SESSION_MAGIC + len(body).to_bytes(2) + body


OPENINGS: dict[str, tuple[bytes, str]] = {
    "garbage": (random.Random(1).randbytes(2000), "does not begin with our magic"),
    "a TLS ClientHello": (bytes.fromhex("160301020001"), "does not begin with our magic"),
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", "does not begin with our magic"),
    "half a hello": (_hello_with()[:40], "ended within the opening exchange"),
    "a hello of 65,535 bytes": (SESSION_MAGIC + b"\xff\xff" + bytes(100), "a hello of 65535 bytes"),
    "an empty hello": (SESSION_MAGIC + b"\0\0", "a hello of 0 bytes"),
    "a hello that is no CBOR": (SESSION_MAGIC + b"\0\x04\xff\xff\xff\xff", "is no CBOR"),
    "a hello that is a list": (_hello_of({})[:8] + b"\0\x01\x80", "is not one map"),
    "an empty map": (_hello_of({}), "no range of versions"),
    "a window of a tebibyte": (_hello_with(first_window_bytes=1 << 40), "field 1 of the hello"),
    "payloads of no byte": (_hello_with(max_payload_bytes=0), "field 3 of the hello"),
    "2^63 streams": (_hello_with(max_streams=1 << 63), "field 2 of the hello"),
    "a short instance": (_hello_with(instance=b"abc"), "field 4 of the hello"),
    "versions in reverse": (_hello_with(lowest_version=5, highest_version=4), "range of versions"),
    "a version of the future": (
        _hello_with(lowest_version=2, highest_version=9),
        "no common version",
    ),
    "a thousand features": (
        _hello_with(features=frozenset(map(str, range(1000)))),
        "field 2 of the hello",
    ),
    "a refusal": (_hello_with(refusal="go away"), "go away"),
}
"""Bytes in place of a hello, and what the log says of them."""


def _open(peer: RawPeer, payload: bytes = wire.OPEN_REQUEST, **lies: object) -> bytes:
    return peer.frame(wire.OPEN, peer.first_stream, payload, **lies)


def _then(peer: RawPeer, frame_type: int, payload: bytes = b"", **lies: object) -> bytes:
    """A frame on a stream that is opened just before it."""
    return _open(peer) + peer.frame(frame_type, peer.first_stream, payload, **lies)


def _floods(peer: RawPeer, frame_type: int, payload: bytes, frames: int) -> bytes:
    return b"".join(peer.frame(frame_type, 0, payload) for _ in range(frames))


def _rapid_resets(peer: RawPeer) -> bytes:
    ids = range(peer.first_stream, peer.first_stream + 2 * 1500, 2)
    return b"".join(
        peer.frame(wire.OPEN, stream, wire.OPEN_REQUEST)
        + peer.frame(wire.RESET, stream, wire.reset(0, 0))
        for stream in ids
    )


def _questions(peer: RawPeer, numbers: range) -> bytes:
    return b"".join(peer.frame(wire.RESOLVE, number, wire.RESOLVE_QUESTION) for number in numbers)


BROKEN: dict[str, Broken] = {
    "a sequence number is left out": Broken(
        lambda peer: peer.frame(wire.PING, 0, wire.total(1), sequence=peer.sequence + 1), SEQUENCE
    ),
    "a frame comes twice": Broken(
        lambda peer: 2 * peer.frame(wire.PING, 0, wire.total(1)), SEQUENCE
    ),
    "garbage": Broken(lambda peer: random.Random(2).randbytes(5000), SEQUENCE),
    "an unknown type": Broken(lambda peer: peer.frame(99, 1), PROTOCOL),
    "a reserved flag": Broken(
        lambda peer: peer.frame(wire.PING, 0, wire.total(1), flags=0x80), PROTOCOL
    ),
    "FIN on a PING": Broken(
        lambda peer: peer.frame(wire.PING, 0, wire.total(1), flags=1), PROTOCOL
    ),
    "a PING of seven bytes": Broken(lambda peer: peer.frame(wire.PING, 0, bytes(7)), PROTOCOL),
    "an OPEN of 60,000 bytes": Broken(lambda peer: _open(peer, length=60_000), PROTOCOL),
    "an OPEN of no byte": Broken(lambda peer: _open(peer, b""), PROTOCOL),
    "a PING on a stream": Broken(lambda peer: peer.frame(wire.PING, 1, wire.total(1)), PROTOCOL),
    "an OPEN on stream 0": Broken(
        lambda peer: peer.frame(wire.OPEN, 0, wire.OPEN_REQUEST), PROTOCOL
    ),
    "a stream id of the other end's": Broken(
        lambda peer: peer.frame(wire.OPEN, 3 - peer.first_stream, wire.OPEN_REQUEST), PROTOCOL
    ),
    "a stream id is left out": Broken(
        lambda peer: peer.frame(wire.OPEN, peer.first_stream + 2, wire.OPEN_REQUEST), PROTOCOL
    ),
    "data on a stream that was never opened": Broken(
        lambda peer: peer.frame(wire.DATA, peer.first_stream, b"data"), PROTOCOL
    ),
    "an answer to nothing": Broken(
        lambda peer: peer.frame(wire.OPENED, 3 - peer.first_stream, wire.OPENED_SHARED), PROTOCOL
    ),
    "an OPEN that is no CBOR": Broken(lambda peer: _open(peer, b"\xff" * 20), PROTOCOL),
    "a text of four gibibytes": Broken(
        lambda peer: _open(peer, b"\xa1\x01\x7a\xff\xff\xff\xff"), PROTOCOL
    ),
    "a list of 2^63 items": Broken(
        lambda peer: _open(peer, b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff"), PROTOCOL
    ),
    "a thousand nested lists": Broken(lambda peer: _open(peer, b"\x81" * 1000 + b"\0"), PROTOCOL),
    "a tag": Broken(lambda peer: _open(peer, b"\xa1\x01\xc0\x61\x68"), PROTOCOL),
    "a key that comes twice": Broken(
        lambda peer: _open(peer, bytes.fromhex("a301616801616802187b")), PROTOCOL
    ),
    "an OPEN without a host": Broken(lambda peer: _open(peer, bytes.fromhex("a102187b")), PROTOCOL),
    "a host with a newline": Broken(lambda peer: _open(peer, open_payload("a\nb", 443)), PROTOCOL),
    "a host of 256 bytes": Broken(lambda peer: _open(peer, open_payload("a" * 256, 1)), PROTOCOL),
    "port 0": Broken(lambda peer: _open(peer, open_payload("h", 0)), PROTOCOL),
    "port 65,536": Broken(lambda peer: _open(peer, open_payload("h", 65_536)), PROTOCOL),
    "more data than was granted": Broken(
        lambda peer: _then(peer, wire.DATA, bytes(WINDOW_BYTES + 1)), FLOW_CONTROL
    ),
    "empty data": Broken(lambda peer: _then(peer, wire.DATA), PROTOCOL),
    "a reset with another size": Broken(
        lambda peer: _then(peer, wire.RESET, wire.reset(0, 5)), FLOW_CONTROL
    ),
    "the opener answers itself": Broken(
        lambda peer: _then(peer, wire.OPENED, wire.OPENED_SHARED), STREAM_STATE
    ),
    "STOP before the answer": Broken(
        lambda peer: _then(peer, wire.STOP, wire.stop(0)), STREAM_STATE
    ),
    "END on a shared stream": Broken(
        lambda peer: _then(peer, wire.END, wire.total(0)), STREAM_STATE
    ),
    "data on a dedicated stream": Broken(
        lambda peer: (
            _open(peer, wire.OPEN_DEDICATED) + peer.frame(wire.DATA, peer.first_stream, b"data")
        ),
        STREAM_STATE,
    ),
    "data after FIN": Broken(
        lambda peer: (
            _then(peer, wire.DATA, b"last", flags=wire.FIN)
            + peer.frame(wire.DATA, peer.first_stream, b"more")
        ),
        STREAM_STATE,
    ),
    "a question that is asked twice": Broken(
        lambda peer: _questions(peer, range(1, 2)) + _questions(peer, range(1, 2)), PROTOCOL
    ),
    "257 questions at once": Broken(lambda peer: _questions(peer, range(1, 258)), ABUSE),
    "an answer to no question": Broken(
        lambda peer: peer.frame(wire.RESOLVED, 1, wire.RESOLVED_ANSWER), PROTOCOL
    ),
    "a flood of PING": Broken(lambda peer: _floods(peer, wire.PING, wire.total(1), 400), ABUSE),
    "a flood of PONG": Broken(lambda peer: _floods(peer, wire.PONG, wire.total(9), 400), ABUSE),
    "a flood of MAX_STREAMS": Broken(
        lambda peer: _floods(peer, wire.MAX_STREAMS, wire.total(0), 800), ABUSE
    ),
    "streams that are opened and reset at once": Broken(_rapid_resets, ABUSE),
    "an OPEN after GOAWAY": Broken(
        lambda peer: peer.frame(wire.GOAWAY, 0, wire.goaway(0)) + _open(peer), PROTOCOL
    ),
    "a GOAWAY with a code that nobody knows": Broken(
        lambda peer: peer.frame(wire.GOAWAY, 0, wire.goaway(4711, 0, b"\x1b[2J\r\nno text")),
        None,
        "4711",
    ),
    "an end within a frame": Broken(lambda peer: _open(peer)[:-1], None, "link_lost"),
}
"""What ends a session, with the code for it."""
