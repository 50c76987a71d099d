"""Sockets of the command's network, for a worker that connects to what the command listens on.

A socket belongs to the network namespace that it was made in, wherever it is connected from. The
supervisor may enter the command's; so it makes them, and a worker keeps some in store.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal

from vsockproxy.dataplane.loop import Future, new_future
from vsockproxy.dataplane.questions import SupervisorBusy
from vsockproxy.errors import Refused
from vsockproxy.worker_messages import SocketsWanted

__all__ = ("STORE", "CommandSockets", "IpVersion")

IpVersion = Literal[4, 6]

STORE: Final = 64
"""Sockets that are asked for at once, of one version; the next are when half of them are left."""


class CommandSockets:
    """The store of one IP version.

    Args:
        ip_version: of all of them.
        ask: sends a message to the supervisor; SupervisorBusy if that cannot be now.
    """

    def __init__(self, ip_version: IpVersion, ask: Callable[[SocketsWanted], None]) -> None:
        self._ip_version = ip_version
        self._ask = ask
        self._store: deque[socket.socket] = deque()
        self._waiting: deque[Future[socket.socket]] = deque()
        self._is_awaiting = False

    async def take(self) -> socket.socket:
        """An unconnected TCP socket, non-blocking; the caller's from now on.

        Raises:
            Refused: with `limit`, there is none to be had.
        """
        taken = self._store.popleft() if self._store else None
        if len(self._store) <= STORE // 2:
            self._want_more()
        if taken is not None:
            return taken
        if not self._is_awaiting:
            raise Refused("limit", "the supervisor cannot be asked for a socket")
        answer: Future[socket.socket] = new_future()
        self._waiting.append(answer)
        try:
            return await answer
        except BaseException:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._store.append(answer.result())
            raise

    def _want_more(self) -> None:
        if not self._is_awaiting:
            try:
                self._ask(SocketsWanted(self._ip_version, STORE))
            except SupervisorBusy:
                return  # whoever takes the next one asks again
            self._is_awaiting = True

    def arrived(self, sockets: Sequence[socket.socket]) -> None:
        """The supervisor answered; with none where it has no descriptor to spare."""
        self._is_awaiting = False
        self._store += sockets
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.done():
                continue
            if not self._store and sockets:
                self._waiting.appendleft(waiting)  # more waited than came
                self._want_more()
                return
            if not self._store:
                waiting.set_exception(
                    Refused("limit", "no socket is left in the command's network")
                )
            else:
                waiting.set_result(self._store.popleft())

    def close(self) -> None:
        """Close what is in store."""
        while self._store:
            self._store.popleft().close()
