"""A parent whose log lines are checked as they come, and not kept: there may be a million."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

SECONDS = 120.0


class LogAuditor:
    """Runs `vsockproxy parent`, and follows the log of its one enclave, whose command counts up.

    Args:
        config: the parent's file.

    Attributes:
        is_ready: it listens.
        written: lines of the command that arrived.
        dropped: lines of the enclave that were told to be lost.
        records: the number of the record after the latest.
        last: the latest number that the command wrote.
        exited: the line about the enclave's end.
        faults: what was out of order, or lost without a word; the first few.
    """

    def __init__(self, config: Path) -> None:
        self.written = 0
        self.dropped = 0
        self.records = 0
        self.last = 0
        self.exited: dict[str, Any] | None = None
        self.faults: list[str] = []
        self._changed = threading.Condition()
        self.is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vsockproxy", "parent", "--config", str(config)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            line = json.loads(raw)
            with self._changed:
                try:
                    self._take(line)
                except (KeyError, ValueError, AssertionError) as error:
                    if len(self.faults) < 5:
                        self.faults.append(f"{error!r} at {raw[:200]!r}")
                self._changed.notify_all()

    def _take(self, line: dict[str, Any]) -> None:
        event = line["event"]
        self.is_ready = self.is_ready or event == "ready"
        assert event != "log_lines_dropped"
        if not event.startswith("enclave_"):
            return
        assert line["sequence"] == self.records, f"{line['sequence']} follows {self.records - 1}"
        self.records += line.get("lines", 1)
        if event == "enclave_log_dropped":
            self.dropped += line["lines"]
        elif event == "enclave_exit":
            self.exited = line
        elif line["source"] != "vsockproxy":
            number = int(line["text"])
            assert number > self.last, f"{number} after {self.last}"
            self.last = number
            self.written += 1

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; asked at each line."""
        with self._changed:
            assert self._changed.wait_for(condition, SECONDS), vars(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._thread.join(20)
        assert self._process.stderr is not None
        self._process.stderr.close()
