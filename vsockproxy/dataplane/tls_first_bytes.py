"""The first bytes of a stream that has to begin with a ClientHello for the host asked for."""

from collections.abc import Awaitable, Callable

from vsockproxy.addresses import Host
from vsockproxy.dataplane.loop import timeout
from vsockproxy.protocols.client_hello import ClientHelloReader, check_server_name
from vsockproxy.protocols.errors import NotTls

__all__ = ("Read", "read_client_hello")

Read = Callable[[], Awaitable[bytes]]
"""Waits for bytes, wherever they travel; empty at the end."""


async def read_client_hello(
    read: Read, host: Host, timeout_seconds: float, first_bytes: bytes = b""
) -> bytes:
    """Read until there is a whole ClientHello; all bytes so far, once it is one for `host`.

    Args:
        read: for what comes after `first_bytes`.
        host: what was asked for.
        timeout_seconds: how long it may take; 0 or more.
        first_bytes: what has been read already.

    Raises:
        ClientHelloError: it is none, is for another host, or did not come.
        Exception: what `read` raises.
    """
    reader = ClientHelloReader()
    try:
        async with timeout(timeout_seconds):
            hello = reader.receive(first_bytes) if first_bytes else None
            while hello is None:
                data = await read()
                if not data:
                    raise NotTls("the program closed before a ClientHello")
                hello = reader.receive(data)
    except TimeoutError as error:
        if error.errno is not None:  # the kernel's ETIMEDOUT, not ours
            raise
        raise NotTls(f"no ClientHello for {timeout_seconds:g} s") from error
    check_server_name(hello, host)
    return reader.received
