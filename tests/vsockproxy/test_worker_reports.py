import os
from typing import Any

import pytest

from vsockproxy.passed_descriptors import memory_descriptor
from vsockproxy.worker_messages import MessageError
from vsockproxy.worker_reports import (
    MAX_REPORT_BYTES,
    EnclaveState,
    LinkState,
    ListenerState,
    Refusal,
    Report,
    StreamPage,
    StreamRow,
    Supervision,
    WorkerState,
    read_report,
    report_descriptor,
)

REPORTS = {
    "a worker's": Report(
        series=[
            ("vsockproxy_links", ["16"], 4),
            ("vsockproxy_stream_duration_seconds", [], [0.0, 1.5]),
        ],
        enclaves=[EnclaveState("ledger", 16, "ledger", [LinkState(1.5, 3, None, 2**40)], 0)],
        enclaves_left_out=0,
        refusals=[Refusal(1.0, None, None, "<b>\x00\u202e", 0, "not_listed", "")],
        refusals_left_out=7,
    ),
    "a page of streams": StreamPage(
        [StreamRow(16, None, 1, "h", 443, "192.0.2.1", None, "session", 0.5, 1, 2)], 9
    ),
    "the supervisor's": Supervision(
        1,
        2.0,
        False,
        [WorkerState(0, None, False, 3)],
        [ListenerState("listen[0]", "link", "vsock://any:5000")],
        [],
    ),
}


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_a_report_is_read_as_it_was_written(report: Report | StreamPage | Supervision) -> None:
    descriptor = report_descriptor(report)
    try:
        for _ in range(2):  # by position: it can be read again
            kind: Any = type(report)
            assert read_report(descriptor, kind) == report
    finally:
        os.close(descriptor)


BROKEN = {
    "nothing": b"",
    "no JSON": b"\xff",
    "no map": b"[1,2]",
    "another report": b'{"streams":[],"more":0}',
    "an unknown key": b'{"pid":1,"xyzzy":2}',
    "a negative count": b'{"pid":-1}',
    "a text that is too long": b'{"listeners":[{"name":"' + b"n" * 1000 + b'"}]}',
    "too many bytes": b" " * (MAX_REPORT_BYTES + 1),
    "an array without an end": b'{"series":' + b"[" * 100_000,
    "a number without an end": b'{"pid":' + b"9" * 100_000 + b"}",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_report_is_an_error(data: bytes) -> None:
    descriptor = memory_descriptor("test", data)
    try:
        with pytest.raises(MessageError, match="report"):
            read_report(descriptor, Supervision)
    finally:
        os.close(descriptor)


def test_a_descriptor_of_something_else_is_an_error() -> None:
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(MessageError, match="cannot be read"):
            read_report(read_end, Report)
    finally:
        os.close(read_end)
        os.close(write_end)
