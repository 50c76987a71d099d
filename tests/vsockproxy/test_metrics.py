import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy import metrics
from vsockproxy.metrics import ALL, Counters, HistogramValue, Metric, Packed, unpack

ROOT = Path(__file__).parents[2]


def test_every_metric_is_found_once() -> None:
    names = [metric.name for metric in ALL]
    assert len(set(names)) == len(names) > 15


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_metric_is_named_in_prometheus_manner(metric: Metric) -> None:
    assert re.fullmatch(r"vsockproxy(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
    assert not metric.meaning.endswith(".")
    assert not set(metric.labels) & {"host", "address", "text", "le"}
    assert metric.labels.index("enclave") == 0 if "enclave" in metric.labels else True


def test_what_is_counted_adds_up() -> None:
    counters = Counters()
    counters.add(metrics.LINKS_ENDED, ("none",))
    counters.add(metrics.LINKS_ENDED, ("none",), 2)
    counters.add(metrics.LINKS_ENDED, ("protocol",))
    assert counters.value(metrics.LINKS_ENDED, ("none",)) == 3
    assert counters.value(metrics.LINKS_ENDED, ("protocol",)) == 1
    assert counters.value(metrics.LINKS_ENDED, ("cut",)) == 0


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        pytest.param(0.0, 0, id="zero"),
        pytest.param(0.01, 0, id="a bound is inclusive"),
        pytest.param(0.011, 1, id="above a bound"),
        pytest.param(1e9, 11, id="above all bounds"),
    ],
)
def test_a_histogram_counts_in_buckets(value: float, bucket: int) -> None:
    counters = Counters()
    counters.observe(metrics.STREAM_SECONDS, value)
    (series,) = counters.series()
    assert isinstance(series.value, HistogramValue)
    assert series.value.counts.index(1) == bucket
    assert sum(series.value.counts) == 1
    assert series.value.total == value


def test_enclaves_beyond_the_bound_share_a_label() -> None:
    counters = Counters()
    labels = [counters.enclave_label(cid, None) for cid in range(100)]
    assert labels[: metrics.MAX_ENCLAVE_LABELS] == [
        str(cid) for cid in range(metrics.MAX_ENCLAVE_LABELS)
    ]
    assert set(labels[metrics.MAX_ENCLAVE_LABELS :]) == {metrics.OTHER}
    assert counters.enclave_label(3, None) == "3", "one that is known keeps its own"


def test_an_enclave_with_a_name_goes_by_it() -> None:
    assert Counters().enclave_label(16, "ledger") == "ledger"


def test_reasons_of_a_hostile_peer_share_a_label() -> None:
    counters = Counters()
    reasons = {counters.known_reason(f"reason {number}") for number in range(10_000)}
    assert len(reasons) == metrics.MAX_REASON_LABELS + 1
    assert metrics.OTHER in reasons


def test_there_is_a_bound_to_all_series() -> None:
    counters = Counters()
    for number in range(metrics.MAX_SERIES + 10):
        counters.add(metrics.LINKS_ENDED, (str(number),))
        counters.observe(metrics.DIAL_SECONDS, 1, (str(number),))
    assert len(list(counters.series())) == metrics.MAX_SERIES


_LABEL = st.text(max_size=20)


@st.composite
def counted(draw: st.DrawFn) -> Counters:
    counters = Counters()
    for metric in draw(st.lists(st.sampled_from(ALL), max_size=20)):
        labels = tuple(draw(_LABEL) for _ in metric.labels)
        amount = draw(st.integers(0, 2**53))
        if metric.kind == "histogram":
            counters.observe(metric, amount, labels)
        else:
            counters.add(metric, labels, amount)
    return counters


@given(counted())
def test_what_is_packed_is_read_again(counters: Counters) -> None:
    again = Counters()
    again.add_series(unpack(counters.packed()))
    assert sorted(again.packed()) == sorted(counters.packed())


@given(counted(), counted())
def test_a_sum_has_both(one: Counters, other: Counters) -> None:
    total = Counters()
    total.add_series(one.series())
    total.add_series(other.series())
    for metric in ALL:
        if metric.kind != "histogram" and "enclave" not in metric.labels:
            for series in total.series():
                if series.metric is metric:
                    value = one.value(metric, series.labels) + other.value(metric, series.labels)
                    assert series.value == value


BROKEN: dict[str, Packed] = {
    "no such metric": ("vsockproxy_xyzzy_total", [], 1),
    "a label too many": ("vsockproxy_links", ["a", "b"], 1),
    "a label too few": ("vsockproxy_links", [], 1),
    "a counter with buckets": ("vsockproxy_links", ["a"], [1, 2]),
    "a histogram without": ("vsockproxy_stream_duration_seconds", [], 1),
    "a bucket too few": ("vsockproxy_stream_duration_seconds", [], [0.0] * 12),
}


@pytest.mark.parametrize("packed", BROKEN.values(), ids=BROKEN)
def test_what_is_no_series_is_an_error(packed: Packed) -> None:
    with pytest.raises(ValueError, match="vsockproxy_"):
        list(unpack([packed]))


def test_sums_that_follow_each_other_keep_their_labels() -> None:
    labels: set[str] = set()
    for first in (0, 10):
        total = Counters(labels)
        for number in range(first, first + metrics.MAX_ENCLAVE_LABELS):
            total.known_enclave(str(number))
    assert labels == {str(number) for number in range(metrics.MAX_ENCLAVE_LABELS)}


def test_the_operators_page_has_every_metric_as_it_is() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `vsockproxy_")]
    assert rows == [
        f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.meaning} |"
        for each in ALL
    ]
