"""Asks a service of HTTP one question on a connection of its own."""

from collections.abc import Sequence
from typing import Final

import trio

from vsockproxy.protocols.http_service import AnswerReader, ServiceAnswer, write_request

__all__ = ("ask",)

READ_BYTES: Final = 16 * 1024


async def ask(
    stream: trio.abc.Stream,
    method: str,
    target: str,
    *,
    host: str,
    headers: Sequence[tuple[str, str]] = (),
    max_body_bytes: int,
) -> ServiceAnswer:
    """Ask, wait for the whole answer, and close the connection.

    Args:
        stream: the connection; closed afterwards.
        method: GET or PUT.
        target: the path.
        host: for the Host header.
        headers: further ones.
        max_body_bytes: the longest body that is taken.

    Raises:
        HttpResponseError: the answer is malformed, too long, or cut off.
        OSError: the connection failed.
    """
    try:
        async with stream:
            await stream.send_all(write_request(method, target, host, headers))
            reader = AnswerReader(method, max_body_bytes)
            while True:
                answer = reader.receive(bytes(await stream.receive_some(READ_BYTES)))
                if answer is not None:
                    return answer
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise ConnectionResetError(f"the connection broke: {error}") from error
