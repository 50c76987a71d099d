"""The closing figures of several runs, and the rule on vsock that every test runs under."""

import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.figures import Figures, Skipped, main, report, total
from tests.on_vsock.machine.loopback import LOOPBACK_CID, has_loopback, is_user_mode_linux

ECHO = Skipped("test_echo", "needs a real vsock")
HAPROXY = Skipped("test_pair", "haproxy is missing")
IMAGE = Skipped("test_image", "boots a machine")
SHARED = Figures(40, 0, on_vsock=(), on_machines=(), skipped=(ECHO, IMAGE, HAPROXY))
ON_VSOCK = Figures(1, 0, on_vsock=("test_echo",), on_machines=(), skipped=())
ON_MACHINES = Figures(1, 0, on_vsock=(), on_machines=("test_image",), skipped=())


def test_what_another_run_made_up_for_is_not_skipped() -> None:
    assert list(report(total([SHARED, ON_VSOCK, ON_MACHINES]))) == [
        "skipped 1: haproxy is missing",
        "1 tests ran on a real vsock",
        "42 passed, 0 failed, 1 skipped",
    ]


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    SHARED.write(tmp_path / "made" / "shared.json")
    assert Figures.read(tmp_path / "made" / "shared.json") == SHARED


STATUSES: dict[str, tuple[list[Figures], list[str], int]] = {
    "all passed": ([ON_VSOCK], [], 0),
    "skips are allowed": ([SHARED], [], 0),
    "skips are not allowed": ([SHARED], ["--complete"], 1),
    "nothing was skipped": ([ON_VSOCK], ["--complete"], 0),
    "one failed": ([Figures(1, 1, on_vsock=(), on_machines=(), skipped=())], [], 1),
    "a run wrote no figures": ([ON_VSOCK], ["missing.json"], 1),
}


@pytest.mark.parametrize("case", STATUSES)
def test_exit_status(case: str, tmp_path: Path) -> None:
    runs, arguments, status = STATUSES[case]
    paths = [tmp_path / f"{number}.json" for number in range(len(runs))]
    for path, run in zip(paths, runs, strict=True):
        run.write(path)
    result = CliRunner().invoke(main, [*arguments, *map(str, paths)])
    assert result.exit_code == status
    assert result.output.splitlines()[-1] == list(report(total(runs)))[-1]


@pytest.mark.skipif(is_user_mode_linux(), reason="every vsock address in there is our own")
def test_no_test_dials_a_vsock_that_leads_out_of_this_machine() -> None:
    with socket.socket(socket.AF_VSOCK) as unbound:
        for cid in (2, 3, 16, *(() if has_loopback() else (LOOPBACK_CID,))):
            with pytest.raises(RuntimeError, match="must not dial vsock address"):
                sys.audit("socket.connect", unbound, (cid, 5000))
