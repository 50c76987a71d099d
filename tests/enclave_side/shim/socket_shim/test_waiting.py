"""Connects that do not block: who waits for the descriptor is woken by the answer."""

import pytest

from tests.enclave_side.shim.socket_shim.acts_of_connecting import WAITERS
from tests.enclave_side.shim.socket_shim.errors_told import CONNECTED
from tests.enclave_side.shim.socket_shim.rig import LITERAL_V4, OTHER_PORT, PORT, Rig
from tests.support.shimmed import Agent

OUTCOMES = {
    "the stream stands": ("echo.test", PORT, CONNECTED),
    "a literal stands": (LITERAL_V4, PORT, CONNECTED),
    "this side refuses": ("echo.test", OTHER_PORT, "EACCES"),
    "the destination refuses": ("closed.test", PORT, "ECONNREFUSED"),
    "nobody answers": ("silent.test", PORT, "ETIMEDOUT"),
}


@pytest.mark.parametrize("waiter", WAITERS)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_who_registered_before_connect_is_woken(agent: Agent, outcome: str, waiter: str) -> None:
    host, port, expected = OUTCOMES[outcome]
    assert agent.ask("wakes", waiter, host, port) == [True, expected, 0]


def test_nobody_is_woken_before_the_answer(patient: Rig) -> None:
    with Agent(patient.path) as agent:
        assert agent.ask("is_early", "silent.test", PORT) == [False, False]


def test_a_timeout_of_the_program_ends_the_wait(patient: Rig) -> None:
    with Agent(patient.path) as agent:
        assert agent.ask("gives_up_with_asyncio", "silent.test", PORT) == "timed out"
        assert agent.ask("times_out", "silent.test", PORT) == ["timed out", "EAGAIN"]
        assert agent.stderr == ""


def test_a_connect_that_was_begun_can_be_waited_for_by_another(agent: Agent) -> None:
    assert agent.ask("waits_again", "echo.test", PORT) == [CONNECTED, "EISCONN"]
    assert agent.ask("waits_again", "closed.test", PORT) == ["ECONNREFUSED", "ECONNREFUSED"]


def test_a_socket_that_failed_connects_elsewhere(agent: Agent) -> None:
    assert agent.ask("tries_both", ["closed.test", PORT], ["echo.test", PORT]) == [
        "ECONNREFUSED",
        "ENOTCONN",
        "the same descriptor",
        "word",
    ]
