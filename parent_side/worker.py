"""A worker of the parent: links and raw connections in, dialled connections out."""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from parent_side.clock import ClockService
from parent_side.credentials_relay import CredentialsRelay
from parent_side.egress import Egress
from parent_side.enclave_logs import EnclaveLogs
from parent_side.enclaves import Enclaves, ServiceHandler
from parent_side.forwards import Forwards
from parent_side.ingress.connections import INGRESS_NAME, Ingress, listeners_of
from parent_side.ingress.offers import Offers
from parent_side.reach import IpVersion, Reach
from parent_side.resolver import Resolver
from parent_side.resolves import NameAnswers
from vsockproxy.addresses import UnixAddress, parse_endpoint
from vsockproxy.config.document import Document
from vsockproxy.config.model import ParentConfig
from vsockproxy.credentials.locations import SERVICE as CREDENTIALS_SERVICE
from vsockproxy.dataplane.dialling import SourceAddresses
from vsockproxy.dataplane.questions import Questions
from vsockproxy.dataplane.reporting import list_streams, make_report
from vsockproxy.dataplane.worker import Load, run_worker
from vsockproxy.log import Log
from vsockproxy.protocols import clock_stream, log_stream
from vsockproxy.worker_messages import (
    Certificate,
    Configure,
    Connection,
    ListenerKind,
    ListenerSummary,
    Offer,
    Reload,
    Routed,
    Sockets,
)
from vsockproxy.worker_reports import Report, StreamPage

if TYPE_CHECKING:
    from parent_side.upstream_proxy import UpstreamProxy

_FORWARD = re.compile(r"forwards\[(\d+)\]")
_IP_VERSIONS: Final[dict[ListenerKind, IpVersion]] = {"forward_ipv4": 4, "forward_ipv6": 6}


