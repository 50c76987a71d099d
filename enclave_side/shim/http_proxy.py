"""The way in for programs that read HTTP_PROXY: CONNECT, and absolute-form requests."""

import socket
from contextlib import suppress
from functools import partial

from enclave_side.opener import Destined, Opener
from enclave_side.shim.http_uploads import upload
from enclave_side.shim.lingering import answer_and_close, drop_the_rest, linger_and_close
from enclave_side.shim.tunnels import serve_tunnel
from vsockproxy.dataplane.closing import close_cleanly, reset_socket
from vsockproxy.dataplane.loop import CancelledError, spawn, timeout
from vsockproxy.dataplane.sockets import receive, receive_at_once, send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.protocols.errors import HttpRequestError, HttpResponseError
from vsockproxy.protocols.http_answers import connect_established, refusal, status_for
from vsockproxy.protocols.http_exchange import ForwardedExchange
from vsockproxy.protocols.http_proxy import (
    ConnectRequest,
    ForwardRequest,
    ProxyRequestReader,
)
from vsockproxy.session import ErrorCode

READ_BYTES = 16 * 1024
WAY = "http_proxy"


class HttpProxy:
    """Serves the connections of one HTTP proxy listener.

    Args:
        opener: decides and opens the streams.
        log: for requests that cannot be read.
        own_host: where the proxy listens, for Host headers that name it.
    """

    def __init__(self, opener: Opener, log: Log, own_host: str) -> None:
        self._opener = opener
        self._log = log
        self._own_host = own_host

    def accepted(self, sock: socket.socket, address: object) -> None:
        """Serve one connection."""
        del address
        spawn(self._serve(sock), "http proxy")

    async def _serve(self, sock: socket.socket) -> None:
        try:
            request = await self._read_request(sock)
            if isinstance(request, ConnectRequest):
                await self._connect(sock, request)
            elif request is not None:
                await self._forward(sock, request)
        except OSError:
            reset_socket(sock)  # the client is gone, or fell silent
        except BaseException:
            reset_socket(sock)
            raise

    async def _read_request(self, sock: socket.socket) -> ConnectRequest | ForwardRequest | None:
        reader = ProxyRequestReader(self._own_host)
        seconds = self._opener.limits.handshake
        try:
            async with timeout(seconds):
                while True:
                    data = await receive_at_once(sock, READ_BYTES)
                    if not data:
                        close_cleanly(sock)
                        return None
                    request = reader.receive(data)
                    if request is not None:
                        return request
        except TimeoutError:
            error = HttpRequestError(408, f"no whole request in {seconds:g} s")
        except HttpRequestError as caught:
            error = caught
        await self._refuse_request(sock, "-", error)
        return None

    async def _connect(self, sock: socket.socket, request: ConnectRequest) -> None:
        try:
            await serve_tunnel(
                self._opener,
                sock,
                request.destination,
                WAY,
                announcement=connect_established(),
                trailing=request.trailing,
            )
        except Refused as refused:
            await self._refuse(sock, str(request.destination), refused)

    async def _forward(self, sock: socket.socket, request: ForwardRequest) -> None:
        asked = request.destination
        try:
            destined = self._opener.decide(asked.host.text, asked.port, WAY)
            if self._opener.requires_tls(destined):
                self._opener.refuse_plain(destined)
            exchange = ForwardedExchange(request)
            first_bytes = exchange.start()
            end = await self._opener.open(destined)
        except Refused as refused:
            await self._refuse(sock, str(asked), refused, has_body=request.method != "HEAD")
            return
        except HttpRequestError as error:
            await self._refuse_request(sock, str(asked), error)
            return
        await self._exchange(sock, exchange, end, first_bytes, destined)

    async def _exchange(
        self,
        sock: socket.socket,
        exchange: ForwardedExchange,
        end: StreamEnd,
        first_bytes: bytes,
        destined: Destined,
    ) -> None:
        receive_more = partial(receive, sock, READ_BYTES)
        uploading = spawn(
            upload(exchange, first_bytes, receive_more, end.write, end), "http request body"
        )
        try:
            while not exchange.is_complete:
                data = await end.read()
                answer = exchange.origin_data(data) if data else exchange.origin_eof()
                await send_all(sock, answer)
            uploading.cancel()
            end.finish()
            with suppress(CancelledError):
                await uploading  # it may wait for the socket, which has one reader at a time
            await linger_and_close(sock)
            # The origin was told to close: with its end of file the stream ends cleanly.
            await drop_the_rest(end.read)
            end.reset(ErrorCode.CANCELLED)
        except HttpResponseError as error:
            end.reset(ErrorCode.CUT)
            if exchange.may_answer:
                asked = f"{destined.host}:{destined.port}"
                await answer_and_close(sock, refusal(502, error.reason, asked, error.text))
            else:
                reset_socket(sock)
        except OSError:
            end.reset(ErrorCode.CUT)
            reset_socket(sock)
        except BaseException:  # whatever it was, the stream is not left open
            end.reset(ErrorCode.CUT)
            raise
        finally:
            uploading.cancel()

    async def _refuse(
        self, sock: socket.socket, asked: str, refused: Refused, *, has_body: bool = True
    ) -> None:
        answer = refusal(
            status_for(refused.reason), refused.reason, asked, refused.text, has_body=has_body
        )
        await answer_and_close(sock, answer)

    async def _refuse_request(
        self, sock: socket.socket, asked: str, error: HttpRequestError
    ) -> None:
        self._log.warning("bad_request", way=WAY, status=error.status, text=error.text)
        answer = refusal(error.status, error.reason, asked, error.text)
        await answer_and_close(sock, answer)
