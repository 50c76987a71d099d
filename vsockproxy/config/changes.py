"""What a new file allows that the old one did not, and the other way round.

Any two patterns are disjoint, or one contains the other. So the patterns of both files cut all
destinations into regions: what a pattern matches and no narrower one of them does. Within a region,
and between two ports that a rule names, every destination is decided alike; that is compared, for
each enclave that either file treats by itself and for the rest. What depends on an answer of DNS (a
denied range, the address guard) is not compared, but for the flags that open the guard.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vsockproxy.addresses import Destination
from vsockproxy.config.document import Document, line_of
from vsockproxy.config.entry_rules import describe_entry
from vsockproxy.config.errors import WHOLE_FILE, ConfigError
from vsockproxy.config.model import (
    FIRST_ENCLAVE_CID,
    AllowRule,
    AwsAllowlist,
    AwsRule,
    DenyRule,
    EnclaveEntry,
    ParentConfig,
)
from vsockproxy.config.patterns import AddressPattern, Pattern, contains, parse_pattern
from vsockproxy.config.ports import EVERY_PORT, PortSpan, format_ports, subtract_ports
from vsockproxy.config.rule_index import Entry, RuleIndex, is_wide

__all__ = ("changes_since",)

UNNAMED_CID: Final = 0xFFFF_FFFF
"""Stands for the CIDs that no file names: VMADDR_CID_ANY, which nobody has."""

MOST_PARTS_SHOWN: Final = 8
"""Narrower patterns named in a line, for which it does not hold."""

Allow = AllowRule | AwsRule


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How one file decides about a region."""

    is_allowed: bool
    opens_private: bool = False
    opens_metadata: bool = False
    may_be_plain: bool = False
    dial: Destination | None = None
    path: str | None = None
    """Of the rule that decides."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What is new about a region, in words that are the same wherever it is the same."""

    what: str
    is_in_new: bool
    """Whether `path` is of the new file."""
    path: str


_Changes = dict[Pattern, dict[_Change, tuple[PortSpan, ...]]]
"""What changes in each region, and on which ports."""


@dataclass(frozen=True, slots=True)
class _Finding:
    change: _Change
    pattern: Pattern
    ports: tuple[PortSpan, ...]
    exceptions: tuple[Pattern, ...]


@dataclass(frozen=True, order=True, slots=True)
class _Whom:
    """Enclaves that a file treats alike: those with a CID, or measurements, or both.

    Without a CID they have one that neither file names; without measurements they attest nothing.
    """

    cid: int = UNNAMED_CID
    pcrs: tuple[tuple[int, bytes], ...] = ()


class _Lists:
    """What one file says for one of those."""

    def __init__(self, document: Document, whom: _Whom) -> None:
        config = document.config
        self._requires_tls = not isinstance(config, AwsAllowlist) and config.require_tls
        self.lets_unlisted_pass = not isinstance(config, AwsAllowlist) and config.mode == "report"
        self.may_connect = True
        self.allow: RuleIndex[Allow] = RuleIndex("allowlist", list[Allow](config.allowlist))
        deny: list[RuleIndex[DenyRule]] = []
        if not isinstance(config, AwsAllowlist):
            deny.append(RuleIndex("denylist", config.denylist))
        if isinstance(config, ParentConfig):
            found = config.entry_of(whom.cid, dict(whom.pcrs))
            self.may_connect = whom.cid >= FIRST_ENCLAVE_CID
            if found is not None:
                index, entry = found
                path = f"enclaves[{index}]"
                self.may_connect = True
                self.allow = RuleIndex(f"{path}.allowlist", list[Allow](entry.allowlist))
                deny.append(RuleIndex(f"{path}.denylist", entry.denylist))
            elif config.wants_attestation(whom.cid):
                self.may_connect = False
        self.deny = tuple(deny)

    @property
    def patterns(self) -> set[Pattern]:
        """All patterns."""
        tables: tuple[RuleIndex[Allow] | RuleIndex[DenyRule], ...] = (self.allow, *self.deny)
        return {entry.pattern for table in tables for entry in table.entries}

    def around(self, pattern: Pattern) -> tuple[list[Entry[Allow]], list[Entry[DenyRule]]]:
        """The rules that decide about the region of `pattern`, in file order."""
        allow = sorted(self.allow.around(pattern), key=lambda entry: entry.index)
        return allow, [entry for table in self.deny for entry in table.around(pattern)]

    def decide(
        self, allow: Sequence[Entry[Allow]], deny: Sequence[Entry[DenyRule]], port: int
    ) -> _Verdict:
        """How a region is decided, by what `around` found."""
        if not self.may_connect:
            return _Verdict(is_allowed=False)
        for denied in deny:
            if _has(denied, port):
                return _Verdict(is_allowed=False, path=denied.path)
        for entry in allow:
            if _has(entry, port):
                return self._denied_dial(entry.rule) or self._allowed(entry)
        if self.lets_unlisted_pass:
            plain = not self._requires_tls
            return _Verdict(is_allowed=True, may_be_plain=plain, path="mode")
        return _Verdict(is_allowed=False)

    def _denied_dial(self, rule: Allow) -> _Verdict | None:
        """The refusal of a rule that dials what is denied."""
        if isinstance(rule, AwsRule) or rule.dial is None:
            return None
        pattern = parse_pattern(rule.dial.host.text)
        for denied in (entry for table in self.deny for entry in table.around(pattern)):
            if _has(denied, rule.dial.port):
                return _Verdict(is_allowed=False, path=denied.path)
        return None

    def _allowed(self, entry: Entry[Allow]) -> _Verdict:
        rule = entry.rule
        if isinstance(rule, AwsRule):
            return _Verdict(True, opens_private=True, may_be_plain=True, path=entry.path)
        requires_tls = self._requires_tls if rule.require_tls is None else rule.require_tls
        return _Verdict(
            is_allowed=True,
            opens_private=rule.private,
            opens_metadata=rule.metadata,
            may_be_plain=not requires_tls,
            dial=rule.dial,
            path=entry.path,
        )


