"""Lists of open streams: each worker is asked, and their pages become one."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from vsockproxy.worker_messages import FromWorker, ListStreams, StreamsListed
from vsockproxy.worker_reports import StreamPage, StreamRow, read_report

__all__ = ("ANSWER_SECONDS", "StreamLists")

ANSWER_SECONDS: Final = 2.0
"""How long workers are waited for; those that have not answered are named."""

LISTS_AT_ONCE: Final = 2
"""Each makes the workers look at every row of it."""


@dataclass(slots=True)
class _Asked:
    missing: set[int]
    pages: list[StreamPage] = field(default_factory=list)
    is_complete: trio.Event = field(default_factory=trio.Event)


class StreamLists:
    """Asks for the open streams.

    Args:
        say: tells the supervisor something, if that can be done at once; whether it was.
    """

    def __init__(self, say: Callable[[FromWorker], bool]) -> None:
        self._say = say
        self._room = trio.Semaphore(LISTS_AT_ONCE)
        self._numbers = itertools.count(1)
        self._asked: dict[int, _Asked] = {}

    async def ask(self, workers: Sequence[int], limit: int) -> dict[str, Any]:
        """The newest streams of all workers, as JSON has them.

        Args:
            workers: those that serve.
            limit: rows in all.
        """
        async with self._room:
            request = next(self._numbers) & 0xFFFF_FFFF
            asked = self._asked[request] = _Asked(set(workers))
            try:
                if workers and self._say(ListStreams(request, limit)):
                    with trio.move_on_after(ANSWER_SECONDS):
                        await asked.is_complete.wait()
            finally:
                del self._asked[request]
        rows = sorted(
            (row for page in asked.pages for row in page.streams), key=lambda row: row.age_seconds
        )
        return {
            "streams": [_row(row) for row in rows[:limit]],
            "more": sum(page.more for page in asked.pages) + max(0, len(rows) - limit),
            "unanswered": sorted(asked.missing),
        }

    def answered(self, message: StreamsListed, descriptor: int) -> None:
        """A worker's page came; one that nobody waits for is dropped.

        Raises:
            MessageError: there is no page.
        """
        asked = self._asked.get(message.request)
        if asked is None or message.worker not in asked.missing:
            return
        asked.pages.append(read_report(descriptor, StreamPage))
        asked.missing.discard(message.worker)
        if not asked.missing:
            asked.is_complete.set()


def _row(row: StreamRow) -> dict[str, Any]:
    return {
        "enclave": row.enclave,
        "cid": row.cid,
        "stream": row.stream,
        "host": row.host,
        "port": row.port,
        "address": row.address,
        "rule": row.rule,
        "way": row.way,
        "age_seconds": row.age_seconds,
        "bytes_out": row.bytes_out,
        "bytes_in": row.bytes_in,
    }
