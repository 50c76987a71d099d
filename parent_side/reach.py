"""From a host and a port to a connected socket, or to a refusal with its reason."""

import socket
from dataclasses import dataclass
from typing import Literal

from parent_side.resolver import LookupFailed, NoSuchName, Resolver
from vsockproxy.addresses import Host, IpAddress
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.dialling import DialError, dial
from vsockproxy.dataplane.loop import now
from vsockproxy.errors import Refused
from vsockproxy.policy import Admission, Decision, Place, Policy

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
    address: IpAddress
    port: int
    host: Host
    decision: Decision


class Reach:
    """Decides, resolves, guards and dials, the same for sessions and for raw ports.

    Args:
        resolver: looks names up.
        connect_seconds: the limit of one dial.
    """

    def __init__(self, resolver: Resolver, connect_seconds: float) -> None:
        self._resolver = resolver
        self._connect_seconds = connect_seconds

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
        port: int,
        enclave: int,
        *,
        ip_version: IpVersion | None = None,
    ) -> Reached:
        """Connect to what was decided; with `ip_version` to addresses of that version only.

        Raises:
            Refused: with one of the reasons of design §10.
        """
        decision, host = decided.decision, decided.host
        dialled = decision.dialled(host, port)
        addresses: tuple[IpAddress, ...]
        if dialled.host.address is not None:
            addresses = (dialled.host.address,)
        else:
            try:
                addresses = await self._resolver.resolve(dialled.host.text, enclave=enclave)
            except NoSuchName as error:
                raise Refused("no_such_name", str(error)) from error
            except LookupFailed as error:
                raise Refused("lookup_failed", str(error)) from error
        if ip_version is not None:
            addresses = tuple(each for each in addresses if each.version == ip_version)
            if not addresses:
                text = f"{dialled.host} has no IPv{ip_version} address, and no other may be dialled"
                raise Refused("no_such_name", text)
        decision, checked = policy.judge(decision, host, port, addresses)
        if not decision.allowed:
            raise Refused(decision.reason, decision.text)
        try:
            result = await dial(checked, dialled.port, timeout_seconds=self._connect_seconds)
        except DialError as error:
            reason = "dial_timeout" if error.kind == "timed_out" else "dial_refused"
            raise Refused(reason, error.text) from error
        return Reached(result.socket, result.address, dialled.port, host, decision)
