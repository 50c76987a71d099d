"""From values to frames: numbers every frame, adds checksums where agreed."""

from zlib import crc32

from vsockproxy.session.frames import (
    CHECKSUM,
    CHECKSUM_BYTES,
    DATA,
    HEADER,
    HEADER_BYTES,
    FrameType,
)


class FrameWriter:
    """Writes the frames of one direction in the order in which they go onto the link.

    Args:
        first_sequence: the sequence number that this end announced for its first frame.
        has_checksums: whether the feature crc32 was agreed on.
    """

    __slots__ = ("has_checksums", "next_sequence")

    def __init__(self, first_sequence: int, *, has_checksums: bool = False) -> None:
        self.next_sequence = first_sequence
        self.has_checksums = has_checksums

    def seal(self, buffer: bytearray | memoryview, offset: int, stream_id: int, length: int) -> int:
        """Make a DATA frame of the payload that lies in `buffer` behind a header's room.

        Args:
            buffer: header room, payload, and where checksums are agreed on, room for one.
            offset: where the header goes.
            stream_id: the stream.
            length: bytes of the payload.

        Returns:
            The offset behind the frame.
        """
        sequence = self.next_sequence
        self.next_sequence = (sequence + 1) & 0xFFFF_FFFF
        HEADER.pack_into(buffer, offset, DATA, 0, length, stream_id, sequence)
        begin = offset + HEADER_BYTES
        end = begin + length
        if self.has_checksums and length:
            CHECKSUM.pack_into(buffer, end, crc32(memoryview(buffer)[begin:end]))
            end += CHECKSUM_BYTES
        return end

    def frame(
        self, frame_type: FrameType, stream_id: int, payload: bytes = b"", flags: int = 0
    ) -> bytes:
        """A whole frame."""
        sequence = self.next_sequence
        self.next_sequence = (sequence + 1) & 0xFFFF_FFFF
        header = HEADER.pack(frame_type, flags, len(payload), stream_id, sequence)
        if self.has_checksums and payload:
            return header + payload + CHECKSUM.pack(crc32(payload))
        return header + payload
