"""The process that makes the command's network namespace."""

import sys

import pytest

from tests.support.one_process_namespace import NOT_PERMITTED
from tests.support.program import Program

SET_UP = """
import os
from ipaddress import IPv4Address
from pathlib import Path
from enclave_side.command_network import NetworkSetUp
from enclave_side.network_plan import make_plan

set_up = NetworkSetUp(make_plan(IPv4Address("198.18.0.1"), IPv4Address("198.18.0.2"), []))
(child,) = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
print(os.getpgid(child) == child, os.getpgrp() == child)
os.close(set_up.finish())
"""


def test_ctrl_c_of_a_terminal_does_not_reach_it() -> None:
    within = [sys.executable, "-m", "tests.support.one_process_namespace"]
    with Program([*within, sys.executable, "-c", SET_UP]) as program:
        code, output = program.end()
    if code == NOT_PERMITTED:
        pytest.skip(f"not permitted here: {program.lines}")
    assert (code, output) == (0, "True False\n"), program.lines
