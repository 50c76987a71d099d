import json
from pathlib import Path
from typing import Any

import pytest

from vsockproxy.config.schema import (
    SCHEMA_FILES,
    SchemaKind,
    generate_schema,
    render_schema,
    write_schemas,
)

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("kind", SCHEMA_FILES)
def test_the_schema_in_the_tree_is_the_one_of_the_model(kind: SchemaKind) -> None:
    written = (CONFIGS / SCHEMA_FILES[kind]).read_text(encoding="utf-8")
    assert written == render_schema(kind), "run: python -m vsockproxy.config.schema"


def test_the_schemas_are_written(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SCHEMA_FILES.values())
    for path in tmp_path.iterdir():
        assert json.loads(path.read_text(encoding="utf-8"))["$ref"].startswith("#/$defs/")


def _properties(kind: SchemaKind, section: str) -> dict[str, Any]:
    properties: dict[str, Any] = generate_schema(kind)["$defs"][section]["properties"]
    return properties


def test_a_schema_says_what_the_file_has_not_what_the_model_holds() -> None:
    assert _properties("enclave", "Shim")["http_proxy"]["default"] == "tcp://127.0.0.1:3128"
    assert _properties("parent", "Limits")["receive_budget"]["type"] == ["integer", "string"]
    assert [arm["type"] for arm in _properties("parent", "ParentConfig")["listen"]["anyOf"]] == [
        "string",
        "array",
    ]


@pytest.mark.parametrize("kind", SCHEMA_FILES)
def test_every_key_is_described_and_no_other_is_allowed(kind: SchemaKind) -> None:
    for name, section in generate_schema(kind)["$defs"].items():
        assert section["additionalProperties"] is False
        assert section["description"]
        for key, schema in section["properties"].items():
            is_section = "$ref" in schema or "$ref" in schema.get("anyOf", [{}])[0]
            assert "description" in schema or is_section, f"{name}.{key}"
