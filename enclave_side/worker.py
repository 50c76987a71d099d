"""A worker of the enclave: the ways in, and the links to the parent."""

import re
import socket
from collections.abc import Callable
from typing import Final

from enclave_side.attester import Attester
from enclave_side.ingress import Ingress
from enclave_side.links import Links
from enclave_side.opener import Opener
from enclave_side.shim.forwards import serve_forward
from enclave_side.shim.http_proxy import HttpProxy
from enclave_side.shim.names.connections import NamesConnections
from enclave_side.shim.names.dns_server import DnsServer
from enclave_side.shim.names.lookups import Lookups
from enclave_side.shim.names.planning import plan_names
from enclave_side.shim.names.supervised import SupervisedTable
from enclave_side.shim.socks5 import Socks5Proxy
from enclave_side.shim.streams import Streams
from vsockproxy.config.document import Document
from vsockproxy.config.model import EnclaveConfig
from vsockproxy.control.worker_start import count_workers
from vsockproxy.dataplane.questions import Questions
from vsockproxy.dataplane.reporting import Linked, list_streams, make_report
from vsockproxy.dataplane.sockets import Acceptor
from vsockproxy.dataplane.worker import Load, run_worker
from vsockproxy.log import Log
from vsockproxy.nsm_device import Nsm
from vsockproxy.policy import Policy
from vsockproxy.processes import forbid_tracing
from vsockproxy.worker_messages import (
    Certificate,
    Configure,
    Connection,
    ListenerKind,
    ListenerSummary,
    MessageError,
    Offer,
    Reload,
    Routed,
    Sockets,
)
from vsockproxy.worker_reports import Report, StreamPage

DNS_KINDS: Final[tuple[ListenerKind, ...]] = ("dns_udp", "dns_tcp")

_FORWARD = re.compile(r"forwards\[(\d+)\]")


class EnclaveSide:
    """What a worker of the enclave serves.

    Args:
        message: the instance and what the listeners are for.
        document: the enclave's file.
        listeners: inherited sockets, in the order of `message.listeners`.
        questions: asks the supervisor for the addresses of names.
    """

    def __init__(
        self,
        message: Configure,
        document: Document,
        listeners: list[socket.socket],
        questions: Questions,
    ) -> None:
        config = document.config
        assert isinstance(config, EnclaveConfig)  # the supervisor loaded an enclave's file
        self._config = config
        self._log = Log("enclave", message.log_format, message.log_level)
        has_own_network = any(each.kind in DNS_KINDS for each in message.listeners)
        self._ingress = Ingress(
            document, self._log, ask=questions.tell if has_own_network else None
        )
        self._links = Links(
            config.parent,
            config.links,
            message.instance,
            config.limits,
            self._log,
            self._ingress,
            workers=count_workers(config.workers),
            attester=Attester(Nsm(config.nsm_location)),
        )
        policy = Policy.compile(document)
        self._opener = Opener(policy, self._links, self._log)
        self._streams = Streams(
            self._opener, policy, self._links, self._log, self._ingress.programs
        )
        self._acceptors: list[Acceptor | DnsServer | Streams] = [self._streams]
        self._names: NamesConnections | None = None
        named = list(zip(message.listeners, listeners, strict=True))
        dns = {summary.kind: listener for summary, listener in named if summary.kind in DNS_KINDS}
        if dns:
            names = plan_names(document, policy)
            numberer = SupervisedTable(questions)
            self._names = NamesConnections(self._opener, names.table, numberer, self._log)
            lookups = Lookups(
                policy, names.port_sets, names.table, self._links, numberer, self._log
            )
            self._acceptors.append(DnsServer(dns["dns_udp"], dns["dns_tcp"], lookups))
        for summary, listener in named:
            if summary.kind == "streams":
                listener.setblocking(False)
                self._streams.listen(listener, self._exhausted)
            elif summary.kind not in DNS_KINDS:
                self._acceptors.append(self._serve(summary, listener))
        self._links.start()

    def _serve(self, summary: ListenerSummary, listener: socket.socket) -> Acceptor:
        listener.setblocking(False)
        accepted: Callable[[socket.socket, object], None]
        match summary.kind:
            case "http_proxy":
                assert self._config.shim.http_proxy is not None  # it was bound from it
                own_host = self._config.shim.http_proxy.host
                accepted = HttpProxy(self._opener, self._log, own_host).accepted
            case "socks5":
                accepted = Socks5Proxy(self._opener, self._log).accepted
            case "names":
                assert self._names is not None  # made because there are such listeners
                accepted = self._names.accepted
            case _:
                number = _FORWARD.match(summary.name)
                assert number is not None  # the supervisor names listeners by their path
                forward = self._config.forwards[int(number[1])]
                accepted = serve_forward(self._opener, self._log, forward)
        return Acceptor(listener, accepted, self._exhausted)

    def _exhausted(self, error: OSError) -> None:
        self._log.warning("accept_paused", text=str(error))

    def connection(self, message: Connection, sock: socket.socket) -> None:
        """Serve a process of ours as if it had connected to the stream socket.

        It got the other end of a pair from the supervisor, so it needs no stream socket.
        """
        del message  # there is one kind: an enclave accepts its own connections
        self._streams.serve(sock)

    def offered(self, message: Offer) -> None:
        """That is for the parent's workers."""

    def routed(self, message: Routed, sock: socket.socket) -> None:
        """That is for the parent's workers."""
        del message
        sock.close()

    def sockets(self, message: Sockets, sockets: list[socket.socket]) -> None:
        """Sockets of the command's network."""
        self._ingress.sockets_arrived(message.ip_version, sockets)

    def certificate(self, message: Certificate, descriptor: int) -> None:
        """What a service presents from now on."""
        self._ingress.certificate_came(message, descriptor)

    def connection_failed(self, text: str) -> None:
        """Say so; the process of ours sees its connection closed."""
        self._log.error("connection_failed", text=text)

    async def report(self) -> Report:
        """What has been done since the start, and what is open."""
        return await make_report(self._log, [Linked(None, None, self._links.links)])

    async def list_streams(self, limit: int) -> StreamPage:
        """The newest open streams."""
        return await list_streams(self._log, limit)

    def drain(self) -> None:
        """Accept no more; the open streams may end."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._links.go_away()
        self._ingress.close()

    @property
    def is_drained(self) -> bool:
        """Whether nothing is open."""
        return self._links.is_empty

    def cut(self, most: int) -> bool:
        """Reset streams that did not end in time."""
        return self._links.cut(most) > 0

    def reload(self, message: Reload, document: Document) -> int:
        """An enclave's file is measured into its image: it does not change while it runs."""
        raise MessageError("an enclave does not reload its file")

    @property
    def load(self) -> Load:
        """The streams that are open."""
        return Load(0, self._links.streams)


if __name__ == "__main__":
    forbid_tracing()
    run_worker(EnclaveSide)
