"""What a process knows of its own work: counters, open streams, the latest refusals. Pure.

Lines of the log may be dropped; what is counted here is not. Everything is bounded, and costs a
few dictionary accesses for each stream, none for each byte.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from vsockproxy import metrics
from vsockproxy.metrics import Counters

__all__ = (
    "MAX_HOST_CHARACTERS",
    "MAX_REFUSALS",
    "MAX_TEXT_CHARACTERS",
    "STREAMS_AT_ONCE",
    "Activity",
    "OpenStream",
    "RefusedStream",
    "Totals",
)

MAX_REFUSALS: Final = 32
"""The latest refusals that are kept until they are reported; earlier ones are counted."""

STREAMS_AT_ONCE: Final = 500
"""Open streams whose bytes are added up before other work has its turn: well under 1 ms."""

MAX_HOST_CHARACTERS: Final = 253
MAX_TEXT_CHARACTERS: Final = 300


class Totals(NamedTuple):
    """How far an open stream has come; a tuple, for each open stream gives one each second.

    Args:
        bytes_out: as the program in the enclave sees it: what it sent.
        bytes_in: what it got.
        credit_stalls: times that this end had to wait for credit.
    """

    bytes_out: int
    bytes_in: int
    credit_stalls: int = 0


class OpenStream(Protocol):
    """What is asked of a stream while it is open: `dataplane.audit.StreamRecord`."""

    host: str
    port: int
    way: str
    opened_at: float
    cid: int | None
    enclave: str | None
    stream: int | None
    address: str | None
    rule: str | None
    label: str
    """The label `enclave` of its metrics."""
    totals: Callable[[], Totals] | None
    """None while nothing is relayed."""


@dataclass(frozen=True, slots=True)
class RefusedStream:
    """One stream that was not to be; texts are cut to a bound."""

    time: float
    """Seconds since the epoch."""
    cid: int | None
    enclave: str | None
    host: str
    port: int
    reason: str
    text: str


@dataclass(slots=True)
class Activity:
    """The work of one process."""

    counters: Counters = field(default_factory=Counters)
    streams: dict[int, OpenStream] = field(default_factory=dict)
    """The open ones by identity, the oldest first."""
    refusals: deque[RefusedStream] = field(default_factory=lambda: deque(maxlen=MAX_REFUSALS))
    left_out: int = 0
    """Refusals since the last report that are not in `refusals` any more."""

    def decided(self, stream: OpenStream, *, allowed: bool, reason: str) -> None:
        """A stream was allowed or refused."""
        stream.label = label = self.counters.enclave_label(stream.cid, stream.enclave)
        labels = (label, self.counters.known_reason(reason), "true" if allowed else "false")
        self.counters.add(metrics.DECISIONS, labels)
        if allowed and id(stream) not in self.streams:
            self.streams[id(stream)] = stream
            self.counters.add(metrics.STREAMS_OPENED, (label, stream.way))

    def refused(self, stream: OpenStream, reason: str, text: str | None, time: float) -> None:
        """Remember a refusal, for whoever watches."""
        if len(self.refusals) == MAX_REFUSALS:
            self.left_out += 1
        self.refusals.append(
            RefusedStream(
                time,
                stream.cid,
                stream.enclave,
                stream.host[:MAX_HOST_CHARACTERS],
                stream.port,
                reason,
                (text or "")[:MAX_TEXT_CHARACTERS],
            )
        )

    def closed(self, stream: OpenStream, *, ended: str, totals: Totals, seconds: float) -> None:
        """A stream that was open has ended."""
        if self.streams.pop(id(stream), None) is None:
            return
        self.counters.add(metrics.STREAMS_CLOSED, (stream.label, ended))
        self.counters.observe(metrics.STREAM_SECONDS, seconds)
        self._add_totals(self.counters, stream.label, totals)

    def take_refusals(self) -> tuple[list[RefusedStream], int]:
        """The refusals since this was last called, and how many are left out."""
        taken = list(self.refusals), self.left_out
        self.refusals.clear()
        self.left_out = 0
        return taken

    def count_open(self) -> Iterator[Counters]:
        """Everything counted so far, with the streams that are open: yields the same again.

        Between two steps other work may be done; the last one has all of it. Totals never go
        backwards from one report to the next: a stream that ends meanwhile is counted as the open
        stream it was at the beginning.
        """
        counted = Counters(self.counters.enclaves)
        counted.add_series(self.counters.series())
        sums = {label: [0, 0, 0, 0] for label in self.counters.enclaves}
        for number, stream in enumerate(list(self.streams.values()), 1):
            row = sums.setdefault(stream.label, [0, 0, 0, 0])
            row[0] += 1
            if stream.totals is not None:
                bytes_out, bytes_in, credit_stalls = stream.totals()
                row[1] += bytes_out
                row[2] += bytes_in
                row[3] += credit_stalls
            if number % STREAMS_AT_ONCE == 0:
                yield counted
        for label, (streams, *totals) in sums.items():
            counted.add(metrics.STREAMS_OPEN, (label,), streams)
            self._add_totals(counted, label, Totals(*totals))
        yield counted

    @staticmethod
    def _add_totals(counters: Counters, label: str, totals: Totals) -> None:
        counters.add(metrics.STREAM_BYTES, (label, "out"), totals.bytes_out)
        counters.add(metrics.STREAM_BYTES, (label, "in"), totals.bytes_in)
        if totals.credit_stalls:
            counters.add(metrics.CREDIT_STALLS, (label,), totals.credit_stalls)