class ParentSide:
    """What a worker of the parent does with the connections it is given.

    Args:
        message: how log lines look.
        document: the parent's file.
        questions: tells the supervisor what is for other workers.
    """

    def __init__(self, message: Configure, document: Document, questions: Questions) -> None:
        config = document.config
        assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
        self._log = log = Log("parent", message.log_format, message.log_level)
        self._config = config
        resolver = Resolver(config.resolver)
        counters = log.activity.counters
        source_addresses = _source_addresses(config)
        upstream = _upstream_proxy(config, resolver, log)
        self._reach = reach = Reach(
            resolver,
            config.limits.connect,
            counters,
            upstream=upstream,
            source_addresses=source_addresses,
        )
        self._egress = egress = Egress(reach, config.limits.handshake, log)
        self._name_answers = NameAnswers(resolver, log, upstream)
        self.logs = EnclaveLogs(log, config.log.enclave_lines)
        self._credentials = CredentialsRelay(config.credentials, _own_credentials(message), log)
        services: dict[str, ServiceHandler] = {
            CREDENTIALS_SERVICE: self._credentials.serve,
            log_stream.SERVICE: self.logs.serve,
            clock_stream.SERVICE: ClockService().serve,
        }
        self._enclaves = Enclaves(document, egress, self._name_answers, log, services)
        tell = questions.tell
        self._offers = Offers(self._enclaves, tell, message.worker, message.workers)
        self._ingress = Ingress(document, self._enclaves, log, self._offers, tell)
        self._forwards = Forwards(reach, self._enclaves.policy_for, config.limits, log)
        self._ip_versions = _ip_versions(message.listeners)
        self._is_draining = False

    def connection(self, message: Connection, sock: socket.socket) -> None:
        """Serve a connection that the supervisor accepted."""
        if INGRESS_NAME.match(message.listener):
            self._ingress.connected(sock, message.listener)
            return
        forward = _FORWARD.match(message.listener)
        if forward is None:
            self._enclaves.connected(sock, message.cid)
            return
        if self._is_draining:
            sock.close()
            return
        to = self._config.forwards[int(forward[1])].to
        cid = message.cid
        name = self._enclaves.name_of(cid)
        ip_version = self._ip_versions[message.listener]
        limits = self._enclaves.limits_of(cid)
        admission = self._enclaves.admission_of(cid)
        self._forwards.connected(sock, to, cid, name, limits, admission, ip_version=ip_version)

    def offered(self, message: Offer) -> None:
        """What an enclave of another worker offers for ingress."""
        self._offers.offered(message)

    def routed(self, message: Routed, sock: socket.socket) -> None:
        """A connection for a service of an enclave of this worker."""
        self._ingress.routed(message, sock)

    def sockets(self, message: Sockets, sockets: list[socket.socket]) -> None:
        """None are asked for on the parent."""
        del message
        for sock in sockets:
            sock.close()

    def certificate(self, message: Certificate, descriptor: int) -> None:
        """That is for the enclave's workers."""

    def connection_failed(self, text: str) -> None:
        """Say so; whoever connected sees its connection closed."""
        self._log.error("connection_failed", text=text)

    async def report(self) -> Report:
        """What has been done since the start, and what is open."""
        return await make_report(self._log, self._enclaves.linked, self.logs.ends)

    async def list_streams(self, limit: int) -> StreamPage:
        """The newest open streams."""
        return await list_streams(self._log, limit)

    def drain(self) -> None:
        """Take no new streams."""
        self._is_draining = True
        self._enclaves.drain()
        self._ingress.drain()
        self.logs.drain()

    @property
    def is_drained(self) -> bool:
        """Whether no stream is open."""
        return self._enclaves.is_empty and self._forwards.is_empty and self._ingress.is_empty

    def cut(self, most: int) -> bool:
        """Reset streams that did not end in time."""
        return self._enclaves.cut(most) + self._forwards.cut(most) > 0

    def reload(self, message: Reload, document: Document) -> int:
        """Serve another file from now on: new streams at once, open ones as it says."""
        config = document.config
        assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
        entries = self._enclaves.compile(document)
        resolver = self._reach.resolver
        if config.resolver != self._config.resolver:
            resolver = Resolver(config.resolver)
        ip_versions = _ip_versions(message.listeners)
        listeners = listeners_of(document)
        # From here on nothing can fail.
        self._config = config
        self._ip_versions = ip_versions
        self._log.threshold = message.log_level
        self._reach.resolver = self._name_answers.resolver = resolver
        # Its credentials are read again, too.
        upstream = _upstream_proxy(config, resolver, self._log)
        self._reach.upstream = self._name_answers.upstream = upstream
        self._reach.source_addresses = _source_addresses(config)
        self._reach.connect_seconds = config.limits.connect
        self._egress.handshake_seconds = config.limits.handshake
        self._forwards.limits = config.limits
        self._credentials.config = config.credentials
        self.logs.lines_per_second = config.log.enclave_lines
        self._enclaves.reload(entries)
        self._ingress.reload(config.limits, listeners)
        if config.forbidden_streams == "keep":
            return 0
        return (
            self._egress.end_forbidden()
            + self._forwards.end_forbidden()
            + self._ingress.end_forbidden()
            + self._credentials.end_forbidden(self._enclaves.is_admitted)
        )

    @property
    def load(self) -> Load:
        """The enclaves that are connected, and the streams that are open."""
        streams = self._egress.streams + self._forwards.streams + self._ingress.streams
        return Load(self._enclaves.connected_enclaves, streams)


def _source_addresses(config: ParentConfig) -> SourceAddresses | None:
    if config.source_address is None:
        return None
    return {address.version: address for address in map(ip_address, config.source_address)}


def _upstream_proxy(config: ParentConfig, resolver: Resolver, log: Log) -> "UpstreamProxy | None":
    if config.upstream_proxy is None:
        return None
    # Here, because most have none, and this brings h11.
    from parent_side.upstream_proxy import UpstreamProxy

    return UpstreamProxy(
        config.upstream_proxy, resolver, config.limits.connect, _source_addresses(config), log
    )


def _own_credentials(message: Configure) -> UnixAddress | None:
    """Where the parent's own process for credentials listens, if it has one."""
    for listener in message.listeners:
        if listener.kind == "credentials":
            endpoint = parse_endpoint(listener.endpoint)
            assert isinstance(endpoint, UnixAddress)  # the supervisor made it
            return endpoint
    return None


def _ip_versions(listeners: Iterable[ListenerSummary]) -> dict[str, IpVersion | None]:
    return {each.name: _IP_VERSIONS.get(each.kind) for each in listeners}


def make_side(
    message: Configure, document: Document, listeners: list[socket.socket], questions: Questions
) -> ParentSide:
    """The parent's side; its listeners stay with the supervisor."""
    del listeners
    return ParentSide(message, document, questions)


if __name__ == "__main__":
    run_worker(make_side)
