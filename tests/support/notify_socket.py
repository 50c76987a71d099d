"""A NOTIFY_SOCKET as systemd has one: datagrams with lines, and descriptors that come with them."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

MOST_DESCRIPTORS = 64
MOST_BYTES = 4096  # NOTIFY_BUFFER_MAX
SECONDS = 30.0


class FakeNotifySocket:
    """Receives what a service tells systemd; use it in a `with` block.

    Args:
        address: a path, or `@` and a name in the abstract namespace.
    """

    def __init__(self, address: Path | str) -> None:
        self.address = str(address)
        self.messages: list[dict[str, str]] = []
        self.received_at: list[float] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"\0{self.address[1:]}" if self.address[:1] == "@" else self.address
        self._socket.bind(name)

    def receive(self, seconds: float = SECONDS) -> dict[str, str]:
        """The next message.

        Raises:
            TimeoutError: there was none in time.
        """
        self._socket.settimeout(seconds)
        data, descriptors, _, _ = socket.recv_fds(self._socket, MOST_BYTES, MOST_DESCRIPTORS)
        for descriptor in descriptors:  # BARRIER=1 waits until it is closed
            os.close(descriptor)
        message = dict(line.split("=", 1) for line in data.decode().splitlines())
        self.messages.append(message)
        self.received_at.append(time.monotonic())
        return message

    def wait_for(
        self, wanted: Callable[[dict[str, str]], bool], seconds: float = SECONDS
    ) -> dict[str, str]:
        """The next message that `wanted` accepts."""
        deadline = time.monotonic() + seconds
        while True:
            message = self.receive(max(0.001, deadline - time.monotonic()))
            if wanted(message):
                return message

    def wait_for_key(self, key: str) -> dict[str, str]:
        """The next message that has `key`."""
        return self.wait_for(lambda message: key in message)

    def drop_waiting(self) -> None:
        """Take what has arrived."""
        with suppress(BlockingIOError):
            while True:
                self.receive(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
