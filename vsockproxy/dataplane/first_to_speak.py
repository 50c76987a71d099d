"""Which end of a relay speaks first: protocols differ, and nobody may wait for the wrong one."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ("read_unless_readable",)


async def read_unless_readable(
    read: Callable[[], Coroutine[Any, Any, bytes]],
    sock: socket.socket,
    seconds: float | None = None,
) -> bytes | None:
    """Bytes of one end, or None if the other has something to read before them.

    Args:
        read: waits for bytes, and loses none when it is cancelled; empty at the end.
        sock: of the other end, with no reader of its own.
        seconds: how long to wait for either; None for ever.

    Raises:
        TimeoutError: neither had anything in time.
        Exception: what `read` raises.
    """
    loop = asyncio.get_running_loop()
    reading = loop.create_task(read())
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), _wake, readable)
    try:
        await asyncio.wait(
            (reading, readable), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        has_spoken = readable.done()
        if not reading.done():
            reading.cancel()
            await asyncio.wait((reading,))
    except asyncio.CancelledError:
        reading.cancel()
        raise
    finally:
        loop.remove_reader(sock.fileno())
    if not reading.cancelled():
        return reading.result()
    if not has_spoken:
        raise TimeoutError
    return None


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
