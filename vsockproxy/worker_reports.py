"""What workers and supervisors tell the services about themselves: JSON, in a descriptor.

A report is as long as it has to be, and the supervisor passes it on without a look at it, so it
travels in a descriptor of anonymous memory beside the message that announces it. It is JSON, since
msgspec writes that twenty times as fast as CBOR, and a worker has better things to do.

| announced by      | holds         | when                                                    |
|-------------------|---------------|---------------------------------------------------------|
| statistics        | `Report`      | each second, from each worker; totals since its start   |
| worker_statistics | `Report`      | the same, passed on to the services                     |
| streams_listed    | `StreamPage`  | the answer to list_streams                              |
| supervision       | `Supervision` | each second and at each change, from the supervisor     |
"""

import os
from typing import Annotated, Final, TypeVar

import msgspec

from vsockproxy.metrics import Packed
from vsockproxy.passed_descriptors import memory_descriptor
from vsockproxy.worker_messages import MessageError, Record

__all__ = (
    "MAX_ENCLAVES",
    "MAX_LINKS",
    "MAX_STREAMS_LISTED",
    "EnclaveEnd",
    "EnclaveState",
    "LinkState",
    "ListenerState",
    "Refusal",
    "Report",
    "StreamPage",
    "StreamRow",
    "Supervision",
    "WorkerState",
    "read_report",
    "report_descriptor",
)

MAX_STREAMS_LISTED: Final = 10_000
"""Rows of one page of streams."""

MAX_ENCLAVES: Final = 256
MAX_LINKS: Final = 64
"""Enclaves of a report, and links of each; a number says how many more there are."""

MAX_REPORT_BYTES: Final = 8 * 1024 * 1024

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Text = Annotated[str, msgspec.Meta(max_length=512)]


class LinkState(Record, frozen=True):
    """One link that is up."""

    up_seconds: float
    streams: _Count
    round_trip_seconds: float | None
    """The latest that was measured."""
    bytes_received: _Count
    """What came over it, frames included."""


class EnclaveState(Record, frozen=True):
    """One enclave that has links."""

    label: _Text
    """The value of the label `enclave` in its metrics."""
    cid: _Count | None
    name: _Text | None
    links: list[LinkState]
    links_left_out: _Count


class Refusal(Record, frozen=True):
    """One stream that was refused; `activity.RefusedStream`."""

    time: float
    cid: _Count | None
    enclave: _Text | None
    host: _Text
    port: _Count
    reason: _Text
    text: _Text


class EnclaveEnd(Record, frozen=True):
    """How an enclave ended, as it said itself."""

    time: float
    """Seconds since the epoch, by the parent's clock."""
    cid: _Count
    enclave: _Text | None
    status: _Count
    signal: _Text | None
    up_seconds: float
    last_lines: list[Annotated[str, msgspec.Meta(max_length=4096)]]


class Report(Record, frozen=True):
    """What a worker has done since its start, and what it has open now."""

    series: list[Packed]
    enclaves: list[EnclaveState]
    enclaves_left_out: _Count
    refusals: list[Refusal]
    """Those since the last report."""
    refusals_left_out: _Count
    ends: list[EnclaveEnd] = msgspec.field(default_factory=list)
    """The latest ends of enclaves, the last one last; all that are known, each time."""


class StreamRow(Record, frozen=True):
    """One open stream."""

    cid: _Count | None
    enclave: _Text | None
    stream: _Count | None
    host: _Text
    port: _Count
    address: _Text | None
    rule: _Text | None
    way: _Text
    age_seconds: float
    bytes_out: _Count
    bytes_in: _Count


class StreamPage(Record, frozen=True):
    """The newest streams of one worker."""

    streams: list[StreamRow]
    more: _Count
    """How many streams are open that are not in the list."""


class WorkerState(Record, frozen=True):
    """One worker as its supervisor sees it."""

    worker: _Count
    pid: _Count | None
    """None while it is being replaced."""
    is_ready: bool
    deaths: _Count


class ListenerState(Record, frozen=True):
    """One listening socket."""

    name: _Text
    kind: _Text
    endpoint: _Text


class Supervision(Record, frozen=True):
    """What the supervisor knows, and the totals of workers that are gone."""

    pid: _Count
    started_at: float
    """Seconds since the epoch."""
    is_stopping: bool
    workers: list[WorkerState]
    listeners: list[ListenerState]
    series: list[Packed]
    """Its own counters, and the totals of workers that have died."""


AnyReport = TypeVar("AnyReport", Report, StreamPage, Supervision)


def report_descriptor(report: Report | StreamPage | Supervision) -> int:
    """Write a report where another process can read it; the caller closes the descriptor."""
    return memory_descriptor("vsockproxy-report", msgspec.json.encode(report))


def read_report(descriptor: int, kind: type[AnyReport]) -> AnyReport:
    """Read what `report_descriptor` wrote; the descriptor stays open, and the caller's.

    Raises:
        MessageError: it holds none.
    """
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes > MAX_REPORT_BYTES:
            raise MessageError(f"a report of {size_bytes} bytes, more than {MAX_REPORT_BYTES}")
        return msgspec.json.decode(os.pread(descriptor, size_bytes, 0), type=kind)
    except (OSError, UnicodeError, msgspec.DecodeError, RecursionError) as error:
        raise MessageError(f"a report that cannot be read: {error}") from error
