"""The metrics as Prometheus reads them: its text format, or OpenMetrics where it asks for that."""

import platform
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from vsockproxy import __version__, metrics
from vsockproxy.metrics import Counters, HistogramValue, Metric, Series

__all__ = ("expose",)


class _Snapshot(Collector):
    """What the counters stood at."""

    def __init__(self, counters: Counters) -> None:
        self._series: dict[str, list[Series]] = {metric.name: [] for metric in metrics.ALL}
        for each in counters.series():
            self._series[each.metric.name].append(each)

    def collect(self) -> Iterator[Family]:
        """One family for each metric, in the order of their definitions."""
        for metric in metrics.ALL:
            yield _family(metric, self._series[metric.name])


def expose(
    counters: Counters,
    *,
    accept: str,
    started_at: float,
    workers: int,
    workers_ready: int,
) -> tuple[bytes, str]:
    """The body and its content type.

    Args:
        counters: all totals.
        accept: what the request accepts.
        started_at: of the supervisor, in seconds since the epoch.
        workers: how many there are to be.
        workers_ready: how many serve.
    """
    counters.add(metrics.BUILD, (__version__, platform.python_version()))
    counters.add(metrics.START_TIME, (), started_at)
    counters.add(metrics.WORKERS, (), workers)
    counters.add(metrics.WORKERS_READY, (), workers_ready)
    _begin_at_zero(counters, workers)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(counters))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _begin_at_zero(counters: Counters, workers: int) -> None:
    """Have the series that alarms are for: Prometheus sees no increase in one that is new."""
    for worker in range(workers):
        counters.add(metrics.WORKER_RESTARTS, (str(worker),), 0)
    for limit in metrics.LIMITS:
        counters.add(metrics.LIMIT_REFUSALS, (limit,), 0)
    for result in metrics.RELOAD_RESULTS:
        counters.add(metrics.RELOADS, (result,), 0)


def _family(metric: Metric, series: list[Series]) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
    match metric.kind:
        case "counter":
            family = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        case "gauge":
            family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        case "histogram":
            family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for each in series:
        value = each.value
        if isinstance(family, HistogramMetricFamily):
            assert isinstance(value, HistogramValue)  # `unpack` has made sure
            bounds = [*(str(float(bound)) for bound in metric.buckets), "+Inf"]
            buckets = list(zip(bounds, accumulate(value.counts), strict=True))
            family.add_metric(each.labels, buckets=buckets, sum_value=value.total)
        else:
            assert not isinstance(value, HistogramValue)  # likewise
            family.add_metric(each.labels, value)
    return family
