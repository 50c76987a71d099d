"""What `for_asyncio` and `for_trio` have in common: when to wait. How is their loop's."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vsockproxy.client.errors import OpeningCut
from vsockproxy.client.listening import Accepted, ServiceListener
from vsockproxy.client.opening import (
    FIRST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    Opening,
    try_to_connect,
)

__all__ = ("Accepting", "Waits", "connect", "finish")


@dataclass(frozen=True, slots=True)
class Waits:
    """How a loop waits.

    Args:
        sleep: for seconds.
        readable: until a descriptor is readable.
    """

    sleep: Callable[[float], Awaitable[object]]
    readable: Callable[[int], Awaitable[object]]


async def connect(path: str, waits: Waits) -> socket.socket:
    """Connect to the stream socket, and wait while too many others do.

    Raises:
        StreamSocketMissing: nobody listens there.
    """
    pause = FIRST_RETRY_SECONDS
    while True:
        try:
            return try_to_connect(path)
        except BlockingIOError:
            await waits.sleep(pause)
        pause = min(2 * pause, MOST_RETRY_SECONDS)


async def finish(opening: Opening, waits: Waits) -> socket.socket:
    """Wait until a stream stands; its socket. Otherwise it is closed.

    Raises:
        StreamRefused, OpeningCut, PacketError: as `Opening.receive` says.
    """
    try:
        while not opening.is_open:
            try:
                opening.receive()
            except BlockingIOError:
                await waits.readable(opening.fileno())
    except BaseException:
        opening.close()
        raise
    return opening.detach()


class Accepting:
    """Takes the connections of a service, and finds the worker that replaced a dead one.

    Args:
        service: its name in the enclave's file.
        path: of the stream socket.
        waits: how to wait.
    """

    def __init__(self, service: str, path: str, waits: Waits) -> None:
        self._service = service
        self._path = path
        self._waits = waits
        self._listener: ServiceListener | None = None

    async def start(self) -> ServiceListener:
        """Listen.

        Raises:
            StreamRefused, StreamSocketMissing, OpeningCut, PacketError, ValueError: as `listen` of
                both loops says.
        """
        listener = ServiceListener(await connect(self._path, self._waits), self._service)
        try:
            while not listener.is_listening:
                try:
                    listener.receive()
                except BlockingIOError:
                    await self._waits.readable(listener.fileno())
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        return listener

    async def accept(self) -> Accepted:
        """Wait for the next connection. Raises what `start` does, and OSError with EMFILE."""
        while True:
            listener = self._listener or await self.start()
            try:
                accepted = listener.receive()
            except BlockingIOError:
                await self._waits.readable(listener.fileno())
            except OpeningCut:
                self.close()
            else:
                assert accepted is not None  # it listens already
                return accepted

    def close(self) -> None:
        """Listen no more; connections that were not taken are reset."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
