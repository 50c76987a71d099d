"""What one side's lists allow and the other's refuse, found before a connection fails.

A file of the enclave does not say its CID. So of a parent's lists (the top one, and one for each
entry of `enclaves`) the one that fits best is compared, and named in the warnings. What depends on
an answer of DNS (a denied range, the address guard) is not compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from vsockproxy.config.compare_services import compare_services
from vsockproxy.config.document import Document, line_of
from vsockproxy.config.entry_rules import describe_entry
from vsockproxy.config.errors import ConfigError
from vsockproxy.config.model import (
    AllowRule,
    DenyRule,
    EnclaveConfig,
    EnclaveEntry,
    ParentConfig,
    ParentCredentials,
)
from vsockproxy.config.patterns import Pattern
from vsockproxy.config.ports import PortSpan, format_ports, subtract_ports
from vsockproxy.config.rule_index import RuleIndex

__all__ = ("compare_sides",)

MAX_PARTS_SHOWN: Final = 8
"""Rules named in a warning that say what part of something is allowed."""


@dataclass(frozen=True, slots=True)
class _Lists:
    """The lists that decide for one enclave, on one side."""

    document: Document
    name: str
    allow: RuleIndex[AllowRule]
    deny: tuple[RuleIndex[DenyRule], ...]
    lets_unlisted_pass: bool
    entry: EnclaveEntry | None = None
    """Of a parent's file, whose they are."""

    def not_denied(self, pattern: Pattern, ports: tuple[PortSpan, ...]) -> tuple[PortSpan, ...]:
        """Take from `ports` those that are denied for all of `pattern`."""
        for table in self.deny:
            ports = table.uncovered(pattern, ports)
        return ports


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
            fitting = _best(_parent_lists(parent), theirs)
            ours = fitting[0]
            served.setdefault(ours.name, []).append((ours, theirs))
            for difference in (
                *_differences(theirs, ours),
                *_credentials(enclave, parent, fitting),
            ):
                warnings[_warning(enclave, difference)] = None
        for pairs in served.values():
            each = [_differences(ours, theirs) for ours, theirs in pairs]
            shared = set.intersection(*({item.path for item in found} for found in each))
            for difference in each[0]:
                if difference.path in shared:
                    warnings[_warning(parent, difference)] = None
    warnings |= dict.fromkeys(compare_services(parents, enclaves))
    return tuple(warnings)


def _best(lists: Iterator[_Lists], theirs: _Lists) -> list[_Lists]:
    """Those of a parent that fit an enclave's best; they may be several that fit alike."""
    by_count: dict[int, list[_Lists]] = {}
    for each in lists:
        count = len(_differences(each, theirs) + _differences(theirs, each))
        by_count.setdefault(count, []).append(each)
    return by_count[min(by_count)]


def _credentials(
    enclave: Document, parent: Document, fitting: Sequence[_Lists]
) -> Iterator[_Difference]:
    """What an enclave asks for that its parent gives to nobody, or not to its CID."""
    wanted, given = enclave.config, parent.config
    assert isinstance(wanted, EnclaveConfig)  # as `_enclave_lists` has found
    assert isinstance(given, ParentConfig)  # as `_parent_lists` has
    if wanted.wanted_credentials is None:
        return
    path = "credentials" if wanted.credentials is not None else "kms"
    if given.credentials is None:
        what = f"credentials are given to no enclave by {parent.file}"
        yield _Difference(path, what, "add credentials there, or remove it here")
        return
    # The list for those without an entry says nothing of CIDs.
    named = [lists.entry for lists in fitting if lists.entry is not None]
    entries = named if len(named) == len(fitting) else given.enclaves
    for entry in islice(_without_credentials(entries, given.credentials), MAX_PARTS_SHOWN):
        what = f"{describe_entry(entry)} gets no credentials from {parent.file}"
        mend = f"add {entry.cid} to credentials.enclaves there, if this is its file"
        yield _Difference(path, what, mend)


def _without_credentials(
    entries: Sequence[EnclaveEntry], given: ParentCredentials
) -> Iterator[EnclaveEntry]:
    """The entries with a CID, if none of them gets credentials: any may be the enclave's."""
    with_cid = [entry for entry in entries if entry.cid is not None]
    if not any(entry.cid in given.enclaves for entry in with_cid):
        yield from with_cid


def _warning(document: Document, difference: _Difference) -> ConfigError:
    line = line_of(document.lines, difference.path)
    return ConfigError(document.file, line, difference.path, difference.what, difference.mend)


def _differences(one: _Lists, other: _Lists) -> list[_Difference]:
    """List what `one` allows and `other` refuses, by the rules of `one`."""
    found: list[_Difference] = []
    for rule in one.allow.entries:
        ports = one.not_denied(rule.pattern, rule.ports)
        if not ports:
            continue
        if (
            missing := ()
            if other.lets_unlisted_pass
            else other.allow.uncovered(rule.pattern, ports)
        ):
            what = f"{rule.pattern} port {format_ports(missing)} is not allowed by {other.name}"
            parts = [
                str(part.pattern)
                for part in other.allow.within(rule.pattern)
                if _common(missing, part.ports)
            ]
            if parts:
                what += f", only {', '.join(parts[:MAX_PARTS_SHOWN])}"
            found.append(_Difference(rule.path, what, "allow it there, or remove it here"))
        for table in other.deny:
            denials = [(rule.pattern, denied) for denied in table.around(rule.pattern)]
            denials += [(denied.pattern, denied) for denied in table.within(rule.pattern)]
            for pattern, denied in denials:
                if common := _common(one.not_denied(pattern, ports), denied.ports):
                    where = other.document.location(denied.path)
                    what = f"{pattern} port {format_ports(common)} is denied at {where}"
                    mend = "deny it here too, or allow it there"
                    found.append(_Difference(rule.path, what, mend))
    return found


def _common(one: tuple[PortSpan, ...], other: tuple[PortSpan, ...]) -> tuple[PortSpan, ...]:
    return subtract_ports(one, subtract_ports(one, other))


def _enclave_lists(document: Document) -> _Lists:
    config = document.config
    if not isinstance(config, EnclaveConfig):
        raise TypeError(f"{document.file} is not an enclave's file")
    return _Lists(
        document,
        document.file,
        RuleIndex("allowlist", config.allowlist),
        (RuleIndex("denylist", config.denylist),),
        lets_unlisted_pass=config.mode == "report",
    )


def _parent_lists(document: Document) -> Iterator[_Lists]:
    config = document.config
    if not isinstance(config, ParentConfig):
        raise TypeError(f"{document.file} is not a parent's file")
    deny = RuleIndex("denylist", config.denylist)
    is_report = config.mode == "report"
    if config.allowlist or not config.enclaves:
        allow = RuleIndex("allowlist", config.allowlist)
        yield _Lists(document, document.file, allow, (deny,), is_report)
    for index, entry in enumerate(config.enclaves):
        path = f"enclaves[{index}]"
        yield _Lists(
            document,
            f"{document.file} for {describe_entry(entry)}",
            RuleIndex(f"{path}.allowlist", entry.allowlist),
            (deny, RuleIndex(f"{path}.denylist", entry.denylist)),
            is_report,
            entry,
        )
