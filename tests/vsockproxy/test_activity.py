from vsockproxy import metrics
from vsockproxy.activity import (
    MAX_REFUSALS,
    MAX_TEXT_CHARACTERS,
    STREAMS_AT_ONCE,
    Activity,
    Totals,
)
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.metrics import Counters


def record(cid: int = 16, *, sent: int = 0) -> StreamRecord:
    made = StreamRecord("origin.test", 443, "session", 0.0, cid=cid)
    made.totals = lambda: Totals(sent, 2 * sent, 1)
    return made


def whole(activity: Activity) -> Counters:
    *_, last = activity.count_open()
    return last


def close(activity: Activity, stream: StreamRecord) -> None:
    assert stream.totals is not None
    activity.closed(stream, ended="finished", totals=stream.totals(), seconds=3.0)


def test_a_stream_is_counted_from_its_decision_to_its_end() -> None:
    activity, stream = Activity(), record(sent=100)
    activity.decided(stream, allowed=True, reason="listed")
    counted = whole(activity)
    assert counted.value(metrics.DECISIONS, ("16", "listed", "true")) == 1
    assert counted.value(metrics.STREAMS_OPENED, ("16", "session")) == 1
    assert counted.value(metrics.STREAMS_OPEN, ("16",)) == 1
    assert counted.value(metrics.STREAM_BYTES, ("16", "in")) == 200
    close(activity, stream)
    counted = whole(activity)
    assert counted.value(metrics.STREAMS_OPEN, ("16",)) == 0
    assert counted.value(metrics.STREAMS_CLOSED, ("16", "finished")) == 1
    assert counted.value(metrics.STREAM_BYTES, ("16", "in")) == 200
    assert counted.value(metrics.CREDIT_STALLS, ("16",)) == 1


def test_a_stream_that_is_decided_twice_is_opened_once() -> None:
    activity, stream = Activity(), record()
    for _ in range(2):
        activity.decided(stream, allowed=True, reason="listed")
    assert whole(activity).value(metrics.STREAMS_OPENED, ("16", "session")) == 1


def test_totals_do_not_go_backwards_when_streams_end_while_they_are_counted() -> None:
    activity = Activity()
    streams = [record(sent=10) for _ in range(3 * STREAMS_AT_ONCE)]
    for stream in streams:
        activity.decided(stream, allowed=True, reason="listed")
    total = 10 * len(streams)
    steps = activity.count_open()
    next(steps)
    for stream in streams:
        close(activity, stream)
    *_, counted = steps
    assert counted.value(metrics.STREAM_BYTES, ("16", "out")) == total
    assert whole(activity).value(metrics.STREAM_BYTES, ("16", "out")) == total


def test_the_latest_refusals_are_kept_and_the_others_counted() -> None:
    activity = Activity()
    for number in range(MAX_REFUSALS + 5):
        refused = record()
        activity.decided(refused, allowed=False, reason="not_listed")
        activity.refused(refused, "not_listed", "x" * 10_000, float(number))
    taken, left_out = activity.take_refusals()
    assert [refusal.time for refusal in taken] == list(range(5, MAX_REFUSALS + 5))
    assert left_out == 5
    assert {len(refusal.text) for refusal in taken} == {MAX_TEXT_CHARACTERS}
    assert activity.take_refusals() == ([], 0)
    counted = whole(activity)
    assert counted.value(metrics.DECISIONS, ("16", "not_listed", "false")) == MAX_REFUSALS + 5
    assert not activity.streams
