"""From a host and a port to a connected socket, or to a refusal with its reason."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal

from parent_side.resolver import LookupFailed, NoSuchName, Resolver
from vsockproxy.addresses import Destination, Host, IpAddress, format_ip, normalise_host
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.dialling import DialError, SourceAddresses, dial, interleave
from vsockproxy.dataplane.loop import now
from vsockproxy.errors import Refused
from vsockproxy.metrics import DIAL_SECONDS, LIMIT_REFUSALS, Counters
from vsockproxy.policy import Admission, Decision, Place, Policy

if TYPE_CHECKING:  # a worker without a proxy does without h11
    from parent_side.upstream_proxy import UpstreamProxy

IpVersion = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Decided:
    """A destination that the lists allow, before it is looked up."""

    policy: Policy
    """That allowed it."""
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


def forbids(policy: Policy, record: StreamRecord) -> bool:
    """Whether a policy does not allow an open stream; not one that has yet to be connected."""
    if not record.is_reached:
        return False
    address = ip_address(record.address) if record.address is not None else None
    return not _decide_open(policy, normalise_host(record.host), record.port, address).allowed


class Reach:
    """Decides, resolves, guards and dials, the same for sessions and for raw ports.

    Args:
        resolver: looks names up.
        connect_seconds: the limit of one dial.
        counters: for the durations of dials, and for what limits refuse.
        upstream: the proxy that destinations are reached through, if there is one.
        source_addresses: what dialled sockets are bound to; None leaves it to the kernel.
    """

    def __init__(
        self,
        resolver: Resolver,
        connect_seconds: float,
        counters: Counters,
        *,
        upstream: "UpstreamProxy | None" = None,
        source_addresses: SourceAddresses | None = None,
    ) -> None:
        self.resolver = resolver
        self.connect_seconds = connect_seconds
        self.upstream = upstream
        self.source_addresses = source_addresses
        self._counters = counters

    def decide(self, policy: Policy, record: StreamRecord, admission: Admission) -> Decided:
        """What the lists and the limits say of `record.host` and `record.port`; nothing is sent.

        The record's host becomes its normal form, its rule is noted, and that it is allowed: what
        comes later may still refuse it.

        Raises:
            Refused: with one of the reasons of design §10.
        """
        try:
            admission.admit_stream(now())
        except Refused:
            self._counters.add(LIMIT_REFUSALS, ("rate",))
            raise
        decision, host = policy.decide_text(record.host, record.port)
        if decision.rule is not None:
            record.rule = decision.rule.source
        if not decision.allowed or host is None:
            raise Refused(decision.reason, decision.text)
        record.host = host.text
        try:
            place = admission.enter(decision.rule, now())
        except Refused:
            self._counters.add(LIMIT_REFUSALS, ("rule",))
            raise
        record.allow_later(decision.reason)
        return Decided(policy, host, decision, place)

    async def reach(
        self,
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
        decision, host = decided.decision, decided.host
        dialled = decision.dialled(host, record.port)
        upstream = self.upstream
        checked: tuple[IpAddress, ...] = ()
        if upstream is None or not upstream.way_out.looks_up(dialled.host):
            addresses = await self._look_up(dialled.host, enclave, ip_version)
            decision, checked = decided.policy.judge(decision, host, record.port, addresses)
            if not decision.allowed:
                raise Refused(decision.reason, decision.text)
            if upstream is not None and not upstream.way_out.takes(dialled.host):
                upstream = None
            elif upstream is not None and (direct := upstream.way_out.direct(checked)):
                upstream, checked = None, direct
        began = now()
        try:
            if upstream is None:
                sock, target = await self._dial(checked, dialled.port)
            else:
                literals = [_literal(each, dialled.port) for each in interleave(checked)]
                sock, target = await upstream.connect(literals or [dialled], enclave)
        except Refused as refused:
            outcome = "timed_out" if refused.reason == "dial_timeout" else "refused"
            self._counters.observe(DIAL_SECONDS, now() - began, (outcome,))
            raise
        self._counters.observe(DIAL_SECONDS, now() - began, ("connected",))
        record.is_reached = True
        record.address = target.host.text if target.host.address is not None else None
        record.via = str(upstream.way_out.address) if upstream is not None else None
        return Reached(sock, target.host.address, target, host, decision)

    @staticmethod
    def judge_again(policy: Policy, record: StreamRecord, reached: Reached) -> None:
        """Decide once more, where a reload brought another policy while a stream was on its way.

        Raises:
            Refused: the connection is not allowed any more, and has been closed.
        """
        decision = _decide_open(policy, reached.host, record.port, reached.address)
        if not decision.allowed:
            reset_socket(reached.socket)
            raise Refused(decision.reason, decision.text)

    async def _dial(
        self, checked: tuple[IpAddress, ...], port: int
    ) -> tuple[socket.socket, Destination]:
        try:
            result = await dial(
                checked,
                port,
                timeout_seconds=self.connect_seconds,
                source_addresses=self.source_addresses,
            )
        except DialError as error:
            reason = "dial_timeout" if error.kind == "timed_out" else "dial_refused"
            raise Refused(reason, error.text) from error
        return result.socket, _literal(result.address, port)

    async def _look_up(
        self, host: Host, enclave: int, ip_version: IpVersion | None
    ) -> tuple[IpAddress, ...]:
        addresses: tuple[IpAddress, ...]
        if host.address is not None:
            addresses = (host.address,)
        else:
            try:
                addresses = await self.resolver.resolve(host.text, enclave=enclave)
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


def _decide_open(policy: Policy, host: Host, port: int, address: IpAddress | None) -> Decision:
    """As `Policy.decide_open`; a name that the upstream proxy has looked up has no address here."""
    if address is None:
        return policy.decide(host, port)
    return policy.decide_open(host, port, address)


def _literal(address: IpAddress, port: int) -> Destination:
    return Destination(Host(format_ip(address), address), port)
