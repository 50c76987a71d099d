"""Frames of the session by hand: what WIRE_FORMAT.md says, written a second time.

Nothing here uses the product's reader or writer, so that a test of one does not rest on the other.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

OPEN, OPENED, REFUSED, DATA, CREDIT, MAX_STREAMS, RESET, STOP, END = range(1, 10)
RESOLVE, RESOLVED, PING, PONG, GOAWAY = range(10, 15)
TYPES = {
    OPEN: "OPEN",
    OPENED: "OPENED",
    REFUSED: "REFUSED",
    DATA: "DATA",
    CREDIT: "CREDIT",
    MAX_STREAMS: "MAX_STREAMS",
    RESET: "RESET",
    STOP: "STOP",
    END: "END",
    RESOLVE: "RESOLVE",
    RESOLVED: "RESOLVED",
    PING: "PING",
    PONG: "PONG",
    GOAWAY: "GOAWAY",
}
FIN = 0x01

OPEN_REQUEST = bytes.fromhex("a201616802187b")  # {1: "h", 2: 123}
OPEN_DEDICATED = bytes.fromhex("a301616802187b03f5")  # {1: "h", 2: 123, 3: true}
TOKEN = bytes(range(16))
OPENED_SHARED = bytes.fromhex("a0")  # {}
OPENED_DEDICATED = bytes.fromhex("a10250") + TOKEN  # {2: TOKEN}
REFUSED_LIMIT = bytes.fromhex("a101656c696d6974")  # {1: "limit"}
RESOLVE_QUESTION = bytes.fromhex("a20161680201")  # {1: "h", 2: 1}
RESOLVED_ANSWER = bytes.fromhex("a10400")  # {4: 0}


class RawFrame(NamedTuple):
    """One frame as it stood on the wire."""

    type: int
    flags: int
    stream: int
    payload: bytes
    sequence: int

    def __repr__(self) -> str:
        name = TYPES.get(self.type, str(self.type))
        fin = "+FIN" if self.flags else ""
        return f"{name}{fin} stream={self.stream} {self.payload.hex()} #{self.sequence}"


def frame(
    frame_type: int,
    stream: int,
    payload: bytes = b"",
    *,
    sequence: int,
    flags: int = 0,
    length: int | None = None,
    has_checksum: bool = False,
) -> bytes:
    """One frame; `length` lies about the payload where a test wants that."""
    said = len(payload) if length is None else length
    data = struct.pack(">BBHII", frame_type, flags, said, stream, sequence & 0xFFFFFFFF) + payload
    return data + struct.pack(">I", crc32(payload)) if has_checksum and payload else data


def frames(data: bytes | bytearray, *, has_checksums: bool = False) -> Iterator[RawFrame]:
    """Cut bytes that end with a whole frame; checks the checksums."""
    position = 0
    while position < len(data):
        frame_type, flags, length, stream, sequence = struct.unpack_from(">BBHII", data, position)
        position += 12
        payload = bytes(data[position : position + length])
        assert len(payload) == length, "the bytes end within a frame"
        position += length
        if has_checksums and length:
            assert struct.unpack_from(">I", data, position) == (crc32(payload),)
            position += 4
        yield RawFrame(frame_type, flags, stream, payload, sequence)


def total(value: int) -> bytes:
    """The payload of CREDIT, MAX_STREAMS, END, PING and PONG."""
    return struct.pack(">Q", value)


def reset(code: int, final_size: int) -> bytes:
    """The payload of RESET."""
    return struct.pack(">IQ", code, final_size)


def stop(code: int) -> bytes:
    """The payload of STOP."""
    return struct.pack(">I", code)


def goaway(code: int, last_stream: int = 0, text: bytes = b"") -> bytes:
    """The payload of GOAWAY."""
    return struct.pack(">II", last_stream, code) + text


SOME_PAYLOADS = {
    OPEN: OPEN_REQUEST,
    OPENED: OPENED_SHARED,
    REFUSED: REFUSED_LIMIT,
    DATA: b"x" * 40,
    CREDIT: total(1 << 20),
    MAX_STREAMS: total(1 << 20),
    RESET: reset(16, 0),
    STOP: stop(17),
    END: total(5),
    RESOLVE: RESOLVE_QUESTION,
    RESOLVED: RESOLVED_ANSWER,
    PING: total(77),
    PONG: total(1),
    GOAWAY: goaway(0),
}
"""A valid payload of each type."""
