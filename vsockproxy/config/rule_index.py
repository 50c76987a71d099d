"""The rules of one list, found by how their patterns lie to another's: around it or within it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vsockproxy.config.model import AllowRule, AwsRule, DenyRule
from vsockproxy.config.patterns import (
    AddressPattern,
    NameDepth,
    Pattern,
    contains,
    parse_pattern,
)
from vsockproxy.config.ports import PortSpan, rule_ports, subtract_ports

__all__ = ("Entry", "RuleIndex", "is_wide")

AnyRule = TypeVar("AnyRule", bound=AllowRule | DenyRule | AwsRule)


@dataclass(frozen=True, slots=True)
class Entry(Generic[AnyRule]):
    """A rule of an allowlist or denylist, and where it stands."""

    index: int
    path: str
    pattern: Pattern
    ports: tuple[PortSpan, ...]
    rule: AnyRule


class RuleIndex(Generic[AnyRule]):
    """The rules of a list.

    Args:
        path: of the list in its file.
        rules: what it holds.
    """

    def __init__(self, path: str, rules: Sequence[AnyRule]) -> None:
        self.entries = tuple(
            Entry(index, f"{path}[{index}]", parse_pattern(rule.address), _ports(rule), rule)
            for index, rule in enumerate(rules)
        )
        self._by_pattern: dict[Pattern, list[Entry[AnyRule]]] = {}
        for entry in self.entries:
            self._by_pattern.setdefault(entry.pattern, []).append(entry)
        self._wide = tuple(entry for entry in self.entries if is_wide(entry.pattern))

    def around(self, pattern: Pattern) -> Iterator[Entry[AnyRule]]:
        """Find the rules that match all that `pattern` matches."""
        yield from self._by_pattern.get(pattern, ())
        for entry in self._wide:
            if entry.pattern != pattern and contains(entry.pattern, pattern):
                yield entry

    def within(self, pattern: Pattern) -> Iterator[Entry[AnyRule]]:
        """Find the rules that match a part of what `pattern` matches."""
        if is_wide(pattern):
            for entry in self.entries:
                if entry.pattern != pattern and contains(pattern, entry.pattern):
                    yield entry

    def uncovered(self, pattern: Pattern, ports: tuple[PortSpan, ...]) -> tuple[PortSpan, ...]:
        """Take from `ports` those that the rules cover for all of `pattern`."""
        for entry in self.around(pattern):
            ports = subtract_ports(ports, entry.ports)
        return ports


def is_wide(pattern: Pattern) -> bool:
    """Say whether there can be a pattern within this one."""
    if isinstance(pattern, AddressPattern):
        return not pattern.is_literal
    return pattern.depth is not NameDepth.EXACT


def _ports(rule: AllowRule | DenyRule | AwsRule) -> tuple[PortSpan, ...]:
    return rule_ports(rule.port, None if isinstance(rule, AwsRule) else rule.ports)
