"""A forward for programs that speak plain HTTP/1.1: their requests reach one https destination.

One stream for each connection of a program, opened with its first request and kept for the next
ones; when either end closes, so does the other. A refusal is an HTTP answer, as the HTTP proxy's.
"""

import socket
from contextlib import suppress

from enclave_side.opener import Destined, Opener
from enclave_side.shim.http_uploads import upload
from enclave_side.shim.lingering import (
    LINGER_SECONDS,
    answer_and_close,
    drop_the_rest,
    linger_and_close,
)
from vsockproxy.addresses import Destination, normalise_host
from vsockproxy.config.model import EnclaveForward
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.loop import CancelledError, Event, Task, sleep, spawn, timeout
from vsockproxy.dataplane.sockets import receive, send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.tls_client import TlsClient
from vsockproxy.dataplane.tls_connection import TlsConnection
from vsockproxy.dataplane.tls_failures import TlsFailed, TlsTruncated
from vsockproxy.dataplane.tls_socket import ENDED_TLS_FAILED, ENDED_TLS_TRUNCATED
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.protocols.errors import HttpRequestError, HttpResponseError
from vsockproxy.protocols.http_answers import refusal, status_for
from vsockproxy.protocols.http_exchange import ForwardedExchange
from vsockproxy.protocols.http_front import DEFAULT_HTTPS_PORT, FrontRequestReader
from vsockproxy.protocols.http_proxy import ForwardRequest
from vsockproxy.session import ErrorCode

__all__ = ("HttpFront",)

READ_BYTES = 16 * 1024
MOST_AHEAD_BYTES = 4 * READ_BYTES
"""Read from a program and not yet passed on."""


class HttpFront:
    """Serves the connections of one forward's listener.

    Args:
        opener: decides and opens the streams.
        log: for requests that cannot be read.
        forward: where the requests go.
        way: how programs come in, for the audit lines.

    Raises:
        TlsFileError: a file that the forward names cannot be used.
    """

    def __init__(self, opener: Opener, log: Log, forward: EnclaveForward, way: str) -> None:
        self.opener = opener
        self.log = log
        self.to = forward.to
        self.way = way
        self.client = TlsClient.for_forward(forward)
        self.destination = Destination(normalise_host(self.client.server_name), forward.to.port)
        """What the Host header names."""

    def accepted(self, sock: socket.socket, address: object) -> None:
        """Serve one connection."""
        del address
        spawn(_Connection(self, sock).serve(), f"http front of {self.to}")


