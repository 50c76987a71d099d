import json
from typing import Any

import msgspec

from parent_side.services.observed import HISTORY_SAMPLES, KEPT_REFUSALS, SILENT_SECONDS, Observed
from vsockproxy import metrics
from vsockproxy.metrics import Counters
from vsockproxy.worker_reports import (
    EnclaveEnd,
    EnclaveState,
    LinkState,
    Refusal,
    Report,
    Supervision,
    WorkerState,
)

START = 1000.0


def supervision(*deaths: int, ready: bool = True, gone: Counters | None = None) -> Supervision:
    workers = [WorkerState(index, 100 + index, ready, each) for index, each in enumerate(deaths)]
    return Supervision(1, 5.0, False, workers, [], (gone or Counters()).packed())


def report(sent: int = 0, *, refused: int = 0, label: str = "16", links: int = 0) -> Report:
    counters = Counters()
    counters.add(metrics.STREAM_BYTES, (label, "out"), sent)
    counters.add(metrics.DECISIONS, (label, "not_listed", "false"), refused)
    counters.add(metrics.STREAMS_OPEN, (label,), 3)
    counters.add(metrics.LINKS, (label,), links)
    state = EnclaveState(label, 16, None, [LinkState(1.0, 0, 0.001, 9)] * links, 0)
    return Report(
        series=counters.packed(),
        enclaves=[state] if links else [],
        enclaves_left_out=0,
        refusals=[
            Refusal(float(number), 16, None, f"h{number}", 443, "not_listed", "")
            for number in range(refused)
        ],
        refusals_left_out=0,
    )


def sent(observed: Observed) -> float:
    return observed.counters().value(metrics.STREAM_BYTES, ("16", "out"))


def status(observed: Observed, now: float = START) -> dict[str, Any]:
    found = observed.status(now, 7.0)
    json.dumps(found)
    return found


def test_it_is_ready_when_every_worker_serves_and_has_reported() -> None:
    observed = Observed()
    assert observed.why_not_ready(START) == "the supervisor has not said anything yet"
    observed.supervised(supervision(0, 0, ready=False), START)
    assert observed.why_not_ready(START) == "worker 0 does not serve yet"
    observed.supervised(supervision(0, 0), START)
    observed.reported(0, 0, report(), START)
    assert observed.why_not_ready(START) == "worker 1 has not reported yet"
    assert not observed.is_complete
    observed.reported(1, 0, report(), START)
    assert observed.why_not_ready(START) is None
    assert observed.is_complete
    assert status(observed)["ready"] is True


def test_a_silent_worker_is_not_ready() -> None:
    observed = Observed()
    observed.supervised(supervision(0), START)
    observed.reported(0, 0, report(), START)
    later = START + SILENT_SECONDS + 1
    assert observed.why_not_ready(later) == "the supervisor has not said anything for 6 s"
    observed.supervised(supervision(0), later)
    assert observed.why_not_ready(later) == "worker 0 has not reported for 6 s"
    assert observed.workers_ready(later) == 0
    assert status(observed, later)["workers"][0]["state"] == "silent"


def test_no_total_goes_backwards_when_a_worker_is_replaced() -> None:
    observed = Observed()
    observed.supervised(supervision(0), START)
    observed.reported(0, 0, report(100), START)
    assert sent(observed) == 100
    observed.reported(0, 1, report(5), START + 1)  # before the supervisor told of the death
    assert sent(observed) == 100
    gone = Counters()
    gone.add(metrics.STREAM_BYTES, ("16", "out"), 100)
    observed.supervised(supervision(1, gone=gone), START + 1)
    assert sent(observed) == 100
    observed.reported(0, 0, report(100), START + 2)  # late, of the one that is gone
    assert sent(observed) == 100
    observed.reported(0, 1, report(5), START + 2)
    assert sent(observed) == 105


def test_rates_come_from_two_reports() -> None:
    observed = Observed()
    observed.supervised(supervision(0), START)
    observed.reported(0, 0, report(1000, refused=1), START)
    observed.reported(0, 0, report(5000, refused=3), START + 2)
    found = status(observed, START + 2)
    assert found["totals"]["rate_out"] == 2000
    assert found["enclaves"][0]["rate_out"] == 2000
    observed.tick(START + 2)
    observed.tick(START + 2 + SILENT_SECONDS + 1)
    history = status(observed)["history"]
    assert history["out"] == [2000, 0], "what is silent for long has no rate"
    assert history["refused"] == [1.0, 0]
    assert history["streams"] == [3, 3]


def test_the_history_and_the_refusals_are_bounded() -> None:
    observed = Observed()
    observed.supervised(supervision(0), START)
    for second in range(300):
        observed.reported(0, 0, report(refused=20), START + second)
        observed.tick(START + second)
    found = status(observed)
    assert {len(values) for values in found["history"].values()} == {HISTORY_SAMPLES}
    assert len(found["refusals"]) == KEPT_REFUSALS
    assert found["refusals"][0]["host"] == "h19", "the latest first"


def test_an_enclave_that_was_here_stays_in_the_table_without_links() -> None:
    observed = Observed()
    observed.supervised(supervision(0), START)
    observed.reported(0, 0, report(10, links=2), START)
    (row,) = status(observed)["enclaves"]
    assert (row["label"], row["cids"], row["links_up"], len(row["links"])) == ("16", [16], 2, 2)
    observed.reported(0, 0, report(10), START + 1)
    (row,) = status(observed)["enclaves"]
    assert (row["label"], row["cids"], row["links_up"], row["bytes_out"]) == ("16", [], 0, 10)


def test_the_ends_of_enclaves_outlive_their_worker() -> None:
    observed = Observed()
    observed.supervised(supervision(0), START)
    end = EnclaveEnd(5.0, 16, "ledger", 137, "SIGKILL", 9.0, ["the last line"])
    for _ in range(3):
        observed.reported(0, 0, msgspec.structs.replace(report(), ends=[end]), START)
    observed.supervised(supervision(1), START)
    observed.reported(0, 1, report(), START)
    (shown,) = status(observed)["ends"]
    assert (shown["status"], shown["signal"], shown["last_lines"]) == (
        137,
        "SIGKILL",
        ["the last line"],
    )
    many = [EnclaveEnd(float(number), 16, None, 0, None, 1.0, []) for number in range(100)]
    observed.reported(0, 1, msgspec.structs.replace(report(), ends=many), START)
    assert [each["time"] for each in status(observed)["ends"]] == list(range(99, 79, -1))


def test_before_anything_is_known_there_is_a_status() -> None:
    found = status(Observed())
    assert found["ready"] is False
    assert set(found["totals"].values()) == {0}
