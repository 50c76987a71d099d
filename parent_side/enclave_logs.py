"""The logs of enclaves: `vsockproxy.log` as a service of the parent. Each line becomes one of ours.

An enclave's lines never keep out the audit lines of this worker: they are written only while most
of the pipe that takes our lines is free, and so many a second. Otherwise nothing is acknowledged,
and what follows waits in the enclave, which drops and counts it.
"""

import json
import signal
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from parent_side.enclave import Enclave
from vsockproxy import metrics
from vsockproxy.dataplane.loop import now, sleep, spawn, timeout
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.stream_tasks import serve_stream
from vsockproxy.log import Log
from vsockproxy.protocols.errors import LogStreamError
from vsockproxy.protocols.log_position import LogPosition, readable_pieces
from vsockproxy.protocols.log_stream import (
    Dropped,
    Exit,
    Line,
    Record,
    RecordReader,
    Source,
    Unknown,
    encode_position,
)
from vsockproxy.session import ErrorCode, Open, Opened
from vsockproxy.worker_reports import EnclaveEnd

__all__ = ("MOST_EXITS", "EnclaveLogs")

MOST_EXITS: Final = 16

MOST_LOGS: Final = 256
"""CIDs whose position is kept; beyond that, that of the CID which has been silent longest goes."""

MOST_PIECE_BYTES: Final = 3072
"""Of text in one of our lines, as JSON: with all other fields it is not longer than one may be."""

LAST_LINES: Final = 10
LAST_LINES_BYTES: Final = 2048
"""Of the lines before an exit, as JSON."""

BURST_SECONDS: Final = 5.0
"""The lines of so many seconds may come at once."""

ROOM_PAUSE_SECONDS: Final = 0.01
TURN_LINES: Final = 64
"""Lines of one enclave before the rest of the loop has its turn."""

GOODBYE_SECONDS: Final = 1.0
"""For the enclave to close a stream that the parent has finished."""

_LAST_TIME_MS: Final = 253_402_300_799_999
"""The last moment of the year 9999."""


