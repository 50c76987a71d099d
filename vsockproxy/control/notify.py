"""What a service tells systemd (sd_notify(3)): lines of text in a datagram. Without a loop."""

import socket
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final, Self

__all__ = (
    "STOPPING",
    "WATCHDOG",
    "NotifySettings",
    "NotifySocket",
    "extend_timeout",
    "ready",
    "reloading",
    "status",
)

STOPPING: Final = b"STOPPING=1"
WATCHDOG: Final = b"WATCHDOG=1"

MICROSECONDS: Final = 1_000_000


def status(text: str) -> bytes:
    """One line for people, which `systemctl status` shows."""
    line = " ".join(text.splitlines())
    return f"STATUS={line}".encode(errors="backslashreplace")


def ready(text: str) -> bytes:
    """The service has started, or has reloaded; `text` as for `status`."""
    return b"READY=1\n" + status(text)


def reloading(monotonic_usec: int, text: str) -> bytes:
    """The service begins to reload; `monotonic_usec` is CLOCK_MONOTONIC, in microseconds."""
    return f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}\n".encode() + status(text)


def extend_timeout(seconds: float) -> bytes:
    """What is under way goes on for up to so long, unless the next message says so again."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * MICROSECONDS)}".encode()


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """What systemd wants to be told.

    Args:
        address: where; None if nobody wants to know.
        watchdog_seconds: how long the service may be silent; None if that is not watched.
    """

    address: str | None = None
    watchdog_seconds: float | None = None

    @classmethod
    def take(cls, environment: MutableMapping[str, str], pid: int) -> Self:
        """Take the variables that say it out of `environment`: they are not for our children.

        Args:
            environment: of this process.
            pid: its number; a watchdog may be another's (sd_watchdog_enabled(3)).
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        watchdog_text = environment.pop("WATCHDOG_USEC", "")
        watchdog_pid = environment.pop("WATCHDOG_PID", "") or str(pid)
        is_number = watchdog_text.isascii() and watchdog_text.isdigit() and int(watchdog_text) > 0
        return cls(
            address if address[:1] in ("/", "@") and len(address) > 1 else None,
            int(watchdog_text) / MICROSECONDS if is_number and watchdog_pid == str(pid) else None,
        )


class NotifySocket:
    """Sends datagrams to systemd; whether that succeeds is nobody's fault of ours.

    Args:
        address: a path, or a name in the abstract namespace after `@`.

    Raises:
        OSError: nobody is there.
    """

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect("\0" + address[1:] if address[:1] == "@" else address)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor, for a loop to wait on."""
        return self._socket.fileno()

    def send(self, message: bytes) -> None:
        """Send one message.

        Raises:
            BlockingIOError: systemd has not read what it was told before; try again.
            OSError: nobody is there any more.
        """
        self._socket.send(message)

    def close(self) -> None:
        """Close it."""
        self._socket.close()
