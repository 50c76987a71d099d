"""The service `vsockproxy.credentials`, which leads to the unix socket of a process that has them.

That is one of the parent's own (`credentials.imds`), or `vsockproxy credentials`. It speaks HTTP
there; a worker carries the bytes of the enclave's stream and reads none.
"""

import os
import socket
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from parent_side.enclave import Enclave
from vsockproxy import metrics
from vsockproxy.addresses import UnixAddress
from vsockproxy.config.model import ParentCredentials
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.loop import now
from vsockproxy.dataplane.stream_end import ENDED_POLICY, StreamEnd
from vsockproxy.log import Log
from vsockproxy.session import ErrorCode, Open, Opened

__all__ = ("CredentialsRelay",)

STREAMS_AT_ONCE: Final = 8
"""Of one enclave, which asks for credentials now and then: none shall use up the service."""


class CredentialsRelay:
    """Serves the streams of enclaves that are to have the instance role.

    Args:
        config: where the credentials are, and which enclaves get them; None for no enclave. A
            reload replaces it.
        own_socket: where the parent's own process listens, if it has one, which no reload changes.
        log: for the audit lines.
    """

    def __init__(
        self, config: ParentCredentials | None, own_socket: UnixAddress | None, log: Log
    ) -> None:
        self.config = config
        self._own_socket = own_socket
        self._log = log
        self._open: defaultdict[int, set[StreamEnd]] = defaultdict(set)

    def serve(self, enclave: Enclave, end: StreamEnd, request: Open) -> None:
        """Serve one stream; returns at once."""
        record = StreamRecord(
            host=request.service,
            port=0,
            way="session",
            opened_at=now(),
            cid=enclave.cid,
            enclave=enclave.name,
            stream=end.stream.id,
        )
        config = self.config
        if config is None:
            text = f"no enclave gets credentials: add credentials: {{enclaves: [{enclave.cid}]}}"
            self._refuse(record, end, "not_listed", text)
        elif enclave.cid not in config.enclaves:
            text = f"this enclave gets no credentials: add {enclave.cid} to credentials.enclaves"
            self._refuse(record, end, "not_listed", text)
        elif len(self._open[enclave.cid]) >= STREAMS_AT_ONCE:
            self._log.activity.counters.add(metrics.LIMIT_REFUSALS, ("credentials",))
            text = f"{STREAMS_AT_ONCE} streams for credentials are open"
            self._refuse(record, end, "limit", text)
        elif self._own_socket is not None:
            # Its process is started again when it dies, and whoever connects meanwhile waits.
            self._relay(record, enclave.cid, end, self._own_socket, "see service_died in the log")
        elif config.imds is not None:
            text = "credentials.imds came with a reload: restart the parent's side"
            self._refuse(record, end, "dial_refused", text)
        else:
            assert isinstance(config.socket, UnixAddress)  # a rule of the configuration
            mend = "is vsockproxy-credentials.service running, and this user in its group?"
            self._relay(record, enclave.cid, end, config.socket, mend)

    def _relay(
        self, record: StreamRecord, cid: int, end: StreamEnd, to: UnixAddress, mend: str
    ) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(to.path)  # of a unix socket, so this is at once
        except OSError as error:
            sock.close()
            text = f"cannot connect to {to.path}: {os.strerror(error.errno or 0)}: {mend}"
            self._refuse(record, end, "dial_refused", text)
            return
        self._open[cid].add(end)
        record.address = to.path
        record.follow(end, is_in_enclave=False)
        record.decide(self._log, allowed=True, reason="listed")

        def closed(end: StreamEnd) -> None:
            self._open[cid].discard(end)
            record.close(self._log, ended=end.ended, now=now())

        end.when_closed(closed)
        end.accept(Opened())
        end.attach(sock)

    def end_forbidden(self, is_admitted: Callable[[int], bool]) -> int:
        """Reset the streams of enclaves that get no credentials any more; how many it were.

        Args:
            is_admitted: whether the enclave with a CID may have a session.
        """
        named = self.config.enclaves if self.config is not None else ()
        forbidden = [
            end
            for cid, ends in self._open.items()
            if cid not in named or not is_admitted(cid)
            for end in ends
        ]
        for end in forbidden:
            end.reset(ErrorCode.CUT, ENDED_POLICY)
        return len(forbidden)

    def _refuse(self, record: StreamRecord, end: StreamEnd, reason: str, text: str) -> None:
        record.decide(self._log, allowed=False, reason=reason, text=text)
        end.refuse(reason, text)
