"""What the parent's workers and their supervisor have said of themselves, put together.

Nothing here waits or knows a socket. Times are arguments: seconds of a clock that only grows,
unless they say that they are of the epoch.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from parent_side.services import sums
from vsockproxy import metrics
from vsockproxy.metrics import Counters
from vsockproxy.worker_reports import (
    EnclaveEnd,
    EnclaveState,
    Refusal,
    Report,
    Supervision,
    WorkerState,
)

__all__ = ("HISTORY_SAMPLES", "KEPT_REFUSALS", "SILENT_SECONDS", "Observed")

SILENT_SECONDS: Final = 5.0
"""A worker, or the supervisor, that has said nothing for so long is not taken for well."""

KEPT_REFUSALS: Final = 100

KEPT_ENDS: Final = 20
"""Ends of enclaves."""

HISTORY_SAMPLES: Final = 180
"""One each second."""

_Pair = tuple[float, float]


@dataclass(slots=True)
class _Worker:
    """The latest report of one worker, and how fast it went since the one before."""

    incarnation: int
    report: Report
    heard_at: float
    totals: dict[str, _Pair]
    """Bytes out and in, by the label of the enclave."""
    decisions: _Pair
    """Allowed and refused, in all."""
    rates: dict[str, _Pair] = field(default_factory=dict)
    """Bytes each second, out and in."""
    decision_rates: _Pair = (0, 0)

    def follow(self, former: "_Worker") -> None:
        """Tell the rates from the report before this one."""
        passed = self.heard_at - former.heard_at
        if passed > 0:
            self.decision_rates = _speed(self.decisions, former.decisions, passed)
            self.rates = {
                label: _speed(total, former.totals.get(label, (0, 0)), passed)
                for label, total in self.totals.items()
            }


def _speed(after: _Pair, before: _Pair, passed_seconds: float) -> _Pair:
    return (after[0] - before[0]) / passed_seconds, (after[1] - before[1]) / passed_seconds


@dataclass(frozen=True, slots=True)
class _Sample:
    """One second of the history: bytes, open streams, decisions."""

    out: float
    into: float
    streams: int
    allowed: float
    refused: float


class Observed:
    """The state of everything, as far as it is known."""

    def __init__(self) -> None:
        self.supervision: Supervision | None = None
        self._supervision_at = 0.0
        self._workers: dict[int, _Worker] = {}
        self._labels: set[str] = set()
        self._refusals: deque[Refusal] = deque(maxlen=KEPT_REFUSALS)
        self._ends: dict[tuple[int, float], EnclaveEnd] = {}
        """By CID and time; they are reported again and again, until their worker is gone."""
        self._history: deque[_Sample] = deque(maxlen=HISTORY_SAMPLES)

    # -------------------------------------------------------------------- hearing

    def supervised(self, supervision: Supervision, now: float) -> None:
        """The supervisor said how things are.

        Its totals have those of workers that are gone: their own reports count no more.
        """
        self.supervision = supervision
        self._supervision_at = now
        for state in supervision.workers:
            known = self._workers.get(state.worker)
            if known is not None and known.incarnation < state.deaths:
                del self._workers[state.worker]

    def reported(self, worker: int, incarnation: int, report: Report, now: float) -> None:
        """A worker said what it has done.

        Raises:
            ValueError: it has a series that is none of `metrics`.
        """
        state = self._state_of(worker)
        if state is None or state.deaths != incarnation:
            return  # of one that is gone, or before its supervisor told of it: it comes again
        latest = _Worker(
            incarnation, report, now, sums.bytes_by_enclave(report), sums.decisions(report)
        )
        former = self._workers.get(worker)
        if former is not None:
            latest.follow(former)
        self._workers[worker] = latest
        self._refusals.extend(report.refusals)
        for end in report.ends:
            self._ends[end.cid, end.time] = end
        for key in sorted(self._ends, key=lambda key: key[1])[:-KEPT_ENDS]:
            del self._ends[key]

    def tick(self, now: float) -> None:
        """A second has passed: one more sample of the history."""
        out, into = self._rate(now)
        heard = self._heard(now)
        self._history.append(
            _Sample(
                out,
                into,
                int(sum(sums.open_streams(each.report) for each in self._workers.values())),
                sum(each.decision_rates[0] for each in heard),
                sum(each.decision_rates[1] for each in heard),
            )
        )

    # -------------------------------------------------------------------- telling

    @property
    def is_complete(self) -> bool:
        """Whether every worker that serves has reported, so that no total is too small."""
        return self.supervision is not None and all(
            state.worker in self._workers for state in self.supervision.workers if state.is_ready
        )

    @property
    def serving(self) -> list[int]:
        """The workers that serve."""
        states = self.supervision.workers if self.supervision is not None else ()
        return [state.worker for state in states if state.is_ready]

    def counters(self) -> Counters:
        """All totals: of the supervisor, of workers that are gone, of those that are there."""
        total = Counters(self._labels)
        if self.supervision is not None:
            total.add_series(metrics.unpack(self.supervision.series))
        for worker in self._workers.values():
            total.add_series(metrics.unpack(worker.report.series))
        return total

    def workers_ready(self, now: float) -> int:
        """How many workers serve and have reported lately."""
        return len(self._heard(now))

    def why_not_ready(self, now: float) -> str | None:
        """What keeps the parent from serving; None if nothing does."""
        supervision = self.supervision
        if supervision is None:
            return "the supervisor has not said anything yet"
        if supervision.is_stopping:
            return "the parent is stopping"
        silent = now - self._supervision_at
        if silent > SILENT_SECONDS:
            return f"the supervisor has not said anything for {silent:.0f} s"
        for state in supervision.workers:
            known = self._workers.get(state.worker)
            if not state.is_ready:
                return f"worker {state.worker} does not serve yet"
            if known is None:
                return f"worker {state.worker} has not reported yet"
            if now - known.heard_at > SILENT_SECONDS:
                return f"worker {state.worker} has not reported for {now - known.heard_at:.0f} s"
        return None

    def status(self, now: float, wall_time: float) -> dict[str, Any]:
        """Everything that `status`, `top` and the page show, as JSON has it.

        Args:
            now: of the clock that only grows.
            wall_time: seconds since the epoch.
        """
        supervision = self.supervision
        counters = self.counters()
        reason = self.why_not_ready(now)
        out, into = self._rate(now)
        return {
            "time": round(wall_time, 3),
            "ready": reason is None,
            "not_ready": reason,
            "pid": supervision.pid if supervision else None,
            "started_at": supervision.started_at if supervision else None,
            "listeners": [
                {"name": each.name, "kind": each.kind, "endpoint": each.endpoint}
                for each in (supervision.listeners if supervision else ())
            ],
            "totals": {**sums.totals(counters), "rate_out": round(out), "rate_in": round(into)},
            "reasons": sums.by_label(counters, metrics.DECISIONS, "reason"),
            "ended": sums.by_label(counters, metrics.STREAMS_CLOSED, "ended"),
            "limits": sums.by_label(counters, metrics.LIMIT_REFUSALS, "limit"),
            "workers": [
                self._worker_row(state, now)
                for state in (supervision.workers if supervision else ())
            ],
            "enclaves": list(self._enclave_rows(counters, now)),
            "refusals": [
                {
                    "time": round(each.time, 3),
                    "cid": each.cid,
                    "enclave": each.enclave,
                    "host": each.host,
                    "port": each.port,
                    "reason": each.reason,
                    "text": each.text,
                }
                for each in sorted(self._refusals, key=lambda each: -each.time)
            ],
            "ends": [
                {
                    "time": round(each.time, 3),
                    "cid": each.cid,
                    "enclave": each.enclave,
                    "status": each.status,
                    "signal": each.signal,
                    "up_seconds": each.up_seconds,
                    "last_lines": each.last_lines,
                }
                for each in sorted(self._ends.values(), key=lambda each: -each.time)
            ],
            "history": {
                "out": [round(each.out) for each in self._history],
                "in": [round(each.into) for each in self._history],
                "streams": [each.streams for each in self._history],
                "allowed": [round(each.allowed, 1) for each in self._history],
                "refused": [round(each.refused, 1) for each in self._history],
            },
        }

    def _worker_row(self, state: WorkerState, now: float) -> dict[str, Any]:
        known = self._workers.get(state.worker)
        if not state.is_ready:
            word = "starting"
        elif known is not None and now - known.heard_at > SILENT_SECONDS:
            word = "silent"
        else:
            word = "ready"
        report = known.report if known is not None else None
        rates = known.rates.values() if known is not None else ()
        return {
            "worker": state.worker,
            "pid": state.pid,
            "state": word,
            "deaths": state.deaths,
            "enclaves": len(report.enclaves) + report.enclaves_left_out if report else 0,
            "streams_open": int(sums.open_streams(report)) if report else 0,
            "rate_out": round(sum(rate for rate, _ in rates)),
            "rate_in": round(sum(rate for _, rate in rates)),
        }

    def _enclave_rows(self, counters: Counters, now: float) -> Iterator[dict[str, Any]]:
        """One for each label: enclaves that have links first, then those that were here."""
        there: dict[str, list[tuple[int, EnclaveState]]] = {}
        for number, worker in sorted(self._workers.items()):
            for state in worker.report.enclaves:
                there.setdefault(state.label, []).append((number, state))
        rates = sums.add_pairs(each.rates for each in self._heard(now))
        rows = sums.by_enclave(counters)
        for label in sorted({*rows, *there}, key=lambda label: (label not in there, label)):
            states = there.get(label, [])
            out, into = rates.get(label, (0, 0))
            yield {
                "label": label,
                "cids": sorted({state.cid for _, state in states if state.cid is not None}),
                "workers": sorted({number for number, _ in states}),
                "links": [
                    {
                        "up_seconds": link.up_seconds,
                        "streams": link.streams,
                        "round_trip_seconds": link.round_trip_seconds,
                        "bytes_received": link.bytes_received,
                    }
                    for _, state in states
                    for link in state.links
                ],
                "links_left_out": sum(state.links_left_out for _, state in states),
                **rows.get(label, sums.NO_ROW),
                "rate_out": round(out),
                "rate_in": round(into),
            }

    def _state_of(self, worker: int) -> WorkerState | None:
        states = self.supervision.workers if self.supervision is not None else ()
        return next((state for state in states if state.worker == worker), None)

    def _heard(self, now: float) -> list[_Worker]:
        return [each for each in self._workers.values() if now - each.heard_at <= SILENT_SECONDS]

    def _rate(self, now: float) -> _Pair:
        rates = [rate for worker in self._heard(now) for rate in worker.rates.values()]
        return sum(out for out, _ in rates), sum(into for _, into in rates)
