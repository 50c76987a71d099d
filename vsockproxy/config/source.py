"""YAML text to plain values, with the line of each, and no surprises.

A strict subset: one document; mappings with keys of text or whole numbers, each once; no anchors,
aliases, merge keys, tags or directives. Plain scalars are read by the core schema of YAML 1.2
(section 10.3.2) in decimal only, because PyYAML's own YAML 1.1 rules change meanings silently:
`on` is true, `017` is 15, `1:30` is 90. Whatever is no null, boolean or decimal number here is
text.

PyYAML's parser gives events; nothing is built from a tag, and nothing recurses.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from vsockproxy.config.errors import WHOLE_FILE, Fault
from vsockproxy.config.syntax import explain_syntax_error

__all__ = ("BROKEN", "MAX_FAULTS", "MAX_FILE_BYTES", "Source", "join_path", "read_source")

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 20
MAX_KEY_CHARACTERS: Final = 256
MAX_FAULTS: Final = 100
"""Faults reported for one file; what follows is left for the next run."""

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it: some ten times faster, the same events."""

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,18})", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]{1,32}|(?:0|[1-9][0-9]{0,31})(?=[.eE])(?:\.[0-9]{0,32})?)"
    r"(?:[eE][-+]?[0-9]{1,3})?",
    re.ASCII,
)


class _Broken:
    """The value of something already reported."""


BROKEN: Final = _Broken()
"""Stands for a value that was reported as a fault; nothing more is to be said about it."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a text says: plain values, the line of each path, the faults found on the way.

    `value` is None for a text without a document, and BROKEN after a syntax error.
    """

    value: Any
    lines: dict[str, int]
    faults: tuple[Fault, ...]
    unwritten: frozenset[str] = frozenset()
    """The paths of keys with nothing behind them, which is null."""


@dataclass(slots=True)
class _Container:
    """A mapping or sequence whose end has not come yet."""

    path: str
    value: dict[str, Any] | list[Any]
    is_key: bool
    """Whether it stands where a key has to stand, which will be a fault."""
    key: str | None = None
    """The key whose value comes next, in a mapping."""
    is_pair_dropped: bool = False
    """Whether the pair at hand was reported and counts for nothing."""
    wants_key: bool = True


class _Stop(Exception):
    """The rest of the text cannot be read, or need not be."""


def read_source(content: bytes) -> Source:
    """Read a file's content, at most `MAX_FILE_BYTES` of it."""
    if len(content) > MAX_FILE_BYTES:
        fault = Fault(WHOLE_FILE, "the file is too large", "at most 4 MiB are read", line=1)
        return Source(BROKEN, {}, (fault,))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        fault = Fault(WHOLE_FILE, "this line is not UTF-8", "save the file as UTF-8", line)
        return Source(BROKEN, {}, (fault,))
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            builder.take(event)
    except yaml.YAMLError as error:
        what, mend, line = explain_syntax_error(text, error)
        fault = Fault(builder.current_path(), what, mend, line)
        return Source(BROKEN, builder.lines, (*builder.faults, fault))
    except _Stop:
        return Source(BROKEN, builder.lines, tuple(builder.faults))
    return Source(builder.root, builder.lines, tuple(builder.faults), frozenset(builder.unwritten))


