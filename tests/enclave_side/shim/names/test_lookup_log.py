"""How many lines lookups may write, and what stands in them."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from enclave_side.shim.names.lookup_log import (
    LINES_AT_ONCE,
    LINES_PER_SECOND,
    SECONDS_BETWEEN_LIKES,
    LookupLog,
)
from vsockproxy.log import Log

AT_ONCE = int(LINES_AT_ONCE)


class Written:
    """A log, and the lines that were written to it since the last look."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK)
        self.log = LookupLog(Log("enclave", "json", "info", self._write, lambda: 0.0))

    def lines(self) -> list[dict[str, Any]]:
        content = b""
        while True:
            try:
                content += os.read(self._read, 65_536)
            except BlockingIOError:
                return [json.loads(line) for line in content.splitlines()]

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
def written() -> Iterator[Written]:
    written = Written()
    yield written
    written.close()


def test_a_refusal_is_a_decision_line(written: Written) -> None:
    written.log.decision("a.test", "denied", 0.0, rule="enclave.yaml:7", text="it is denied")
    assert written.lines() == [
        {
            "time": "1970-01-01T00:00:00.000Z",
            "level": "warning",
            "event": "decision",
            "side": "enclave",
            "host": "a.test",
            "rule": "enclave.yaml:7",
            "reason": "denied",
            "way": "names",
            "allowed": False,
            "text": "it is denied",
        }
    ]


def test_the_parents_refusal_says_so(written: Written) -> None:
    written.log.decision("a.test", "not_listed", 0.0, side="parent")
    (line,) = written.lines()
    assert (line["side"], line["reason"]) == ("parent", "not_listed")


def test_a_name_is_told_of_once_for_a_while(written: Written) -> None:
    for now in (0.0, 0.1, SECONDS_BETWEEN_LIKES - 0.1):
        written.log.decision("a.test", "not_listed", now)
    written.log.decision("a.test", "denied", 0.0)
    assert [line["reason"] for line in written.lines()] == ["not_listed", "denied"]
    written.log.decision("a.test", "not_listed", SECONDS_BETWEEN_LIKES)
    assert len(written.lines()) == 1
    assert written.log.left_out == 0


def test_a_flood_of_names_is_no_flood_of_lines(written: Written) -> None:
    for number in range(10_000):
        written.log.decision(f"n{number}.test", "not_listed", 0.0)
    assert len(written.lines()) == AT_ONCE
    assert written.log.left_out == 10_000 - AT_ONCE
    written.log.decision("last.test", "not_listed", 1 / LINES_PER_SECOND)
    told, last = written.lines()
    assert (told["event"], told["lines"]) == ("lookups_not_logged", 10_000 - AT_ONCE)
    assert last["host"] == "last.test"
    assert written.log.left_out == 0


def test_a_quiet_time_gives_no_more_than_the_first_lines(written: Written) -> None:
    for number in range(2 * AT_ONCE):
        written.log.decision(f"n{number}.test", "not_listed", 1_000_000.0)
    assert len(written.lines()) == AT_ONCE


def test_over_a_minute_there_are_ten_lines_a_second(written: Written) -> None:
    events: list[str] = []
    for tick in range(6000):
        written.log.decision(f"n{tick}.test", "not_listed", tick / 100)
        events += [line["event"] for line in written.lines()]
    expected = AT_ONCE + 60 * LINES_PER_SECOND
    assert expected - 2 <= events.count("decision") <= expected
    assert events.count("lookups_not_logged") <= events.count("decision")


def test_other_news_have_the_same_bounds(written: Written) -> None:
    for _ in range(5):
        written.log.warning("bad_lookup", "a message of 3 bytes", 0.0)
    (line,) = written.lines()
    assert (line["event"], line["way"], line["text"]) == (
        "bad_lookup",
        "names",
        "a message of 3 bytes",
    )
