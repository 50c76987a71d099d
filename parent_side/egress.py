"""Serves the streams that enclaves open: decide, resolve, guard, dial, relay; one line for each."""

import socket
from functools import partial

from parent_side.enclave import Enclave
from parent_side.reach import Decided, Reach, Reached, forbids
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import arm_reset, reset_socket
from vsockproxy.dataplane.loop import CancelledError, now
from vsockproxy.dataplane.stream_end import ENDED_POLICY, StreamEnd
from vsockproxy.dataplane.stream_tasks import serve_stream
from vsockproxy.dataplane.tls_first_bytes import Read, read_client_hello
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.protocols.errors import ClientHelloError
from vsockproxy.session import ErrorCode, Open, Opened

GIVEN_UP = "it ended before it was connected"
"""In the decision line of a stream that its enclave gave up during the lookup or the dial."""


class Egress:
    """Serves streams, one task each until the relay takes over.

    Args:
        reach: decides, resolves and dials.
        handshake_seconds: time for the first bytes where TLS is required.
        log: for the audit lines.
    """

    def __init__(self, reach: Reach, handshake_seconds: float, log: Log) -> None:
        self.handshake_seconds = handshake_seconds
        self._reach = reach
        self._log = log
        self._open: dict[StreamEnd, tuple[Enclave, StreamRecord]] = {}

    def serve(self, enclave: Enclave, end: StreamEnd, request: Open) -> None:
        """Serve one stream; returns at once."""
        record = self._record(enclave, end, request)
        try:
            decided = self._reach.decide(enclave.policy, record, enclave.admission)
        except Refused as refused:
            if end.stream.is_dedicated:
                enclave.dedicated_streams -= 1
            record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
            end.refuse(refused.reason, refused.text)
            return
        record.follow(end, is_in_enclave=False)
        self._open[end] = enclave, record

        def closed(end: StreamEnd) -> None:
            decided.place.leave()
            del self._open[end]
            if end.stream.is_dedicated:
                enclave.dedicated_streams -= 1
            if not record.is_reached:
                record.confirm(self._log, GIVEN_UP)
            record.close(self._log, ended=end.ended, now=now())

        work = self._serve(enclave, end, record, decided)
        serve_stream(end, work, f"stream {end.stream.id}", closed)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._open)

    def end_forbidden(self) -> int:
        """Reset the streams that the policy of their enclave does not allow; how many it were.

        Those on their way to their destination are judged when they have reached it.
        """
        forbidden = [
            end for end, (enclave, record) in self._open.items() if forbids(enclave.policy, record)
        ]
        for end in forbidden:
            end.reset(ErrorCode.CUT, ENDED_POLICY)
        return len(forbidden)

    def refuse(
        self, enclave: Enclave, end: StreamEnd, request: Open, reason: str, text: str
    ) -> None:
        """Refuse one stream without a look at the lists."""
        record = self._record(enclave, end, request)
        record.decide(self._log, allowed=False, reason=reason, text=text)
        end.refuse(reason, text)

    @staticmethod
    def _record(enclave: Enclave, end: StreamEnd, request: Open) -> StreamRecord:
        return StreamRecord(
            host=request.service or request.host,
            port=request.port,
            way="session",
            opened_at=now(),
            cid=enclave.cid,
            enclave=enclave.name,
            stream=end.stream.id,
        )

    async def _serve(
        self, enclave: Enclave, end: StreamEnd, record: StreamRecord, decided: Decided
    ) -> None:
        sock: socket.socket | None = None
        try:
            try:
                reached = await self._reach.reach(decided, record, enclave.cid)
                if enclave.policy is not decided.policy:
                    self._reach.judge_again(enclave.policy, record, reached)
            except Refused as refused:
                record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
                end.refuse(refused.reason, refused.text)
                return
            sock = reached.socket
            text = str(reached.target)
            needs_tls = enclave.policy.requires_tls(reached.decision.rule)
            if not needs_tls:
                record.confirm(self._log)
            check = partial(self._read_client_hello, end, reached, record) if needs_tls else None
            if end.stream.is_dedicated:
                local, sock = sock, None
                enclave.expect(end, local, text, self.handshake_seconds, check)
                return
            end.accept(Opened(address=text))
            first_bytes = b""
            if check is not None:
                arm_reset(sock)
                first_bytes = await check(end.read)
            local, sock = sock, None
            end.attach(local, to_local=first_bytes)
        except (CancelledError, ConnectionResetError):
            if not end.is_closed:  # not the stream's end but the process's
                raise
        except Exception:  # a fault of ours must not leave the stream unanswered
            end.reset(ErrorCode.CUT)
            raise
        finally:
            if sock is not None:
                reset_socket(sock)

    async def _read_client_hello(
        self,
        end: StreamEnd,
        reached: Reached,
        record: StreamRecord,
        read: Read,
        first_bytes: bytes = b"",
    ) -> bytes:
        """The stream's first bytes, once they are a ClientHello for the host that was asked for.

        Args:
            end: the stream.
            reached: what was asked for.
            record: for the decision line.
            read: waits for bytes of the stream, wherever they travel; empty at the end.
            first_bytes: what has been read already.

        Raises:
            ConnectionResetError: they are not, or did not come; the stream is reset.
        """
        try:
            received = await read_client_hello(
                read, reached.host, self.handshake_seconds, first_bytes
            )
        except ClientHelloError as error:
            record.decide(self._log, allowed=False, reason=error.reason, text=error.text)
            end.reset(ErrorCode.NOT_TLS)
            raise ConnectionResetError(error.text) from error
        record.confirm(self._log)
        return received
