"""RUST_LOG, by which AWS's vsock-proxy is told what to log, as a level of our own log. Pure.

Its form is env_logger's: directives with commas between them, each `LEVEL`, `TARGET` or
`TARGET=LEVEL`; after a `/` comes a filter on the texts of lines, which is left aside here.
"""

from typing import Final

from vsockproxy.log_lines import LEVELS, Level

__all__ = ("DEFAULT_LEVEL", "level_of")

DEFAULT_LEVEL: Final[Level] = "warning"
"""env_logger's own default is `error`. But AWS's proxy says what it refuses, and why it ends, by
exiting or by a panic, whatever the level; here refusals are lines of the level `warning`."""

TARGET: Final = "vsock_proxy"
"""What AWS's lines are filtered by; those of its modules have `vsock_proxy::` in front."""

_LEVELS: Final[dict[str, Level]] = {
    "off": "error",  # this log always has its errors: nothing else tells of a worker that died
    "error": "error",
    "warn": "warning",
    "info": "info",
    "debug": "debug",
    "trace": "debug",
}


def level_of(specification: str) -> tuple[Level, tuple[str, ...]]:
    """The level for a value of RUST_LOG, and those of its directives that cannot be read.

    A directive for `vsock_proxy` counts more than one without a target, the most talkative of
    several counts, and those for other targets do not count.
    """
    general: Level | None = None
    ours: list[Level] = []
    unreadable = []
    for directive in specification.partition("/")[0].split(","):
        target, separator, level_text = (part.strip() for part in directive.partition("="))
        if not target and not separator:
            continue
        if not separator and target.lower() in _LEVELS:
            general = _LEVELS[target.lower()]
            continue
        # A target by itself means everything it has to say.
        level = _LEVELS.get(level_text.lower() or "trace")
        if level is None or not target:
            unreadable.append(directive.strip())
        elif target == TARGET or target.startswith(f"{TARGET}::"):
            ours.append(level)
    if ours:
        return min(ours, key=LEVELS.index), tuple(unreadable)
    return general or DEFAULT_LEVEL, tuple(unreadable)
