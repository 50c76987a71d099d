"""Whether this kernel carries vsock connections to itself, and asking it to.

It is read from /sys and never found out by dialling: without the loopback module a connection, even
to CID 1, may be carried by a virtual machine's device to its host, which is not ours to talk to.
"""

import os
import subprocess
from pathlib import Path

LOOPBACK_CID = 1
"""VMADDR_CID_LOCAL of linux/vm_sockets.h; the socket module has it from Python 3.13 on."""

LOOPBACK_MODULE = Path("/sys/module/vsock_loopback")
"""There while net/vmw_vsock/vsock_loopback.c is loaded."""


def has_loopback() -> bool:
    """Whether connections to `LOOPBACK_CID` stay on this machine."""
    return LOOPBACK_MODULE.exists()


def load_loopback() -> bool:
    """Load the module where root may; returns whether the machine has a loopback afterwards."""
    if not has_loopback() and os.geteuid() == 0:
        try:
            subprocess.run(
                ["modprobe", "--quiet", "vsock_loopback"], capture_output=True, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return has_loopback()


def is_user_mode_linux() -> bool:
    """Whether this is the machine of `tests.on_vsock.machine.boot`, where every CID is our own."""
    return "User Mode Linux" in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def kernel_name() -> str:
    """The running kernel, for people: `User Mode Linux 7.2.7` or `Linux 6.1.0-40-amd64`."""
    family = "User Mode Linux" if is_user_mode_linux() else "Linux"
    return f"{family} {os.uname().release}"
