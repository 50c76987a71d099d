"""One worker process: its start, its channel, its end."""

import signal
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from vsockproxy import worker_messages
from vsockproxy.control.child import Child
from vsockproxy.control.logs import Relay
from vsockproxy.control.worker_start import StartedWorker
from vsockproxy.worker_messages import ChannelClosed, Message, ToWorker

__all__ = ("ExecutedWorker", "Launcher", "WorkerProcess")


class WorkerProcess(Protocol):
    """What supervision needs of a worker; tests have one without a process."""

    @property
    def pid(self) -> int:
        """The process id, for the log."""

    async def send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> None:
        """Send a message, whole or not at all: it was not sent if this is cancelled.

        Raises:
            ChannelClosed: the worker is gone or going.
        """

    def try_send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        """Send a message if that can be done at once; whether it was."""

    async def receive(self) -> tuple[Message, tuple[int, ...]]:
        """Wait for the next message; whoever gets its descriptors closes them.

        Raises:
            ChannelClosed: the worker is gone or going.
            MessageError: what came is none.
        """

    async def wait(self) -> int:
        """Wait for its end; the wait status. Called once."""

    def kill(self) -> None:
        """End it at once (SIGKILL); nothing if it has ended."""

    def close(self) -> None:
        """Close the channel, which a worker takes as the order to exit."""


Launcher = Callable[[], WorkerProcess]
"""Starts a worker; OSError if the system cannot."""


class ExecutedWorker:
    """A worker that is a process of its own.

    Args:
        started: the process; this takes over its descriptors.
        relay: gets what the worker writes to stdout and stderr.
    """

    def __init__(self, started: StartedWorker, relay: Relay) -> None:
        self._channel = started.channel
        self._sending = trio.Lock()
        self._child = Child(started.pid)
        relay.copy_from(started.output)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    async def send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> None:
        """Send a message, whole or not at all."""
        async with self._sending:
            while True:
                try:
                    worker_messages.send(self._channel, message, descriptors)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._channel)
                else:
                    return  # without a checkpoint, or what was sent might count as not sent

    def try_send(self, message: ToWorker, descriptors: Sequence[int] = ()) -> bool:
        """Send a message if that can be done at once; whether it was."""
        if self._sending.locked():  # not before those that wait
            return False
        try:
            worker_messages.send(self._channel, message, descriptors)
        except (BlockingIOError, ChannelClosed):
            return False
        return True

    async def receive(self) -> tuple[Message, tuple[int, ...]]:
        """Wait for the next message and its descriptors."""
        await trio.lowlevel.checkpoint()  # before, or descriptors could be lost
        while True:
            try:
                return worker_messages.receive(self._channel)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._channel)

    async def wait(self) -> int:
        """Wait for its end; the wait status."""
        return await self._child.wait()

    def kill(self) -> None:
        """End it at once."""
        self._child.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
        self._child.close()
