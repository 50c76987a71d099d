"""The policy of one side for one enclave: allowlist, denylist and address guard.

A stream is decided twice. `Policy.decide` looks at what the program asked for: deny wins, then the
first allow rule in file order that covers host and port decides, with its flags. `Policy.judge`
looks at the addresses to be dialled, once they are known: there deny rules and the guard refuse
addresses. Only what `judge` hands back may be dialled.

A question for a name has no port. It is allowed where some port is: `Policy.decide_name` and
`Policy.judge_name` are the same two steps for it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Self

from vsockproxy.addresses import AddressError, Destination, Host, IpAddress, normalise_host
from vsockproxy.config.document import Document
from vsockproxy.config.patterns import AddressPattern
from vsockproxy.config.ports import EVERY_PORT
from vsockproxy.policy import refusals
from vsockproxy.policy.decisions import Decision
from vsockproxy.policy.embedded import embedded_ipv4
from vsockproxy.policy.guard import closed
from vsockproxy.policy.lists import Lists, lists_for
from vsockproxy.policy.reasons import MOST_SEVERE_FIRST, Reason
from vsockproxy.policy.rules import Rule, RuleTable

__all__ = ("Policy",)

MOST_ERROR_CHARACTERS: Final = 400
"""What a refusal quotes of a host that cannot be read."""

MOST_REMEMBERED: Final = 256
"""Decisions that are kept for the next stream to the same host; each has some 2 KiB at most."""


class Policy:
    """Decides about streams; immutable, and quick however many rules there are.

    Args:
        lists: the rules and settings to decide by.
    """

    __slots__ = ("_allow", "_decided", "_deny", "lists")

    def __init__(self, lists: Lists) -> None:
        self.lists = lists
        self._allow = RuleTable(lists.allow)
        self._deny = RuleTable(lists.deny)
        self._decided = lru_cache(MOST_REMEMBERED)(self._decide_text)

    @classmethod
    def compile(
        cls,
        document: Document,
        *,
        cid: int | None = None,
        pcrs: Mapping[int, bytes] | None = None,
    ) -> Self:
        """The policy of a file.

        Args:
            document: what `load` made of the file.
            cid: on the parent, the enclave that it is for; None if that is not known.
            pcrs: what that enclave has attested; None, as `cid` is, for the file's own lists.
        """
        return cls(lists_for(document, cid, pcrs))

    def decide_text(self, host_text: str, port: int) -> tuple[Decision, Host | None]:
        """Decide about a host as a program wrote it; also its normal form, if it has one.

        A host that cannot be read is refused as not listed, in every mode.
        """
        return self._decided(host_text, port)

    def _decide_text(self, host_text: str, port: int) -> tuple[Decision, Host | None]:
        try:
            host = normalise_host(host_text)
        except AddressError as error:
            return _unreadable(error), None
        return self.decide(host, port), host

    def decide(self, host: Host, port: int) -> Decision:
        """Decide about what a program asked for, before anything is resolved."""
        asked = Destination(host, port)
        first_port, last_port = EVERY_PORT[0]
        if not first_port <= port <= last_port:
            text = f"{asked} has no TCP port: a port is within {first_port}-{last_port}"
            return Decision(False, Reason.PORT_NOT_LISTED, None, text)
        if self.lists.lacks_attestation:
            text = refusals.attestation_required(asked.host)
            return Decision(False, Reason.ATTESTATION_REQUIRED, None, text)
        denied = self._denied(asked)
        if denied is not None:
            return Decision(False, Reason.DENIED, denied, f"{asked} is denied at {denied.source}")
        rule = self._allow.match(host, port)
        if rule is None:
            return self._unlisted(asked)
        if rule.dial is not None and (denied := self._denied(rule.dial)) is not None:
            text = f"{asked} is dialled as {rule.dial}, denied at {denied.source}"
            return Decision(False, Reason.DENIED, denied, text)
        return Decision(True, Reason.LISTED, rule, f"{asked} is listed at {rule.source}")

    def judge(
        self, decision: Decision, host: Host, port: int, addresses: Sequence[IpAddress]
    ) -> tuple[Decision, tuple[IpAddress, ...]]:
        """Decide about the addresses of what is dialled: the final decision, and those to dial.

        Args:
            decision: what `decide` said of `host` and `port`.
            host: what the program asked for.
            port: the port it asked for.
            addresses: what `decision.dialled(host, port)` stands for: its literal, or one answer
                of the resolver.
        """
        if not decision.allowed:
            return decision, ()
        asked = Destination(host, port)
        return self._judge(decision, asked, decision.dialled(host, port), addresses)

    def decide_open(self, host: Host, port: int, address: IpAddress) -> Decision:
        """Decide about a stream that is open already: what it asked for, and where it went.

        A rule's `dial` is for new streams: one that went elsewhere is judged by where it went.
        """
        decision = self.decide(host, port)
        return self.judge(decision, host, port, (address,))[0]

    def decide_name_text(self, host_text: str) -> tuple[Decision, Host | None]:
        """Decide about a name as a peer wrote it, as `decide_text` does about a host."""
        try:
            host = normalise_host(host_text)
        except AddressError as error:
            return _unreadable(error), None
        return self.decide_name(host), host

    def decide_name(self, host: Host) -> Decision:
        """Decide whether `host` may be asked for: listed, not_listed or denied.

        It may if a stream to some port of it may be. Of several rules the one for the lowest port
        is given, but one with `dial` before all others: its streams do not go where the name leads.
        """
        if self.lists.lacks_attestation:
            text = refusals.attestation_required(host)
            return Decision(False, Reason.ATTESTATION_REQUIRED, None, text)
        listed: list[Decision] = []
        denied: Decision | None = None
        is_unlisted = False
        is_reported = False
        for port in self._ports(host, ()):
            decision = self.decide(host, port)
            if decision.reason is Reason.LISTED:
                listed.append(decision)
            elif decision.reason is Reason.DENIED:
                denied = denied or decision
            else:
                is_unlisted = is_unlisted or decision.reason is Reason.NOT_LISTED
                is_reported = is_reported or decision.reported
        if listed:
            decision = min(listed, key=lambda each: each.rule is None or each.rule.dial is None)
            assert decision.rule is not None  # what is listed is listed by a rule
            text = f"{host} is listed at {decision.rule.source}"
            return Decision(True, Reason.LISTED, decision.rule, text)
        if denied is not None and denied.rule is not None and not (is_unlisted or is_reported):
            text = f"{host} is denied at {denied.rule.source}"
            return Decision(False, Reason.DENIED, denied.rule, text)
        text = refusals.name_not_listed(self.lists, host)
        return Decision(is_reported, Reason.NOT_LISTED, None, text, reported=is_reported)

    def judge_name(
        self, decision: Decision, host: Host, addresses: Sequence[IpAddress]
    ) -> tuple[Decision, tuple[IpAddress, ...]]:
        """Decide about the addresses of a name: the final decision, and those that are told.

        An address is told if a stream to some port of `host` may be dialled to it.

        Args:
            decision: what `decide_name` said of `host`.
            host: the name.
            addresses: one answer of the resolver for it.
        """
        if not decision.allowed:
            return decision, ()
        asked = Destination(host, refusals.ANY_PORT)
        passed: set[IpAddress] = set()
        refusal: Decision | None = None
        for port in self._ports(host, addresses):
            on_port = self.decide(host, port)
            if not on_port.allowed or (on_port.rule is not None and on_port.rule.dial is not None):
                continue
            judged, told = self._judge(on_port, asked, Destination(host, port), addresses)
            passed.update(told)
            if not judged.allowed:
                refusal = refusal or judged
        if passed or refusal is None:
            return decision, tuple(address for address in addresses if address in passed)
        return refusal, ()

    def _ports(self, host: Host, addresses: Sequence[IpAddress]) -> list[int]:
        """The first port of each run of ports that `decide` and `judge` treat alike, in order."""
        rules = [*self._covering(self._allow, host), *self._covering(self._deny, host)]
        literal = () if host.address is None else (host.address,)
        for address in (*literal, *addresses):
            for part in (address, *embedded_ipv4(address)):
                rules += self._covering(self._deny, Host(str(part), part))
        first_port, last_port = EVERY_PORT[0]
        edges = {edge for rule in rules for low, high in rule.ports for edge in (low, high + 1)}
        return sorted(port for port in {first_port, *edges} if port <= last_port)

    @staticmethod
    def _covering(table: RuleTable, host: Host) -> tuple[Rule, ...]:
        return table.covering(host, len(table.rules))

    def _judge(
        self,
        decision: Decision,
        asked: Destination,
        dialled: Destination,
        addresses: Sequence[IpAddress],
    ) -> tuple[Decision, tuple[IpAddress, ...]]:
        if not addresses:
            text = f"{dialled.host} has no address"
            return Decision(False, Reason.NO_SUCH_NAME, decision.rule, text), ()
        passed: list[IpAddress] = []
        refused: list[Decision] = []
        for address in addresses:
            refusal = self._refuse(decision.rule, asked, dialled, address)
            if refusal is None:
                passed.append(address)
            else:
                refused.append(refusal)
        if not refused or (passed and self.lists.mixed == "drop"):
            return decision, tuple(passed)
        return min(refused, key=lambda refusal: MOST_SEVERE_FIRST.index(refusal.reason)), ()

    def requires_tls(self, rule: Rule | None) -> bool:
        """Whether a stream that `rule` decided must begin with a ClientHello."""
        if rule is not None and rule.require_tls is not None:
            return rule.require_tls
        return self.lists.require_tls

    def plain_mend(self, rule: Rule | None) -> str:
        """What to change so that a stream that `rule` decided may begin without TLS."""
        return refusals.plain_mend(rule)

    def _denied(self, destination: Destination) -> Rule | None:
        """The deny rule for a destination as it is written, or for the IPv4 inside a literal."""
        address = destination.host.address
        if address is None:
            return self._deny.match(destination.host, destination.port)
        found = self._denied_part(address, destination.port)
        return found[1] if found is not None else None

    def _denied_part(self, address: IpAddress, port: int) -> tuple[IpAddress, Rule] | None:
        if not self._deny.rules:
            return None
        for part in (address, *embedded_ipv4(address)):
            rule = self._deny.match_address(part, port)
            if rule is not None:
                return part, rule
        return None

    def _unlisted(self, asked: Destination) -> Decision:
        covering = self._allow.covering(asked.host, refusals.MOST_RULES_SHOWN + 1)
        if covering:
            reason = Reason.PORT_NOT_LISTED
            text = refusals.port_not_listed(self.lists, asked, covering)
        else:
            reason = Reason.NOT_LISTED
            text = refusals.not_listed(self.lists, asked)
        is_reported = self.lists.mode == "report"
        return Decision(is_reported, reason, None, text, reported=is_reported)

    def _refuse(
        self, rule: Rule | None, asked: Destination, dialled: Destination, address: IpAddress
    ) -> Decision | None:
        """Refuse one address to be dialled; None if there is nothing against it."""
        found = self._denied_part(address, dialled.port)
        if found is not None:
            part, deny = found
            text = refusals.denied_address(asked.host, dialled.host, address, part, deny)
            return Decision(False, Reason.DENIED, deny, text)
        shut = closed(
            address,
            private=rule is not None and rule.private,
            metadata=rule is not None and rule.metadata and _is_literal(rule, address),
        )
        if not shut:
            return None
        text = refusals.closed_address(self.lists, rule, asked, dialled.host, address, shut)
        return Decision(False, shut[0].reason, rule, text)


def _unreadable(error: AddressError) -> Decision:
    text = str(error)
    if len(text) > MOST_ERROR_CHARACTERS:
        text = f"{text[:MOST_ERROR_CHARACTERS]}…"
    return Decision(False, Reason.NOT_LISTED, None, f"not a host: {text}")


def _is_literal(rule: Rule, address: IpAddress) -> bool:
    """Whether the rule is for exactly this address; such a rule covers no name."""
    pattern = rule.pattern
    return (
        isinstance(pattern, AddressPattern)
        and pattern.is_literal
        and pattern.network.network_address == address
    )
