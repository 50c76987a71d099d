"""The frame header and the fixed payloads: bytes to values and back (WIRE_FORMAT.md, "Frames").

A header has 12 bytes, big-endian: type u8, flags u8, length u16, stream u32, sequence u32. `length`
counts the payload only; with the feature `crc32` four more bytes follow each non-empty payload.
"""

import struct
from enum import IntEnum

HEADER = struct.Struct(">BBHII")
HEADER_BYTES = HEADER.size
CHECKSUM = struct.Struct(">I")
CHECKSUM_BYTES = CHECKSUM.size
MAX_PAYLOAD_BYTES = 0xFFFF
SEQUENCE_MODULUS = 1 << 32
MAX_STREAM_ID = 0x7FFF_FFFF
"""Ids end here; a session that has used up its own says GOAWAY."""

FLAG_FIN = 0x01
"""On DATA only: no more data follows in this direction."""

TOTAL = struct.Struct(">Q")
RESET = struct.Struct(">IQ")
STOP = struct.Struct(">I")
GOAWAY = struct.Struct(">II")
PING = struct.Struct(">Q")


class FrameType(IntEnum):
    """Types of frames; every other number ends the session."""

    OPEN = 1
    OPENED = 2
    REFUSED = 3
    DATA = 4
    CREDIT = 5
    MAX_STREAMS = 6
    RESET = 7
    STOP = 8
    END = 9
    RESOLVE = 10
    RESOLVED = 11
    PING = 12
    PONG = 13
    GOAWAY = 14


DATA = FrameType.DATA.value
"""For the byte path: to compare with an enum's member costs several times as much."""

MAX_TEXT_BYTES = 512
"""Longest text of a refusal or GOAWAY; enough for a host of 253 bytes and a sentence."""

PAYLOAD_LIMITS: dict[FrameType, tuple[int, int]] = {
    FrameType.OPEN: (1, 1024),
    FrameType.OPENED: (1, 1024),
    FrameType.REFUSED: (1, 1024),
    FrameType.DATA: (0, MAX_PAYLOAD_BYTES),
    FrameType.CREDIT: (TOTAL.size, TOTAL.size),
    FrameType.MAX_STREAMS: (TOTAL.size, TOTAL.size),
    FrameType.RESET: (RESET.size, RESET.size),
    FrameType.STOP: (STOP.size, STOP.size),
    FrameType.END: (TOTAL.size, TOTAL.size),
    FrameType.RESOLVE: (1, 1024),
    FrameType.RESOLVED: (1, 16 * 1024),
    FrameType.PING: (PING.size, PING.size),
    FrameType.PONG: (PING.size, PING.size),
    FrameType.GOAWAY: (GOAWAY.size, GOAWAY.size + MAX_TEXT_BYTES),
}
"""Fewest and most payload bytes of each type, checked before a byte of it is kept."""

SESSION_FRAMES = frozenset(
    {FrameType.MAX_STREAMS, FrameType.PING, FrameType.PONG, FrameType.GOAWAY}
)
"""Frames about the session itself: their stream field is 0, every other frame's is not."""
