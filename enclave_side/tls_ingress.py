"""Ends TLS of a connection from outside, in front of a service of the enclave.

The handshake and the first bytes are a coroutine's; then the relay has it. First bytes may be
requests for an attestation document, which are answered here; all else is the service's.
"""

import socket
from typing import Final

from enclave_side.attestation_desk import AttestationDesk, NoDocument
from enclave_side.service_identity import Identity
from enclave_side.shim.lingering import drop_the_rest
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import close_cleanly
from vsockproxy.dataplane.first_to_speak import read_unless_readable
from vsockproxy.dataplane.loop import now, timeout
from vsockproxy.dataplane.sockets import send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.tls_connection import TlsConnection
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.dataplane.tls_records import TlsRecords
from vsockproxy.dataplane.tls_socket import ENDED_TLS_FAILED, ENDED_TLS_TRUNCATED
from vsockproxy.log import Log
from vsockproxy.protocols.attestation_request import (
    AttestationRequest,
    AttestationRequestReader,
    OtherBytes,
    document_answer,
    refusal_answer,
)
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.proxy_v2 import SocketAddress
from vsockproxy.session import ErrorCode

__all__ = ("TlsIngress",)

MOST_DOCUMENTS: Final = 4
"""On one connection, which ends with the last of them: nobody needs more for one key."""


class _ClientLeft(Exception):
    """It closed where no request had begun, without close_notify: nothing is missing."""


class TlsIngress:
    """One connection.

    Args:
        end: its stream, which was accepted.
        sock: the service's, connected; owned by this.
        identity: what is presented.
        desk: gives documents; None where the file wants none.
        handshake_seconds: for the handshake, and for the head of a request for a document.
        log: for what fails.
        record: of the stream, for the log.
    """

    def __init__(
        self,
        end: StreamEnd,
        sock: socket.socket,
        identity: Identity,
        desk: AttestationDesk | None,
        handshake_seconds: float,
        log: Log,
        record: StreamRecord,
    ) -> None:
        self._end = end
        self._sock: socket.socket | None = sock
        self._identity = identity
        self._desk = desk
        self._seconds = handshake_seconds
        self._log = log
        self._record = record
        records = TlsRecords(identity.context, server_side=True)
        self._connection = TlsConnection(end.read, end.write, records)

    async def serve(self) -> None:
        """From the handshake until the relay takes over, or all is over."""
        try:
            await self._connection.handshake(self._seconds)
            first = b"" if self._desk is None else await self._attest(self._desk)
            if first is None:
                await self._end_in_order()
            else:
                await self._relay(first)
        except _ClientLeft:
            self._end.reset(ErrorCode.CUT, ENDED_TLS_TRUNCATED)
        except TlsFailed as failed:
            self._report(failed.text)
            await drop_the_rest(self._end.read)
            self._end.reset(ErrorCode.CUT, ENDED_TLS_FAILED)
        except OSError:  # the stream is over, or the service is
            self._end.reset(ErrorCode.CUT)
        finally:
            if self._sock is not None:
                self._sock.close()  # armed: the service sees a reset

    async def _relay(self, first: bytes) -> None:
        assert self._sock is not None  # nobody closed it
        if first:
            await send_all(self._sock, first)
        sock, self._sock = self._sock, None
        self._connection.attach(self._end, sock, self._report)

    async def _attest(self, desk: AttestationDesk) -> bytes | None:
        """Answer requests for documents; the service's first bytes, None if there are to be none.

        Raises:
            TlsFailed: TLS broke.
            OSError: the stream is over.
        """
        client = SocketAddress.parse(self._record.client or "")
        following = b""
        for left in reversed(range(MOST_DOCUMENTS)):
            try:
                found = await self._recognise(following)
            except HttpRequestError as error:
                await self._connection.write(refusal_answer(error.status, str(error)))
                return None
            if not isinstance(found, AttestationRequest):
                return found
            try:
                document = await desk.document(
                    found.nonce,
                    self._identity.public_key,
                    self._identity.origin,
                    None if client is None else client.address,
                )
            except NoDocument as error:
                await self._connection.write(refusal_answer(error.status, error.text))
                return None
            keeps_alive = found.keeps_alive and left > 0
            await self._connection.write(document_answer(document, keeps_alive=keeps_alive))
            if not keeps_alive:
                break
            following = found.following
        return None

    async def _recognise(self, data: bytes) -> AttestationRequest | bytes:
        """The next request for a document, or bytes that are the service's.

        Raises:
            HttpRequestError: such a request, and malformed.
            TlsFailed: TLS broke.
            OSError: the stream is over.
        """
        reader = AttestationRequestReader()
        ends_at: float | None = None
        while True:
            found = reader.receive(data) if data else None
            match found:
                case AttestationRequest():
                    return found
                case OtherBytes(data=others):
                    return others
            if ends_at is None and (reader.undecided or reader.is_ours):
                ends_at = now() + self._seconds
            left = None if ends_at is None else max(0.0, ends_at - now())
            if reader.is_ours:
                data = await self._read_head(left)
            else:
                try:
                    spoken = await self._read_first(left)
                except TimeoutError:
                    return reader.undecided
                if not spoken:  # the service speaks, or the client has finished
                    return reader.undecided
                data = spoken

    async def _read_head(self, seconds: float | None) -> bytes:
        try:
            async with timeout(seconds):
                data = await self._connection.read()
        except TimeoutError as error:
            if error.errno is not None:  # the kernel's ETIMEDOUT, not ours
                raise
            text = f"the request was not complete in {self._seconds:g} s"
            raise HttpRequestError(408, text) from None
        if not data:
            raise HttpRequestError(400, "the request was cut off")
        return data

    async def _read_first(self, seconds: float | None) -> bytes | None:
        assert self._sock is not None  # nobody closed it
        try:
            return await read_unless_readable(self._connection.read, self._sock, seconds)
        except TlsFailed:
            if self._end.is_remote_finished and seconds is None:
                raise _ClientLeft from None
            raise

    async def _end_in_order(self) -> None:
        """Nothing follows; the service has seen nothing, and sees an end."""
        assert self._sock is not None  # nobody closed it
        await self._connection.finish()
        sock, self._sock = self._sock, None
        close_cleanly(sock)
        self._end.finish()
        await drop_the_rest(self._end.read)
        self._end.reset(ErrorCode.NONE)

    def _report(self, text: str) -> None:
        self._log.warning(
            "tls_failed",
            host=self._record.host,
            stream=self._record.stream,
            client=self._record.client,
            text=text,
        )
