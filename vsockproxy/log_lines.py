"""One log line as text: `time level event=… key=value …`, or the same as a JSON object."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

import msgspec

__all__ = ("LEVELS", "Level", "LineFormat", "format_line", "passes")

Level = Literal["debug", "info", "warning", "error"]
LineFormat = Literal["text", "json"]

LEVELS: Final[tuple[Level, ...]] = ("debug", "info", "warning", "error")
"""From the least important to the most."""

_QUOTED: Final = frozenset(' "\\=')
_DELETE: Final = 0x7F
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def passes(level: Level, threshold: Level) -> bool:
    """Whether a line of `level` is written where lines from `threshold` on are."""
    return LEVELS.index(level) >= LEVELS.index(threshold)


def format_line(
    line_format: LineFormat, now_seconds: float, level: Level, fields: Mapping[str, object]
) -> bytes:
    """Write one line, with its newline; no value can break out of it.

    Args:
        line_format: `text` for people, `json` for machines.
        now_seconds: the time, since the epoch.
        level: the level.
        fields: the fields in their order; None means that there is no value, and is left out.
    """
    second, microseconds = divmod(round(now_seconds * 1e6), 1_000_000)
    time = f"{_format_second(second)}.{microseconds // 1000:03}Z"
    if line_format == "json":
        values: dict[str, object] = {"time": time, "level": level}
        values |= {key: value for key, value in fields.items() if value is not None}
        return _json(values) + b"\n"
    present = (f"{key}={_word(value)}" for key, value in fields.items() if value is not None)
    return " ".join([time, level, *present]).encode("utf-8", "backslashreplace") + b"\n"


@lru_cache(maxsize=1)
def _format_second(second: int) -> str:
    """Seconds since the epoch as a date and a time; many lines are of the same second."""
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")


def _json(values: dict[str, object]) -> bytes:
    """One line of printable ASCII: nothing that a peer sent may mean anything to a terminal."""
    try:
        line = msgspec.json.format(_encode(values), indent=0)
    except UnicodeEncodeError:
        pass  # a text that is no UTF-8
    else:
        # msgspec takes a tenth of the time, and escapes only what JSON says has to be.
        if line.isascii() and _DELETE not in line:
            return line
    return json.dumps(values, default=str).encode()


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and text.isprintable() and not _QUOTED & set(text):
        return text
    return json.dumps(text)
