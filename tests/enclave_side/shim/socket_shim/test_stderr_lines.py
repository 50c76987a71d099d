"""Lines on stderr: each once in ten seconds, of bounded length, whatever stderr is."""

import os
import subprocess
import sys

from enclave_side.shim.socket_shim.stderr_lines import SAME_LINE_SECONDS, StderrLines
from tests.support.program import environment


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_line_is_written_once_in_ten_seconds() -> None:
    written: list[str] = []
    clock = Clock()
    lines = StderrLines(written.append, clock)
    for clock.seconds in (0, 1, SAME_LINE_SECONDS - 0.1):
        lines.say("one")
    lines.say("two")
    assert written == ["one", "two"]
    for clock.seconds in (SAME_LINE_SECONDS, SAME_LINE_SECONDS + 1):
        lines.say("one")
    assert written == ["one", "two", "one"]


def test_only_so_many_lines_are_remembered() -> None:
    written: list[str] = []
    lines = StderrLines(written.append, Clock())
    for number in range(1000):
        lines.say(str(number))
    lines.say("999")
    lines.say("0")
    assert written == [*map(str, range(1000)), "0"]


CODE = """
import sys
sys.stderr = None
from enclave_side.shim.socket_shim.stderr_lines import write_line
write_line(sys.argv[1])
print("went on")
"""


def run(text: str, stderr: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, text],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=60,
    )


def test_a_line_is_one_line_and_bounded() -> None:
    done = run("a\nb\tc" + "x" * 5000, subprocess.PIPE)
    assert done.stderr == "vsockproxy: a b c" + "x" * 1995 + "\n"


def test_an_stderr_that_nobody_reads_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert run("text", writer).stdout == "went on\n"
    finally:
        os.close(writer)
