"""Names at work: lookups and connections of a program in a sandbox, through both sides."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.names.machines import HOSTS, Machine, hosts, machine

MANY = 10_000
OTHER_PORT = 9
"""Listed for another name."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with hosts() as port:
        yield port


def rules(*addresses: str, ports: list[int], **more: object) -> list[dict[str, Any]]:
    return [{"address": each, "ports": ports, "private": True, **more} for each in addresses]


def address_of(number: int) -> str:
    """Where the name `hostNUMBER.many.test` leads."""
    return HOSTS[number % len(HOSTS)]


def many_hosts(count: int) -> dict[str, list[str]]:
    return {f"host{number}.many.test": [address_of(number)] for number in range(count)}


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Machine]:
    """Two workers, and ten thousand names under a wildcard."""
    allowlist = rules("*.many.test", ports=[port])
    parent = {"allowlist": allowlist, "resolver": {"hosts": many_hosts(MANY)}}
    enclave = {"allowlist": allowlist, "workers": 2}
    with machine(tmp_path_factory.mktemp("wild"), parent, enclave) as running:
        yield running


def test_ten_thousand_names_lead_to_the_right_hosts(wild: Machine, port: int) -> None:
    names = [f"host{number}.many.test" for number in range(MANY)]
    found = wild.ask("many_addresses", names)
    assert len(set(found)) == MANY
    assert wild.ask("many_addresses", names[::97]) == found[::97]
    sample = range(0, MANY, 41)
    answers = wild.ask("fetch_each", [found[number] for number in sample], port)
    assert answers == [address_of(number) for number in sample]


def test_an_address_outlives_the_worker_that_looked_it_up(wild: Machine, port: int) -> None:
    numbers = range(7, 7 + 64)
    found = wild.ask("many_addresses", [f"host{number}.many.test" for number in numbers])
    for _ in range(2):
        wild.kill_worker()
    answers = wild.ask("fetch_each", found, port)
    assert answers == [address_of(number) for number in numbers]
    again = wild.ask("many_addresses", [f"host{number}.many.test" for number in numbers])
    assert again == found


def test_a_pool_that_is_used_up_harms_nobody_else(tmp_path: Path, port: int) -> None:
    allowlist = [*rules("exact.test", ports=[port]), *rules("*.many.test", ports=[port])]
    known = {"exact.test": [HOSTS[0]], **many_hosts(100)}
    parent = {"allowlist": allowlist, "resolver": {"hosts": known}}
    enclave = {"allowlist": allowlist, "shim": {"names_block": "198.18.0.0/26"}}
    with machine(tmp_path, parent, enclave) as running:
        taken = [running.ask("addresses", f"host{number}.many.test")[0] for number in range(59)]
        assert len(set(taken)) == 59
        assert running.error("addresses", "host59.many.test") == "EAI_NONAME"
        line = running.program.line_with("host59.many.test")
        assert "address" in line
        assert running.ask("fetch", "exact.test", port) == HOSTS[0]
        assert running.ask("fetch", taken[58], port) == address_of(58)
        assert running.ask("fetch", "host3.many.test", port) == address_of(3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Machine]:
    """Names and addresses with different ports, some of them only on one side's list."""
    shared = [
        *rules("one.test", ports=[port]),
        *rules("other.test", ports=[port, OTHER_PORT]),
        *rules(HOSTS[9], ports=[port], names=False),
        *rules("10.20.0.0/16", ports=[port], dial=f"{HOSTS[7]}:{port}"),
        *rules("fd00:1::7", ports=[port], dial=f"{HOSTS[8]}:{port}"),
    ]
    enclave = {"allowlist": [*shared, *rules("unknown.test", "only-here.test", ports=[port])]}
    known = {"one.test": [HOSTS[0]], "other.test": [HOSTS[1]], "unknown.test": [HOSTS[2]]}
    parent = {
        "allowlist": [*shared, *rules("missing.test", ports=[port])],
        "resolver": {"hosts": known, "servers": ["127.0.0.1:9"], "timeout": 1},
    }
    with machine(tmp_path_factory.mktemp("small"), parent, enclave) as running:
        yield running


def test_a_listed_name_and_port(small: Machine, port: int) -> None:
    assert small.ask("fetch", "one.test", port) == HOSTS[0]
    assert small.ask("fetch", "ONE.test.", port) == HOSTS[0]
    assert small.ask("fetch", "other.test", port) == HOSTS[1]


def test_literals_and_networks_are_routed(small: Machine, port: int) -> None:
    assert small.ask("fetch", "10.20.30.40", port) == HOSTS[7]
    assert small.ask("fetch", "fd00:1::7", port) == HOSTS[8]


def test_a_port_that_the_name_has_not(small: Machine) -> None:
    assert small.error("fetch", "one.test", OTHER_PORT) == "ECONNREFUSED"
    assert small.error("fetch", "other.test", 1) == "ECONNREFUSED"
    assert small.error("fetch", "10.20.30.40", OTHER_PORT) == "ECONNREFUSED"


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.21.0.1", "169.254.169.254", "fd00:1::8", "8.8.8.8"]
)
def test_a_literal_that_is_not_listed(small: Machine, port: int, address: str) -> None:
    assert small.error("fetch", address, port) == "ECONNREFUSED"


def test_a_name_that_is_not_listed(small: Machine) -> None:
    assert small.error("addresses", "nobody.test") == "EAI_NONAME"
    line = small.decision(host="nobody.test")
    assert (line["side"], line["reason"], line["way"]) == ("enclave", "not_listed", "names")


def test_a_name_that_the_parent_does_not_list(small: Machine) -> None:
    assert small.error("addresses", "only-here.test") == "EAI_NONAME"
    line = small.decision(host="only-here.test")
    assert (line["side"], line["reason"]) == ("parent", "not_listed")


def test_every_port_of_the_allowlist_is_free_for_the_command(small: Machine, port: int) -> None:
    ports = [port, OTHER_PORT, 53, 80, 443]
    assert small.ask("serve_and_fetch", ports, "one.test", port) == HOSTS[0]


def test_an_address_that_nobody_was_given_is_reset(small: Machine, port: int) -> None:
    assert small.error("fetch", "198.18.0.77", port) == "ECONNRESET"
    line = small.decision(host="198.18.0.77", port=port)
    assert (line["side"], line["reason"], line["way"]) == ("enclave", "not_listed", "names")
