"""Raw ports: each connection goes to one destination, as with AWS's vsock-proxy.

There is no session here, so a cut cannot be told from an end (vsock reports an end of file for
both), and a refusal is a close. Programs that need to know use TLS, or links.
"""

import socket
from contextlib import ExitStack
from functools import partial

from parent_side.reach import Decided, IpVersion, Reach
from vsockproxy.addresses import Destination
from vsockproxy.config.model import Limits
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.greeting import carrier_of
from vsockproxy.dataplane.loop import now, sleep, spawn
from vsockproxy.dataplane.socket_relay import SocketRelay
from vsockproxy.dataplane.sockets import receive
from vsockproxy.dataplane.stream_end import ENDED_FINISHED, ENDED_LOCAL_RESET, ENDED_TIMED_OUT
from vsockproxy.dataplane.tls_first_bytes import read_client_hello
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Admission, Place, Policy
from vsockproxy.protocols.errors import ClientHelloError

READ_BYTES = 16 * 1024
"""For the first bytes, where they have to be a ClientHello."""


class Forwards:
    """Serves the connections of raw ports.

    Args:
        reach: decides, resolves and dials.
        limits: the file's, for times; how many connections may be open is the enclave's own limit.
        log: for the audit lines.
    """

    def __init__(self, reach: Reach, limits: Limits, log: Log) -> None:
        self._reach = reach
        self._limits = limits
        self._log = log
        self._open: dict[int, int] = {}
        self._relays: set[SocketRelay] = set()
        spawn(self._watch_times(), "time limits of forwards")

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open."""
        return not self._open

    def connected(
        self,
        sock: socket.socket,
        to: Destination,
        policy: Policy,
        cid: int,
        name: str | None,
        limits: Limits,
        admission: Admission,
        *,
        ip_version: IpVersion | None = None,
    ) -> None:
        """Serve one connection to `to`; returns at once.

        Args:
            sock: the connection; owned from now on.
            to: what it leads to.
            policy: the lists of the enclave.
            cid: the enclave's CID.
            name: its configured name, if any.
            limits: its limits.
            admission: what it has open and how fast it opens.
            ip_version: the only version of addresses that is dialled; None for both.
        """
        record = StreamRecord(
            host=to.host.text,
            port=to.port,
            way="forward",
            opened_at=now(),
            cid=cid,
            enclave=name,
        )
        try:
            if self._open.get(cid, 0) >= limits.streams:
                raise Refused("limit", f"{limits.streams} connections are open")
            decided = self._reach.decide(policy, record, admission)
        except Refused as refused:
            record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
            sock.close()
            return
        self._open[cid] = self._open.get(cid, 0) + 1
        spawn(self._serve(sock, policy, cid, record, decided, ip_version), f"forward to {to}")

    async def _serve(
        self,
        sock: socket.socket,
        policy: Policy,
        cid: int,
        record: StreamRecord,
        decided: Decided,
        ip_version: IpVersion | None,
    ) -> None:
        with ExitStack() as undo:
            undo.callback(self._leave, cid, decided.place)
            undo.callback(sock.close)
            try:
                reached = await self._reach.reach(
                    policy, decided, record, cid, ip_version=ip_version
                )
            except Refused as refused:
                record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
                return
            undo.callback(reset_socket, reached.socket)
            first_bytes = b""
            if policy.requires_tls(reached.decision.rule):
                try:
                    first_bytes = await read_client_hello(
                        partial(receive, sock, READ_BYTES), reached.host, self._limits.handshake
                    )
                except (ClientHelloError, OSError) as error:
                    if isinstance(error, ClientHelloError):
                        reason, text = error.reason, error.text
                        record.decide(self._log, allowed=False, reason=reason, text=text)
                    self._close(record, ENDED_LOCAL_RESET, 0, 0)
                    return
            record.confirm(self._log)
            undo.pop_all()

        def closed(is_clean: bool) -> None:
            self._relays.discard(relay)
            self._leave(cid, decided.place)
            cut = ENDED_TIMED_OUT if relay.has_timed_out else ENDED_LOCAL_RESET
            ended = ENDED_FINISHED if is_clean else cut
            self._close(record, ended, relay.inward.total_bytes, relay.outward.total_bytes)

        relay = SocketRelay(
            reached.socket,
            sock,
            to_local=first_bytes,
            most_bytes=carrier_of(sock).max_send_bytes,
            closed=closed,
        )
        self._relays.add(relay)
        relay.start()

    async def _watch_times(self) -> None:
        half_closed, idle = self._limits.half_closed, self._limits.idle
        shortest = min((limit for limit in (half_closed, idle) if limit), default=0)
        while shortest:
            await sleep(min(max(shortest / 8, 0.02), 5.0))
            for relay in list(self._relays):
                relay.check_time(now(), half_closed, idle)

    def _close(self, record: StreamRecord, ended: str, bytes_out: int, bytes_in: int) -> None:
        record.close(self._log, ended=ended, bytes_out=bytes_out, bytes_in=bytes_in, now=now())

    def _leave(self, cid: int, place: Place) -> None:
        place.leave()
        self._open[cid] -= 1
        if not self._open[cid]:
            del self._open[cid]
