"""One log line as text: `time level event=… key=value …`, or the same as a JSON object."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

__all__ = ("LEVELS", "Level", "LineFormat", "format_line", "passes")

Level = Literal["debug", "info", "warning", "error"]
LineFormat = Literal["text", "json"]

LEVELS: Final[tuple[Level, ...]] = ("debug", "info", "warning", "error")
"""From the least important to the most."""

_QUOTED: Final = frozenset(' "\\=')


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
    time = datetime.fromtimestamp(now_seconds, UTC).isoformat(timespec="milliseconds")
    time = time.replace("+00:00", "Z")
    present = {key: value for key, value in fields.items() if value is not None}
    if line_format == "json":
        return json.dumps({"time": time, "level": level, **present}, default=str).encode() + b"\n"
    words = [time, level, *(f"{key}={_word(value)}" for key, value in present.items())]
    return " ".join(words).encode("utf-8", "backslashreplace") + b"\n"


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if text and text.isprintable() and not _QUOTED & set(text):
        return text
    return json.dumps(text)
