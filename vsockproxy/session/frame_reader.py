"""From the bytes of a link to frames, in whatever pieces the bytes come.

The payload of DATA is handed on as it arrives, without waiting for the frame's end and without a
copy; every other payload is short (`PAYLOAD_LIMITS`) and handed on whole. The reader ends in
frames, in "more" (it keeps less than one header or one short payload), or in PeerProtocolError.
"""

from collections.abc import Iterator
from zlib import crc32

from vsockproxy.session.errors import ErrorCode, PeerProtocolError
from vsockproxy.session.frames import (
    CHECKSUM,
    CHECKSUM_BYTES,
    DATA,
    FLAG_FIN,
    HEADER,
    HEADER_BYTES,
    PAYLOAD_LIMITS,
    SESSION_FRAMES,
    FrameType,
)

CONTINUED = -1
"""`length` of a piece that is not the first of its DATA frame."""

Piece = tuple[int, int, int, int, memoryview]
"""A whole frame, or a part of a DATA frame: type, flags, stream_id, length, payload.

`length` counts the payload of the whole frame, and is CONTINUED on all but the first piece. FIN is
only set in the flags of a frame's last piece. A plain tuple, as one is made for each frame.
"""


class FrameReader:
    """Cuts a link's bytes into pieces of frames and checks what can be checked without state.

    Args:
        first_sequence: the sequence number that the peer announced for its first frame.
        max_payload_bytes: the largest DATA payload that this end announced.
        has_checksums: whether the feature crc32 was agreed on.
    """

    __slots__ = (
        "_checksum",
        "_flags",
        "_has_checksums",
        "_left",
        "_length",
        "_limits",
        "_partial",
        "_stream_id",
        "expected_sequence",
    )

    def __init__(
        self, first_sequence: int, max_payload_bytes: int, *, has_checksums: bool = False
    ) -> None:
        self.expected_sequence = first_sequence
        self._limits = {int(key): value for key, value in PAYLOAD_LIMITS.items()}
        self._limits[FrameType.DATA] = (0, max_payload_bytes)
        self._has_checksums = has_checksums
        self._partial = bytearray()
        """The beginning of a header, of a short frame, or of a checksum."""
        self._left = 0
        """Payload bytes of the current DATA frame that are still to come."""
        self._length = 0
        self._flags = 0
        self._stream_id = 0
        self._checksum: int | None = None
        """Of the DATA payload so far, while its checksum is still to come."""

    @property
    def is_between_frames(self) -> bool:
        """Whether the link's bytes so far end with a frame's last byte."""
        return not self._left and not self._partial and self._checksum is None

    def read(self, data: memoryview) -> Iterator[Piece]:
        """The pieces that `data` completes.

        Raises:
            PeerProtocolError: at the first byte that breaks the format; later bytes are not read.
        """
        position = 0
        end = len(data)
        while position < end:
            if self._left:
                take = min(self._left, end - position)
                piece = data[position : position + take]
                position += take
                self._left -= take
                length, self._length = self._length, CONTINUED
                if self._checksum is not None:
                    self._checksum = crc32(piece, self._checksum)
                flags = self._flags if not self._left and self._checksum is None else 0
                yield DATA, flags, self._stream_id, length, piece
                continue
            if self._checksum is not None:
                position = self._fill(data, position, CHECKSUM_BYTES)
                if len(self._partial) < CHECKSUM_BYTES:
                    return
                self._verify(self._checksum, self._partial)
                self._partial.clear()
                self._checksum = None
                if self._flags:
                    yield DATA, self._flags, self._stream_id, CONTINUED, data[:0]
                continue
            if not self._partial and end - position >= HEADER_BYTES:
                header = HEADER.unpack_from(data, position)
                position += HEADER_BYTES
            else:
                if len(self._partial) < HEADER_BYTES:
                    position = self._fill(data, position, HEADER_BYTES)
                    if len(self._partial) < HEADER_BYTES:
                        return
                header = HEADER.unpack_from(self._partial)
                if header[0] == DATA:
                    self._partial.clear()
            frame_type, flags, length, stream_id, sequence = header
            if len(self._partial) <= HEADER_BYTES:
                self._check_header(frame_type, flags, length, stream_id, sequence)
            if frame_type == DATA:
                self._accept_header(sequence)
                if not length:
                    yield DATA, flags, stream_id, 0, data[:0]
                    continue
                self._left = self._length = length
                self._flags = flags
                self._stream_id = stream_id
                self._checksum = 0 if self._has_checksums else None
                continue
            tail = CHECKSUM_BYTES if self._has_checksums and length else 0
            if not self._partial and end - position >= length + tail:
                payload = data[position : position + length]
                if tail:
                    self._verify(crc32(payload), data[position + length : position + length + tail])
                position += length + tail
            else:
                if not self._partial:
                    self._partial += data[position - HEADER_BYTES : position]
                whole = HEADER_BYTES + length + tail
                position = self._fill(data, position, whole)
                if len(self._partial) < whole:
                    return
                frame = bytes(self._partial)
                self._partial.clear()
                payload = memoryview(frame)[HEADER_BYTES : HEADER_BYTES + length]
                if tail:
                    self._verify(crc32(payload), frame[HEADER_BYTES + length :])
            self._accept_header(sequence)
            yield frame_type, flags, stream_id, length, payload

    def _fill(self, data: memoryview, position: int, wanted: int) -> int:
        """Extend the partial bytes up to `wanted`; returns the position after what was taken."""
        after = min(len(data), position + wanted - len(self._partial))
        self._partial += data[position:after]
        return after

    def _check_header(
        self, frame_type: int, flags: int, length: int, stream_id: int, sequence: int
    ) -> None:
        # The sequence comes first: after lost bytes, the rest of a header means nothing.
        if sequence != self.expected_sequence:
            raise PeerProtocolError(
                ErrorCode.SEQUENCE,
                f"frame {sequence} arrived where {self.expected_sequence} was expected: "
                "the link lost or repeated bytes",
            )
        limits = self._limits.get(frame_type)
        if limits is None:
            raise PeerProtocolError(ErrorCode.PROTOCOL, f"unknown frame type {frame_type}")
        if flags & ~FLAG_FIN or (flags and frame_type != DATA):
            raise PeerProtocolError(
                ErrorCode.PROTOCOL, f"reserved flags {flags:#04x} on frame type {frame_type}"
            )
        if not limits[0] <= length <= limits[1]:
            raise PeerProtocolError(
                ErrorCode.PROTOCOL,
                f"a payload of {length} bytes on frame type {frame_type}, "
                f"which has {limits[0]} to {limits[1]}",
            )
        if (stream_id == 0) is not (frame_type in SESSION_FRAMES):
            raise PeerProtocolError(
                ErrorCode.PROTOCOL, f"stream {stream_id} on frame type {frame_type}"
            )

    def _accept_header(self, sequence: int) -> None:
        self.expected_sequence = (sequence + 1) & 0xFFFF_FFFF

    @staticmethod
    def _verify(checksum: int, received: bytes | bytearray | memoryview) -> None:
        (wanted,) = CHECKSUM.unpack(received)
        if checksum != wanted:
            raise PeerProtocolError(
                ErrorCode.CHECKSUM, "a payload does not match its CRC-32: the link changed bytes"
            )
