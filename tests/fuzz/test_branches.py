"""The fuzzer reaches the parsers' branches: else its millions of executions say little."""

import subprocess
import sys


def test_the_corpora_reach_the_branches_of_the_parsers() -> None:
    # In a process of its own: coverage has to be there before the parsers are.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz.branches", "--runs", "300"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
