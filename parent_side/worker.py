"""A worker of the parent: links and raw connections in, dialled connections out."""

import re
import socket
from ipaddress import ip_address
from typing import Final

from parent_side.egress import Egress
from parent_side.enclaves import Enclaves
from parent_side.forwards import Forwards
from parent_side.reach import IpVersion, Reach
from parent_side.resolver import Resolver
from parent_side.resolves import NameAnswers
from vsockproxy.config.document import Document
from vsockproxy.config.model import ParentConfig
from vsockproxy.dataplane.questions import Questions
from vsockproxy.dataplane.worker import run_worker
from vsockproxy.log import Log
from vsockproxy.worker_messages import Configure, Connection, ListenerKind

_FORWARD = re.compile(r"forwards\[(\d+)\]")
_IP_VERSIONS: Final[dict[ListenerKind, IpVersion]] = {"forward_ipv4": 4, "forward_ipv6": 6}


class ParentSide:
    """What a worker of the parent does with the connections it is given.

    Args:
        message: how log lines look.
        document: the parent's file.
    """

    def __init__(self, message: Configure, document: Document) -> None:
        config = document.config
        assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
        self._log = log = Log("parent", message.log_format, message.log_level)
        resolver = Resolver(config.resolver)
        upstream, source_addresses = None, None
        if config.source_address is not None:
            own = map(ip_address, config.source_address)
            source_addresses = {address.version: address for address in own}
        if config.upstream_proxy is not None:
            # Here, because most have none, and this brings h11.
            from parent_side.upstream_proxy import UpstreamProxy

            upstream = UpstreamProxy(
                config.upstream_proxy, resolver, config.limits.connect, source_addresses, log
            )
        reach = Reach(
            resolver, config.limits.connect, upstream=upstream, source_addresses=source_addresses
        )
        self._forwards_config = config.forwards
        egress = Egress(reach, config.limits.handshake, log)
        self._enclaves = Enclaves(document, egress, NameAnswers(resolver, log, upstream), log)
        self._forwards = Forwards(reach, config.limits, log)
        self._ip_versions = {each.name: _IP_VERSIONS.get(each.kind) for each in message.listeners}

    def connection(self, message: Connection, sock: socket.socket) -> None:
        """Serve a connection that the supervisor accepted."""
        forward = _FORWARD.match(message.listener)
        if forward is None:
            self._enclaves.connected(sock, message.cid)
            return
        to = self._forwards_config[int(forward[1])].to
        cid = message.cid
        policy = self._enclaves.policy_for(cid)
        name = self._enclaves.name_of(cid)
        ip_version = self._ip_versions[message.listener]
        limits = self._enclaves.limits_of(cid)
        admission = self._enclaves.admission_of(cid)
        self._forwards.connected(
            sock, to, policy, cid, name, limits, admission, ip_version=ip_version
        )

    def connection_failed(self, text: str) -> None:
        """Say so; whoever connected sees its connection closed."""
        self._log.error("connection_failed", text=text)

    def drain(self) -> None:
        """Take no new streams."""
        self._enclaves.drain()

    @property
    def is_drained(self) -> bool:
        """Whether no stream is open."""
        return self._enclaves.is_empty and self._forwards.is_empty


def make_side(
    message: Configure, document: Document, listeners: list[socket.socket], questions: Questions
) -> ParentSide:
    """The parent's side; its listeners stay with the supervisor, and it has nothing to ask."""
    del listeners, questions
    return ParentSide(message, document)


if __name__ == "__main__":
    run_worker(make_side)
