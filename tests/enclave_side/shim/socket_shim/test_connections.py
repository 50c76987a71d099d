"""Connections that stand: what they look like, and what goes over them."""

import pytest

from tests.enclave_side.shim.socket_shim.acts_of_connecting import SECONDS
from tests.enclave_side.shim.socket_shim.acts_on_connections import OPTIONS
from tests.enclave_side.shim.socket_shim.rig import LITERAL_V4, LITERAL_V6, PORT, Rig
from tests.support.shimmed import Agent

TLS = [True, "TLSv1.3", "hello from tls.test, over TLSv1.3"]


@pytest.mark.parametrize("host", ["echo.test", LITERAL_V4])
def test_every_descriptor_of_a_connection_knows_its_peer(agent: Agent, host: str) -> None:
    expected, *seen = agent.ask("addresses", host, PORT)
    assert seen == [expected] * 6


def test_a_literal_of_version_6_is_connected_to(agent: Agent) -> None:
    assert agent.ask("peer_of_v6", LITERAL_V6, PORT) == [LITERAL_V6, PORT, 0, 0]
    mapped = f"::ffff:{LITERAL_V4}"
    assert agent.ask("peer_of_v6", mapped, PORT) == [mapped, PORT, 0, 0]


def test_one_direction_ends_and_the_other_goes_on(agent: Agent) -> None:
    text = "x" * 300_000
    assert agent.ask("exchange", "counts.test", PORT, text) == "300000 bytes"


def test_a_large_file_comes_back(agent: Agent) -> None:
    assert agent.ask("send_file", "echo.test", PORT, 3_000_000)


@pytest.mark.parametrize("blocks", [True, False])
def test_what_was_set_before_connect_is_kept(agent: Agent, blocks: bool) -> None:
    kept = agent.ask("options", "echo.test", PORT, blocks)
    expected = {name: value for name, (_, _, value) in OPTIONS.items()}
    flags = {
        "SO_LINGER": [1, 0],
        "inheritable": True,
        "timeout": SECONDS if blocks else 0.0,
        "blocks": False,
    }
    assert kept == {**expected, **flags}


def test_times_of_transfers_are_kept(agent: Agent) -> None:
    assert agent.ask("times_of_transfers", "echo.test", PORT) == ["EAGAIN"]


def test_buffers_that_were_set_are_kept_where_the_kernel_tells(agent: Agent) -> None:
    wanted, kept = agent.ask("buffers", "echo.test", PORT)
    assert kept == wanted


def test_tls_in_every_order(agent: Agent, running: Rig) -> None:
    authority = str(running.authority)
    assert agent.ask("tls", "tls.test", PORT, authority) == TLS
    assert agent.ask("tls_before_connect", "tls.test", PORT, authority) == "TLSv1.3"
    assert agent.ask("tls_with_asyncio", "tls.test", PORT, authority) == TLS


def test_what_is_local_stays_so(agent: Agent) -> None:
    assert agent.ask("local") == ["True"] * 5


def test_udp_has_no_way_out_and_that_is_said_once(agent: Agent) -> None:
    said = agent.stderr
    assert agent.ask("datagram", "198.51.100.1", PORT) == "ENETUNREACH"
    assert agent.ask("datagram", "198.51.100.1", PORT) == "ENETUNREACH"
    line = "vsockproxy: 198.51.100.1:443: only TCP goes through the socket shim\n"
    assert agent.stderr.removeprefix(said) == line


ADDRESSES: dict[str, tuple[str, tuple[object, ...], str]] = {
    "a text": ("AF_INET", ("127.0.0.1",), "TypeError"),
    "no host": ("AF_INET", (None, PORT), "TypeError"),
    "a text for a port": ("AF_INET", ("echo.test", "443"), "TypeError"),
    "too many elements": ("AF_INET", ("echo.test", PORT, 0), "TypeError"),
    "a port beyond all": ("AF_INET", ("echo.test", 70_000), "OverflowError"),
    "a port below all": ("AF_INET", (LITERAL_V4, -1), "OverflowError"),
    "port 0": ("AF_INET", (LITERAL_V4, 0), "ECONNREFUSED"),
    "a name that is not listed": ("AF_INET", ("unlisted.test", PORT), "EAI_NONAME"),
    "another family's literal": ("AF_INET", ("::1", PORT), "EAI_ADDRFAMILY"),
    "another family's literal, the other way": ("AF_INET6", (LITERAL_V4, PORT), "EAI_ADDRFAMILY"),
    "a name that has no such address": ("AF_INET6", ("echo.test", PORT), "EAI_NODATA"),
    "a text for a flow": ("AF_INET6", (LITERAL_V6, PORT, "0"), "TypeError"),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_an_address_that_is_none(agent: Agent, case: str) -> None:
    family, address, expected = ADDRESSES[case]
    assert agent.ask("connect", family, *address) == expected
