"""What the lines of the log hold: `python -m vsockproxy.log_schema` writes it as a JSON Schema.

Every line has time, level, event and side. The events of the audit are fixed, field by field;
others have what their event needs, and may gain fields. A field without a value is left out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from vsockproxy.log_lines import LEVELS

__all__ = ("AUDIT_EVENTS", "SCHEMA_FILE", "Field", "generate_schema", "render_schema")

SCHEMA_FILE: Final = "log.schema.json"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a line.

    Args:
        name: as it is written.
        kind: of its value.
        meaning: one line for people.
        is_always: whether every line of the event has it.
        values: the only values, if there are few.
    """

    name: str
    kind: Literal["string", "integer", "number", "boolean"]
    meaning: str
    is_always: bool = False
    values: tuple[str, ...] = ()


_EVERY: Final = (
    Field("time", "string", "UTC, to the millisecond: 2026-01-31T23:59:59.999Z", is_always=True),
    Field("level", "string", "how important it is", is_always=True, values=LEVELS),
    Field("event", "string", "what happened", is_always=True),
    Field(
        "side",
        "string",
        "who decided; where nothing is decided, who wrote the line",
        is_always=True,
        values=("enclave", "parent"),
    ),
)
"""What every line has."""

_CID: Final = Field("cid", "integer", "the enclave's CID; in lines of the parent alone")
_ENCLAVE: Final = Field("enclave", "string", "the enclave's configured name")
_RULE: Final = Field("rule", "string", "the rule that decided: FILE:LINE")

_STREAM: Final = (
    _CID,
    _ENCLAVE,
    Field("stream", "integer", "its number in its session; absent on raw ports"),
    Field("host", "string", "what was asked for, in normal form where it has one", is_always=True),
    Field("port", "integer", "what was asked for; absent for the lookup of a name"),
    Field("address", "string", "what was dialled; absent where nothing was"),
    Field("via", "string", "the upstream proxy, where one was asked for the address"),
    Field("client", "string", "who connected, where the connection came from outside"),
    _RULE,
    Field("reason", "string", "why it was allowed or refused", is_always=True),
    Field("way", "string", "how the program came in, or session on the parent", is_always=True),
)

AUDIT_EVENTS: Final[dict[str, tuple[Field, ...]]] = {
    "decision": (
        *_STREAM,
        Field("allowed", "boolean", "whether the stream may be", is_always=True),
        Field("text", "string", "of a refusal: what to do about it"),
    ),
    "close": (
        *_STREAM,
        Field("bytes_out", "integer", "bytes that the enclave sent", is_always=True),
        Field("bytes_in", "integer", "bytes that the enclave got", is_always=True),
        Field("duration", "number", "seconds from the request to the end", is_always=True),
        Field(
            "ended",
            "string",
            "how it ended; finished is whole, all others are cut",
            is_always=True,
            values=(
                *("finished", "local_reset", "remote_reset", "link_lost"),
                *("timed_out", "refused", "policy", "shutdown"),
                *("tls_failed", "tls_truncated"),
            ),
        ),
    ),
    "resolve": (
        _CID,
        _ENCLAVE,
        Field("host", "string", "the name that was asked for", is_always=True),
        Field("type", "string", "of the records: A, AAAA, SRV, TXT, MX, or TYPE with a number"),
        _RULE,
        Field("records", "integer", "how many were found", is_always=True),
        Field("allowed", "boolean", "whether the lists allow the name", is_always=True),
        Field("reason", "string", "why it was allowed or refused", is_always=True),
        Field("text", "string", "of a refusal: what to do about it"),
    ),
}
"""The fields of the audit's lines, beside those of every line."""


def generate_schema() -> dict[str, Any]:
    """Build the schema of one line (JSON Schema 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of the log, with log.format: json.",
        **_object(_EVERY),
        "allOf": [
            {
                "if": {"properties": {"event": {"const": event}}},
                "then": {
                    **_object(fields),
                    "propertyNames": {"enum": [field.name for field in (*_EVERY, *fields)]},
                },
            }
            for event, fields in AUDIT_EVENTS.items()
        ],
    }


def render_schema() -> str:
    """Write the schema as its file has it."""
    return json.dumps(generate_schema(), indent=2, ensure_ascii=False) + "\n"


def _object(fields: tuple[Field, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            field.name: {
                "type": field.kind,
                **({"enum": list(field.values)} if field.values else {}),
                "description": field.meaning,
            }
            for field in fields
        },
        "required": [field.name for field in fields if field.is_always],
    }


if __name__ == "__main__":
    file = Path(__file__).parents[1] / "configs" / SCHEMA_FILE
    file.write_text(render_schema(), encoding="utf-8")