def changes_since(old: Document, new: Document) -> tuple[ConfigError, ...]:
    """What a reload from `old` to `new` would newly allow or forbid, a line for each.

    Both are of the same kind. A line stands at the rule of the new file that makes the change, or
    at the rule of the old one that is gone.
    """
    groups = _groups(old, new)
    found: dict[_Finding, list[str]] = {}
    lines: list[ConfigError] = []
    for group, whom in groups.items():
        before, after = _Lists(old, group), _Lists(new, group)
        if before.may_connect != after.may_connect:
            what = "newly allowed" if after.may_connect else "newly forbidden"
            lines.append(_line(new, "enclaves", f"{what}: to connect", whom))
        elif before.lets_unlisted_pass != after.lets_unlisted_pass and after.may_connect:
            what = "newly allowed" if after.lets_unlisted_pass else "newly forbidden"
            what += ": every destination that is not listed"
            lines.append(_line(new, "mode", what, whom))
        for finding in _compare(before, after):
            found.setdefault(finding, []).append(whom)
    for finding, whoms in found.items():
        document = new if finding.change.is_in_new else old
        text = ", ".join(whoms) if len(whoms) < len(groups) else "every enclave"
        lines.append(_line(document, finding.change.path, _describe(finding), text))
    lines += _credentials_lines(old, new)
    lines += _listener_lines(old, new)
    # What the new file says comes first, as it stands there.
    return tuple(sorted(lines, key=lambda each: (each.file != new.file, each.line)))


def _credentials_lines(old: Document, new: Document) -> Iterator[ConfigError]:
    before, after = _given_credentials(old), _given_credentials(new)
    for cid in sorted(before ^ after):
        document, what = (new, "newly allowed") if cid in after else (old, "newly forbidden")
        text = f"{what}: the credentials of the instance's role"
        yield _line(document, "credentials.enclaves", text, f"CID {cid}")


def _given_credentials(document: Document) -> frozenset[int]:
    config = document.config
    if isinstance(config, ParentConfig) and config.credentials is not None:
        return frozenset(config.credentials.enclaves)
    return frozenset()


def _groups(old: Document, new: Document) -> dict[_Whom, str]:
    """The enclaves that are compared, and what lines call them."""
    names: dict[_Whom, str] = {}
    for document in (old, new):
        if isinstance(document.config, ParentConfig):
            names |= {_whom(entry): describe_entry(entry) for entry in document.config.enclaves}
    for whom in list(names):
        if whom.cid != UNNAMED_CID and whom.pcrs:
            names[_Whom(whom.cid)] = f"CID {whom.cid} without attestation"
    return {_Whom(): "CIDs without an entry"} | dict(sorted(names.items()))


def _whom(entry: EnclaveEntry) -> _Whom:
    measurements = tuple(sorted(entry.measurements.items()))
    return _Whom(UNNAMED_CID if entry.cid is None else entry.cid, measurements)


def _compare(before: _Lists, after: _Lists) -> Iterator[_Finding]:
    patterns = before.patterns | after.patterns
    # The widest come first, so that each is known before what lies within it.
    order = sorted(patterns, key=lambda each: (_narrowness(each), str(each)))
    changes: _Changes = {}
    inner: dict[Pattern, list[Pattern]] = {}
    outer: dict[Pattern, Pattern] = {}
    wide = [each for each in order if is_wide(each)]
    for pattern in order:
        changes[pattern] = _region_changes(before, after, pattern)
        around = [each for each in wide if each != pattern and contains(each, pattern)]
        if around:
            outer[pattern] = max(around, key=_narrowness)
            inner.setdefault(outer[pattern], []).append(pattern)
    for pattern in order:
        if _is_filled(pattern, inner.get(pattern, ())):
            continue
        around_changes = changes[outer[pattern]] if pattern in outer else {}
        for change, ports in changes[pattern].items():
            if around_changes.get(change) == ports:
                continue  # the line of the wider pattern says it
            exceptions = tuple(_exceptions(pattern, change, ports, changes, inner))
            yield _Finding(change, pattern, ports, exceptions)


