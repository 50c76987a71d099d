from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from parent_side.services.exposition import expose
from vsockproxy import metrics
from vsockproxy.metrics import ALL, Counters


def counters() -> Counters:
    made = Counters()
    made.add(metrics.DECISIONS, ('a"b\\c\nd', "listed", "true"), 2)
    made.add(metrics.STREAM_BYTES, ("16", "out"), 2**53)
    for seconds in (0.001, 0.002, 99):
        made.observe(metrics.DIAL_SECONDS, seconds, ("connected",))
    return made


def exposed(accept: str) -> tuple[str, str]:
    body, content_type = expose(
        counters(), accept=accept, started_at=5.0, workers=2, workers_ready=1
    )
    return body.decode(), content_type


def test_prometheus_reads_it() -> None:
    body, content_type = exposed("")
    assert content_type.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parse(body)}
    assert len(families) == len(ALL)
    (decided,) = families["vsockproxy_decisions"].samples
    assert decided.labels == {"enclave": 'a"b\\c\nd', "reason": "listed", "allowed": "true"}
    assert decided.value == 2
    dials = {
        sample.labels.get("le", sample.name): sample.value
        for sample in families["vsockproxy_dial_duration_seconds"].samples
    }
    assert dials["0.001"] == 1
    assert dials["0.0025"] == 2
    assert dials["10.0"] == 2
    assert dials["+Inf"] == 3
    assert dials["vsockproxy_dial_duration_seconds_sum"] == 99.003


def test_openmetrics_is_written_where_it_is_asked_for() -> None:
    body, content_type = exposed("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")
    families = openmetrics.text_string_to_metric_families(body)  # type: ignore[no-untyped-call]  # it has no types
    assert {family.name for family in families} == {
        metric.name.removesuffix("_total").removesuffix("_info")
        if metric.kind == "counter"
        else metric.name
        for metric in ALL
    }
