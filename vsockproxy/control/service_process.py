"""A process of services: what speaks HTTP as a server, beside the workers; on trio.

It is started, configured and stopped as a worker is, over the same channel (`worker_messages`), and
inherits listening sockets. When it dies or hangs, no stream is the worse for it.
"""

import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from vsockproxy import worker_messages
from vsockproxy.config.document import Document
from vsockproxy.log import Log
from vsockproxy.passed_memory import read_document
from vsockproxy.worker_messages import (
    ChannelClosed,
    Configure,
    FromWorker,
    Heartbeat,
    Listeners,
    ListenerSummary,
    Message,
    MessageError,
    Ready,
    Stop,
    Stopped,
)

__all__ = (
    "HEARTBEAT_SECONDS",
    "WAITING_MESSAGES",
    "Inbox",
    "Say",
    "Serve",
    "ServiceProcess",
    "run_service",
)

HEARTBEAT_SECONDS: Final = 1.0

WAITING_MESSAGES: Final = 256
"""Messages that `serve` has not taken; further ones are dropped."""

Inbox = trio.MemoryReceiveChannel[tuple[Message, tuple[int, ...]]]
"""What the supervisor says, and descriptors, which are the receiver's to close."""


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """What a service is given.

    Args:
        configure: as a worker gets it.
        document: the configuration.
        listeners: the inherited sockets, non-blocking, and what each is for.
        inbox: what the supervisor says later, but for `stop`.
        log: to this process's stderr, which never blocks.
        say: tells the supervisor something, if that can be done at once; whether it was.
        memory: the descriptor of what the process before left to this one, if it does.
    """

    configure: Configure
    document: Document
    listeners: Sequence[tuple[ListenerSummary, socket.socket]]
    inbox: Inbox
    log: Log
    say: "Say"
    memory: int | None = None


class Say(Protocol):
    """Sends a message."""

    def __call__(self, message: FromWorker, descriptors: Sequence[int] = ()) -> bool:
        """Whether it was sent; the descriptors stay the caller's."""


Serve = Callable[[ServiceProcess], Awaitable[None]]
"""Serves until it is cancelled."""


def run_service(side: str, serve: Serve) -> None:
    """The main function of a services process; its only argument is the channel's descriptor.

    Args:
        side: `parent` or `enclave`, for the log.
        serve: what it does.
    """
    # Ctrl-C and a group's SIGTERM are the supervisor's to interpret.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_blocking(2, False)  # a pipe of this process alone; what it does not take is dropped
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.setblocking(False)
    trio.run(_live, channel, side, serve)


async def _live(channel: socket.socket, side: str, serve: Serve) -> None:
    outbox, inbox = trio.open_memory_channel[tuple[Message, tuple[int, ...]]](WAITING_MESSAGES)
    try:
        process = await _configured(channel, side, inbox)
    except ChannelClosed:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, process)
        nursery.start_soon(_beat, process)
        process.say(Ready())
        while True:
            try:
                message, descriptors = await _receive(channel)
            except ChannelClosed:  # the supervisor is gone: its replacement starts services
                break
            if isinstance(message, Stop):
                break
            try:
                outbox.send_nowait((message, descriptors))
            except trio.WouldBlock:
                for descriptor in descriptors:
                    os.close(descriptor)
        nursery.cancel_scope.cancel()
    process.say(Stopped())


async def _beat(process: ServiceProcess) -> None:
    while True:
        process.say(Heartbeat())
        await trio.sleep(HEARTBEAT_SECONDS)


async def _configured(channel: socket.socket, side: str, inbox: Inbox) -> ServiceProcess:
    message, descriptors = await _receive(channel)
    if not isinstance(message, Configure):
        raise MessageError(f"a {type(message).__name__} message before configure")
    memory = descriptors[1] if len(descriptors) > 1 else None
    try:
        document = read_document(descriptors[0])
    finally:
        os.close(descriptors[0])
    wanted = len(message.listeners) if message.listeners_follow else 0
    sockets: list[socket.socket] = []
    while len(sockets) < wanted:
        following, descriptors = await _receive(channel)
        if not isinstance(following, Listeners):
            raise MessageError(f"a {type(following).__name__} message in place of listeners")
        sockets += [socket.socket(fileno=number) for number in descriptors]

    def say(message: FromWorker, descriptors: Sequence[int] = ()) -> bool:
        try:
            worker_messages.send(channel, message, descriptors)
        except (BlockingIOError, ChannelClosed):  # whoever reads sees the end of the channel
            return False
        return True

    listeners = list(zip(message.listeners, sockets, strict=True)) if wanted else []
    log = Log(side, message.log_format, message.log_level)
    return ServiceProcess(message, document, listeners, inbox, log, say, memory)


async def _receive(channel: socket.socket) -> tuple[Message, tuple[int, ...]]:
    await trio.lowlevel.checkpoint()  # before, or descriptors could be lost
    while True:
        try:
            return worker_messages.receive(channel)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(channel)
