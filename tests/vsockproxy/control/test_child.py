import os
import signal

import pytest
import trio

from vsockproxy import processes
from vsockproxy.control.child import Child

DEADLINE_SECONDS = 30


@pytest.fixture(params=["pidfd", "no pidfd", "a Python without"])
def _ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways to wait: pidfd, and a thread where the kernel or Python has none."""

    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    if request.param == "no pidfd":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    if request.param == "a Python without":
        monkeypatch.delattr(os, "pidfd_open")


@pytest.mark.usefixtures("_ways")
async def test_the_status_of_a_child() -> None:
    with trio.fail_after(DEADLINE_SECONDS), Child(processes.start(["sh", "-c", "exit 7"])) as child:
        assert os.waitstatus_to_exitcode(await child.wait()) == 7
        child.send_signal(signal.SIGKILL)  # which nobody gets


@pytest.mark.usefixtures("_ways")
async def test_a_signal_for_a_child() -> None:
    with trio.fail_after(DEADLINE_SECONDS), Child(processes.start(["sleep", "60"])) as child:
        child.send_signal(signal.SIGTERM)
        assert os.waitstatus_to_exitcode(await child.wait()) == -signal.SIGTERM


@pytest.mark.usefixtures("_ways")
async def test_many_children_at_once_keep_their_statuses() -> None:
    codes: dict[int, int] = {}

    async def run(code: int) -> None:
        with Child(processes.start(["sh", "-c", f"exit {code}"])) as child:
            codes[code] = os.waitstatus_to_exitcode(await child.wait())

    with trio.fail_after(DEADLINE_SECONDS):
        async with trio.open_nursery() as nursery:
            for code in range(30):
                nursery.start_soon(run, code)
    assert codes == {code: code for code in range(30)}


@pytest.mark.usefixtures("_ways")
async def test_giving_up_leaves_the_child_alone() -> None:
    with Child(processes.start(["sleep", "60"])) as child:
        with trio.move_on_after(0.05) as scope:
            await child.wait()
        assert scope.cancelled_caught
        child.send_signal(signal.SIGTERM)
        with trio.fail_after(DEADLINE_SECONDS):
            assert os.waitstatus_to_exitcode(await child.wait()) == -signal.SIGTERM
