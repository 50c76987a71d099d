"""The Nitro Secure Module's device: one request, one response.

The kernel's drivers/misc/nsm.c and AWS's older module have the same interface
(include/uapi/linux/nsm.h). A call blocks until the hypervisor has answered, up to 120 s.
"""

import ctypes
import fcntl
import os
import struct
from typing import Final

from vsockproxy.attestation.nsm_messages import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, NsmError

__all__ = ("NSM_DEVICE", "ask_nsm", "has_nsm")

NSM_DEVICE: Final = "/dev/nsm"

# struct nsm_raw: address and length of the request, address and room of the response.
_RAW: Final = struct.Struct("=QQQQ")
_NSM_IOCTL_RAW: Final = 0xC020_0A00  # _IOWR(0x0A, 0, struct nsm_raw)


def has_nsm(device: str = NSM_DEVICE) -> bool:
    """Whether this machine has the module."""
    return os.path.exists(device)


def ask_nsm(request: bytes, device: str = NSM_DEVICE) -> bytes:
    """Send a request, and wait for the response.

    Raises:
        NsmError: there is no module, the request is too long, or the driver failed.
    """
    if len(request) > MAX_REQUEST_BYTES:
        raise NsmError(f"a request of {len(request)} bytes, over {MAX_REQUEST_BYTES}")
    sent = ctypes.create_string_buffer(request, len(request))
    # What does not fit would be cut without a word.
    room = ctypes.create_string_buffer(MAX_RESPONSE_BYTES)
    addresses = ctypes.addressof(sent), len(request), ctypes.addressof(room), len(room)
    message = bytearray(_RAW.pack(*addresses))
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _NSM_IOCTL_RAW, message)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NsmError(f"{device}: {error.strerror}") from error
    length = _RAW.unpack(message)[3]
    return room.raw[: min(length, MAX_RESPONSE_BYTES)]
