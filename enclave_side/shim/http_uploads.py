"""The request's half of one HTTP exchange, while the answer comes the other way."""

from collections.abc import Awaitable, Callable

from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_exchange import ForwardedExchange
from vsockproxy.session import ErrorCode

__all__ = ("upload",)


async def upload(
    exchange: ForwardedExchange,
    first_bytes: bytes,
    receive: Callable[[], Awaitable[bytes]],
    write: Callable[[bytes], Awaitable[None]],
    end: StreamEnd,
) -> None:
    """Carry a client's request, until nothing more is to come.

    Args:
        exchange: whose request it is.
        first_bytes: what it began with.
        receive: the next bytes of the client, empty at the end.
        write: sends bytes to the origin.
        end: the stream that carries the exchange; reset where either side breaks.
    """
    try:
        await write(first_bytes)
        while data := await receive():
            await write(exchange.client_data(data))
        exchange.client_eof()
    except (OSError, HttpRequestError):
        end.reset(ErrorCode.CUT)
