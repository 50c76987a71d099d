"""The parent's supervisor accepts connections and decides which worker gets each one."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from vsockproxy.addresses import TcpAddress, UnixAddress, VsockAddress
from vsockproxy.control.logs import EventLog
from vsockproxy.control.supervisor import AcceptedConnection, Supervisor
from vsockproxy.listening import ACCEPT_PAUSE_SECONDS, EXHAUSTED, OF_THE_LISTENER, Listener
from vsockproxy.policy.reasons import Reason
from vsockproxy.worker_messages import Connection

__all__ = ("Assignment", "accept_connections", "peer_of")

DEFAULT_UNIX_CID: Final = 4
"""The CID of a peer on a listener that is not vsock and names none."""

NO_CID: Final = 0
"""In the place of a CID, for connections that come from outside."""

_AT_ONCE: Final = 64
"""Connections accepted from one listener before other tasks have their turn."""


class Assignment:
    """Which worker has which CID: all connections of one enclave go to one worker.

    A CID that is new goes to the worker with the fewest CIDs, and stays there.
    """

    def __init__(self, workers: int) -> None:
        self._worker_of_cid: dict[int, int] = {}
        self._cids = Counter(dict.fromkeys(range(workers), 0))
        self._turn = -1

    def worker_for(self, cid: int) -> int:
        """The index of the worker that has `cid`."""
        worker = self._worker_of_cid.get(cid)
        if worker is None:
            worker = min(self._cids, key=self._cids.__getitem__)
            self._cids[worker] += 1
            self._worker_of_cid[cid] = worker
        return worker

    def next_worker(self) -> int:
        """The index of the worker for a connection that is from no enclave; in turns."""
        self._turn = (self._turn + 1) % len(self._cids)
        return self._turn


def peer_of(listener: Listener, address: object) -> tuple[int, int]:
    """CID and vsock port of a peer; `address` is what accept reported."""
    match listener.endpoint, address:
        case VsockAddress(), (int(cid), int(port)):
            return cid, port
        case UnixAddress(cid=int(cid)), _:
            return cid, 0
        case _:
            return DEFAULT_UNIX_CID, 0


async def accept_connections(
    listener: Listener,
    name: str,
    *,
    supervisor: Supervisor,
    assignment: Assignment,
    may_connect: Callable[[int], bool],
    log: EventLog,
) -> None:
    """Accept on `listener` until cancelled.

    Args:
        listener: the listening socket.
        name: its path in the configuration, which tells the worker what it is for.
        supervisor: gets the connections.
        assignment: says which worker a CID has; shared by all listeners.
        may_connect: whether a CID may connect at all.
        log: gets one line for each connection that may not, and for each time of want.
    """
    endpoint = str(listener.endpoint)
    is_in_want = False
    while True:
        await trio.lowlevel.wait_readable(listener.socket)
        # Whoever cancelled this since has perhaps closed the listener, or given it another meaning.
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            for _ in range(_AT_ONCE):
                connection, address = listener.socket.accept()
                is_in_want = False
                connection.setblocking(False)
                if isinstance(listener.endpoint, TcpAddress):
                    # From outside: its worker finds out whom it is for.
                    message = Connection(name, NO_CID, 0)
                    worker = assignment.next_worker()
                    supervisor.hand_over(worker, AcceptedConnection(message, connection, endpoint))
                    continue
                cid, port = peer_of(listener, address)
                if not may_connect(cid):
                    connection.close()
                    supervisor.refused_connections += 1
                    _log_refusal(log, listener, cid)
                    continue
                message = Connection(name, cid, port)
                worker = assignment.worker_for(cid)
                accepted = AcceptedConnection(message, connection, endpoint)
                supervisor.hand_over(worker, accepted)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in EXHAUSTED:
                if not is_in_want:
                    text = os.strerror(error.errno or 0)
                    fields: dict[str, object] = {"listener": str(listener.endpoint), "text": text}
                    log.write("error", "accept_failed", fields)
                is_in_want = True
                await trio.sleep(ACCEPT_PAUSE_SECONDS)
            elif error.errno in OF_THE_LISTENER:
                raise


def _log_refusal(log: EventLog, listener: Listener, cid: int) -> None:
    fields: dict[str, object] = {
        "cid": cid,
        "listener": str(listener.endpoint),
        "reason": Reason.NOT_LISTED.value,
        "text": f"CIDs 0-3 are no enclaves: add an entry with cid: {cid} to enclaves to admit it",
    }
    log.write("warning", "connection_refused", fields)
