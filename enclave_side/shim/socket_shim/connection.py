"""The connections that the shim has made, found by their sockets: what is to come, and to whom.

A socket is known by its inode, which all its descriptors share, however they were duplicated. What
is known is forgotten when the last descriptor that we saw is closed, or by a look at all of them
now and then, for those that were closed behind our back.
"""

import os
import select
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from enclave_side.shim.socket_shim.failures import connect_error, failure_text
from enclave_side.shim.socket_shim.stderr_lines import StderrLines
from vsockproxy.client.opening import Opening

__all__ = ("Connection", "Connections", "inode_of")

_FIRST_SWEEP: Final = 64
"""Connections; the next look at all of them is at twice as many as were left."""


def inode_of(descriptor: int) -> int | None:
    """What all descriptors of a socket have in common; None if it is closed."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


class Connection:
    """One connection of the program, made or on its way.

    Args:
        inode: of the program's socket.
        descriptor: the program's.
        peer: what `getpeername` says.
        target: what was asked for, in lines and errors.
        opening: what there is to wait for, without its socket; None if the connection stands.
    """

    __slots__ = (
        "__weakref__",
        "_error",
        "_opening",
        "_owner",
        "_target",
        "descriptors",
        "has_failed",
        "inode",
        "is_told",
        "peer",
    )

    def __init__(
        self,
        inode: int,
        descriptor: int,
        peer: tuple[Any, ...],
        target: str,
        opening: Opening | None,
    ) -> None:
        self.inode = inode
        self.descriptors = {descriptor}
        self.peer = peer
        self.has_failed = False
        self.is_told = opening is None
        """Whether connect() has told what came of it."""
        self._target = target
        self._opening = opening
        self._error: OSError | None = None
        self._owner: weakref.ref[socket.socket] | None = None

    @property
    def is_pending(self) -> bool:
        """Whether there is no answer yet."""
        return self._opening is not None

    @property
    def is_alive(self) -> bool:
        """Whether one of its descriptors is still its socket's."""
        return any(inode_of(descriptor) == self.inode for descriptor in list(self.descriptors))

    def take_error(self) -> OSError | None:
        """Why it failed; told once."""
        error, self._error = self._error, None
        return error

    def wait(self, timeout: float | None) -> None:
        """Wait for its answer, at most `timeout` seconds."""
        opening = self._opening
        descriptor = -1 if opening is None else opening.fileno()
        if descriptor >= 0:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(None if timeout is None else timeout * 1000)

    def receive(self, lines: StderrLines) -> None:
        """Take the answer, if it has come."""
        if self._opening is None:
            return
        try:
            self._opening.receive()
        except BlockingIOError:
            return
        except Exception as error:
            lines.say(failure_text(error, self._target))
            self.fail(connect_error(error, self._target))
            return
        self._answered()

    def ends_with(self, owner: socket.socket, gone: Callable[["Connection"], None]) -> None:
        """Call `gone` when `owner` is destroyed, with or without a close, before the answer."""
        self._owner = weakref.ref(owner, lambda _: gone(self))

    def fail(self, error: OSError | None) -> None:
        """It is not to be; `error` is still to be told."""
        self.has_failed = True
        self._error = error
        self._answered()

    def give_up(self) -> None:
        """Nobody has it any more."""
        self._answered()

    def _answered(self) -> None:
        self._owner = None
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.close()


class Connections:
    """All connections of this process; for threads.

    Args:
        lines: what is refused is said there.
    """

    def __init__(self, lines: StderrLines) -> None:
        self._lines = lines
        self._by_inode: dict[int, Connection] = {}
        self._sweep_at = _FIRST_SWEEP
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        # A signal handler or a finaliser may come in between, in the same thread.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._by_inode)

    def find(self, descriptor: int) -> Connection | None:
        """The connection of a descriptor, with what has arrived for it; None if it is not ours."""
        if not self._by_inode:
            return None
        inode = inode_of(descriptor)
        connection = None if inode is None else self._by_inode.get(inode)
        if connection is not None and connection.is_pending:
            with self._lock:
                connection.receive(self._lines)
        return connection

    def add(self, connection: Connection) -> None:
        """Know a connection from now on."""
        with self._lock:
            self._by_inode[connection.inode] = connection
            if len(self._by_inode) > self._sweep_at:
                for known in list(self._by_inode.values()):
                    self.forget_if_dead(known)
                self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._by_inode))

    def duplicated(self, descriptor: int, duplicate: int) -> None:
        """`duplicate` is another descriptor of the same socket."""
        connection = self.find(descriptor)
        if connection is not None:
            connection.descriptors.add(duplicate)

    def closing(self, descriptor: int) -> None:
        """`descriptor` is about to be closed."""
        connection = self.find(descriptor)
        if connection is not None:
            connection.descriptors.discard(descriptor)
            if not connection.descriptors:
                self.forget(connection)

    def forget(self, connection: Connection) -> None:
        """Know it no more."""
        with self._lock:
            self._by_inode.pop(connection.inode, None)
            connection.give_up()

    def forget_if_dead(self, connection: Connection) -> None:
        """Know it no more if all its descriptors are closed."""
        if not connection.is_alive:
            self.forget(connection)
