"""What a link's socket family asks of the frames and sends on it."""

from dataclasses import dataclass

from vsockproxy.session.frames import CHECKSUM_BYTES, HEADER_BYTES

VSOCK_SEND_BYTES = 32 * 1024
"""Guest kernels since August 2025 build packets above this that the Nitro device reassembles
wrongly: the bytes arrive changed, silently. No single send on vsock is longer."""

UNIX_FRAME_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Carrier:
    """Sizes for one kind of socket.

    Args:
        name: as logs say it.
        max_payload_bytes: largest payload of a DATA frame.
        frames_per_send: full DATA frames that may go out in one send.
        max_send_bytes: the longest send.
    """

    name: str
    max_payload_bytes: int
    frames_per_send: int
    max_send_bytes: int


VSOCK = Carrier(
    "vsock", VSOCK_SEND_BYTES - HEADER_BYTES, frames_per_send=1, max_send_bytes=VSOCK_SEND_BYTES
)

UNIX = Carrier(
    "unix",
    UNIX_FRAME_BYTES - HEADER_BYTES - CHECKSUM_BYTES,
    frames_per_send=4,
    max_send_bytes=4 * UNIX_FRAME_BYTES,
)
