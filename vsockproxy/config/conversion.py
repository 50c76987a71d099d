"""Plain values to the model's types, with every fault and not only the first.

msgspec decides whether a value is valid, and stops at the first that is not. So a mapping is
converted field by field and a list item by item: each leaf is one `msgspec.convert`, and what is
invalid is reported and left out. What remains is built, so that cross-field rules see all of it.
"""

import difflib
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, TypeGuard, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from vsockproxy.addresses import AddressError
from vsockproxy.config.errors import Fault
from vsockproxy.config.field_types import SpkiPin
from vsockproxy.config.model import EnclaveConfig, ParentConfig, Section
from vsockproxy.config.scalars import (
    EndpointText,
    Scalar,
    SourceAddressText,
    decode_scalar,
    describe_value,
)
from vsockproxy.config.source import BROKEN, join_path

__all__ = ("Conversion", "Found", "convert_section", "suggest_key")


@dataclass(frozen=True, slots=True)
class Found:
    """A section of the file: where it is, its value, and how far that is what was written."""

    path: str
    section: Section
    written: frozenset[str]
    """The keys that the file has, valid or not."""
    invalid: frozenset[str]
    """Fields whose values are missing or were reported; the section has their defaults."""


@dataclass(slots=True)
class Conversion:
    """What a conversion found: faults, and each section that could be built."""

    faults: list[Fault] = field(default_factory=list)
    sections: list[Found] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    """Paths of sections that are null, and what one of them has to be."""


_YAML_1_1_BOOLEANS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}

ONE_FOR_A_LIST: Final = (list[EndpointText], list[SourceAddressText], list[SpkiPin])
"""Lists in whose place the file may have a single item."""

_OTHER_SIDES: Final[dict[type[Section], tuple[str, str, type[Section]]]] = {
    ParentConfig: ("a parent's file", "the enclave's", EnclaveConfig),
    EnclaveConfig: ("an enclave's file", "the parent's", ParentConfig),
}
"""A side's file, the other side's, and what that one may have."""

_MAX_QUOTED: Final = 80
"""Characters of a value that a mend repeats."""

_INVALID: Final = object()
"""Returned for a value that cannot be built."""


def convert_section(
    value: dict[str, Any], section_type: type[Section], path: str, conversion: Conversion
) -> Section:
    """Build a section from a mapping, and report to `conversion`.

    The result is what the file says only if nothing was reported: an invalid or missing field has
    its default, or None where there is no default.
    """
    fields = _fields(section_type)
    position = len(conversion.sections)  # before the sections within this one
    for key in value:
        if key not in fields:
            complaint = _of_other_side(key, section_type) or (
                "unknown key",
                suggest_key(key, list(fields)),
            )
            conversion.faults.append(Fault(join_path(path, key), *complaint))
    built: dict[str, Any] = {}
    invalid: set[str] = set()
    for name, item in fields.items():
        field_path = join_path(path, name)
        if name in value:
            faults_before = len(conversion.faults)
            converted = _convert(value[name], item.type, field_path, conversion)
            if converted is not _INVALID:
                built[item.name] = converted
            if converted is _INVALID or (
                len(conversion.faults) > faults_before and not _holds_sections(item.type)
            ):
                invalid.add(name)
        elif item.required:
            mend = f"write {_wanted_words(inspect.type_info(item.type))}"
            conversion.faults.append(Fault(field_path, "missing", mend))
            invalid.add(name)
        if item.required:
            built.setdefault(item.name, None)
    section = section_type(**built)
    written = frozenset(value.keys() & fields.keys())
    conversion.sections.insert(position, Found(path, section, written, frozenset(invalid)))
    return section


@cache
def _fields(section_type: type[Section]) -> dict[str, msgspec.structs.FieldInfo]:
    return {item.encode_name: item for item in msgspec.structs.fields(section_type)}


def _of_other_side(key: str, section_type: type[Section]) -> tuple[str, str] | None:
    """What is wrong, and the mend, for a key that the other side's file has."""
    own, others, other_type = _OTHER_SIDES.get(section_type, ("", "", section_type))
    if key in _fields(section_type) or key not in _fields(other_type):
        return None
    return f"no key of {own}", f"write it in {others}"


def suggest_key(key: str, known: list[str]) -> str:
    """Say what to write in place of an unknown key."""
    close = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    if close:
        return f"write {close[0]}"
    return f"remove it, or write one of {', '.join(known)}"


def _convert(value: Any, wanted: Any, path: str, conversion: Conversion) -> Any:
    if value is BROKEN:
        return _INVALID
    arm = _arm(wanted, value)
    if value is None and _is_section(section := _arm(wanted, {})):
        conversion.absent[path] = _words(inspect.type_info(section))
    if _is_section(arm) and isinstance(value, dict):
        return convert_section(value, arm, path, conversion)
    if arm in ONE_FOR_A_LIST and not isinstance(value, list | dict | NoneType):
        (item_type,) = get_args(arm)
        single = _convert(value, item_type, path, conversion)
        return single if single is _INVALID else [single]
    faults_before = len(conversion.faults)
    if get_origin(arm) is list and isinstance(value, list):
        (item_type,) = get_args(arm)
        items = [
            _convert(item, item_type, f"{path}[{index}]", conversion)
            for index, item in enumerate(value)
        ]
        if value or len(conversion.faults) > faults_before:
            return [item for item in items if item is not _INVALID]
    elif get_origin(arm) is dict and isinstance(value, dict):
        key_type, item_type = get_args(arm)
        pairs = {}
        for key, item in value.items():
            item_path = join_path(path, key)
            _convert(key, key_type, item_path, conversion)
            pairs[key] = _convert(item, item_type, item_path, conversion)
        return {key: item for key, item in pairs.items() if item is not _INVALID}
    try:
        return msgspec.convert(value, wanted, strict=True, dec_hook=decode_scalar)
    except AddressError as error:
        conversion.faults.append(Fault(path, error.what, error.mend))
    except msgspec.ValidationError:
        info = inspect.type_info(wanted)
        what, mend = _explain(value, info)
        conversion.faults.append(Fault(path, what, _as_section(value, info, path) or mend))
    return _INVALID


