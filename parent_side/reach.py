"""From a host and a port to a connected socket, or to a refusal with its reason."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from parent_side.resolver import LookupFailed, NoSuchName, Resolver
from vsockproxy.addresses import Host, IpAddress, normalise_host
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.dataplane.dialling import DialError, dial
from vsockproxy.dataplane.loop import now
from vsockproxy.errors import Refused
from vsockproxy.metrics import DIAL_SECONDS, Counters
from vsockproxy.policy import Decision, Policy

IpVersion = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection to an allowed destination."""

    socket: socket.socket
    address: IpAddress
    port: int
    host: Host
    decision: Decision


def forbids(policy: Policy, record: StreamRecord) -> bool:
    """Whether a policy does not allow an open stream; not one that has yet to be connected."""
    if record.address is None:
        return False
    host, address = normalise_host(record.host), ip_address(record.address)
    return not policy.decide_open(host, record.port, address).allowed


class Reach:
    """Decides, resolves, guards and dials, the same for sessions and for raw ports.

    Args:
        resolver: looks names up.
        connect_seconds: the limit of one dial.
        counters: for the durations of dials.
    """

    def __init__(self, resolver: Resolver, connect_seconds: float, counters: Counters) -> None:
        self.resolver = resolver
        self.connect_seconds = connect_seconds
        self._counters = counters

    async def reach(
        self,
        policy: Policy,
        record: StreamRecord,
        enclave: int,
        *,
        ip_version: IpVersion | None = None,
    ) -> Reached:
        """Connect to `record.host` and `record.port` if `policy` allows it.

        The record's host becomes its normal form, and its rule is noted. With `ip_version` only
        addresses of that version are dialled.

        Raises:
            Refused: with one of the reasons of design §10.
        """
        decision, host = policy.decide_text(record.host, record.port)
        if decision.rule is not None:
            record.rule = decision.rule.source
        if not decision.allowed or host is None:
            raise Refused(decision.reason, decision.text)
        record.host = host.text
        dialled = decision.dialled(host, record.port)
        addresses: tuple[IpAddress, ...]
        if dialled.host.address is not None:
            addresses = (dialled.host.address,)
        else:
            try:
                addresses = await self.resolver.resolve(dialled.host.text, enclave=enclave)
            except NoSuchName as error:
                raise Refused("no_such_name", str(error)) from error
            except LookupFailed as error:
                raise Refused("lookup_failed", str(error)) from error
        if ip_version is not None:
            addresses = tuple(each for each in addresses if each.version == ip_version)
            if not addresses:
                text = f"{dialled.host} has no IPv{ip_version} address, and no other may be dialled"
                raise Refused("no_such_name", text)
        decision, checked = policy.judge(decision, host, record.port, addresses)
        if not decision.allowed:
            raise Refused(decision.reason, decision.text)
        began = now()
        try:
            result = await dial(checked, dialled.port, timeout_seconds=self.connect_seconds)
        except DialError as error:
            has_timed_out = error.kind == "timed_out"
            outcome = "timed_out" if has_timed_out else "refused"
            self._counters.observe(DIAL_SECONDS, now() - began, (outcome,))
            reason = "dial_timeout" if has_timed_out else "dial_refused"
            raise Refused(reason, error.text) from error
        self._counters.observe(DIAL_SECONDS, now() - began, ("connected",))
        return Reached(result.socket, result.address, dialled.port, host, decision)

    @staticmethod
    def judge_again(policy: Policy, record: StreamRecord, reached: Reached) -> None:
        """Decide once more, where a reload brought another policy while a stream was on its way.

        Raises:
            Refused: the connection is not allowed any more, and has been closed.
        """
        decision = policy.decide_open(reached.host, record.port, reached.address)
        if not decision.allowed:
            reset_socket(reached.socket)
            raise Refused(decision.reason, decision.text)
