"""Raw ports: each connection goes to one destination, as with AWS's vsock-proxy.

There is no session here, so a cut cannot be told from an end (vsock reports an end of file for
both), and a refusal is a close. Programs that need to know use TLS, or links.
"""

import socket

from parent_side.reach import Reach
from vsockproxy.addresses import Destination
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.greeting import carrier_of
from vsockproxy.dataplane.loop import now, spawn
from vsockproxy.dataplane.socket_relay import SocketRelay
from vsockproxy.dataplane.stream_end import ENDED_FINISHED, ENDED_LOCAL_RESET
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Policy


class Forwards:
    """Serves the connections of raw ports.

    Args:
        reach: decides, resolves and dials.
        most_streams: connections of one enclave that may be open at once.
        log: for the audit lines.
    """

    def __init__(self, reach: Reach, most_streams: int, log: Log) -> None:
        self._reach = reach
        self._most_streams = most_streams
        self._log = log
        self._open: dict[int, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no connection is open."""
        return not self._open

    def connected(
        self, sock: socket.socket, to: Destination, policy: Policy, cid: int, name: str | None
    ) -> None:
        """Serve one connection to `to`; returns at once."""
        record = StreamRecord(
            host=to.host.text,
            port=to.port,
            way="forward",
            opened_at=now(),
            cid=cid,
            enclave=name,
        )
        if self._open.get(cid, 0) >= self._most_streams:
            text = f"{self._most_streams} connections are open"
            record.decide(self._log, allowed=False, reason="limit", text=text)
            sock.close()
            return
        self._open[cid] = self._open.get(cid, 0) + 1
        spawn(self._serve(sock, policy, cid, record), f"forward to {to}")

    async def _serve(
        self, sock: socket.socket, policy: Policy, cid: int, record: StreamRecord
    ) -> None:
        try:
            reached = await self._reach.reach(policy, record, cid)
        except Refused as refused:
            record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
            sock.close()
            self._leave(cid)
            return
        except BaseException:
            sock.close()
            self._leave(cid)
            raise
        record.address = str(reached.address)
        record.decide(self._log, allowed=True, reason=reached.decision.reason)

        def closed(is_clean: bool) -> None:
            self._leave(cid)
            record.close(
                self._log,
                ended=ENDED_FINISHED if is_clean else ENDED_LOCAL_RESET,
                bytes_out=relay.inward.total_bytes,
                bytes_in=relay.outward.total_bytes,
                now=now(),
            )

        relay = SocketRelay(
            reached.socket, sock, most_bytes=carrier_of(sock).max_send_bytes, closed=closed
        )
        relay.start()

    def _leave(self, cid: int) -> None:
        self._open[cid] -= 1
        if not self._open[cid]:
            del self._open[cid]