def _as_section(value: Any, wanted: inspect.Type, path: str) -> str | None:
    """What to write for a section in whose place stands `true`, or the value of its main key."""
    key = path.rpartition(".")[2]
    match _members(wanted):
        case [inspect.StructType(cls=cls, fields=fields)] if _is_section(cls):
            if key.endswith("]") or any(item.required for item in fields):
                return None
            if value is True or _means_true(value):
                return f"write {key}: {{}}"
            if isinstance(value, str) and len(value) <= _MAX_QUOTED:
                for name, item in _fields(cls).items():
                    if isinstance(item.default, str) and _fits(value, item.type):
                        return f"write {key}: {{{name}: {value}}}"
    return None


def _means_true(value: Any) -> bool:
    return isinstance(value, str) and _YAML_1_1_BOOLEANS.get(value.lower()) == "true"


def _fits(value: Any, wanted: Any) -> bool:
    try:
        msgspec.convert(value, wanted, strict=True, dec_hook=decode_scalar)
    except (AddressError, msgspec.ValidationError):
        return False
    return True


def _arm(wanted: Any, value: Any) -> Any:
    """Strip annotations, and of a union take the member that `value` could be."""
    if get_origin(wanted) is Annotated:
        return _arm(get_args(wanted)[0], value)
    if get_origin(wanted) in (Union, UnionType):
        members = [member for member in get_args(wanted) if member is not NoneType]
        if isinstance(value, dict):
            sections = [each for each in members if _is_section(each)]
            members = sections or members
        return _arm(members[0], value) if len(members) == 1 else wanted
    return wanted


def _holds_sections(wanted: Any) -> bool:
    """Whether faults within a value belong to sections of their own."""
    arm = _arm(wanted, None)
    if get_origin(arm) is list:
        arm = _arm(get_args(arm)[0], None)
    return _is_section(arm)


def _is_section(wanted: Any) -> TypeGuard[type[Section]]:
    return isinstance(wanted, type) and issubclass(wanted, Section)


def _explain(value: Any, wanted: inspect.Type) -> tuple[str, str]:
    """Say in plain words why msgspec refuses `value`, and what to write."""
    shown = describe_value(value)
    words = _wanted_words(wanted)
    members = [_bare(member) for member in _members(wanted)]
    kinds = {type(member) for member in members}
    takes_number = not kinds.isdisjoint((inspect.IntType, inspect.FloatType))
    match value:
        case bool():
            pass
        case str():
            if inspect.BoolType in kinds:
                mend = _YAML_1_1_BOOLEANS.get(value.lower(), words)
                return f"{shown} is neither true nor false", f"write {mend}"
            choices = [str(choice) for member in members for choice in _choices(member)]
            close = difflib.get_close_matches(value.lower(), choices, n=1)
            if close and inspect.StructType not in kinds:
                return f"{shown} is none of {', '.join(choices)}", f"write {close[0]}"
            if takes_number and (inspect.StrType not in kinds or _is_number(value)):
                return f"{shown} is text, not a number", f"write {words}, without quotes"
        case int() | float():
            if takes_number and (isinstance(value, int) or inspect.FloatType in kinds):
                return f"{shown} is out of range", f"write {words}"
            if inspect.LiteralType in kinds:
                return f"{shown} is unknown", f"write {words}"
            if inspect.StrType in kinds:
                return f"{shown} is no text", f"write {words}, in quotes"
        case []:
            return "the list is empty", f"write {words}, or remove the key"
        case None:
            return f"{shown} does not fit", f"write {words}, or remove the key"
    return f"{shown} does not fit", f"write {words}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _choices(member: inspect.Type) -> tuple[object, ...]:
    return tuple(member.values) if isinstance(member, inspect.LiteralType) else ()


def _members(wanted: inspect.Type) -> list[inspect.Type]:
    """List what a type can be, besides null."""
    if isinstance(wanted, inspect.UnionType):
        return [member for item in wanted.types for member in _members(item)]
    return [] if isinstance(wanted, inspect.NoneType) else [wanted]


def _bare(wanted: inspect.Type) -> inspect.Type:
    return wanted.type if isinstance(wanted, inspect.Metadata) else wanted


def _wanted_words(wanted: inspect.Type) -> str:
    """Say what a type wants."""
    return " or ".join(_words(member) for member in _members(wanted))


def _words(wanted: inspect.Type) -> str:
    match wanted:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return str(extra["description"]) if extra and "description" in extra else _words(inner)
        case inspect.IntType(ge=low, le=high):
            return f"an integer within {low}-{high}"
        case inspect.FloatType(gt=None, ge=low, le=high):
            return f"a number within {low:g}-{high:g}"
        case inspect.FloatType(gt=low, le=high):
            return f"a number above {low:g} and up to {high:g}"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return " or ".join(map(str, values))
        case inspect.CustomType(cls=cls) if issubclass(cls, Scalar):
            return cls.wanted
        case inspect.ListType(item_type=item):
            return f"a list, each item {_wanted_words(item)}"
        case inspect.StructType(cls=cls) if issubclass(cls, Section) and cls.wanted:
            return cls.wanted
        case inspect.StructType(fields=fields):
            required = [item.encode_name for item in fields if item.required]
            return f"a mapping with {' and '.join(required)}" if required else "a mapping"
        case inspect.DictType():
            return "a mapping"
        case _:
            return "text"
