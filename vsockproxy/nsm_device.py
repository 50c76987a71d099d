"""The Nitro Secure Module (NSM): one request, one response, wherever it is.

It is a character device, `/dev/nsm`, whose one ioctl takes a request and gives the response: the
kernel's drivers/misc/nsm.c and AWS's older module have the same interface
(include/uapi/linux/nsm.h). Or it is a unix socket of type SOCK_SEQPACKET on which a software module
serves: one packet each way for each request. A file's kind says which.

Calls block, until the hypervisor has answered or for 120 s: on a loop they belong into a thread.
"""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
from typing import Final

from vsockproxy.attestation.nsm_errors import NsmFailed, NsmMissing, NsmRequestError, NsmTimedOut
from vsockproxy.attestation.nsm_messages import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    NsmDescription,
    PcrState,
    encode_attestation,
    encode_describe_nsm,
    encode_describe_pcr,
    encode_extend_pcr,
    encode_get_random,
    encode_lock_pcr,
    encode_lock_pcrs,
    parse_attestation,
    parse_describe_nsm,
    parse_describe_pcr,
    parse_extend_pcr,
    parse_get_random,
    parse_lock_pcr,
    parse_lock_pcrs,
)
from vsockproxy.nsm_locations import NSM_DEVICE, NSM_VARIABLE

__all__ = ("ANSWER_SECONDS", "Nsm", "has_nsm", "nsm_location")

ANSWER_SECONDS: Final = 120.0
"""How long a request may take; the kernel waits as long for the hypervisor."""

# struct nsm_raw: address and length of the request, address and room of the response.
_RAW: Final = struct.Struct("=QQQQ")
_NSM_IOCTL_RAW: Final = 0xC020_0A00  # _IOWR(0x0A, 0, struct nsm_raw)

_TIME: Final = struct.Struct("@ll")
"""struct timeval, of SO_RCVTIMEO and SO_SNDTIMEO (socket(7))."""

_MICROSECONDS: Final = 1_000_000


def has_nsm(location: str = NSM_DEVICE) -> bool:
    """Whether this machine has the module."""
    return os.path.exists(location)


def nsm_location() -> str:
    """Where the module is for a program: what the environment says, else `NSM_DEVICE`."""
    return os.environ.get(NSM_VARIABLE) or NSM_DEVICE


class Nsm:
    """The module at one place. Threads may share it: each call is an exchange of its own.

    All calls raise NsmError, by its classes: NsmMissing, NsmTimedOut and NsmFailed where the module
    cannot be asked, NsmRequestError where it was not, NsmRefused and NsmResponseError by what it
    answers.

    Args:
        location: of the device or the socket.
        seconds: the most that a software module may take. The device has its own limit.
    """

    __slots__ = ("_location", "_seconds")

    def __init__(self, location: str = NSM_DEVICE, *, seconds: float = ANSWER_SECONDS) -> None:
        self._location = location
        self._seconds = seconds

    @property
    def location(self) -> str:
        """Where it is."""
        return self._location

    @property
    def is_software(self) -> bool:
        """Whether it is a socket: then it proves nothing, whatever it says."""
        try:
            return stat.S_ISSOCK(os.stat(self._location).st_mode)
        except (OSError, ValueError):
            return False

    def describe(self) -> NsmDescription:
        """What the module says of itself."""
        return parse_describe_nsm(self.exchange(encode_describe_nsm()))

    def describe_pcr(self, index: int) -> PcrState:
        """A register, 0 to 31."""
        return parse_describe_pcr(self.exchange(encode_describe_pcr(index)))

    def extend_pcr(self, index: int, data: bytes) -> bytes:
        """Make a register SHA384(its value || data); its new value. 16 to 31 are a program's."""
        return parse_extend_pcr(self.exchange(encode_extend_pcr(index, data)))

    def lock_pcr(self, index: int) -> None:
        """Have a register stay as it is, and stand in documents from now on."""
        parse_lock_pcr(self.exchange(encode_lock_pcr(index)))

    def lock_pcrs(self, count: int) -> None:
        """Lock all registers below `count`."""
        parse_lock_pcrs(self.exchange(encode_lock_pcrs(count)))

    def random(self) -> bytes:
        """Random bytes: up to 256."""
        return parse_get_random(self.exchange(encode_get_random()))

    def attest(
        self,
        user_data: bytes | None = None,
        nonce: bytes | None = None,
        public_key: bytes | None = None,
    ) -> bytes:
        """A document that says what runs here; each argument stands in it, up to 1024 bytes."""
        return parse_attestation(self.exchange(encode_attestation(user_data, nonce, public_key)))

    def exchange(self, request: bytes) -> bytes:
        """Send a request as it is, and wait for the response.

        Raises:
            NsmRequestError: it is longer than any request.
            NsmMissing, NsmTimedOut, NsmFailed: as the class says.
        """
        if len(request) > MAX_REQUEST_BYTES:
            raise NsmRequestError(f"a request of {len(request)} bytes, over {MAX_REQUEST_BYTES}")
        try:
            mode = os.stat(self._location).st_mode
        except (OSError, ValueError) as error:
            raise NsmMissing(f"{self._location}: {_explain(error)}") from error
        if stat.S_ISSOCK(mode):
            return self._ask_socket(request)
        return self._ask_device(request)

    def _ask_device(self, request: bytes) -> bytes:
        sent = ctypes.create_string_buffer(request, len(request))
        # What does not fit would be cut without a word.
        room = ctypes.create_string_buffer(MAX_RESPONSE_BYTES)
        addresses = ctypes.addressof(sent), len(request), ctypes.addressof(room), len(room)
        message = bytearray(_RAW.pack(*addresses))
        try:
            descriptor = os.open(self._location, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NsmMissing(f"{self._location}: {_explain(error)}") from error
        try:
            fcntl.ioctl(descriptor, _NSM_IOCTL_RAW, message)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(descriptor)
        length = _RAW.unpack(message)[3]
        return room.raw[: min(length, MAX_RESPONSE_BYTES)]

    def _ask_socket(self, request: bytes) -> bytes:
        limit = _TIME.pack(*divmod(int(self._seconds * _MICROSECONDS), _MICROSECONDS))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            # The kernel keeps these limits, that for a full backlog too: nothing is polled.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            try:
                connection.connect(self._location)
            except BlockingIOError as error:
                raise self._failed(error) from error
            except OSError as error:
                raise NsmMissing(f"{self._location}: {_explain(error)}") from error
            try:
                connection.send(request, socket.MSG_NOSIGNAL)
                response = connection.recv(MAX_RESPONSE_BYTES + 1)
            except OSError as error:
                raise self._failed(error) from error
        if not response:
            raise NsmFailed(f"{self._location}: it closed the connection without an answer")
        return response

    def _failed(self, error: OSError) -> NsmFailed | NsmTimedOut:
        if isinstance(error, BlockingIOError) or error.errno == errno.ETIMEDOUT:
            return NsmTimedOut(f"{self._location}: no answer in time")
        return NsmFailed(f"{self._location}: {_explain(error)}")


def _explain(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
