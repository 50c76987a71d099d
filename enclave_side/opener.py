"""Opens a stream for a program: decide, wait for a link, ask the parent, write the audit lines."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Never

from enclave_side.links import Links
from vsockproxy.addresses import AddressError, Host, parse_destination
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.dedicated import DedicatedRelay
from vsockproxy.dataplane.loop import now
from vsockproxy.dataplane.sockets import receive, receive_at_once, send_all
from vsockproxy.dataplane.stream_end import ENDED_LINK_LOST, StreamEnd
from vsockproxy.dataplane.tls_client import TlsClient
from vsockproxy.dataplane.tls_connection import Read, TlsConnection, Write
from vsockproxy.dataplane.tls_failures import TlsFailed
from vsockproxy.dataplane.tls_first_bytes import read_client_hello
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Decision, Place, Policy
from vsockproxy.policy.reasons import Reason
from vsockproxy.protocols.errors import ClientHelloError, NotTls
from vsockproxy.session import ErrorCode, Open, Opened

READ_BYTES = 16 * 1024
ANSWER_MARGIN_SECONDS = 7.0
"""What the parent may take beyond its dial: a lookup of 5 s, and the wire. It is not trusted to
answer at all."""


@dataclass(slots=True)
class Destined:
    """A destination that this side's policy allows."""

    host: Host
    port: int
    decision: Decision
    record: StreamRecord


