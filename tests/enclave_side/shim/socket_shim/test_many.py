"""Crowds of connections, and what is left when they are gone."""

import pytest

from tests.enclave_side.shim.socket_shim.rig import OTHER_PORT, PORT
from tests.support.shimmed import Agent

CROWD = 200
TIMES = 20

LEAVING: dict[str, tuple[str, ...]] = {
    "connections that blocked": ("succeeds", "blocking", "echo.test"),
    "connections that did not block": ("succeeds", "not_blocking", "echo.test"),
    "connections of loops": ("succeeds", "with_asyncio", "echo.test"),
    "refusals": ("refused", "blocking", "closed.test"),
    "refusals of connects that did not block": ("refused", "not_blocking", "closed.test"),
    "refusals that a transfer told": ("refused", "receiving", "closed.test"),
    "connects that were given up": ("given_up", "echo.test"),
    "connects of sockets that were never closed": ("dropped", "echo.test"),
    "connects of descriptors that were closed alone": ("closed_by_number", "echo.test"),
}


@pytest.mark.parametrize("case", LEAVING)
def test_no_descriptor_is_left(agent: Agent, case: str) -> None:
    act, *arguments = LEAVING[case]
    assert agent.ask("leaves_open", act, TIMES, *arguments, PORT) == 0


@pytest.mark.parametrize("host", ["echo.test", "unlisted.test"])
def test_lookups_leave_no_descriptor(agent: Agent, host: str) -> None:
    assert agent.ask("leaves_open", "looks_up", TIMES, host) == 0


def test_refused_ports_leave_no_descriptor(agent: Agent) -> None:
    assert agent.ask("leaves_open", "refused", TIMES, "blocking", "echo.test", OTHER_PORT) == 0


def test_threads_do_not_disturb_each_other(agent: Agent) -> None:
    assert agent.ask("crowd", "echo.test", PORT, CROWD) == CROWD


def test_connections_of_one_loop_do_not_disturb_each_other(agent: Agent) -> None:
    assert agent.ask("crowd_with_asyncio", "echo.test", PORT, CROWD) == CROWD
