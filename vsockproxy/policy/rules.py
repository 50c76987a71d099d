"""Rules, and the table that finds the one that decides.

Among the rules that cover a host and a port, the first in file order decides, whatever its
pattern. A look-up costs a dictionary access for each label of a name, or for each prefix length
in use, and a bisection over the ports; the number of rules does not enter.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from itertools import islice
from operator import itemgetter
from typing import Final

from vsockproxy.addresses import Destination, Host, IpAddress
from vsockproxy.config.patterns import AddressPattern, NameDepth, Pattern
from vsockproxy.config.ports import EVERY_PORT, PortSpan, format_ports

__all__ = ("Rule", "RuleTable", "describe_ports")

MOST_SPANS_SHOWN: Final = 8
"""Spans of ports that a text about a rule lists; refusals travel in frames and HTTP answers."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of an allowlist or a denylist.

    Args:
        pattern: the hosts that it covers.
        ports: the ports that it covers.
        source: file and line, as `parent.yaml:7`.
        private: opens private, carrier-grade NAT and loopback addresses.
        metadata: opens link-local and metadata addresses, if `pattern` is that literal.
        dial: what is dialled instead of the host.
        require_tls: overrides the file's setting unless None.
        names: whether the names way in offers it.
        connections: connections of one enclave that may be open at once under it, if limited.
        rate: connections of one enclave that may be opened under it each second, if limited.
    """

    pattern: Pattern
    ports: tuple[PortSpan, ...]
    source: str
    private: bool = False
    metadata: bool = False
    dial: Destination | None = None
    require_tls: bool | None = None
    names: bool = True
    connections: int | None = None
    rate: float | None = None

    def __str__(self) -> str:
        return f"{self.pattern} {describe_ports(self.ports)} at {self.source}"


def describe_ports(ports: tuple[PortSpan, ...]) -> str:
    """Ports for people: `port 443`, `ports 80, 6432-6440` or `all ports`."""
    if ports == EVERY_PORT:
        return "all ports"
    more = ", …" if len(ports) > MOST_SPANS_SHOWN else ""
    single = len(ports) == 1 and ports[0][0] == ports[0][1]
    return f"port{'' if single else 's'} {format_ports(ports[:MOST_SPANS_SHOWN])}{more}"


_Numbered = tuple[int, Rule]
"""A rule with its place in the file."""


class _PortTable:
    """The rules of one pattern, in file order, and which of them decides for a port."""

    __slots__ = ("_deciding", "_starts", "rules")

    def __init__(self, rules: Sequence[_Numbered]) -> None:
        self.rules = rules
        self._starts: list[int] = []
        """Ports from which on `_deciding`'s entry at the same index decides."""
        self._deciding: list[_Numbered | None] = []
        spans = [
            (low, number, high + 1, rule) for number, rule in rules for low, high in rule.ports
        ]
        spans.sort(key=itemgetter(0), reverse=True)
        covering: list[tuple[int, int, Rule]] = []  # a heap: the first in file order is on top
        for edge in sorted({edge for start, _, stop, _ in spans for edge in (start, stop)}):
            while spans and spans[-1][0] == edge:
                _, number, stop, rule = spans.pop()
                heappush(covering, (number, stop, rule))
            while covering and covering[0][1] <= edge:
                heappop(covering)
            self._starts.append(edge)
            self._deciding.append((covering[0][0], covering[0][2]) if covering else None)

    def deciding(self, port: int) -> _Numbered | None:
        index = bisect_right(self._starts, port) - 1
        return self._deciding[index] if index >= 0 else None


class RuleTable:
    """Rules in file order, found by host and port."""

    __slots__ = ("_any_depth", "_exact", "_networks", "_one_label", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        by_pattern: dict[Pattern, list[_Numbered]] = {}
        for numbered in enumerate(self.rules):
            by_pattern.setdefault(numbered[1].pattern, []).append(numbered)
        self._exact: dict[str, _PortTable] = {}
        self._one_label: dict[str, _PortTable] = {}
        self._any_depth: dict[str, _PortTable] = {}
        self._networks: dict[tuple[int, int], dict[int, _PortTable]] = {}
        """By IP version and bits behind the prefix: the tables by prefix."""
        by_depth = {
            NameDepth.EXACT: self._exact,
            NameDepth.ONE_LABEL: self._one_label,
            NameDepth.ANY_DEPTH: self._any_depth,
        }
        for pattern, numbered_rules in by_pattern.items():
            table = _PortTable(numbered_rules)
            if isinstance(pattern, AddressPattern):
                network = pattern.network
                shift = network.max_prefixlen - network.prefixlen
                prefixes = self._networks.setdefault((network.version, shift), {})
                prefixes[int(network.network_address) >> shift] = table
            else:
                by_depth[pattern.depth][pattern.name] = table

    def match(self, host: Host, port: int) -> Rule | None:
        """The rule that decides for `host`, as it was asked for, and `port`."""
        return _first(self._tables(host), port)

    def match_address(self, address: IpAddress, port: int) -> Rule | None:
        """The address rule that decides for `address`, however it was come by."""
        return _first(self._address_tables(address), port)

    def covering(self, host: Host, most: int) -> tuple[Rule, ...]:
        """The first `most` rules that cover `host`, whatever their ports."""
        in_file_order = merge(*(table.rules for table in self._tables(host)), key=itemgetter(0))
        return tuple(rule for _, rule in islice(in_file_order, most))

    def _tables(self, host: Host) -> Iterator[_PortTable]:
        if host.address is not None:
            yield from self._address_tables(host.address)
            return
        if (exact := self._exact.get(host.text)) is not None:
            yield exact
        _, _, suffix = host.text.partition(".")
        if (one_label := self._one_label.get(suffix)) is not None:
            yield one_label
        while suffix:
            if (any_depth := self._any_depth.get(suffix)) is not None:
                yield any_depth
            _, _, suffix = suffix.partition(".")

    def _address_tables(self, address: IpAddress) -> Iterator[_PortTable]:
        value = int(address)
        for (version, shift), prefixes in self._networks.items():
            if version == address.version and (table := prefixes.get(value >> shift)) is not None:
                yield table


def _first(tables: Iterable[_PortTable], port: int) -> Rule | None:
    candidates = (table.deciding(port) for table in tables)
    found = min(filter(None, candidates), key=itemgetter(0), default=None)
    return found[1] if found is not None else None
