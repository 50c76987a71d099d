"""The ports of a rule as sorted, disjoint ranges."""

import re
from collections.abc import Iterable

__all__ = ("EVERY_PORT", "PortSpan", "format_ports", "parse_range", "rule_ports", "subtract_ports")

PortSpan = tuple[int, int]
"""First and last port, both included."""

EVERY_PORT: tuple[PortSpan, ...] = ((1, 65_535),)

_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})", re.ASCII)


def parse_range(text: str) -> PortSpan | None:
    """Read `LOW-HIGH`; None unless 1 <= LOW <= HIGH <= 65535 in plain decimal."""
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    low, high = int(found[1]), int(found[2])
    return (low, high) if 1 <= low <= high <= 65_535 and text == f"{low}-{high}" else None


def rule_ports(port: int | None, ports: Iterable[int | str] | None) -> tuple[PortSpan, ...]:
    """Turn the `port` and `ports` of a valid rule into spans; every port if it has neither."""
    if port is not None:
        return ((port, port),)
    if ports is None:
        return EVERY_PORT
    spans: list[PortSpan] = []
    for item in ports:
        span = (item, item) if isinstance(item, int) else parse_range(item)
        if span is None:
            raise ValueError(f"{item!r} is no port range")
        spans.append(span)
    return _merge(spans)


def subtract_ports(ports: Iterable[PortSpan], taken: Iterable[PortSpan]) -> tuple[PortSpan, ...]:
    """Leave of `ports` what is not in `taken`."""
    left = list(ports)
    for taken_low, taken_high in taken:
        pieces: list[PortSpan] = []
        for low, high in left:
            if high < taken_low or taken_high < low:
                pieces.append((low, high))
                continue
            if low < taken_low:
                pieces.append((low, taken_low - 1))
            if taken_high < high:
                pieces.append((taken_high + 1, high))
        left = pieces
    return _merge(left)


def format_ports(ports: Iterable[PortSpan]) -> str:
    """Write spans as a rule's `ports` has them: `443, 8000-8010`."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ports)


def _merge(spans: Iterable[PortSpan]) -> tuple[PortSpan, ...]:
    merged: list[PortSpan] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)
