"""A file read again by another process, whatever that process does."""

import os
import sys
import time
from pathlib import Path

import pytest

from vsockproxy.config.load import load
from vsockproxy.control.file_reading import FileNotValid, read_checked_file
from vsockproxy.passed_memory import read_document

PROGRAMS = "tests.vsockproxy.control.test_file_reading"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> str:
    """Processes that this one has started, the dead but unburied among them."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


async def lines_of(file: Path, **options: float | str) -> tuple[str, ...]:
    """Why a file cannot be used; nothing is left open."""
    before = descriptors()
    with pytest.raises(FileNotValid) as raised:
        await read_checked_file(str(file), "parent", **options)  # type: ignore[arg-type]  # names of arguments
    assert descriptors() == before
    return raised.value.lines


async def test_a_valid_file(tmp_path: Path) -> None:
    file = tmp_path / "parent.yaml"
    file.write_text("listen: vsock://any:5000\nallowlist: [{address: a.b, port: 443}]\n")
    await lines_of(tmp_path / "missing")  # the thread of the first reading stays, with its pipe
    checked = await read_checked_file(str(file), "parent")
    before = descriptors()
    try:
        assert checked.document == load(str(file))
        assert read_document(checked.descriptor) == checked.document
        assert not os.get_inheritable(checked.descriptor)
    finally:
        os.close(checked.descriptor)
    again = await read_checked_file(str(file), "parent")
    os.close(again.descriptor)
    assert descriptors() == before - 1


async def test_the_faults_are_the_lines_of_check(tmp_path: Path) -> None:
    file = tmp_path / "parent.yaml"
    file.write_text("listen: nowhere\nmode: x\n")
    assert await lines_of(file) == (
        f"{file}:1: listen: 'nowhere' is no endpoint: "
        "write vsock://CID:PORT, unix:///PATH or tcp://ADDRESS:PORT",
        f"{file}:2: mode: 'x' does not fit: write enforce or report",
    )


async def test_another_kind_of_file(tmp_path: Path) -> None:
    file = tmp_path / "parent.yaml"
    file.write_text("parent: vsock://3:5000\n")
    (line,) = await lines_of(file)
    assert "this is an enclave's file" in line


async def test_a_missing_file(tmp_path: Path) -> None:
    (line,) = await lines_of(tmp_path / "missing")
    assert line == (
        f"{tmp_path}/missing: cannot be read: no such file or directory: "
        "check the path and its permissions"
    )


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        pytest.param("dies", "the process that checked it ended with 7: the last word", id="dies"),
        pytest.param("is killed", "the process that checked it ended with 137", id="is killed"),
        pytest.param("says nothing", "the process that checked it ended with 1", id="says nothing"),
        pytest.param("writes nothing", "a document that cannot be read: ", id="writes nothing"),
    ],
)
async def test_a_process_that_fails(
    behaviour: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHECKING_PROCESS", behaviour)
    (line,) = await lines_of(tmp_path / "f", module=PROGRAMS)
    assert line.startswith(f"{tmp_path}/f: {why}")


@pytest.mark.parametrize("behaviour", ["hangs", "talks without end"])
async def test_a_process_that_takes_too_long_is_ended(
    behaviour: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHECKING_PROCESS", behaviour)
    before = children()
    began_at = time.monotonic()
    (line,) = await lines_of(tmp_path / "f", module=PROGRAMS, seconds=1.0)
    assert line == f"{tmp_path}/f: checking it took more than 1 s"
    assert time.monotonic() - began_at < 20
    assert children() == before


def misbehave() -> int:
    """Stand for the process that checks a file."""
    match os.environ["CHECKING_PROCESS"]:
        case "dies":
            os.write(1, b"a word\nthe last word\n")
            return 7
        case "is killed":
            os.kill(os.getpid(), 9)
        case "says nothing":
            return 1
        case "hangs":
            time.sleep(60)
        case "talks without end":
            ends_at = time.monotonic() + 60
            while time.monotonic() < ends_at:
                os.write(1, b"x" * 65_536)
    return 0


if __name__ == "__main__":
    sys.exit(misbehave())
