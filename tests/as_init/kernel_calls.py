"""What setting clocks and adding entropy comes to in a kernel that is ours: a line for each.

python -m tests.as_init.kernel_calls
"""

import ctypes
import os
import time
from collections.abc import Callable
from functools import partial

from enclave_side.entropy import EntropyError, credit_entropy
from enclave_side.kernel_clock import KernelClock, look_at_clock
from vsockproxy.control.clock import ClockError

SECOND = 1_000_000_000


def since_boot_ns() -> int:
    """How far the wall clock is ahead of one that is never set."""
    return time.time_ns() - time.monotonic_ns()


def main() -> None:
    before_ns = since_boot_ns()
    KernelClock().step(7 * SECOND)
    stepped_ns = since_boot_ns() - before_ns
    print("stepped", round(stepped_ns / SECOND, 1))
    KernelClock().slew(-3 * SECOND // 2)
    left = (ctypes.c_long * 2)()
    ctypes.CDLL(None).adjtime(None, left)
    print("slews by", round(left[0] + left[1] / 1e6, 1))
    offset_ns = abs(look_at_clock(time.CLOCK_REALTIME)[0].offset_ns)
    print("offset of itself", round(offset_ns / SECOND, 1))
    credit_entropy(os.urandom(255))
    print("credited")
    os.setresuid(65534, 65534, 65534)
    acts: dict[str, Callable[[], None]] = {
        "credit": partial(credit_entropy, bytes(8)),
        "step": partial(KernelClock().step, 1),
        "slew": partial(KernelClock().slew, 1000),
    }
    for name, act in acts.items():
        try:
            act()
        except (ClockError, EntropyError) as error:
            print(name, "refused:", error)


if __name__ == "__main__":
    main()
