"""How much room there is in the pipe that takes the lines of a worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsockproxy.log import Log


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_there_is_much_room_until_a_quarter_of_the_pipe_waits(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    log = Log("parent", "json", descriptor=write_end)
    written = 0
    while log.has_much_room:
        log.info("decision", text="x" * 900)
        written += 1
        assert written < 100
    assert 64 * 1024 / 4 / 1024 <= written <= 20  # a pipe holds 64 KiB (pipe(7))
    assert log.dropped_lines == 0
    # What cannot wait still finds room.
    log.info("decision", text="x" * 900)
    assert log.dropped_lines == 0
    os.read(read_end, 64 * 1024)
    assert log.has_much_room


def test_a_file_always_has_room(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        log = Log("parent", "json", descriptor=file.fileno())
        log.info("decision", text="x" * 3000)
        assert log.has_much_room


def test_a_closed_descriptor_has_room_and_counts_what_it_loses() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    log = Log("parent", "json", descriptor=write_end)
    assert log.has_much_room
    log.info("decision")
    assert log.dropped_lines == 1
