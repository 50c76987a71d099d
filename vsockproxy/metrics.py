"""Every metric once, with its meaning; and the counters that a process keeps of them. Pure.

Labels are bounded. None ever holds a host or a text of a peer's; the label `enclave` holds names
and CIDs up to `MAX_ENCLAVE_LABELS`, and `other` for the rest, so that neither a scan of hosts nor
enclaves that come and go make the series grow without end.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

__all__ = (
    "ALL",
    "LIMITS",
    "MAX_ENCLAVE_LABELS",
    "MAX_SERIES",
    "OTHER",
    "RELOAD_RESULTS",
    "Counters",
    "HistogramValue",
    "Metric",
    "Packed",
    "Series",
    "unpack",
)

Kind = Literal["counter", "gauge", "histogram"]

MAX_ENCLAVE_LABELS: Final = 32
"""Enclaves with a label of their own; an instance has at most four at once."""

MAX_REASON_LABELS: Final = 64
"""There are fewer than half as many."""

MAX_SERIES: Final = 8192
"""A second bound, which no set of labels should ever reach; what is above it is not counted."""

OTHER: Final = "other"
"""The label of whatever is beyond a bound."""

_DIAL_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_STREAM_BUCKETS: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 86_400)
_ROUND_TRIP_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: as Prometheus knows it, with unit and `_total`.
        kind: a counter only grows, a gauge does not, a histogram counts what it observes.
        meaning: one line for people, without a full stop at its end.
        labels: the names of its labels.
        buckets: upper bounds of a histogram's buckets, inclusive; infinity goes without saying.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


DECISIONS: Final = Metric(
    "vsockproxy_decisions_total",
    "counter",
    "Streams that were decided, by reason; allowed for another reason than listed is mode: report",
    ("enclave", "reason", "allowed"),
)
STREAMS_OPENED: Final = Metric(
    "vsockproxy_streams_opened_total",
    "counter",
    "Streams that were allowed and opened, by the way they came: session or forward",
    ("enclave", "way"),
)
STREAMS_CLOSED: Final = Metric(
    "vsockproxy_streams_closed_total",
    "counter",
    "Streams that have ended, by how: finished is whole, all others are cut",
    ("enclave", "ended"),
)
STREAMS_OPEN: Final = Metric(
    "vsockproxy_streams_open", "gauge", "Streams that are open now", ("enclave",)
)
STREAM_BYTES: Final = Metric(
    "vsockproxy_stream_bytes_total",
    "counter",
    "Bytes of streams, open ones included: out is what the enclave sent, in what it got",
    ("enclave", "direction"),
)
STREAM_SECONDS: Final = Metric(
    "vsockproxy_stream_duration_seconds",
    "histogram",
    "How long streams were open, from OPEN to their end",
    buckets=_STREAM_BUCKETS,
)
DIAL_SECONDS: Final = Metric(
    "vsockproxy_dial_duration_seconds",
    "histogram",
    "How long dialling a destination took, by outcome: connected, refused, timed_out",
    ("outcome",),
    _DIAL_BUCKETS,
)
CREDIT_STALLS: Final = Metric(
    "vsockproxy_credit_stalls_total",
    "counter",
    "Times that a stream had to wait for the enclave to take what it had been sent",
    ("enclave",),
)
LINKS: Final = Metric("vsockproxy_links", "gauge", "Links that are up now", ("enclave",))
LINKS_ENDED: Final = Metric(
    "vsockproxy_links_ended_total", "counter", "Links that have ended, by the code", ("code",)
)
ATTESTATIONS: Final = Metric(
    "vsockproxy_attestations_total",
    "counter",
    "Links that were to attest themselves; result is verified, or why the link was refused",
    ("result",),
)
ROUND_TRIP_SECONDS: Final = Metric(
    "vsockproxy_link_round_trip_seconds",
    "histogram",
    "Round trips of links, from PING to PONG; half a millisecond is the least that is told apart",
    buckets=_ROUND_TRIP_BUCKETS,
)
RESOLVES: Final = Metric(
    "vsockproxy_resolves_total",
    "counter",
    "Questions for names that enclaves asked, by type of record and reason",
    ("type", "reason"),
)
LIMITS: Final = (
    "streams",
    "dedicated",
    "lookups",
    "greetings",
    "links",
    "attestations",
    "credentials",
    "rate",
    "rule",
)
"""The values of the label `limit`."""

LIMIT_REFUSALS: Final = Metric(
    "vsockproxy_limit_refusals_total",
    "counter",
    f"What a limit refused: {', '.join(LIMITS)}",
    ("limit",),
)
ENCLAVE_EXITS: Final = Metric(
    "vsockproxy_enclave_exits_total",
    "counter",
    "Ends that enclaves told of themselves; result is success or failure",
    ("enclave", "result"),
)
ENCLAVE_LOG_LINES: Final = Metric(
    "vsockproxy_enclave_log_lines_total",
    "counter",
    "Lines of enclaves' logs; result is written, or dropped where the enclave had no room",
    ("result",),
)
LOG_LINES_DROPPED: Final = Metric(
    "vsockproxy_log_lines_dropped_total",
    "counter",
    "Log lines that were lost because nobody read fast enough",
)
CONNECTIONS_REFUSED: Final = Metric(
    "vsockproxy_connections_refused_total",
    "counter",
    "Connections of CIDs that may not connect (0-3 without an entry)",
)
CONNECTIONS_CLOSED: Final = Metric(
    "vsockproxy_connections_closed_total",
    "counter",
    "Connections closed because too many waited for a worker that was being replaced",
)
RELOAD_RESULTS: Final = ("applied", "refused")
"""The values of the label `result` of reloads."""

RELOADS: Final = Metric(
    "vsockproxy_reloads_total",
    "counter",
    f"Reloads, by result: {', '.join(RELOAD_RESULTS)}",
    ("result",),
)
WORKER_RESTARTS: Final = Metric(
    "vsockproxy_worker_restarts_total", "counter", "Deaths of a worker, each replaced", ("worker",)
)
WORKERS: Final = Metric("vsockproxy_workers", "gauge", "Workers that there are to be")
WORKERS_READY: Final = Metric(
    "vsockproxy_workers_ready", "gauge", "Workers that serve and have reported within 5 s"
)
START_TIME: Final = Metric(
    "vsockproxy_start_time_seconds", "gauge", "When the supervisor started, in seconds of the epoch"
)
BUILD: Final = Metric(
    "vsockproxy_build_info", "gauge", "Always 1; the labels say what runs", ("version", "python")
)

ALL: Final[tuple[Metric, ...]] = tuple(each for each in globals().values() if type(each) is Metric)
"""All of them, in the order above."""

_BY_NAME: Final = {metric.name: metric for metric in ALL}


@dataclass(slots=True)
class HistogramValue:
    """What a histogram has observed.

    Args:
        counts: observations in each bucket, not cumulated; the last is above all bounds.
        total: the sum of what was observed.
    """

    counts: list[int]
    total: float = 0.0


Packed = tuple[str, list[str], float | list[float]]
"""Name, labels, and a number; or, for a histogram, its counts and their sum."""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric with one set of labels, and what it stands at."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | HistogramValue

    def packed(self) -> Packed:
        """Plain values for a message; `unpack` reads them."""
        value = self.value
        if isinstance(value, HistogramValue):
            return self.metric.name, list(self.labels), [*value.counts, value.total]
        return self.metric.name, list(self.labels), value


_Key = tuple[str, tuple[str, ...]]


class Counters:
    """Totals of a process since its start; also the sum of several processes'.

    Args:
        enclaves: the labels of enclaves so far, for sums that follow each other; added to here.
    """

    def __init__(self, enclaves: set[str] | None = None) -> None:
        self._values: dict[_Key, float] = {}
        self._histograms: dict[_Key, HistogramValue] = {}
        self._reasons: set[str] = set()
        self.enclaves = set[str]() if enclaves is None else enclaves

    def enclave_label(self, cid: int | None, name: str | None) -> str:
        """The label of an enclave: its name, else its CID; `other` once there are too many."""
        return self.known_enclave(name or ("" if cid is None else str(cid)))

    def known_enclave(self, label: str) -> str:
        """The label itself, or `other` once there are too many."""
        if label not in self.enclaves and label != OTHER:
            if len(self.enclaves) >= MAX_ENCLAVE_LABELS:
                return OTHER
            self.enclaves.add(label)
        return label

    def known_reason(self, reason: str) -> str:
        """The reason itself, or `other`: that of a refusal of the peer's can be any text."""
        if reason not in self._reasons:
            if len(self._reasons) >= MAX_REASON_LABELS:
                return OTHER
            self._reasons.add(reason)
        return reason

    def add(self, metric: Metric, labels: tuple[str, ...] = (), amount: float = 1) -> None:
        """Count; `labels` are in the order of the metric's."""
        key = (metric.name, labels)
        value = self._values.get(key)
        if value is not None:
            self._values[key] = value + amount
        elif self._has_room:
            self._values[key] = amount

    def observe(self, metric: Metric, value: float, labels: tuple[str, ...] = ()) -> None:
        """Count one observation of a histogram."""
        histogram = self._histogram(metric, labels)
        histogram.counts[bisect_left(metric.buckets, value)] += 1
        histogram.total += value

    def value(self, metric: Metric, labels: tuple[str, ...] = ()) -> float:
        """What a counter stands at."""
        return self._values.get((metric.name, labels), 0)

    def series(self) -> Iterator[Series]:
        """Everything that has been counted."""
        for (name, labels), value in self._values.items():
            yield Series(_BY_NAME[name], labels, value)
        for (name, labels), histogram in self._histograms.items():
            yield Series(_BY_NAME[name], labels, histogram)

    def add_series(self, series: Iterable[Series]) -> None:
        """Add what another process has counted."""
        for each in series:
            labels = each.labels
            if each.metric.labels[:1] == ("enclave",):
                labels = (self.known_enclave(labels[0]), *labels[1:])
            if isinstance(each.value, HistogramValue):
                histogram = self._histogram(each.metric, labels)
                histogram.total += each.value.total
                for index, count in enumerate(each.value.counts):
                    histogram.counts[index] += count
            else:
                self.add(each.metric, labels, each.value)

    def packed(self) -> list[Packed]:
        """Everything, as plain values for a message; `unpack` reads it."""
        return [each.packed() for each in self.series()]

    @property
    def _has_room(self) -> bool:
        return len(self._values) + len(self._histograms) < MAX_SERIES

    def _histogram(self, metric: Metric, labels: tuple[str, ...]) -> HistogramValue:
        key = (metric.name, labels)
        histogram = self._histograms.get(key)
        if histogram is None:
            histogram = HistogramValue([0] * (len(metric.buckets) + 1))
            if self._has_room:
                self._histograms[key] = histogram
        return histogram


def unpack(packed: Iterable[Packed]) -> Iterator[Series]:
    """Read what `Counters.packed` wrote.

    Raises:
        ValueError: a metric that there is none, or one with other labels or buckets.
    """
    for name, labels, value in packed:
        metric = _BY_NAME.get(name)
        if metric is None or len(labels) != len(metric.labels):
            raise ValueError(f"no metric {name} with {len(labels)} labels")
        if isinstance(value, list) != (metric.kind == "histogram"):
            raise ValueError(f"{name} is a {metric.kind}")
        if isinstance(value, list):
            if len(value) != len(metric.buckets) + 2:
                raise ValueError(f"{name} with {len(value)} numbers")
            counts = [int(count) for count in value[:-1]]
            yield Series(metric, tuple(labels), HistogramValue(counts, value[-1]))
        else:
            yield Series(metric, tuple(labels), value)
