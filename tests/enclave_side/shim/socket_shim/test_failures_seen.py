"""What a refused program sees: each failure, in each manner of connecting."""

import os
import signal
from pathlib import Path

import pytest

from tests.enclave_side.shim.socket_shim.acts_of_connecting import MANNERS
from tests.enclave_side.shim.socket_shim.errors_told import CONNECTED
from tests.enclave_side.shim.socket_shim.rig import (
    ENCLAVE_PORT,
    LITERAL_V4,
    OTHER_PORT,
    PORT,
    WORD,
    Rig,
    rig,
)
from tests.support.shimmed import Agent, run_shimmed

FAILURES = {
    "a name that is not listed": ("unlisted.test", PORT, "EAI_NONAME"),
    "a literal that is not listed": ("203.0.113.7", PORT, "EACCES"),
    "a port that is not listed": ("echo.test", OTHER_PORT, "EACCES"),
    "a name that the denylist names": ("denied.test", PORT, "EAI_NONAME"),
    "a name that only the parent refuses": ("enclave-only.test", PORT, "EAI_NONAME"),
    "a literal that only the parent refuses": ("203.0.113.9", PORT, "EACCES"),
    "a port that only the parent refuses": ("echo.test", ENCLAVE_PORT, "EACCES"),
    "a guarded address": ("guarded.test", PORT, "EAI_NONAME"),
    "no such name": ("missing.test", PORT, "EAI_NONAME"),
    "a lookup that fails": ("unanswered.test", PORT, "EAI_AGAIN"),
    "dial refused": ("closed.test", PORT, "ECONNREFUSED"),
    "dial timed out": ("silent.test", PORT, "ETIMEDOUT"),
}
"""Host, port, and what a program sees."""


@pytest.mark.parametrize("manner", MANNERS)
def test_what_is_allowed_works(agent: Agent, manner: str) -> None:
    assert agent.ask("see", manner, "echo.test", PORT) == CONNECTED


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure(agent: Agent, failure: str, manner: str) -> None:
    host, port, expected = FAILURES[failure]
    assert agent.ask("see", manner, host, port) == expected


@pytest.mark.parametrize("failure", FAILURES)
def test_the_error_names_the_host_and_so_does_one_line(running: Rig, failure: str) -> None:
    host, port, _ = FAILURES[failure]
    code = f"""
import socket
for _ in range(3):
    try: socket.create_connection(({host!r}, {port}))
    except OSError as error: print(error)
"""
    done = run_shimmed(running.path, "-c", code)
    assert len(done.lines) == 1, done.stderr
    assert done.stderr == f"{done.lines[0]}\n"
    told = done.lines[0].removeprefix("vsockproxy: ")
    assert host in told
    assert all(told in shown for shown in done.stdout.splitlines())


def test_a_cut_by_the_destination_is_a_reset(agent: Agent) -> None:
    assert agent.ask("hold", "resets.test", PORT, WORD) == WORD
    assert agent.ask("end_of_held", "x") == "ECONNRESET"


def test_the_first_bytes_must_be_tls_where_that_is_required(agent: Agent) -> None:
    assert agent.ask("hold", "must-be-tls.test", PORT, "") == ""
    assert agent.ask("end_of_held", "not TLS") == "ECONNRESET"


def test_a_parent_that_is_away_and_a_cut_in_the_middle(tmp_path: Path) -> None:
    with rig(tmp_path, link_wait_seconds=0.1) as mine, Agent(mine.path) as agent:
        assert agent.ask("hold", "hold.test", PORT, WORD) == WORD
        assert mine.pair.parent is not None
        mine.pair.parent.kill()
        assert agent.ask("end_of_held") == "ECONNRESET"
        seen = {
            (host, manner): agent.ask("see", manner, host, PORT)
            for host in ("echo.test", LITERAL_V4)
            for manner in MANNERS
        }
        assert seen == dict.fromkeys(seen, "ENETUNREACH")
        told = agent.stderr
        assert told.count("vsockproxy: parent_away: echo.test:443: no link to the parent") == 1


def test_a_worker_that_dies_resets_and_the_next_one_serves(patient: Rig) -> None:
    with Agent(patient.path) as agent:
        assert agent.ask("hold", "hold.test", PORT, WORD) == WORD
        assert agent.ask("begin", "silent.test", PORT) == "EINPROGRESS"
        assert patient.pair.enclave is not None
        (worker,) = patient.pair.enclave.workers
        os.kill(worker, signal.SIGKILL)
        assert agent.ask("outcome") == ["ECONNRESET", CONNECTED]
        assert agent.ask("end_of_held") == "ECONNRESET"
        for manner in MANNERS:
            assert agent.ask("see", manner, "echo.test", PORT) == CONNECTED
