"""Which ports each name and each network of an allowlist has: what names listens on. Pure.

A **port set** is a set of TCP ports that some names or networks share; each has listeners of its
own. Any two patterns are disjoint, or one contains the other, so what holds for a host is settled
by the narrowest pattern that covers it: the ports of all allow rules around that pattern, less
those of all deny rules around it. A deny rule inside an allow rule is such a pattern too. Rules
that say `names: false` do not count here, and `mode: report`, which lets pass what is not listed,
has one port set for everything.

Sixteen port sets and 256 listeners are enough for all that is real. Where a file has more, the sets
that come first in it stay exact and the others are merged into one. A merged set takes connections
to more ports than a name has; the worker that accepts one decides about it like about any other
and resets it, where an exact set would have had the kernel refuse it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Self

from vsockproxy.addresses import Host
from vsockproxy.config.model import MAX_NAMES_PORTS
from vsockproxy.config.patterns import AddressPattern, NameDepth, NamePattern, Pattern
from vsockproxy.config.ports import PortSpan, subtract_ports
from vsockproxy.errors import VsockproxyError
from vsockproxy.policy import Policy, Rule
from vsockproxy.policy.guard import closed

__all__ = ("MOST_PORT_SETS", "REPORTED_PORTS", "LeftOut", "PortSets", "TooManyPorts")

MOST_PORT_SETS: Final = 16

LEAST_ADDRESSES_OF_A_SET: Final = 16
"""A block too small to give each set as many has fewer sets."""

REPORTED_PORTS: Final = (80, 443)
"""With `mode: report`, what is listened on beside the ports that are listed: without a list there
would be nothing to report."""

LOCALHOST: Final = "localhost"
"""The command's own, and so is all below it (RFC 6761, section 6.3)."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")

IpNetwork = IPv4Network | IPv6Network
PortSpans = tuple[PortSpan, ...]


