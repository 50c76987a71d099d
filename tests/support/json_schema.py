"""As much of JSON Schema 2020-12 as our schemas of lines use, for tests."""

from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
}
_KNOWN = {
    *("$schema", "title", "description", "type", "enum", "const", "properties", "required"),
    *("allOf", "if", "then", "propertyNames"),
}


def faults(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """What of a value is not as its schema says."""
    assert set(schema) <= _KNOWN, "this schema needs more than is written here"
    if "type" in schema:
        is_bool = isinstance(value, bool)
        types = _TYPES[schema["type"]]
        if not isinstance(value, types) or (is_bool and bool not in types):
            yield f"{path}: {value!r} is no {schema['type']}"
            return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{path}: {value!r} is not {schema['const']!r}"
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{path}: no {name}"
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                yield from faults(inner, value[name], f"{path}.{name}")
        if "propertyNames" in schema:
            for name in value:
                yield from faults(schema["propertyNames"], name, f"{path}.{name}")
    for inner in schema.get("allOf", ()):
        yield from faults(inner, value, path)
    if "if" in schema and not list(faults(schema["if"], value)):
        yield from faults(schema["then"], value, path)