def _exceptions(
    pattern: Pattern,
    change: _Change,
    ports: tuple[PortSpan, ...],
    changes: _Changes,
    inner: Mapping[Pattern, Sequence[Pattern]],
) -> Iterator[Pattern]:
    """The widest patterns within `pattern` for which a change does not hold, on all its ports."""
    for each in inner.get(pattern, ()):
        if subtract_ports(ports, changes[each].get(change, ())):
            yield each
        else:
            yield from _exceptions(each, change, ports, changes, inner)


def _region_changes(
    before: _Lists, after: _Lists, pattern: Pattern
) -> dict[_Change, tuple[PortSpan, ...]]:
    """What changes in one region, and on which ports."""
    old, new = before.around(pattern), after.around(pattern)
    entries = [entry for side in (old, new) for entries in side for entry in entries]
    edges = {edge for entry in entries for low, high in entry.ports for edge in (low, high + 1)}
    (first, last) = EVERY_PORT[0]
    starts = sorted(edge for edge in {first, *edges} if edge <= last)
    found: dict[_Change, list[PortSpan]] = {}
    for start, end in zip(starts, [*starts[1:], last + 1], strict=True):
        was, is_now = before.decide(*old, start), after.decide(*new, start)
        for change in _differences(was, is_now):
            found.setdefault(change, []).append((start, end - 1))
    return {change: subtract_ports(spans, ()) for change, spans in found.items()}


def _differences(was: _Verdict, now: _Verdict) -> Iterator[_Change]:
    if was.is_allowed != now.is_allowed:
        if now.is_allowed:
            yield _Change("newly allowed", True, now.path or WHOLE_FILE)
        elif now.path is not None:
            yield _Change("newly forbidden", True, now.path)
        else:
            yield _Change("newly forbidden", False, was.path or WHOLE_FILE)
        return
    if not now.is_allowed:
        return
    path = now.path or WHOLE_FILE
    for had, has, words in (
        (was.opens_private, now.opens_private, "private addresses of"),
        (was.opens_metadata, now.opens_metadata, "as a metadata address:"),
        (was.may_be_plain, now.may_be_plain, "without TLS:"),
    ):
        if had != has:
            yield _Change(f"newly {'allowed' if has else 'forbidden'}: {words}", True, path)
    if was.dial != now.dial:
        yield _Change(f"newly dialled as {now.dial or 'what was asked for'}", True, path)


def _describe(finding: _Finding) -> str:
    what = finding.change.what
    text = f"{what}{'' if what.endswith((':', ' of')) else ':'} {finding.pattern} port "
    text += format_ports(finding.ports)
    if finding.exceptions:
        shown = ", ".join(map(str, finding.exceptions[:MOST_PARTS_SHOWN]))
        more = len(finding.exceptions) - MOST_PARTS_SHOWN
        text += f" (but for {shown}{f' and {more} more' if more > 0 else ''})"
    return text


def _listener_lines(old: Document, new: Document) -> Iterator[ConfigError]:
    """Endpoints at which enclaves are newly listened to, or no longer."""
    before, after = dict(_listeners(old)), dict(_listeners(new))
    for endpoint, path in after.items():
        if endpoint not in before:
            yield _line(new, path, f"newly listened on: {endpoint}", "whoever may connect")
    for endpoint, path in before.items():
        if endpoint not in after:
            yield _line(old, path, f"no longer listened on: {endpoint}", "whoever may connect")


def _listeners(document: Document) -> Iterator[tuple[str, str]]:
    config = document.config
    if isinstance(config, ParentConfig):
        for index, endpoint in enumerate(config.listen):
            yield str(endpoint), f"listen[{index}]"
        for index, forward in enumerate(config.forwards):
            yield f"{forward.listen} for {forward.to}", f"forwards[{index}].listen"


def _line(document: Document, path: str, what: str, whom: str) -> ConfigError:
    return ConfigError(document.file, line_of(document.lines, path), path, what, f"for {whom}")


def _has(entry: Entry[Allow] | Entry[DenyRule], port: int) -> bool:
    return any(low <= port <= high for low, high in entry.ports)


def _narrowness(pattern: Pattern) -> tuple[int, int]:
    """Grows from a pattern to each that lies within it."""
    if isinstance(pattern, AddressPattern):
        return pattern.network.prefixlen, 0
    return pattern.name.count("."), ("**.", "*.", "").index(pattern.depth.value)


def _is_filled(pattern: Pattern, inner: Iterable[Pattern]) -> bool:
    """Whether narrower patterns leave nothing of a network; of names something is always left."""
    if not isinstance(pattern, AddressPattern):
        return False
    networks = [each.network for each in inner if isinstance(each, AddressPattern)]
    return sum(each.num_addresses for each in networks) == pattern.network.num_addresses
