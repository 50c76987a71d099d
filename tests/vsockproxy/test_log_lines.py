import json
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.log_lines import LEVELS, Level, format_line, passes

NOW_SECONDS = 1_795_330_374.643


def test_text() -> None:
    fields = {"event": "decision", "port": 443, "allowed": False, "rule": None, "text": "not so"}
    assert format_line("text", NOW_SECONDS, "warning", fields) == (
        b'2026-11-22T06:52:54.643Z warning event=decision port=443 allowed=false text="not so"\n'
    )


def test_json() -> None:
    fields = {"event": "decision", "port": 443, "allowed": False, "rule": None, "text": "not so"}
    assert json.loads(format_line("json", NOW_SECONDS, "warning", fields)) == {
        "time": "2026-11-22T06:52:54.643Z",
        "level": "warning",
        "event": "decision",
        "port": 443,
        "allowed": False,
        "text": "not so",
    }


@pytest.mark.parametrize(
    ("value", "word"),
    [
        pytest.param("plain:443", "plain:443", id="a plain word"),
        pytest.param("", '""', id="nothing"),
        pytest.param("a b", '"a b"', id="a space"),
        pytest.param('a"b', '"a\\"b"', id="a quotation mark"),
        pytest.param("a=b", '"a=b"', id="what looks like a field"),
        pytest.param("a\nb", '"a\\nb"', id="a line break"),
        pytest.param("\x1b[31m", '"\\u001b[31m"', id="a terminal's control sequence"),
        pytest.param("\udcff", '"\\udcff"', id="what is no UTF-8"),
        pytest.param(True, "true", id="a truth value"),
    ],
)
def test_a_value_in_text(value: object, word: str) -> None:
    line = format_line("text", NOW_SECONDS, "info", {"key": value}).decode()
    assert line.partition(" info ")[2] == f"key={word}\n"


@given(st.sampled_from(["text", "json"]), st.dictionaries(st.just("key"), st.text()))
def test_no_value_breaks_out_of_its_line(form: str, fields: dict[str, object]) -> None:
    line = format_line("text" if form == "text" else "json", NOW_SECONDS, "info", fields)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert not any(byte < 0x20 for byte in line[:-1])


@given(
    st.floats(0, 2**32),
    st.dictionaries(st.text(), st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans()),
)
def test_json_is_printable_ascii_as_the_standard_library_writes_it(
    now_seconds: float, fields: dict[str, object]
) -> None:
    time = datetime.fromtimestamp(now_seconds, UTC).isoformat(timespec="milliseconds")
    values = {"time": time.replace("+00:00", "Z"), "level": "info", **fields}
    assert format_line("json", now_seconds, "info", fields) == json.dumps(values).encode() + b"\n"


def test_what_json_cannot_say_is_written_as_text() -> None:
    line = format_line("json", NOW_SECONDS, "info", {"address": ip_address("192.0.2.1")})
    assert json.loads(line)["address"] == "192.0.2.1"


def test_levels() -> None:
    assert get_args(Level) == LEVELS
    passing = [level for level in LEVELS if passes(level, "warning")]
    assert passing == ["warning", "error"]
