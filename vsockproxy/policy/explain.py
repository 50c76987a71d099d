"""Why a host and port would be allowed or refused, in lines for people.

The first line is `allowed` or `refused: REASON`. Then, for each side that was asked, a block:

    rule: kms.eu-west-1.amazonaws.com port 443 at parent.yaml:7
    side: parent (parent.yaml): refused: address_private
    guard: kms.eu-west-1.amazonaws.com resolved to 10.0.3.7, private (a VPC endpoint?): add …
    way out: the upstream proxy proxy.example:3128
    tls: not required
    limits: 20 connections at once, for each enclave
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from vsockproxy.addresses import Host, IpAddress, format_ip
from vsockproxy.errors import Refused
from vsockproxy.policy.allowlist import Policy
from vsockproxy.policy.decisions import Decision
from vsockproxy.policy.guard import closed, findings
from vsockproxy.policy.reasons import Reason
from vsockproxy.policy.rules import Rule
from vsockproxy.policy.way_out import WayOut

__all__ = ("Explanation", "LookUp", "Party", "Side", "explain")

Side = Literal["enclave", "parent"]

LookUp = Callable[[Host], Sequence[IpAddress]]
"""Resolves a name. It raises `Refused` with `no_such_name` or `lookup_failed`."""


@dataclass(frozen=True, slots=True)
class Party:
    """One side that has to allow a stream, with the file that its policy came from.

    Args:
        side: which one.
        file: for the text.
        policy: decides.
        way_out: of a parent that has an upstream proxy.
    """

    side: Side
    file: str
    policy: Policy
    way_out: WayOut | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The outcome, and the lines that explain it."""

    allowed: bool
    lines: tuple[str, ...]


def explain(
    parties: Sequence[Party], host: Host, port: int, look_up: LookUp | None = None
) -> Explanation:
    """Explain what becomes of a stream; all `parties` must allow it, in the order given.

    Args:
        parties: the sides; the first one that refuses gives the reason.
        host: the host that a program asks for.
        port: its port.
        look_up: resolves names on the parent's side; None leaves names unresolved and unjudged.
    """
    lines: list[str] = []
    refusal: Decision | None = None
    for party in parties:
        decision, block = _explain_side(party, host, port, look_up)
        if refusal is None and not decision.allowed:
            refusal = decision
        if lines:
            lines.append("")
        lines += block
    return Explanation(refusal is None, (_outcome(refusal), *lines))


def _outcome(refusal: Decision | None) -> str:
    return "allowed" if refusal is None else f"refused: {refusal.reason}"


def _explain_side(
    party: Party, host: Host, port: int, look_up: LookUp | None
) -> tuple[Decision, list[str]]:
    first = party.policy.decide(host, port)
    final, guard, passed = _explain_guard(party, first, host, port, look_up)
    lines = [
        f"rule: {_rule(first)}",
        f"side: {party.side} ({party.file}): {_outcome(None if final.allowed else final)}",
        f"guard: {guard}",
    ]
    if party.way_out is not None and final.allowed:
        lines.append(f"way out: {_way_out(party.way_out, first.dialled(host, port).host, passed)}")
    if first.allowed:
        lines.append(f"tls: {_tls(party.policy, first, host)}")
    if first.rule is not None and (limits := _limits(first.rule)):
        lines.append(f"limits: {limits}")
    return final, lines


def _rule(decision: Decision) -> str:
    rule = decision.rule
    if not decision.allowed:
        return f"{rule or 'none'}: {decision.text}"
    if rule is None:
        return f"none, and mode: report lets it pass: {decision.text}"
    return str(rule) if rule.dial is None else f"{rule}, dialled as {rule.dial}"


def _explain_guard(
    party: Party, decision: Decision, host: Host, port: int, look_up: LookUp | None
) -> tuple[Decision, str, Sequence[IpAddress]]:
    """The decision in the end, what the guard says, and the addresses that may be dialled."""
    if not decision.allowed:
        return decision, "not asked", ()
    dialled = decision.dialled(host, port).host
    if dialled.address is not None:
        addresses: Sequence[IpAddress] = (dialled.address,)
    elif party.side == "enclave":
        return decision, f"not asked, {dialled} is resolved and judged on the parent", ()
    elif party.way_out is not None and party.way_out.looks_up(dialled):
        return decision, f"not asked, the upstream proxy resolves {dialled}", ()
    elif look_up is None:
        return decision, f"not asked, {dialled} was not resolved (--resolve does)", ()
    else:
        try:
            addresses = look_up(dialled)
        except Refused as refused:
            refusal = Decision(False, Reason(refused.reason), decision.rule, refused.text)
            return refusal, f"not asked, {refused.text}", ()
    final, passed = party.policy.judge(decision, host, port, addresses)
    if not final.allowed:
        return final, final.text, ()
    judged = "; ".join(_judged(address, address in passed) for address in addresses)
    return final, judged, passed


def _judged(address: IpAddress, may_be_dialled: bool) -> str:
    outer, *inside = findings(address)
    classes = ", ".join(
        f"which holds {format_ip(finding.address)}, {finding.address_class.value}"
        for finding in inside
    )
    text = f"{format_ip(address)}, {classes or outer.address_class.value}"
    if not may_be_dialled:
        return f"{text}, dropped"
    is_opened = bool(closed(address, private=False, metadata=False))
    return f"{text}, opened by the rule" if is_opened else text


def _way_out(way_out: WayOut, dialled: Host, addresses: Sequence[IpAddress]) -> str:
    if not way_out.takes(dialled):
        return f"dialled directly, {dialled} is in upstream_proxy.except"
    if direct := way_out.direct(addresses):
        return f"dialled directly, {format_ip(direct[0])} is in upstream_proxy.except"
    return f"the upstream proxy {way_out.address}"


def _limits(rule: Rule) -> str:
    limits = []
    if rule.connections is not None:
        limits.append(f"{rule.connections} connections at once")
    if rule.rate is not None:
        limits.append(f"{rule.rate:g} new ones a second")
    return f"{', '.join(limits)}, for each enclave" if limits else ""


def _tls(policy: Policy, decision: Decision, host: Host) -> str:
    if not policy.requires_tls(decision.rule):
        return "not required"
    server_name = "no server name" if host.address is not None else f"the server name {host}"
    return f"required, a ClientHello with {server_name} comes first"
