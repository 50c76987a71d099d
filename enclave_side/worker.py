"""A worker of the enclave: the ways in, and the links to the parent."""

import re
import socket

from enclave_side.links import Links
from enclave_side.opener import Opener
from enclave_side.shim.forwards import Forward
from enclave_side.shim.http_proxy import HttpProxy
from vsockproxy.config.document import Document
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.dataplane.sockets import Acceptor
from vsockproxy.dataplane.worker import run_worker
from vsockproxy.log import Log
from vsockproxy.policy import Policy
from vsockproxy.worker_messages import Configure, Connection, ListenerSummary

_FORWARD = re.compile(r"forwards\[(\d+)\]")


class EnclaveSide:
    """What a worker of the enclave serves.

    Args:
        message: the instance and what the listeners are for.
        document: the enclave's file.
        listeners: inherited sockets, in the order of `message.listeners`.
    """

    def __init__(
        self, message: Configure, document: Document, listeners: list[socket.socket]
    ) -> None:
        config = document.config
        assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
        self._config = config
        self._log = Log("enclave", message.log_format, message.log_level)
        self._links = Links(config.parent, config.links, message.instance, config.limits, self._log)
        self._opener = Opener(Policy.compile(document), self._links, self._log)
        self._acceptors = [
            self._serve(summary, listener)
            for summary, listener in zip(message.listeners, listeners, strict=True)
        ]
        self._links.start()

    def _serve(self, summary: ListenerSummary, listener: socket.socket) -> Acceptor:
        listener.setblocking(False)
        if summary.kind == "http_proxy":
            assert self._config.shim.http_proxy is not None  # it was bound from it
            accepted = HttpProxy(
                self._opener, self._log, self._config.shim.http_proxy.host
            ).accepted
        else:
            number = _FORWARD.match(summary.name)
            assert number is not None  # the supervisor names listeners by their path in the file
            accepted = Forward(self._opener, self._config.forwards[int(number[1])]).accepted
        return Acceptor(listener, accepted, self._exhausted)

    def _exhausted(self, error: OSError) -> None:
        self._log.warning("accept_paused", text=str(error))

    def connection(self, message: Connection, sock: socket.socket) -> None:
        """Enclaves accept their own connections."""
        del message
        sock.close()

    def connection_failed(self, text: str) -> None:
        """Enclaves accept their own connections."""
        self._log.error("connection_failed", text=text)

    def drain(self) -> None:
        """Accept no more; the open streams may end."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._links.go_away()

    @property
    def is_drained(self) -> bool:
        """Whether nothing is open."""
        return self._links.is_empty


if __name__ == "__main__":
    run_worker(EnclaveSide)