class _Program:
    """What a program sends, read ahead up to a bound, so that its end is noticed."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = bytearray()
        self._has_ended = False
        self._error: OSError | None = None
        self._changed = Event()
        self._has_room = Event()
        self.stream: StreamEnd | None = None
        """Reset when the program resets its connection."""
        self.reading: Task[None] = spawn(self._read(), "http front, reading")

    async def _read(self) -> None:
        try:
            while data := await receive(self._sock, READ_BYTES):
                self._bytes += data
                self._changed.set()
                while len(self._bytes) >= MOST_AHEAD_BYTES:
                    self._has_room.clear()
                    await self._has_room.wait()
        except OSError as error:
            self._error = error
            if self.stream is not None:
                self.stream.reset(ErrorCode.CUT)
        self.end()

    def end(self) -> None:
        """Nothing more is to be waited for."""
        self._has_ended = True
        self._changed.set()

    async def next(self) -> bytes:
        """What has come, waiting for some; empty at the end.

        Raises:
            OSError: the program reset its connection.
        """
        while not self._bytes:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._bytes)
        self._bytes.clear()
        self._has_room.set()
        return data

    async def stop(self) -> None:
        """Leave the socket to others."""
        self.reading.cancel()
        with suppress(CancelledError):
            await self.reading


class _Connection:
    """One connection of a program."""

    def __init__(self, front: HttpFront, sock: socket.socket) -> None:
        self._front = front
        self._sock = sock
        self._program = _Program(sock)
        self._destined: Destined | None = None
        self._end: StreamEnd | None = None
        self._tls: TlsConnection | None = None
        self._asked = str(front.to)

    async def serve(self) -> None:
        try:
            await self._serve()
        except OSError:
            reset_socket(self._sock)
        except BaseException:
            reset_socket(self._sock)
            raise
        finally:
            self._program.reading.cancel()
            if self._end is not None:
                self._end.reset(ErrorCode.CUT)  # nothing, if it has ended

    async def _serve(self) -> None:
        surplus = b""
        while True:
            request = await self._next_request(surplus)
            if request is None:
                return
            exchange = ForwardedExchange(request, default_port=DEFAULT_HTTPS_PORT, may_persist=True)
            try:
                first_bytes = exchange.start()
                if self._tls is None:
                    self._tls = await self._open()
            except HttpRequestError as error:
                await self._refuse_request(error)
                return
            except Refused as refused:
                has_body = request.method != "HEAD"
                await self._refuse(
                    status_for(refused.reason), refused.reason, refused.text, has_body=has_body
                )
                return
            if not await self._carry(exchange, self._tls, first_bytes):
                return
            if not exchange.persists or self._end is None or self._end.is_closed:
                break
            surplus = exchange.surplus
        await self._close()

    async def _next_request(self, data: bytes) -> ForwardRequest | None:
        """The next request; None when there is none, and the connection is closed."""
        watching = spawn(self._watch(self._tls), "http front, idle") if self._tls else None
        try:
            data = data or await self._program.next()
            await sleep(0)  # what has come from the destination is seen first
        finally:
            if watching is not None:
                watching.cancel()
                with suppress(CancelledError):
                    await watching
        # What the destination says before it is asked must not become the next answer.
        if not data or (watching is not None and not watching.cancelled()):
            await self._close()
            return None
        reader = FrontRequestReader(self._front.destination)
        seconds = self._front.opener.limits.handshake
        try:
            async with timeout(seconds):
                while (request := reader.receive(data)) is None:
                    data = await self._program.next()
                    if not data:
                        await self._close()
                        return None
                return request
        except TimeoutError:
            error = HttpRequestError(408, f"no whole request in {seconds:g} s")
        except HttpRequestError as caught:
            error = caught
        await self._refuse_request(error)
        return None

    async def _watch(self, tls: TlsConnection) -> None:
        """Between two exchanges: the destination closes, or says what nobody asked for."""
        with suppress(OSError, Refused):
            await tls.read()
        self._program.end()

    async def _open(self) -> TlsConnection:
        opener, to = self._front.opener, self._front.to
        destined = self._destined = opener.decide(to.host.text, to.port, self._front.way)
        self._end = await opener.open(destined, is_final=False)
        self._program.stream = self._end
        return await opener.secure(destined, self._end, self._front.client)

    async def _carry(
        self, exchange: ForwardedExchange, tls: TlsConnection, first_bytes: bytes
    ) -> bool:
        """Carry one exchange; False when it failed, and the connection is closed."""
        end = self._end
        assert end is not None  # it carries `tls`

        async def receive_more() -> bytes:
            return b"" if exchange.request_is_complete else await self._program.next()

        uploading = spawn(
            upload(exchange, first_bytes, receive_more, tls.write, end), "http front, request body"
        )
        try:
            while not exchange.is_complete:
                data = await tls.read()
                answer = exchange.origin_data(data) if data else exchange.origin_eof()
                await send_all(self._sock, answer)
            if exchange.request_is_complete:  # a next one comes behind its last byte
                with suppress(TimeoutError):
                    async with timeout(LINGER_SECONDS):
                        await uploading
        except (HttpResponseError, Refused) as error:
            self._give_up(end, error)
            if not exchange.may_answer:
                raise ConnectionResetError(error.text) from None
            await self._refuse(502, error.reason, error.text)
            return False
        finally:
            is_sent = uploading.done() and not uploading.cancelled()
            uploading.cancel()
        with suppress(CancelledError):
            await uploading
        if not (is_sent and exchange.request_is_complete):  # or it does not want the rest
            end.reset(ErrorCode.CANCELLED)
        return True

    def _give_up(self, end: StreamEnd, error: Exception) -> None:
        """Reset the stream for a reason; a fault of TLS is told in the log, as every forward's."""
        match error:
            case TlsTruncated():
                end.reset(ErrorCode.CUT, ENDED_TLS_TRUNCATED)
            case TlsFailed():
                assert self._destined is not None  # it leads there
                self._front.opener.report_tls(self._destined, error.text)
                end.reset(ErrorCode.CUT, ENDED_TLS_FAILED)
            case _:
                end.reset(ErrorCode.CUT)

    async def _close(self) -> None:
        """A clean end for both."""
        await self._program.stop()
        end = self._end
        if end is None or end.is_closed or self._tls is None:
            await linger_and_close(self._sock)
            return
        with suppress(OSError):
            async with timeout(LINGER_SECONDS):
                await self._tls.finish()
        end.finish()
        self._front.client.remember(self._tls)
        await linger_and_close(self._sock)
        await drop_the_rest(end.read)

    async def _refuse_request(self, error: HttpRequestError) -> None:
        self._front.log.warning(
            "bad_request", way=self._front.way, status=error.status, text=error.text
        )
        await self._refuse(error.status, error.reason, error.text)

    async def _refuse(self, status: int, reason: str, text: str, *, has_body: bool = True) -> None:
        await self._program.stop()
        answer = refusal(status, reason, self._asked, text, has_body=has_body)
        await answer_and_close(self._sock, answer)