@dataclass(slots=True, eq=False)
class _EnclaveLog:
    """One life of one enclave."""

    cid: int
    name: str | None
    instance: bytes
    tokens: float
    filled_at: float
    position: LogPosition = field(default_factory=LogPosition)
    last_lines: deque[bytes] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    end: StreamEnd | None = None
    """The stream that carries it now; a newer one ends it."""
    is_writing: bool = False
    """Lines are written that are not acknowledged yet."""
    said: int = -1
    """The position that was said on the stream."""

    def may_write(self, now_seconds: float, rate: int) -> bool:
        """Whether one more line is within the rate; it is counted then."""
        if not rate:
            return True
        gained = (now_seconds - self.filled_at) * rate
        self.tokens = min(self.tokens + gained, rate * BURST_SECONDS)
        self.filled_at = now_seconds
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class EnclaveLogs:
    """Writes the logs of the enclaves of one worker.

    Args:
        log: where lines go.
        lines_per_second: what one enclave may have written; 0 is no limit.
    """

    def __init__(self, log: Log, lines_per_second: int) -> None:
        self.ends: deque[EnclaveEnd] = deque(maxlen=MOST_EXITS)
        """The latest exits, the last one last."""
        self._log = log
        self.lines_per_second = lines_per_second
        self._logs: OrderedDict[int, _EnclaveLog] = OrderedDict()
        self._is_draining = False

    def serve(self, enclave: Enclave, end: StreamEnd, request: Open) -> None:
        """Take the log of an enclave from a stream; returns at once."""
        del request
        if self._is_draining:
            end.refuse("limit", "the parent is shutting down")
            return
        life = self._life_of(enclave)
        if life.end is not None:
            # The enclave has lost it, or will. What it had written is known, and nothing else.
            life.end.reset(ErrorCode.CANCELLED)
        life.end = end
        life.said = -1

        def closed(end: StreamEnd) -> None:
            if life.end is end:
                life.end = None

        serve_stream(end, self._receive(life, end), f"log of CID {enclave.cid}", closed)

    def _life_of(self, enclave: Enclave) -> _EnclaveLog:
        life = self._logs.get(enclave.cid)
        if life is None or life.instance != enclave.instance:
            burst = self.lines_per_second * BURST_SECONDS
            life = _EnclaveLog(enclave.cid, enclave.name, enclave.instance, burst, now())
            self._logs[enclave.cid] = life
            if len(self._logs) > MOST_LOGS:
                self._logs.popitem(last=False)
        self._logs.move_to_end(enclave.cid)
        return life

    def drain(self) -> None:
        """Write no more. Enclaves keep what is not acknowledged, for whoever comes next."""
        self._is_draining = True
        for life in self._logs.values():
            if life.end is not None:
                spawn(self._say_goodbye(life, life.end), "end of a log")

    async def _say_goodbye(self, life: _EnclaveLog, end: StreamEnd) -> None:
        with suppress(TimeoutError):
            async with timeout(GOODBYE_SECONDS):
                while life.is_writing:
                    await sleep(ROOM_PAUSE_SECONDS)
        end.finish()
        await sleep(GOODBYE_SECONDS)
        end.reset(ErrorCode.SHUTDOWN)  # unless it is closed, as it should be

    async def _receive(self, life: _EnclaveLog, end: StreamEnd) -> None:
        reader = RecordReader()
        end.accept(Opened())
        try:
            await self._acknowledge(life, end)
            while data := await end.read():
                if not self._is_draining:
                    await self._write_all(life, end, reader.receive(data))
            end.finish()
        except ConnectionResetError:
            pass  # the link has ended, or the enclave, and each has its own line
        except LogStreamError as error:
            self._log.warning(
                "enclave_log_broken", cid=life.cid, enclave=life.name, text=error.text
            )
            end.reset(ErrorCode.CUT)

    async def _write_all(self, life: _EnclaveLog, end: StreamEnd, records: list[Record]) -> None:
        """Write records, and say so; what is left when the parent drains is not written."""
        life.is_writing = True
        try:
            for number, record in enumerate(records, 1):
                unwritten = life.position.unwritten(record)
                if unwritten is None:
                    continue
                while not self._is_draining and not self._write(life, unwritten):
                    await self._acknowledge(life, end)
                    await sleep(ROOM_PAUSE_SECONDS)
                if self._is_draining:
                    break
                if number % TURN_LINES == 0:
                    await sleep(0)
            await self._acknowledge(life, end)
        finally:
            life.is_writing = False

    @staticmethod
    async def _acknowledge(life: _EnclaveLog, end: StreamEnd) -> None:
        position = life.position.next
        if position != life.said:
            life.said = position
            await end.write(encode_position(position))

    def _write(self, life: _EnclaveLog, record: Record) -> bool:
        """Write one record; False if there is no room now."""
        match record:
            case Line():
                if not self._log.has_much_room or not life.may_write(now(), self.lines_per_second):
                    return False
                self._write_line(life, record)
            case Dropped():
                if not self._log.has_much_room:
                    return False
                counters = self._log.activity.counters
                counters.add(metrics.ENCLAVE_LOG_LINES, ("dropped",), record.count)
                self._log.write(
                    "warning",
                    "enclave_log_dropped",
                    {
                        "cid": life.cid,
                        "enclave": life.name,
                        "sequence": record.sequence,
                        "lines": record.count,
                    },
                )
            case Exit():
                if not self._log.has_much_room:
                    return False
                self._write_exit(life, record)
            case Unknown():
                pass
        life.position.written(record)
        return True

    def _write_line(self, life: _EnclaveLog, line: Line) -> None:
        self._log.activity.counters.add(metrics.ENCLAVE_LOG_LINES, ("written",))
        is_own = line.source is Source.VSOCKPROXY
        fields: dict[str, object] = {
            "cid": life.cid,
            "enclave": life.name,
            "source": line.source.text,
            "command": line.label or None,
            "sequence": line.sequence,
            "enclave_time": None if is_own else _time_text(line.time_ms),
        }
        *pieces, last = readable_pieces(line.text, MOST_PIECE_BYTES)
        for piece in pieces:
            self._log.write("info", "enclave_log", {**fields, "text": piece, "continues": True})
        fields["text"] = last
        fields["continues"] = line.continues or None
        self._log.write("info", "enclave_log", fields)
        if not is_own:
            life.last_lines.append(line.text)

    def _write_exit(self, life: _EnclaveLog, record: Exit) -> None:
        lines = _last_lines(life.last_lines)
        exited = EnclaveEnd(
            time=self._log.wall_clock(),
            cid=life.cid,
            enclave=life.name,
            status=record.status,
            signal=_signal_name(record.signal),
            up_seconds=record.uptime_ms / 1000,
            last_lines=lines,
        )
        self.ends.append(exited)
        counters = self._log.activity.counters
        result = "failure" if exited.status else "success"
        label = counters.enclave_label(exited.cid, exited.enclave)
        counters.add(metrics.ENCLAVE_EXITS, (label, result))
        self._log.write(
            "warning" if record.status else "info",
            "enclave_exit",
            {
                "cid": exited.cid,
                "enclave": exited.enclave,
                "sequence": record.sequence,
                "status": exited.status,
                "signal": exited.signal,
                "uptime": exited.up_seconds,
                "last_lines": "\n".join(lines),
            },
        )


def _time_text(time_ms: int) -> str | None:
    """A time of an enclave, which may say anything."""
    if not 0 < time_ms <= _LAST_TIME_MS:
        return None
    text = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _signal_name(number: int) -> str | None:
    if not number:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_lines(lines: Iterable[bytes]) -> list[str]:
    """The last of some lines that fit into one line of ours."""
    kept: list[str] = []
    room_bytes = LAST_LINES_BYTES
    for line in reversed(list(lines)):
        text = readable_pieces(line, LAST_LINES_BYTES)[-1]
        room_bytes -= len(json.dumps(text))
        if room_bytes < 0:
            break
        kept.append(text)
    return kept[::-1]
