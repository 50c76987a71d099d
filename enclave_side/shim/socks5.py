"""The way in for programs that prefer SOCKS 5: CONNECT to a name, an IPv4 or an IPv6 address."""

import socket
from collections.abc import Callable
from typing import TypeVar

from enclave_side.opener import Opener
from enclave_side.shim.lingering import answer_and_close
from enclave_side.shim.tunnels import serve_tunnel
from vsockproxy.dataplane.closing import close_cleanly, reset_socket
from vsockproxy.dataplane.loop import spawn, timeout
from vsockproxy.dataplane.sockets import receive, send_all
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.protocols.errors import SocksError
from vsockproxy.protocols.socks5 import (
    NO_AUTHENTICATION_CHOSEN,
    GreetingReader,
    Reply,
    RequestReader,
    SocksRequest,
    encode_reply,
    reply_for,
)

READ_BYTES = 16 * 1024
WAY = "socks5"

T = TypeVar("T")


class Socks5Proxy:
    """Serves the connections of one SOCKS 5 listener.

    Args:
        opener: decides and opens the streams.
        log: for handshakes that cannot be read.
    """

    def __init__(self, opener: Opener, log: Log) -> None:
        self._opener = opener
        self._log = log

    def accepted(self, sock: socket.socket, address: object) -> None:
        """Serve one connection."""
        del address
        spawn(self._serve(sock), "socks5 proxy")

    async def _serve(self, sock: socket.socket) -> None:
        try:
            request = await self._read_request(sock)
            if request is not None:
                await self._connect(sock, request)
        except OSError:
            reset_socket(sock)  # the client is gone, or fell silent
        except BaseException:
            reset_socket(sock)
            raise

    async def _read_request(self, sock: socket.socket) -> SocksRequest | None:
        """The client's request; None if it left, or was refused, and the socket is closed."""
        seconds = self._opener.limits.handshake
        answer_if_late = b""
        try:
            async with timeout(seconds):
                request = None
                behind_greeting = await _read(sock, GreetingReader().receive)
                if behind_greeting is not None:
                    await send_all(sock, NO_AUTHENTICATION_CHOSEN)
                    answer_if_late = encode_reply(Reply.GENERAL_FAILURE)
                    request = await _read(sock, RequestReader().receive, behind_greeting)
            if request is None:
                close_cleanly(sock)
            return request
        except TimeoutError:
            error = SocksError(answer_if_late, f"no whole request in {seconds:g} s")
        except SocksError as caught:
            error = caught
        self._log.warning("bad_request", way=WAY, text=error.text)
        await answer_and_close(sock, error.answer)
        return None

    async def _connect(self, sock: socket.socket, request: SocksRequest) -> None:
        try:
            await serve_tunnel(
                self._opener,
                sock,
                request.destination,
                WAY,
                announcement=encode_reply(Reply.SUCCEEDED),
                trailing=request.trailing,
            )
        except Refused as refused:
            await answer_and_close(sock, encode_reply(reply_for(refused.reason)))


async def _read(
    sock: socket.socket, read: Callable[[bytes], T | None], data: bytes = b""
) -> T | None:
    """What a reader makes of `data` and of what follows it; None if the client left before."""
    while (found := read(data)) is None:
        data = await receive(sock, READ_BYTES)
        if not data:
            return None
    return found
