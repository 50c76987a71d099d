"""The machine's clock, and the hypervisor's as /dev/ptp0 has it (Documentation/driver-api/ptp.rst).

Setting a clock takes CAP_SYS_TIME.
"""

import ctypes
import os
import time
from typing import Final

from vsockproxy.control.clock import ClockError
from vsockproxy.control.clock_decision import Sample

__all__ = ("PTP_DEVICE", "KernelClock", "look_at_ptp")

PTP_DEVICE: Final = "/dev/ptp0"

LOOKS: Final = 8

_NANOSECONDS_OF_A_MICROSECOND: Final = 1000
_MICROSECONDS: Final = 1_000_000

# FD_TO_CLOCKID of tools/testing/selftests/ptp/testptp.c: a clock behind a descriptor.
_CLOCK_OF_DESCRIPTOR: Final = 3


class KernelClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def step(self, forward_ns: int) -> None:
        """Put it forward, by less than its own running while this is done.

        Raises:
            ClockError: not permitted.
        """
        try:
            time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() + forward_ns)
        except OSError as error:
            raise ClockError(f"the clock cannot be set: {error.strerror}") from error

    def slew(self, offset_ns: int) -> None:
        """Have it run faster or slower until it has made up for so much (adjtime(3)).

        Raises:
            ClockError: not permitted.
        """
        microseconds = offset_ns // _NANOSECONDS_OF_A_MICROSECOND
        delta = (ctypes.c_long * 2)(*divmod(microseconds, _MICROSECONDS))  # struct timeval
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.adjtime(delta, None) != 0:
            text = os.strerror(ctypes.get_errno())
            raise ClockError(f"the clock cannot be slewed: {text}")


def look_at_ptp(device: str = PTP_DEVICE) -> list[Sample]:
    """Look at the hypervisor's clock a few times.

    Raises:
        ClockError: there is no such device.
    """
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return look_at_clock((~descriptor << 3) | _CLOCK_OF_DESCRIPTOR)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ClockError(f"{device}: {error.strerror}") from error


def look_at_clock(clock: int) -> list[Sample]:
    """Look at a clock of this machine a few times; `clock` as clock_gettime(2) takes it.

    Raises:
        OSError: there is no such clock.
    """
    samples = []
    for _ in range(LOOKS):
        asked_at_ns = time.monotonic_ns()
        theirs_ns = time.clock_gettime_ns(clock)
        round_trip_ns = time.monotonic_ns() - asked_at_ns
        samples.append(Sample.of(theirs_ns, time.time_ns(), round_trip_ns))
    return samples
