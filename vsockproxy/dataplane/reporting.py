"""What a worker reports of itself: built from its log's activity and the links that are up."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

from vsockproxy import metrics
from vsockproxy.activity import MAX_HOST_CHARACTERS, STREAMS_AT_ONCE, OpenStream
from vsockproxy.dataplane.link import Link, code_name
from vsockproxy.dataplane.loop import now, sleep
from vsockproxy.log import Log
from vsockproxy.worker_reports import (
    MAX_ENCLAVES,
    MAX_LINKS,
    EnclaveEnd,
    EnclaveState,
    LinkState,
    Refusal,
    Report,
    StreamPage,
    StreamRow,
)

__all__ = ("Linked", "counted_code", "list_streams", "make_report")


@dataclass(frozen=True, slots=True)
class Linked:
    """An enclave and its links. Inside one, there is one: itself."""

    cid: int | None
    name: str | None
    links: Collection[Link]


def counted_code(code: int) -> str:
    """The label of a code that ended a link: a peer may send any number, and none is its own."""
    name = code_name(code)
    return metrics.OTHER if name.isdigit() else name


async def make_report(
    log: Log, enclaves: Sequence[Linked], ends: Iterable[EnclaveEnd] = ()
) -> Report:
    """The totals of this process and what it has open; other work has its turn meanwhile.

    Args:
        log: of this process; its activity is reported.
        enclaves: those that have links.
        ends: how enclaves ended lately.
    """
    counters = log.activity.counters
    states: list[EnclaveState] = []
    for enclave in enclaves:
        for link in enclave.links:
            samples = link.session.keepalive.samples
            while samples:
                counters.observe(metrics.ROUND_TRIP_SECONDS, samples.popleft())
        if len(states) < MAX_ENCLAVES:
            states.append(_enclave_state(log, enclave))
    counted = metrics.Counters()
    for counted in log.activity.count_open():  # noqa: B007 — the last one is the whole
        await sleep(0)
    for enclave in enclaves:
        label = counters.enclave_label(enclave.cid, enclave.name)
        counted.add(metrics.LINKS, (label,), len(enclave.links))
    counted.add(metrics.LOG_LINES_DROPPED, (), log.dropped_lines)
    refusals, left_out = log.activity.take_refusals()
    return Report(
        series=counted.packed(),
        enclaves=states,
        enclaves_left_out=max(0, len(enclaves) - MAX_ENCLAVES),
        refusals=[Refusal(**asdict(refusal)) for refusal in refusals],
        refusals_left_out=left_out,
        ends=list(ends),
    )


def _enclave_state(log: Log, enclave: Linked) -> EnclaveState:
    links = [
        LinkState(
            up_seconds=round(now() - link.began_at, 3),
            streams=len(link.ends),
            round_trip_seconds=link.session.keepalive.measured_seconds,
            bytes_received=link.bytes_received,
        )
        for link in list(enclave.links)[:MAX_LINKS]
    ]
    return EnclaveState(
        label=log.activity.counters.enclave_label(enclave.cid, enclave.name),
        cid=enclave.cid,
        name=enclave.name,
        links=links,
        links_left_out=len(enclave.links) - len(links),
    )


async def list_streams(log: Log, limit: int) -> StreamPage:
    """The newest open streams, at most `limit`; other work has its turn meanwhile."""
    streams = log.activity.streams
    newest = [stream for stream, _ in zip(reversed(streams.values()), range(limit), strict=False)]
    more = len(streams) - len(newest)
    rows = []
    for number, stream in enumerate(newest, 1):
        rows.append(_row(stream))
        if number % STREAMS_AT_ONCE == 0:
            await sleep(0)
    return StreamPage(rows, more)


def _row(stream: OpenStream) -> StreamRow:
    totals = stream.totals() if stream.totals is not None else None
    return StreamRow(
        cid=stream.cid,
        enclave=stream.enclave,
        stream=stream.stream,
        host=stream.host[:MAX_HOST_CHARACTERS],
        port=stream.port,
        address=stream.address,
        rule=stream.rule,
        way=stream.way,
        age_seconds=round(now() - stream.opened_at, 3),
        bytes_out=totals.bytes_out if totals is not None else 0,
        bytes_in=totals.bytes_in if totals is not None else 0,
    )