class TooManyPorts(VsockproxyError):
    """Rules with more different ports than names can listen on; `check` refuses such a file."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A rule that names does not offer, though it does not say `names: false`."""

    rule: Rule
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True)
class PortSets:
    """The port sets of an allowlist, and what has which.

    Args:
        sets: the ports of each set, ascending; the sets in the order in which the file uses them.
        names: the set's index by pattern, in file order; None for a pattern without any port,
            which is here because a wider one has some.
        networks: the same for networks.
        unlisted: the set of everything that no pattern covers; None with `mode: enforce`.
        left_out: what is not offered, for the log.
    """

    sets: tuple[tuple[int, ...], ...]
    names: Mapping[NamePattern, int | None]
    networks: Mapping[IpNetwork, int | None]
    unlisted: int | None
    left_out: tuple[LeftOut, ...]

    @classmethod
    def compile(cls, policy: Policy, block: IPv4Network) -> Self:
        """The port sets of an enclave's policy.

        Args:
            policy: what `Policy.compile` made of its document.
            block: where names get their addresses.

        Raises:
            TooManyPorts: the rules have more than 256 different ports.
        """
        rules, left_out = _offered(policy.lists.allow, block)
        listed = _union(rules)
        count = _count(listed)
        if count > MAX_NAMES_PORTS:
            raise TooManyPorts(
                f"the allowlist has {count} different ports, names listens on {MAX_NAMES_PORTS}: "
                "add names: false to the rules with most of them"
            )
        if policy.lists.mode == "report":
            everything = _with_reported_ports(listed)
            spans = dict.fromkeys((rule.pattern for rule in rules), everything)
            distinct: tuple[PortSpans, ...] = (everything,)
        else:
            spans = _spans_by_pattern(rules, policy.lists.deny)
            distinct = tuple(dict.fromkeys(filter(None, spans.values())))
        most_sets = min(MOST_PORT_SETS, block.num_addresses // LEAST_ADDRESSES_OF_A_SET)
        sets, index_of = _merge_beyond(distinct, most_sets)
        return cls(
            sets=sets,
            names={
                pattern: index_of.get(each)
                for pattern, each in spans.items()
                if isinstance(pattern, NamePattern)
            },
            networks={
                pattern.network: index_of.get(each)
                for pattern, each in spans.items()
                if isinstance(pattern, AddressPattern)
            },
            unlisted=0 if policy.lists.mode == "report" else None,
            left_out=left_out,
        )

    @property
    def listeners(self) -> int:
        """How many sockets listen: at most 256."""
        return sum(map(len, self.sets))

    @property
    def exact_names(self) -> tuple[tuple[str, int], ...]:
        """The names that are listed without a wildcard and their sets, in file order."""
        return tuple(
            (pattern.name, index)
            for pattern, index in self.names.items()
            if pattern.depth is NameDepth.EXACT and index is not None
        )

    def of_name(self, host: Host) -> int | None:
        """The set of a name; None if names does not offer it on any port."""
        for pattern in _around_name(NamePattern(NameDepth.EXACT, host.text)):
            if pattern in self.names:
                return self.names[pattern]
        return self.unlisted

    def networks_of(self, index: int | None) -> tuple[IpNetwork, ...]:
        """What leads to one set's listeners; None: to nobody's, though a wider network may."""
        return tuple(network for network, found in self.networks.items() if found == index)


class _Spans:
    """Ports by pattern, of allow rules or of deny rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        collected: dict[Pattern, list[PortSpan]] = {}
        for rule in rules:
            collected.setdefault(rule.pattern, []).extend(rule.ports)
        self._by_pattern = {key: subtract_ports(spans, ()) for key, spans in collected.items()}
        self._prefix_lengths = sorted(
            {
                (pattern.network.version, pattern.network.prefixlen)
                for pattern in self._by_pattern
                if isinstance(pattern, AddressPattern)
            }
        )

    def around(self, pattern: Pattern) -> list[PortSpan]:
        """The ports of all rules that cover everything that `pattern` covers."""
        if isinstance(pattern, NamePattern):
            wider: Iterator[Pattern] = _around_name(pattern)
        else:
            wider = self._around_network(pattern.network)
        return [span for each in wider for span in self._by_pattern.get(each, ())]

    def _around_network(self, network: IpNetwork) -> Iterator[Pattern]:
        for version, length in self._prefix_lengths:
            if version == network.version and length <= network.prefixlen:
                yield AddressPattern(network.supernet(new_prefix=length))


def _around_name(pattern: NamePattern) -> Iterator[NamePattern]:
    """`pattern` and every one that contains it, the narrowest first (see `patterns.contains`)."""
    yield pattern
    _, _, suffix = pattern.name.partition(".")
    match pattern.depth:
        case NameDepth.EXACT if suffix:
            yield NamePattern(NameDepth.ONE_LABEL, suffix)
        case NameDepth.ONE_LABEL:
            yield NamePattern(NameDepth.ANY_DEPTH, pattern.name)
    while suffix:
        yield NamePattern(NameDepth.ANY_DEPTH, suffix)
        _, _, suffix = suffix.partition(".")


def _offered(
    rules: Sequence[Rule], block: IPv4Network
) -> tuple[tuple[Rule, ...], tuple[LeftOut, ...]]:
    """The rules that count, and those that cannot, though they would."""
    offered: list[Rule] = []
    left_out: list[LeftOut] = []
    for rule in rules:
        if not rule.names:
            continue
        obstacle = _obstacle(rule, block)
        if obstacle:
            left_out.append(LeftOut(rule, obstacle))
        else:
            offered.append(rule)
    return tuple(offered), tuple(left_out)


def _obstacle(rule: Rule, block: IPv4Network) -> str:
    pattern = rule.pattern
    if isinstance(pattern, NamePattern):
        is_local = f".{pattern.name}".endswith(f".{LOCALHOST}")
        return (
            "localhost is the command's own: use a forward, or the HTTP proxy" if is_local else ""
        )
    network = pattern.network
    if pattern.is_loopback:
        return "loopback is the command's own: use a forward, or the HTTP proxy"
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return "the kernel dials a mapped address as IPv4: write a rule for that"
    if isinstance(network, IPv4Network) and network.subnet_of(block):
        return f"it lies in shim.names_block, {block}: use another block"
    if pattern.is_literal:
        shut = closed(network.network_address, private=rule.private, metadata=rule.metadata)
        if shut:
            return f"the address guard refuses it: {shut[0].address_class.value}"
    return ""


def _spans_by_pattern(rules: Sequence[Rule], denied: Sequence[Rule]) -> dict[Pattern, PortSpans]:
    """The ports of the allow rules' patterns, then of those of deny rules inside them."""
    allow, deny = _Spans(rules), _Spans(denied)
    patterns = dict.fromkeys(rule.pattern for rule in rules)
    patterns |= dict.fromkeys(rule.pattern for rule in denied if allow.around(rule.pattern))
    return {
        pattern: subtract_ports(allow.around(pattern), deny.around(pattern)) for pattern in patterns
    }


def _union(rules: Iterable[Rule]) -> PortSpans:
    return subtract_ports([span for rule in rules for span in rule.ports], ())


def _count(spans: PortSpans) -> int:
    return sum(high - low + 1 for low, high in spans)


def _with_reported_ports(listed: PortSpans) -> PortSpans:
    wanted = subtract_ports([(port, port) for port in REPORTED_PORTS], listed)
    added = subtract_ports((*listed, *wanted), ())
    return added if _count(added) <= MAX_NAMES_PORTS else listed


def _merge_beyond(
    distinct: tuple[PortSpans, ...], most_sets: int
) -> tuple[tuple[tuple[int, ...], ...], dict[PortSpans, int]]:
    """The sets with their ports, and which of them each of `distinct` became."""
    exact = len(distinct)
    merged: PortSpans = ()
    while exact + bool(merged) > most_sets or (
        sum(map(_count, distinct[:exact])) + _count(merged) > MAX_NAMES_PORTS
    ):
        exact -= 1
        merged = subtract_ports((*merged, *distinct[exact]), ())
    kept = (*distinct[:exact], *((merged,) if merged else ()))
    sets = tuple(
        tuple(port for low, high in spans for port in range(low, high + 1)) for spans in kept
    )
    return sets, {spans: min(index, exact) for index, spans in enumerate(distinct)}
