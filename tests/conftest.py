"""What every test runs under: the vsock rule, hypothesis' settings, and the closing figures.

Three markers: `vsock` for tests that need a real AF_VSOCK loopback (skipped where there is none,
and never tried out by dialling), `alone` for tests that measure time or memory and have the machine
to themselves, `machine` for tests that build or boot machines of their own. VSOCKPROXY_TEST_VSOCK=1
says that there must be a loopback: without one, nothing runs. VSOCKPROXY_TEST_MACHINE=1 lets those
with machines run.
"""

import os
import signal
import socket
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.figures import Figures, Skipped
from tests.on_vsock.machine.loopback import (
    LOOPBACK_CID,
    LOOPBACK_MODULE,
    has_loopback,
    is_user_mode_linux,
    kernel_name,
)

NO_MACHINES = "builds and boots machines of its own, as root (make test-machine does)"
NO_LOOPBACK = f"needs a real vsock: no {LOOPBACK_MODULE} here (make test-vsock sets one up)"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--figures", type=Path, help="file to write the closing figures to, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("VSOCKPROXY_TEST_VSOCK") == "1" and not has_loopback():
        raise pytest.UsageError(f"VSOCKPROXY_TEST_VSOCK=1, and there is no {LOOPBACK_MODULE}")
    sys.addaudithook(_refuse_foreign_vsock)
    # What a command inherits is tested: nohup, or a job of a shell, would change it.
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hypothesis has picked its `ci` settings (the same examples in each run) where CI is set.
    hypothesis.settings.register_profile(
        "vsockproxy", hypothesis.settings(), deadline=None, max_examples=100
    )
    hypothesis.settings.load_profile("vsockproxy")


@pytest.hookimpl(trylast=True)  # after on_vsock/conftest.py has marked its tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    has_machines = os.environ.get("VSOCKPROXY_TEST_MACHINE") == "1"
    for item in items:
        if item.get_closest_marker("vsock") and not has_loopback():
            item.add_marker(pytest.mark.skip(reason=NO_LOOPBACK))
        if item.get_closest_marker("machine") and not has_machines:
            item.add_marker(pytest.mark.skip(reason=NO_MACHINES))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # so that its line comes after the list of skips
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None]:
    yield
    figures = _figures(terminalreporter)
    if has_loopback():
        where = f" ({kernel_name()})"
    else:
        where = f": no {LOOPBACK_MODULE} here, make test-vsock sets one up"
    terminalreporter.write_line(f"{len(figures.on_vsock)} tests ran on a real vsock{where}")
    path = config.getoption("--figures")
    if path:
        figures.write(path)


def _figures(terminalreporter: pytest.TerminalReporter) -> Figures:
    reports = terminalreporter.stats
    ran = [
        report
        for outcome in ("passed", "failed")
        for report in reports.get(outcome, ())
        if isinstance(report, pytest.TestReport)
    ]
    return Figures(
        passed=len(reports.get("passed", ())),
        failed=len(reports.get("failed", ())) + len(reports.get("error", ())),
        on_vsock=tuple(report.nodeid for report in ran if "vsock" in report.keywords),
        on_machines=tuple(report.nodeid for report in ran if "machine" in report.keywords),
        skipped=tuple(
            Skipped(report.nodeid, _reason(report)) for report in reports.get("skipped", ())
        ),
    )


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):  # file, line, "Skipped: reason"
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def _refuse_foreign_vsock(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: a virtual machine's vsock leads to its host, which is not ours to talk to."""
    if event != "socket.connect":
        return
    connecting, address = arguments
    if not isinstance(connecting, socket.socket) or connecting.family != socket.AF_VSOCK:
        return
    if has_loopback() and (address[0] == LOOPBACK_CID or is_user_mode_linux()):
        return
    raise RuntimeError(f"a test must not dial vsock address {address} on this machine")
