"""What a service tells systemd of itself: sd_notify(3), and the watchdog's due."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import trio

__all__ = ("feed_watchdog", "tell_systemd")

_WATCHDOG_SHARE: Final = 3.0
"""systemd is told three times within the time that it waits."""


def tell_systemd(*assignments: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send assignments, as `READY=1`; without systemd, or if it does not listen, nothing happens.

    Args:
        assignments: lines of sd_notify(3).
        environment: where NOTIFY_SOCKET is.
    """
    path = environment.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)
        sending.sendto("\n".join(assignments).encode(), address)


async def feed_watchdog(environment: Mapping[str, str] = os.environ) -> None:
    """Tell systemd that the loop runs, until cancelled; returns where it does not ask."""
    asked = environment.get("WATCHDOG_USEC", "")
    is_other = environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid())
    if not asked.isdecimal() or is_other or int(asked) == 0:
        return
    while True:
        tell_systemd("WATCHDOG=1", environment=environment)
        await trio.sleep(int(asked) / 1_000_000 / _WATCHDOG_SHARE)
