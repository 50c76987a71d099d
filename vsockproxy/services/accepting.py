"""Accepts connections on a socket that somebody else has made, a bounded number at once."""

import os
from collections.abc import Awaitable, Callable
from socket import socket

import trio

from vsockproxy.control.logs import EventLog
from vsockproxy.listening import ACCEPT_PAUSE_SECONDS, EXHAUSTED, OF_THE_LISTENER

__all__ = ("ServeConnection", "accept_connections")

ServeConnection = Callable[[trio.socket.SocketType], Awaitable[None]]
"""Serves one connection, and closes it."""


async def accept_connections(
    listener: socket,
    serve: ServeConnection,
    log: EventLog,
    *,
    at_once: int,
    make_room: Callable[[], None] | None = None,
) -> None:
    """Accept until cancelled.

    Args:
        listener: non-blocking and listening; whoever made it closes it.
        serve: is run for each connection.
        log: gets a line when accepting has to rest.
        at_once: how many connections are served; the next one waits in the kernel's backlog.
        make_room: is called where all are taken and another one waits.
    """
    room = trio.Semaphore(at_once)
    accepting = trio.socket.from_stdlib_socket(listener)
    is_in_want = False

    async def run(connection: trio.socket.SocketType) -> None:
        try:
            await serve(connection)
        finally:
            room.release()

    try:
        async with trio.open_nursery() as nursery:
            while True:
                if make_room is not None and not room.value:
                    await trio.lowlevel.wait_readable(listener)
                    make_room()
                await room.acquire()
                try:
                    connection, _ = await accepting.accept()
                except OSError as error:
                    room.release()
                    if error.errno in OF_THE_LISTENER:
                        raise
                    if error.errno in EXHAUSTED:
                        if not is_in_want:
                            text = os.strerror(error.errno or 0)
                            log.write("error", "accept_failed", {"text": text})
                        is_in_want = True
                        await trio.sleep(ACCEPT_PAUSE_SECONDS)
                    continue
                is_in_want = False
                nursery.start_soon(run, connection)
    finally:
        accepting.detach()
