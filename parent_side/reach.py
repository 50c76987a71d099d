"""From a host and a port to a connected socket, or to a refusal with its reason."""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from parent_side.resolver import LookupFailed, NoSuchName, Resolver
from vsockproxy.addresses import Destination, Host, IpAddress, format_ip
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.dialling import DialError, SourceAddresses, dial, interleave
from vsockproxy.dataplane.loop import now
from vsockproxy.errors import Refused
from vsockproxy.policy import Admission, Decision, Place, Policy

if TYPE_CHECKING:  # a worker without a proxy does without h11
    from parent_side.upstream_proxy import UpstreamProxy

IpVersion = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Decided:
    """A destination that the lists allow, before it is looked up."""

    host: Host
    decision: Decision
    place: Place
    """Left when the connection is gone; what it is counted under."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection to an allowed destination."""

    socket: socket.socket
    address: IpAddress | None
    """None where an upstream proxy has looked the name up."""
    target: Destination
    """What was dialled, or what the upstream proxy was asked for."""
    host: Host
    decision: Decision


class Reach:
    """Decides, resolves, guards and dials, the same for sessions and for raw ports.

    Args:
        resolver: looks names up.
        connect_seconds: the limit of one dial.
        upstream: the proxy that destinations are reached through, if there is one.
        source_addresses: what dialled sockets are bound to; None leaves it to the kernel.
    """

    def __init__(
        self,
        resolver: Resolver,
        connect_seconds: float,
        *,
        upstream: "UpstreamProxy | None" = None,
        source_addresses: SourceAddresses | None = None,
    ) -> None:
        self._resolver = resolver
        self._connect_seconds = connect_seconds
        self._upstream = upstream
        self._source_addresses = source_addresses

    @staticmethod
    def decide(policy: Policy, record: StreamRecord, admission: Admission) -> Decided:
        """What the lists and the limits say of `record.host` and `record.port`; nothing is sent.

        The record's host becomes its normal form, its rule is noted, and that it is allowed: what
        comes later may still refuse it.

        Raises:
            Refused: with one of the reasons of design §10.
        """
        admission.admit_stream(now())
        decision, host = policy.decide_text(record.host, record.port)
        if decision.rule is not None:
            record.rule = decision.rule.source
        if not decision.allowed or host is None:
            raise Refused(decision.reason, decision.text)
        record.host = host.text
        place = admission.enter(decision.rule, now())
        record.allow_later(decision.reason)
        return Decided(host, decision, place)

    async def reach(
        self,
        policy: Policy,
        decided: Decided,
        record: StreamRecord,
        enclave: int,
        *,
        ip_version: IpVersion | None = None,
    ) -> Reached:
        """Connect to what was decided; with `ip_version` to addresses of that version only.

        The record gets what was reached.

        Raises:
            Refused: with one of the reasons of design §10.
        """
        decision, host, port = decided.decision, decided.host, record.port
        dialled = decision.dialled(host, port)
        upstream = self._upstream
        if upstream is not None and not upstream.takes(dialled.host):
            upstream = None
        if upstream is not None and upstream.resolves and dialled.host.address is None:
            sock, target = await upstream.connect([dialled], enclave)
            return _reached(record, Reached(sock, None, target, host, decision), upstream)
        addresses = await self._look_up(dialled.host, enclave, ip_version)
        decision, checked = policy.judge(decision, host, port, addresses)
        if not decision.allowed:
            raise Refused(decision.reason, decision.text)
        if upstream is not None and (direct := upstream.direct(checked)):
            upstream, checked = None, direct
        if upstream is not None:
            targets = [_literal(each, dialled.port) for each in interleave(checked)]
            sock, target = await upstream.connect(targets, enclave)
            return _reached(
                record, Reached(sock, target.host.address, target, host, decision), upstream
            )
        try:
            result = await dial(
                checked,
                dialled.port,
                timeout_seconds=self._connect_seconds,
                source_addresses=self._source_addresses,
            )
        except DialError as error:
            reason = "dial_timeout" if error.kind == "timed_out" else "dial_refused"
            raise Refused(reason, error.text) from error
        target = _literal(result.address, dialled.port)
        return _reached(record, Reached(result.socket, result.address, target, host, decision))

    async def _look_up(
        self, host: Host, enclave: int, ip_version: IpVersion | None
    ) -> tuple[IpAddress, ...]:
        addresses: tuple[IpAddress, ...]
        if host.address is not None:
            addresses = (host.address,)
        else:
            try:
                addresses = await self._resolver.resolve(host.text, enclave=enclave)
            except NoSuchName as error:
                raise Refused("no_such_name", str(error)) from error
            except LookupFailed as error:
                raise Refused("lookup_failed", str(error)) from error
        if ip_version is not None:
            addresses = tuple(each for each in addresses if each.version == ip_version)
            if not addresses:
                text = f"{host} has no IPv{ip_version} address, and no other may be dialled"
                raise Refused("no_such_name", text)
        return addresses


def _reached(
    record: StreamRecord, reached: Reached, upstream: "UpstreamProxy | None" = None
) -> Reached:
    record.is_reached = True
    record.address = str(reached.address) if reached.address is not None else None
    record.via = str(upstream.address) if upstream is not None else None
    return reached


def _literal(address: IpAddress, port: int) -> Destination:
    return Destination(Host(format_ip(address), address), port)
