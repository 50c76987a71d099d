"""Sums over series of metrics, as the page and the tables show them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from vsockproxy import metrics
from vsockproxy.metrics import Counters, Metric, Series
from vsockproxy.worker_reports import Report

__all__ = (
    "NO_ROW",
    "add_pairs",
    "by_enclave",
    "by_label",
    "bytes_by_enclave",
    "decisions",
    "open_streams",
    "totals",
)

_Numbers = tuple[Mapping[str, str], float]
"""The labels of a series by their names, and what it stands at."""

_ROW: Final[tuple[tuple[str, Metric, Mapping[str, str]], ...]] = (
    ("links_up", metrics.LINKS, {}),
    ("streams_open", metrics.STREAMS_OPEN, {}),
    ("streams_opened", metrics.STREAMS_OPENED, {}),
    ("bytes_out", metrics.STREAM_BYTES, {"direction": "out"}),
    ("bytes_in", metrics.STREAM_BYTES, {"direction": "in"}),
    ("allowed", metrics.DECISIONS, {"allowed": "true"}),
    ("refused", metrics.DECISIONS, {"allowed": "false"}),
    ("credit_stalls", metrics.CREDIT_STALLS, {}),
)
"""What is shown of each enclave and of all: its name, and which series are added up."""

_FURTHER: Final[tuple[tuple[str, Metric, Mapping[str, str]], ...]] = (
    ("resolves", metrics.RESOLVES, {}),
    ("log_lines_dropped", metrics.LOG_LINES_DROPPED, {}),
    ("worker_restarts", metrics.WORKER_RESTARTS, {}),
    ("connections_closed", metrics.CONNECTIONS_CLOSED, {}),
    ("connections_refused", metrics.CONNECTIONS_REFUSED, {}),
)
"""What is shown of all only."""

NO_ROW: Final = dict.fromkeys((name for name, _, _ in _ROW), 0)
"""Of an enclave that has done nothing yet."""


def totals(counters: Counters) -> dict[str, int]:
    """What is shown of all."""
    found = {}
    for name, metric, wanted in (*_ROW, *_FURTHER):
        found[name] = int(sum(value for _, value in _numbers(counters.series(), metric, wanted)))
    return found


def by_enclave(counters: Counters) -> dict[str, dict[str, int]]:
    """What is shown of each enclave, by its label."""
    found: dict[str, dict[str, int]] = {}
    for name, metric, wanted in _ROW:
        for labels, value in _numbers(counters.series(), metric, wanted):
            row = found.setdefault(labels["enclave"], dict(NO_ROW))
            row[name] += int(value)
    return found


def by_label(counters: Counters, metric: Metric, label: str) -> dict[str, int]:
    """The sums of a metric by one of its labels, the largest first."""
    found: dict[str, int] = {}
    for labels, value in _numbers(counters.series(), metric):
        found[labels[label]] = found.get(labels[label], 0) + int(value)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def bytes_by_enclave(report: Report) -> dict[str, tuple[float, float]]:
    """Bytes out and in, by the label of the enclave.

    Raises:
        ValueError: the report has a series that is none of `metrics`.
    """
    found: dict[str, tuple[float, float]] = {}
    for labels, value in _numbers(metrics.unpack(report.series), metrics.STREAM_BYTES):
        out, into = found.get(labels["enclave"], (0, 0))
        is_out = labels["direction"] == "out"
        found[labels["enclave"]] = (out + value, into) if is_out else (out, into + value)
    return found


def decisions(report: Report) -> tuple[float, float]:
    """How many streams were allowed, and how many refused."""
    allowed = refused = 0.0
    for labels, value in _numbers(metrics.unpack(report.series), metrics.DECISIONS):
        if labels["allowed"] == "true":
            allowed += value
        else:
            refused += value
    return allowed, refused


def open_streams(report: Report) -> float:
    """How many streams a worker has open."""
    series = metrics.unpack(report.series)
    return sum(value for _, value in _numbers(series, metrics.STREAMS_OPEN))


def add_pairs(
    tables: Iterable[Mapping[str, tuple[float, float]]],
) -> dict[str, tuple[float, float]]:
    """Add tables of pairs up, key by key."""
    found: dict[str, tuple[float, float]] = {}
    for table in tables:
        for key, (one, other) in table.items():
            so_far = found.get(key, (0, 0))
            found[key] = so_far[0] + one, so_far[1] + other
    return found


def _numbers(
    series: Iterable[Series], metric: Metric, wanted: Mapping[str, str] | None = None
) -> Iterator[_Numbers]:
    """Those of one metric whose labels are as wanted."""
    for each in series:
        if each.metric is metric and not isinstance(each.value, metrics.HistogramValue):
            labels = dict(zip(metric.labels, each.labels, strict=True))
            if wanted is None or wanted.items() <= labels.items():
                yield labels, each.value
