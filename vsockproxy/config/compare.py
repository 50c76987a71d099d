"""What one side's lists allow and the other's refuse, found before a connection fails.

A file of the enclave does not say its CID. So of a parent's lists (the top one, and one for each
entry of `enclaves`) the one that fits best is compared, and named in the warnings. What depends on
an answer of DNS (a denied range, the address guard) is not compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vsockproxy.config.document import Document, line_of
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import AllowRule, DenyRule, EnclaveConfig, ParentConfig
from vsockproxy.config.patterns import Pattern, contains, parse_pattern
from vsockproxy.config.ports import PortSpan, format_ports, rule_ports, subtract_ports

__all__ = ("compare_sides",)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A rule of an allowlist or denylist, and where it stands."""

    path: str
    pattern: Pattern
    ports: tuple[PortSpan, ...]


@dataclass(frozen=True, slots=True)
class _Lists:
    """The lists that decide for one enclave, on one side."""

    document: Document
    name: str
    allow: tuple[_Entry, ...]
    deny: tuple[_Entry, ...]
    lets_unlisted_pass: bool


@dataclass(frozen=True, slots=True)
class _Difference:
    path: str
    what: str
    mend: str


def compare_sides(
    parents: Sequence[Document], enclaves: Sequence[Document]
) -> tuple[ConfigError, ...]:
    """Compare each parent's file with each enclave's; each result is a warning.

    A rule of a parent is reported if none of the enclaves that its list fits allows it.
    """
    warnings: dict[ConfigError, None] = {}
    for parent in parents:
        served: dict[str, list[tuple[_Lists, _Lists]]] = {}
        for enclave in enclaves:
            theirs = _enclave_lists(enclave)
            ours = min(
                _parent_lists(parent),
                key=lambda lists: len(_differences(lists, theirs) + _differences(theirs, lists)),
            )
            served.setdefault(ours.name, []).append((ours, theirs))
            for difference in _differences(theirs, ours):
                warnings[_warning(enclave, difference)] = None
        for pairs in served.values():
            each = [_differences(ours, theirs) for ours, theirs in pairs]
            shared = set.intersection(*({item.path for item in found} for found in each))
            for difference in each[0]:
                if difference.path in shared:
                    warnings[_warning(parent, difference)] = None
    return tuple(warnings)


def _warning(document: Document, difference: _Difference) -> ConfigError:
    line = line_of(document.lines, difference.path)
    return ConfigError(document.file, line, difference.path, difference.what, difference.mend)


def _differences(one: _Lists, other: _Lists) -> list[_Difference]:
    """List what `one` allows and `other` refuses, by the rules of `one`."""
    found: list[_Difference] = []
    for rule in one.allow:
        ports = _without(rule, rule.ports, one.deny)
        if not other.lets_unlisted_pass and (missing := _without(rule, ports, other.allow)):
            what = f"{rule.pattern} port {format_ports(missing)} is not allowed by {other.name}"
            part = [str(item.pattern) for item in other.allow if _is_part(item, rule)]
            if part:
                what += f", only {', '.join(part)}"
            found.append(_Difference(rule.path, what, "allow it there, or remove it here"))
        for denied in other.deny:
            narrower = rule if contains(denied.pattern, rule.pattern) else denied
            if not contains(rule.pattern, narrower.pattern):
                continue
            if common := _common(_without(narrower, ports, one.deny), denied.ports):
                where = other.document.location(denied.path)
                what = f"{narrower.pattern} port {format_ports(common)} is denied at {where}"
                found.append(_Difference(rule.path, what, "deny it here too, or allow it there"))
    return found


def _without(
    rule: _Entry, ports: tuple[PortSpan, ...], others: Sequence[_Entry]
) -> tuple[PortSpan, ...]:
    """Take from `ports` those that `others` cover for all that `rule` matches."""
    for other in others:
        if contains(other.pattern, rule.pattern):
            ports = subtract_ports(ports, other.ports)
    return ports


def _common(one: tuple[PortSpan, ...], other: tuple[PortSpan, ...]) -> tuple[PortSpan, ...]:
    return subtract_ports(one, subtract_ports(one, other))


def _is_part(item: _Entry, rule: _Entry) -> bool:
    """Say whether `item` covers some, not all, of what `rule` matches."""
    return (
        item.pattern != rule.pattern
        and contains(rule.pattern, item.pattern)
        and bool(_common(rule.ports, item.ports))
    )


def _enclave_lists(document: Document) -> _Lists:
    config = document.config
    if not isinstance(config, EnclaveConfig):
        raise TypeError(f"{document.file} is not an enclave's file")
    return _Lists(
        document,
        document.file,
        _entries("allowlist", config.allowlist),
        _entries("denylist", config.denylist),
        lets_unlisted_pass=config.mode == "report",
    )


def _parent_lists(document: Document) -> Iterator[_Lists]:
    config = document.config
    if not isinstance(config, ParentConfig):
        raise TypeError(f"{document.file} is not a parent's file")
    deny = _entries("denylist", config.denylist)
    is_report = config.mode == "report"
    if config.allowlist or not config.enclaves:
        allow = _entries("allowlist", config.allowlist)
        yield _Lists(document, document.file, allow, deny, is_report)
    for index, entry in enumerate(config.enclaves):
        path = f"enclaves[{index}]"
        yield _Lists(
            document,
            f"{document.file} for CID {entry.cid}",
            _entries(f"{path}.allowlist", entry.allowlist),
            (*deny, *_entries(f"{path}.denylist", entry.denylist)),
            is_report,
        )


def _entries(path: str, rules: Sequence[AllowRule | DenyRule]) -> tuple[_Entry, ...]:
    return tuple(
        _Entry(f"{path}[{index}]", parse_pattern(rule.address), rule_ports(rule.port, rule.ports))
        for index, rule in enumerate(rules)
    )
