"""`vsockproxy.clock` as a service of the parent: it says what time it is here."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from parent_side.enclave import Enclave
from vsockproxy.dataplane.loop import timeout
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.stream_tasks import serve_stream
from vsockproxy.protocols.clock_stream import MOST_QUESTIONS, encode_answer, split_questions
from vsockproxy.session import ErrorCode, Open, Opened

__all__ = ("LIFE_SECONDS", "ClockService")

LIFE_SECONDS: Final = 30.0
"""Of one stream; an enclave is done in far less."""


class ClockService:
    """Answers questions for the time.

    Args:
        wall_clock_ns: nanoseconds since the epoch.
    """

    def __init__(self, wall_clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_clock_ns = wall_clock_ns

    def serve(self, enclave: Enclave, end: StreamEnd, request: Open) -> None:
        """Answer what comes on a stream; returns at once."""
        del request
        serve_stream(end, self._answer(end), f"clock for CID {enclave.cid}")

    async def _answer(self, end: StreamEnd) -> None:
        end.accept(Opened())
        with suppress(ConnectionResetError):
            try:
                async with timeout(LIFE_SECONDS):
                    await self._answer_all(end)
            except TimeoutError:
                end.reset(ErrorCode.CANCELLED)

    async def _answer_all(self, end: StreamEnd) -> None:
        rest, answered = b"", 0
        while data := await end.read():
            questions, rest = split_questions(rest + data)
            for question in questions:
                answered += 1
                if answered > MOST_QUESTIONS:
                    end.reset(ErrorCode.CANCELLED)
                    return
                await end.write(encode_answer(question, self._wall_clock_ns()))
        end.finish()
