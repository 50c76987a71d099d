"""Raw ports: each connection goes to one destination, as with AWS's vsock-proxy.

There is no session here, so a cut cannot be told from an end (vsock reports an end of file for
both), and a refusal is a close. Programs that need to know use TLS, or links.
"""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice

from parent_side.reach import Decided, IpVersion, Reach, forbids
from vsockproxy import metrics
from vsockproxy.activity import Totals
from vsockproxy.addresses import Destination
from vsockproxy.config.model import Limits
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.greeting import carrier_of
from vsockproxy.dataplane.loop import now, sleep, spawn
from vsockproxy.dataplane.socket_relay import SocketRelay
from vsockproxy.dataplane.sockets import receive
from vsockproxy.dataplane.stream_end import (
    ENDED_FINISHED,
    ENDED_LOCAL_RESET,
    ENDED_POLICY,
    ENDED_SHUTDOWN,
    ENDED_TIMED_OUT,
)
from vsockproxy.dataplane.time_limits import look_seconds
from vsockproxy.dataplane.tls_first_bytes import read_client_hello
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Admission, Place, Policy
from vsockproxy.protocols.errors import ClientHelloError

READ_BYTES = 16 * 1024
"""For the first bytes, where they have to be a ClientHello."""


@dataclass(slots=True)
class _Relayed:
    """What is known of a connection while it is relayed."""

    cid: int
    record: StreamRecord
    ended: str = ENDED_LOCAL_RESET
    """How it ended, if it is cut."""


class Forwards:
    """Serves the connections of raw ports.

    Args:
        reach: decides, resolves and dials.
        policy_for: the lists of an enclave, by its CID.
        limits: the file's, for times; how many connections may be open is the enclave's own limit.
        log: for the audit lines.
    """

    def __init__(
        self, reach: Reach, policy_for: Callable[[int], Policy], limits: Limits, log: Log
    ) -> None:
        self.limits = limits
        self._reach = reach
        self._policy_for = policy_for
        self._log = log
        self._open: dict[int, int] = {}
        self._relays: dict[SocketRelay, _Relayed] = {}
        spawn(self._watch_times(), "time limits of forwards")

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open."""
        return not self._open

    @property
    def streams(self) -> int:
        """How many connections are open."""
        return sum(self._open.values())

    def end_forbidden(self) -> int:
        """Cut the connections that the policy of their enclave does not allow; how many it were."""
        forbidden = [
            relay
            for relay, relayed in self._relays.items()
            if forbids(self._policy_for(relayed.cid), relayed.record)
        ]
        for relay in forbidden:
            self._cut(relay, ENDED_POLICY)
        return len(forbidden)

    def cut(self, most: int) -> int:
        """Cut up to `most` connections; how many it were."""
        chosen = list(islice(self._relays, most))
        for relay in chosen:
            self._cut(relay, ENDED_SHUTDOWN)
        return len(chosen)

    def _cut(self, relay: SocketRelay, ended: str) -> None:
        self._relays[relay].ended = ended
        relay.close(is_clean=False)

    def connected(
        self,
        sock: socket.socket,
        to: Destination,
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
                self._log.activity.counters.add(metrics.LIMIT_REFUSALS, ("streams",))
                raise Refused("limit", f"{limits.streams} connections are open")
            decided = self._reach.decide(self._policy_for(cid), record, admission)
        except Refused as refused:
            record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
            sock.close()
            return
        self._open[cid] = self._open.get(cid, 0) + 1
        spawn(self._serve(sock, cid, record, decided, ip_version), f"forward to {to}")

    async def _serve(
        self,
        sock: socket.socket,
        cid: int,
        record: StreamRecord,
        decided: Decided,
        ip_version: IpVersion | None,
    ) -> None:
        with ExitStack() as undo:
            undo.callback(self._leave, cid, decided.place)
            undo.callback(sock.close)
            policy = decided.policy
            try:
                reached = await self._reach.reach(decided, record, cid, ip_version=ip_version)
                if self._policy_for(cid) is not policy:
                    policy = self._policy_for(cid)
                    self._reach.judge_again(policy, record, reached)
            except Refused as refused:
                record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
                return
            undo.callback(reset_socket, reached.socket)
            first_bytes = b""
            if policy.requires_tls(reached.decision.rule):
                try:
                    first_bytes = await read_client_hello(
                        partial(receive, sock, READ_BYTES), reached.host, self.limits.handshake
                    )
                except (ClientHelloError, OSError) as error:
                    if isinstance(error, ClientHelloError):
                        reason, text = error.reason, error.text
                        record.decide(self._log, allowed=False, reason=reason, text=text)
                    record.close(self._log, ended=ENDED_LOCAL_RESET, now=now())
                    return
            if self._policy_for(cid) is not policy and forbids(self._policy_for(cid), record):
                # It was forbidden while its first bytes were awaited.
                record.close(self._log, ended=ENDED_POLICY, now=now())
                return
            record.confirm(self._log)
            undo.pop_all()

        def closed(is_clean: bool) -> None:
            relayed = self._relays.pop(relay)
            self._leave(cid, decided.place)
            cut = ENDED_TIMED_OUT if relay.has_timed_out else relayed.ended
            ended = ENDED_FINISHED if is_clean else cut
            record.close(self._log, ended=ended, now=now())

        relay = SocketRelay(
            reached.socket,
            sock,
            to_local=first_bytes,
            most_bytes=carrier_of(sock).max_send_bytes,
            closed=closed,
        )
        record.totals = lambda: Totals(relay.inward.total_bytes, relay.outward.total_bytes)
        self._relays[relay] = _Relayed(cid, record)
        relay.start()

    async def _watch_times(self) -> None:
        while True:
            await sleep(look_seconds(self.limits))
            for relay in list(self._relays):
                relay.check_time(now(), self.limits.half_closed, self.limits.idle)

    def _leave(self, cid: int, place: Place) -> None:
        place.leave()
        self._open[cid] -= 1
        if not self._open[cid]:
            del self._open[cid]