class Opener:
    """Every way in comes here, so that each stream is decided, limited and logged alike.

    Args:
        policy: this side's lists, measured into the image.
        links: the links to the parent.
        log: for the audit lines.
    """

    def __init__(self, policy: Policy, links: Links, log: Log) -> None:
        self._policy = policy
        self._admission = links.admission
        self._links = links
        self._log = log
        self.limits = links.limits

    def decide(self, host_text: str, port: int, way: str) -> Destined:
        """What this side's policy says, before anything is sent.

        Raises:
            Refused: it says no; the decision line is written.
        """
        decision, host = self._policy.decide_text(host_text, port)
        record = StreamRecord(
            host=host.text if host is not None else host_text,
            port=port,
            way=way,
            opened_at=now(),
            rule=decision.rule.source if decision.rule is not None else None,
        )
        if decision.allowed and host is not None and host.address is not None:
            # A literal needs no lookup: the guard can speak at once.
            decision, _ = self._policy.judge(decision, host, port, [host.address])
        if not decision.allowed or host is None:
            self._refuse(record, decision.reason, decision.text)
        return Destined(host, port, decision, record)

    def requires_tls(self, destined: Destined) -> bool:
        """Whether the stream must begin with a ClientHello for its host."""
        return self._policy.requires_tls(destined.decision.rule)

    async def open(
        self, destined: Destined, *, is_dedicated: bool = False, is_final: bool = True
    ) -> StreamEnd:
        """Open the stream and wait for the parent's answer; the decision line is written.

        Args:
            destined: where it leads.
            is_dedicated: whether it has a connection of its own.
            is_final: false where `read_client_hello` or TLS of ours comes after it and has the last
                word.

        Raises:
            Refused: by the parent, for lack of a link, or by a limit.
        """
        record = destined.record
        request = Open(destined.host.text, destined.port, dedicated=is_dedicated)
        try:
            self._admission.admit_stream(now())
            place = self._admission.enter(destined.decision.rule, now())
        except Refused as refused:
            self._refuse(record, refused.reason, refused.text)
        end, answer = await self._open(record, request, place)
        record.address = _dialled(answer.address)
        record.allow_later(destined.decision.reason)
        if is_final:
            record.confirm(self._log)
        if is_dedicated:
            assert answer.token is not None  # the session refuses an answer without one
            end.token = answer.token
        return end

    async def open_service(self, service: str) -> StreamEnd:
        """Open a stream to a service of the parent and wait for its answer.

        No list is asked and no line is written: that is up to the process of ours that asked, which
        may ask again and again.

        Args:
            service: the service's name.

        Raises:
            Refused: by the parent, for lack of a link, or by a limit.
        """
        end, _ = await self._open(None, Open(service=service), Place())
        return end

    def refuse_service(self, service: str, way: str, text: str) -> Never:
        """Refuse a service of the parent to a program that asked for it in some `way`.

        Raises:
            Refused: always; the decision line is written.
        """
        record = StreamRecord(host=service, port=0, way=way, opened_at=now())
        self._refuse(record, "not_listed", text)

    async def _open(
        self, record: StreamRecord | None, request: Open, place: Place
    ) -> tuple[StreamEnd, Opened]:
        try:
            link = await self._links.pick()
            end = link.open(request, self._closed(record, place))
            if record is not None:
                record.stream = end.stream.id
                record.follow(end, is_in_enclave=True)
            link.flush()
        except BaseException as error:
            place.leave()
            if isinstance(error, Refused):
                self._refuse(record, error.reason, error.text)
            raise
        try:
            answer = await end.opened(self.limits.connect + ANSWER_MARGIN_SECONDS)
        except Refused as refused:
            self._refuse(record, refused.reason, refused.text, decided_by="parent")
        except ConnectionResetError:
            if end.ended != ENDED_LINK_LOST:
                text = "it was reset as soon as it was open"
                self._refuse(record, "dial_refused", text, decided_by="parent")
            self._refuse(record, "parent_away", "the link to the parent ended before its answer")
        except TimeoutError:
            end.reset(ErrorCode.TIMED_OUT)
            self._refuse(record, "dial_timeout", "the parent did not answer")
        except BaseException:
            end.reset(ErrorCode.CANCELLED)
            raise
        return end, answer

    async def relay(
        self, destined: Destined, end: StreamEnd, sock: socket.socket, first_bytes: bytes = b""
    ) -> None:
        """Relay between a program's socket and an open stream; both are owned by the relay then.

        Raises:
            Refused: a dedicated stream's connection was not taken; the stream is reset.
        """
        if end.token is None:
            end.attach(sock, to_stream=first_bytes)
            return
        try:
            connection, carrier = await self._links.connect_dedicated(end.token)
        except BaseException:
            end.reset(ErrorCode.CANCELLED)
            raise
        DedicatedRelay(end, sock, connection, carrier, to_carrier=first_bytes).start()

    async def secure(self, destined: Destined, end: StreamEnd, client: TlsClient) -> TlsConnection:
        """Speak TLS with the destination of an open stream, which is what `requires_tls` asks for.

        Raises:
            Refused: with tls_failed; the decision line is written, the stream is still to be reset.
        """
        return await self._secure(destined, end.read, end.write, client)

    async def _secure(
        self, destined: Destined, read: Read, write: Write, client: TlsClient
    ) -> TlsConnection:
        try:
            connection = await client.connect(read, write, self.limits.handshake)
        except TlsFailed as error:
            text = f"{client.server_name}: {error.text}"
            self._refuse(destined.record, error.reason, text)
        destined.record.confirm(self._log)
        return connection

    def report_tls(self, destined: Destined, text: str) -> None:
        """Write what was wrong with TLS after the decision line said that the stream may be."""
        record = destined.record
        self._log.warning(
            Reason.TLS_FAILED, stream=record.stream, host=record.host, port=record.port, text=text
        )

    async def relay_tls(
        self, destined: Destined, end: StreamEnd, sock: socket.socket, client: TlsClient
    ) -> None:
        """As `relay`, with TLS between us and the destination: `sock` is the plain side.

        Raises:
            Refused: with tls_failed, or a dedicated stream's connection was not taken; the stream
                is still to be reset.
        """

        def failed(text: str) -> None:
            self.report_tls(destined, text)

        def closed() -> None:
            client.remember(connection)

        if end.token is None:
            connection = await self.secure(destined, end, client)
            connection.attach(end, sock, failed, closed)
            return
        carried, carrier = await self._links.connect_dedicated(end.token)
        sent = received = 0

        async def write(data: bytes) -> None:
            nonlocal sent
            for start in range(0, len(data), carrier.max_send_bytes):
                await send_all(carried, data[start : start + carrier.max_send_bytes])
            sent += len(data)

        async def read() -> bytes:
            nonlocal received
            data = await receive(carried, READ_BYTES)
            received += len(data)
            return data

        try:
            connection = await self._secure(destined, read, write, client)
        except BaseException:
            carried.close()
            raise
        local, rest = connection.local_socket(sock, failed, closed, end.remote_ended_above)
        relay = DedicatedRelay(end, local, carried, carrier, to_local=rest)
        relay.count_earlier(sent_bytes=sent, taken_bytes=received - len(rest))
        relay.start()

    async def read_client_hello(
        self, destined: Destined, sock: socket.socket, first_bytes: bytes = b""
    ) -> bytes:
        """The program's first bytes, up to a ClientHello for the host that was asked for.

        Raises:
            Refused: with not_tls or sni_mismatch; the decision line is written.
            OSError: the program went away first.
        """

        async def read() -> bytes:
            data = await receive_at_once(sock, READ_BYTES)
            if not data:
                raise ConnectionResetError("the program closed before a ClientHello")
            return data

        try:
            received = await read_client_hello(
                read, destined.host, self.limits.handshake, first_bytes
            )
        except ClientHelloError as error:
            mend = f": {self._plain_mend(destined)}" if isinstance(error, NotTls) else ""
            self._refuse(destined.record, error.reason, f"{error}{mend}")
        destined.record.confirm(self._log)
        return received

    def refuse_plain(self, destined: Destined) -> None:
        """Refuse a request that is known to be no TLS.

        Raises:
            Refused: always.
        """
        text = f"http:// is not TLS: {self._plain_mend(destined)}"
        self._refuse(destined.record, "not_tls", text)

    def _plain_mend(self, destined: Destined) -> str:
        return self._policy.plain_mend(destined.decision.rule)

    def _refuse(
        self, record: StreamRecord | None, reason: str, text: str, decided_by: str | None = None
    ) -> Never:
        if record is not None:
            record.decided_by = decided_by
            record.decide(self._log, allowed=False, reason=reason, text=text)
        raise Refused(reason, text)

    def _closed(self, record: StreamRecord | None, place: Place) -> Callable[[StreamEnd], None]:
        def closed(end: StreamEnd) -> None:
            place.leave()
            if record is not None:
                record.close(self._log, ended=end.ended, now=now())

        return closed


def _dialled(text: str) -> str | None:
    """The address alone, as the parent's lines have it, of what it says that it dialled."""
    try:
        host = parse_destination(text).host
    except AddressError:
        return text or None  # A parent may say anything.
    return host.text if host.address is not None else None
