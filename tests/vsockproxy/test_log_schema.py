import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.json_schema import faults
from vsockproxy.log_schema import AUDIT_EVENTS, SCHEMA_FILE, generate_schema, render_schema
from vsockproxy.policy import Reason

ROOT = Path(__file__).parents[2]
DECISION = {
    "time": "2026-01-31T23:59:59.999Z",
    "level": "info",
    "event": "decision",
    "side": "parent",
    "cid": 16,
    "stream": 1,
    "host": "h",
    "port": 443,
    "reason": "listed",
    "way": "session",
    "allowed": True,
}


def test_the_schema_in_the_tree_is_the_one_of_the_code() -> None:
    assert (ROOT / "configs" / SCHEMA_FILE).read_text(encoding="utf-8") == render_schema()
    assert json.loads(render_schema()) == generate_schema()


def test_a_line_passes() -> None:
    assert list(faults(generate_schema(), DECISION)) == []
    other = {"time": "t", "level": "warning", "event": "xyzzy", "side": "parent", "further": 1}
    assert list(faults(generate_schema(), other)) == []


WRONG: dict[str, dict[str, Any]] = {
    "no time": {"time": None},
    "another level": {"level": "fatal"},
    "another side": {"side": "moon"},
    "a port as text": {"port": "443"},
    "a port as a truth": {"port": True},
    "a decision without an answer": {"allowed": None},
    "a field that no decision has": {"bytes_out": 1},
    "a close without bytes": {"event": "close", "allowed": None, "duration": 1.0, "ended": "x"},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_line_does_not(change: dict[str, Any]) -> None:
    changed = {**DECISION, **change}
    line = {key: value for key, value in changed.items() if value is not None}
    assert list(faults(generate_schema(), line)) != []


def test_the_operators_page_names_every_field_and_reason() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for event, fields in AUDIT_EVENTS.items():
        assert f"`event={event}`" in page
        for field in fields:
            assert f"`{field.name}`" in page, field.name
    for reason in Reason:
        assert f"`{reason}`" in page, reason
