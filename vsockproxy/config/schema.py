"""JSON Schemas of the files, generated from the model: `python -m vsockproxy.config.schema`.

Editors complete and check with them. They cannot say everything: `vsockproxy check` decides.
"""

import ast
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import msgspec

from vsockproxy.config import (
    enclave_run,
    enclave_sections,
    model,
    parent_sections,
    shared_sections,
)
from vsockproxy.config.document import Kind, encode
from vsockproxy.config.enclave_run import EnclaveRun
from vsockproxy.config.model import AwsAllowlist, EnclaveConfig, ParentConfig
from vsockproxy.config.scalars import scalar_schema
from vsockproxy.config.shared_sections import Section

__all__ = ("SCHEMA_FILES", "generate_schema", "render_schema", "write_schemas")

SchemaKind = Kind | Literal["enclave-run"]
"""Files of the two sides and AWS's, and what `vsockproxy run-enclave` reads."""

_SCHEMA_TYPES: Final[Mapping[SchemaKind, type[Section]]] = {
    "parent": ParentConfig,
    "enclave": EnclaveConfig,
    "aws": AwsAllowlist,
    "enclave-run": EnclaveRun,
}

SCHEMA_FILES: Final[Mapping[SchemaKind, str]] = {
    kind: f"{kind}.schema.json" for kind in _SCHEMA_TYPES
}


def generate_schema(kind: SchemaKind) -> dict[str, Any]:
    """Build the schema of one kind of file (JSON Schema 2020-12)."""
    config_type = _SCHEMA_TYPES[kind]
    (reference,), components = msgspec.json.schema_components(
        (config_type,), schema_hook=scalar_schema, ref_template="#/$defs/{name}"
    )
    descriptions = _field_descriptions()
    for section_name, section in components.items():
        section_type = getattr(enclave_run if kind == "enclave-run" else model, section_name)
        for field in msgspec.structs.fields(section_type):
            schema = section["properties"][field.encode_name]
            for each in section_type.__mro__:  # a section may be a variety of another
                if description := descriptions.get((each.__name__, field.name)):
                    schema["description"] = description
                    break
            # msgspec writes an address's fields, where the file has its text.
            if not field.required and field.default is not msgspec.NODEFAULT:
                schema["default"] = encode(field.default)
    if kind == "parent":
        _allow_single(components["ParentConfig"]["properties"], "listen")
        _allow_single(components["ParentConfig"]["properties"], "source_address")
    if kind == "enclave":
        _allow_single(components["ForwardTls"]["properties"], "pin_spki")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": (config_type.__doc__ or "").splitlines()[0],
        **reference,
        "$defs": components,
    }


def render_schema(kind: SchemaKind) -> str:
    """Write the schema as its file has it."""
    return json.dumps(generate_schema(kind), indent=2, ensure_ascii=False) + "\n"


def write_schemas(directory: Path) -> None:
    """Write the files of `SCHEMA_FILES`."""
    for kind, name in SCHEMA_FILES.items():
        (directory / name).write_text(render_schema(kind), encoding="utf-8")


def _allow_single(properties: dict[str, Any], key: str) -> None:
    """Let one item stand for a list of one, as `conversion.ONE_FOR_A_LIST` says."""
    section = properties[key]
    arms = section.pop("anyOf", None)
    if arms is None:
        arms = [{name: section.pop(name) for name in list(section) if name != "description"}]
    (many,) = (arm for arm in arms if arm.get("type") == "array")
    section["anyOf"] = [many["items"], *arms]


def _body(module: ModuleType) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(module)).body


def _field_descriptions() -> dict[tuple[str, str], str]:
    """Collect the docstring below each field of the model."""
    found: dict[tuple[str, str], str] = {}
    modules = (shared_sections, parent_sections, enclave_sections, model, enclave_run)
    for section in (each for module in modules for each in _body(module)):
        if not isinstance(section, ast.ClassDef):
            continue
        for field, text in zip(section.body, section.body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(description))),
                ):
                    found[section.name, name] = " ".join(description.split())
    return found


if __name__ == "__main__":
    write_schemas(Path(__file__).parents[2] / "configs")
