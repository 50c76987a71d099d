"""A million lines through a link that is cut again and again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest

from tests.support.cutter import Cutter
from tests.support.log_auditor import LogAuditor
from tests.support.pair import Pair

LINES = 1_000_000
RECORDS_BETWEEN_CUTS = 50_000
LINKS = 4
MOST_OWN_LINES = 2000


@pytest.mark.alone
@pytest.mark.parametrize(
    ("buffer", "loses"),
    [
        pytest.param("1MiB", True, id="more than fit, counted"),
        pytest.param("256MiB", False, id="all of them"),
    ],
)
def test_a_million_lines_arrive_in_order_and_once_or_are_counted(buffer: str, loses: bool) -> None:
    log = {"format": "json", "to_parent": True, "buffer": buffer}
    with Cutter() as cutter:
        pair = Pair(
            "unix",
            [],
            parent={"log": {"format": "json", "enclave_lines": 0}},
            enclave={"log": log, "shim": {"http_proxy": None, "streams": None}},
            link_path=cutter.path,
        )
        cutter.target = str(pair.path / "link.sock")
        go = pair.path / "go"
        script = f"seq {LINES}; until test -e {go}; do sleep 0.05; done; exit 3"
        with closing(pair), LogAuditor(pair.parent_config) as parent:
            parent.wait_until(lambda: parent.is_ready)
            with enclave_of(pair, script) as enclave:
                while parent.last < LINES:
                    aim = parent.records + RECORDS_BETWEEN_CUTS
                    parent.wait_until(partial(has_come_to, parent, aim))
                    for link in cutter.links:
                        link.close()
                go.touch()
                assert enclave.wait(60) == 3
            parent.wait_until(lambda: parent.exited is not None)
            connections = cutter.connections
    assert parent.faults == []
    assert parent.exited is not None
    assert parent.exited["status"] == 3
    # Among what was lost are some lines of our own.
    assert 0 <= parent.written + parent.dropped - LINES < MOST_OWN_LINES
    assert (parent.dropped > 0) == loses
    assert parent.written > (10 * RECORDS_BETWEEN_CUTS if not loses else 1000)
    assert connections > LINKS


def has_come_to(parent: LogAuditor, records: int) -> bool:
    """Whether so many records are written or lost, or the last line is there."""
    return parent.records >= records or parent.last == LINES


@contextmanager
def enclave_of(pair: Pair, script: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The enclave's side with a shell script, its output read by nobody but itself."""
    command = [sys.executable, "-m", "vsockproxy", "enclave", "--config", str(pair.enclave_config)]
    with subprocess.Popen(
        [*command, "--", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
