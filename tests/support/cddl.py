"""The part of CDDL (RFC 8610) that this project's schemas of maps with text keys are written in.

Rules with maps, of named keys or of texts to one type, arrays of one type, choices, ranges,
literals, `.size`, `.regexp`, and names of other rules.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_RULE = re.compile(r"^([a-z][a-z0-9-]*) = ", re.MULTILINE)
_ENTRY = re.compile(r"(?P<optional>\? )?(?P<key>[a-z_]+): (?P<type>.+)", re.DOTALL)
_SIZE = re.compile(r"(tstr|bstr) \.size (?:(\d+)|\((\d+)\.\.(\d+)\))")
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)")
_REGEXP = re.compile(r'tstr \.regexp "(.*)"')
_PLAIN: dict[str, type] = {"tstr": str, "bstr": bytes, "bool": bool, "int": int, "float": float}


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a map."""

    type: str
    is_optional: bool


class Schema:
    """The rules of a file.

    Args:
        text: what it says.
    """

    def __init__(self, text: str) -> None:
        text = re.sub(r";.*", "", text)
        starts = [(found[1], found.start(), found.end()) for found in _RULE.finditer(text)]
        ends = [start for _, start, _ in starts[1:]] + [len(text)]
        self.rules = {
            name: text[begin:end].strip()
            for (name, _, begin), end in zip(starts, ends, strict=True)
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file."""
        return cls(path.read_text())

    def keys(self, rule: str) -> dict[str, Key]:
        """The entries of a rule that is a map."""
        body = self.rules[rule]
        assert body.startswith("{"), f"{rule} is no map"
        found = {}
        for text in _split(body[1:-1], ","):
            entry = _ENTRY.fullmatch(text)
            assert entry is not None, text
            found[entry["key"]] = Key(entry["type"], entry["optional"] is not None)
        return found

    def maps(self) -> Iterator[str]:
        """The rules that are maps."""
        return (name for name, body in self.rules.items() if body.startswith("{"))

    def fits(self, value: Any, type_text: str) -> bool:
        """Whether a value, as a CBOR decoder gives it, is of a type."""
        return any(self._fits(value, text) for text in _split(type_text, "/"))

    def _fits(self, value: Any, text: str) -> bool:
        if text == "null":
            return value is None
        if text.startswith('"'):
            return bool(value == text[1:-1])
        if text.isdecimal():
            return type(value) is int and value == int(text)
        if text in _PLAIN:
            return type(value) is _PLAIN[text]
        if found := _REGEXP.fullmatch(text):
            return isinstance(value, str) and re.fullmatch(found[1], value) is not None
        if found := _SIZE.fullmatch(text):
            low, high = (found[2], found[2]) if found[2] else (found[3], found[4])
            is_right = isinstance(value, str | bytes) and type(value) is _PLAIN[found[1]]
            return is_right and int(low) <= len(value) <= int(high)
        if found := _RANGE.fullmatch(text):
            number = float if "." in found[1] else int
            return type(value) is number and number(found[1]) <= value <= number(found[2])
        if text.startswith("[* "):
            return isinstance(value, list) and all(self.fits(each, text[3:-1]) for each in value)
        if text.startswith("{* tstr => "):
            return isinstance(value, dict) and all(
                isinstance(key, str) and self.fits(each, text[11:-1]) for key, each in value.items()
            )
        body = self.rules[text]
        if not body.startswith("{"):
            return self.fits(value, body)
        keys = self.keys(text)
        return (
            isinstance(value, dict)
            and value.keys() <= keys.keys()
            and all(key in value or entry.is_optional for key, entry in keys.items())
            and all(self.fits(each, keys[key].type) for key, each in value.items())
        )


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that stand outside of brackets; empty ones are left out."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[({") - (character in "])}")
        if character == separator and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
