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


def test_what_an_alarm_waits_for_is_there_before_it_happens() -> None:
    body, _ = exposed("")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(body)
        for sample in family.samples
    }
    expected = {
        **{("vsockproxy_worker_restarts_total", worker): 0 for worker in ("0", "1")},
        **{("vsockproxy_limit_refusals_total", limit): 0 for limit in metrics.LIMITS},
        **{("vsockproxy_reloads_total", result): 0 for result in metrics.RELOAD_RESULTS},
    }
    assert {key: samples.get(key) for key in expected} == expected


def test_what_has_been_counted_stays() -> None:
    counted = Counters()
    counted.add(metrics.WORKER_RESTARTS, ("1",), 3)
    counted.add(metrics.LIMIT_REFUSALS, ("rate",), 2)
    body, _ = expose(counted, accept="", started_at=5.0, workers=2, workers_ready=2)
    assert 'vsockproxy_worker_restarts_total{worker="1"} 3.0' in body.decode()
    assert 'vsockproxy_limit_refusals_total{limit="rate"} 2.0' in body.decode()
