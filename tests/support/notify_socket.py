"""Takes what a process tells systemd, as systemd would (sd_notify(3))."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_SECONDS = 30.0


class NotifySocket:
    """A bound NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(DEADLINE_SECONDS)

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        """The first line that `wanted` accepts, of those that have come and those to come."""
        seen = 0
        while True:
            for line in self.lines[seen:]:
                if wanted(line):
                    return line
            seen = len(self.lines)
            self.lines += self._socket.recv(4096).decode().splitlines()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        self.path.unlink()


@contextmanager
def notify_socket(path: Path) -> Iterator[NotifySocket]:
    """A NOTIFY_SOCKET at `path`."""
    listening = NotifySocket(path)
    try:
        yield listening
    finally:
        listening.close()