class _Builder:
    """Builds the value from the parser's events, with a stack of its own."""

    def __init__(self) -> None:
        self.root: Any = None
        self.lines: dict[str, int] = {}
        self.faults: list[Fault] = []
        self.unwritten: set[str] = set()
        self._stack: list[_Container] = []
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event; `_Stop` if it is the last that makes sense."""
        line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.DocumentStartEvent():
                self._begin_document(event, line)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin_container(event, line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                container = self._stack.pop()
                self._deliver(container.value, container.path, container.is_key, line)
            case yaml.AliasEvent():
                path, is_key = self._next_place(line)
                what = f"an alias (*{_shorten(event.anchor or '')})"
                self._report(path, what, "write the value, or put text with '*' in quotes", line)
                self._deliver(BROKEN, path, is_key, line)
            case yaml.ScalarEvent():
                path, is_key = self._next_place(line)
                if not is_key and event.implicit[0] and not event.value:
                    self.unwritten.add(path)
                self._deliver(self._scalar(event, path, is_key, line), path, is_key, line)

    def current_path(self) -> str:
        """Name the innermost thing that is being read."""
        if not self._stack:
            return WHOLE_FILE
        container = self._stack[-1]
        if container.key is not None and not container.wants_key:
            return join_path(container.path, container.key)
        return container.path or WHOLE_FILE

    def _begin_document(self, event: yaml.DocumentStartEvent, line: int) -> None:
        self._documents += 1
        if self._documents > 1:
            self._report(WHOLE_FILE, "a second document", "remove the '---' before it", line)
            raise _Stop
        if event.version or event.tags:
            self._report(WHOLE_FILE, "a YAML directive", "remove the line with '%'", line)

    def _begin_container(
        self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int
    ) -> None:
        path, is_key = self._next_place(line)
        self._check_decoration(event, path, line)
        if len(self._stack) >= MAX_DEPTH:
            self._report(path, f"more than {MAX_DEPTH} levels", "write it flatter", line)
            raise _Stop
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Container(path, value, is_key))

    def _scalar(self, event: yaml.ScalarEvent, path: str, is_key: bool, line: int) -> Any:
        if not self._check_decoration(event, path, line):
            return BROKEN
        is_plain = event.implicit[0]
        if is_key and is_plain and event.value == "<<":
            self._report(path, "a merge key (<<)", "write the keys out", line)
            return BROKEN
        return _resolve(event.value) if is_plain else event.value

    def _check_decoration(self, event: Any, path: str, line: int) -> bool:
        """Report an anchor or a tag on a value; true unless its meaning is lost."""
        if event.anchor is not None:
            what = f"an anchor (&{_shorten(event.anchor)})"
            self._report(path, what, "remove it, or put text with '&' in quotes", line)
        if event.tag is not None:
            what = f"a tag ({_shorten(event.tag)})"
            self._report(path, what, "remove it, or put text with '!' in quotes", line)
            return False
        return True

    def _next_place(self, line: int) -> tuple[str, bool]:
        """Say which path the next value has, and whether it is a key; note its line."""
        if not self._stack:
            self.lines[""] = line
            return "", False
        container = self._stack[-1]
        if isinstance(container.value, list):
            path = f"{container.path}[{len(container.value)}]"
            self.lines.setdefault(path, line)
            return path, False
        if container.wants_key:
            return container.path, True
        return join_path(container.path, container.key or ""), False

    def _deliver(self, value: Any, path: str, is_key: bool, line: int) -> None:
        """Hand a complete value to what it stands in."""
        if not self._stack:
            self.root = value
            return
        container = self._stack[-1]
        if is_key:
            self._begin_pair(container, value, line)
        elif isinstance(container.value, list):
            container.value.append(value)
        else:
            if container.key is not None and not container.is_pair_dropped:
                container.value[container.key] = value
            container.wants_key = True

    def _begin_pair(self, container: _Container, key: object, line: int) -> None:
        container.wants_key = False
        if type(key) is int:
            key = str(key)  # as in JSON, where each key is text
        is_name = isinstance(key, str) and key.isprintable() and 0 < len(key) <= MAX_KEY_CHARACTERS
        container.key = key if isinstance(key, str) and is_name else None
        container.is_pair_dropped = container.key is None
        if container.key is None:
            if isinstance(key, str):
                what = "a key that is empty, too long or not printable"
                self._report(container.path, what, "remove it", line)
            elif key is not BROKEN:
                self._report(container.path, "a key that is no text", "put it in quotes", line)
            return
        path = join_path(container.path, container.key)
        if container.key in container.value:
            first = self.lines[path]
            self._report(path, f"given again (first in line {first})", "write it once", line)
            container.is_pair_dropped = True
        self.lines.setdefault(path, line)

    def _report(self, path: str, what: str, mend: str, line: int) -> None:
        self.faults.append(Fault(path or WHOLE_FILE, what, mend, line))
        if len(self.faults) >= MAX_FAULTS:
            raise _Stop


def join_path(path: str, key: str) -> str:
    """Write the path of `key` in the mapping at `path`."""
    return f"{path}.{key}" if path else key


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


def _resolve(text: str) -> str | int | float | bool | None:
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
