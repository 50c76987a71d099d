"""The keys for limits by rate and by rule, for the upstream proxy and for source addresses."""

import pytest

from vsockproxy.addresses import parse_destination
from vsockproxy.config.document import Document
from vsockproxy.config.load import ConfigErrors, parse
from vsockproxy.config.model import ParentConfig, Rate, UpstreamProxy

PARENT = "listen: vsock://any:5000\n"


def config(text: str) -> ParentConfig:
    document = parse(f"{PARENT}{text}\n".encode(), "f")
    again = Document.from_builtins(document.to_builtins())
    assert again.config == document.config
    assert isinstance(document.config, ParentConfig)
    return document.config


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        parse(f"{PARENT}{text}\n".encode(), "f")
    return [str(error).removeprefix("f:2: ") for error in caught.value.errors]


def test_every_key_of_the_upstream_proxy_is_read() -> None:
    text = (
        "upstream_proxy: {address: 'proxy.test:3128', credentials: /etc/c, "
        "except: ['*.a.test', 10.0.0.0/8], resolve: upstream}"
    )
    assert config(text).upstream_proxy == UpstreamProxy(
        address=parse_destination("proxy.test:3128"),
        credentials="/etc/c",
        except_=["*.a.test", "10.0.0.0/8"],
        resolve="upstream",
    )


def test_an_entry_has_limits_of_its_own_and_the_files_for_the_rest() -> None:
    read = config(
        "limits: {streams: 100, idle: 60, rate: {streams: 5}}\n"
        "enclaves:\n"
        "  - {cid: 16, limits: {streams: 7}}\n"
        "  - {cid: 17, limits: {rate: {streams: 2, lookups: 1, burst: 9}}}\n"
    )
    found = {cid: read.limits_of(cid) for cid in (16, 17, 18)}
    assert {cid: limits.streams for cid, limits in found.items()} == {16: 7, 17: 100, 18: 100}
    assert {limits.idle for limits in found.values()} == {60}
    assert found[16].rate == found[18].rate == Rate(streams=5)
    assert found[17].rate == Rate(streams=2, lookups=1, burst=9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("10.0.0.5", ["10.0.0.5"], id="one address"),
        pytest.param("[10.0.0.5]", ["10.0.0.5"], id="a list of one"),
        pytest.param("[10.0.0.5, '2001:db8::5']", ["10.0.0.5", "2001:db8::5"], id="one of each"),
        pytest.param("null", None, id="nothing"),
    ],
)
def test_source_addresses_are_one_or_a_list(text: str, expected: list[str] | None) -> None:
    assert config(f"source_address: {text}").source_address == expected


MACHINE = "write an address that one of this machine's interfaces has"
FAULTS = {
    "a wildcard": (
        "source_address: 0.0.0.0",
        f"source_address: 0.0.0.0 is no address of its own: {MACHINE}",
    ),
    "a wildcard of IPv6": (
        "source_address: ['::']",
        f"source_address[0]: :: is no address of its own: {MACHINE}",
    ),
    "a multicast address": (
        "source_address: ['ff02::1']",
        f"source_address[0]: ff02::1 is a multicast address: {MACHINE}",
    ),
    "the broadcast address": (
        "source_address: 255.255.255.255",
        f"source_address: 255.255.255.255 is the broadcast address: {MACHINE}",
    ),
    "a link-local address": (
        "source_address: fe80::1",
        "source_address: fe80::1 is a link-local address, which means nothing without an "
        f"interface: {MACHINE}",
    ),
    "an IPv4 address in IPv6 form": (
        "source_address: ::ffff:10.0.0.5",
        f"source_address: ::ffff:10.0.0.5 is an IPv4 address in IPv6 form: {MACHINE}",
    ),
    "a name": (
        "source_address: a.test",
        "source_address: 'a.test' is no IP address: write an IPv4 or IPv6 address",
    ),
    "two of one version": (
        "source_address: [10.0.0.5, 10.0.0.6]",
        "source_address[1]: 10.0.0.6 is a second IPv4 address, after 10.0.0.5: "
        "write at most one of each version",
    ),
    "no source address in a list": (
        "source_address: []",
        "source_address: the list is empty: write a list, each item an address of this machine, "
        "or remove the key",
    ),
    "a proxy without a port": (
        "upstream_proxy: {address: proxy.test}",
        "upstream_proxy.address: 'proxy.test' has no port: write proxy.test:PORT",
    ),
    "no proxy": (
        "upstream_proxy: {except: [a.test]}",
        "upstream_proxy.address: missing: write HOST:PORT",
    ),
    "credentials at no certain place": (
        "upstream_proxy: {address: 'a.test:1', credentials: c}",
        "upstream_proxy.credentials: 'c' does not fit: write the absolute path of a file",
    ),
    "an exception that is no pattern": (
        "upstream_proxy: {address: 'a.test:1', except: ['*']}",
        "upstream_proxy.except[0]: ",
    ),
    "a rate without streams": (
        "limits: {rate: {lookups: 1}}",
        "limits.rate.streams: missing: write a number above 0 and up to 1e+06",
    ),
    "a rate of nothing": (
        "limits: {rate: {streams: 0}}",
        "limits.rate.streams: 0 is out of range: write a number above 0 and up to 1e+06",
    ),
    "no connections under a rule": (
        "allowlist: [{address: a.test, port: 1, connections: 0}]",
        "allowlist[0].connections: 0 is out of range: write an integer within 1-1000000",
    ),
    "an entry whose streams the budget does not cover": (
        "enclaves: [{cid: 16, limits: {streams: 65536}}]",
        "enclaves[0].limits.streams: limits.receive_budget is too small for 65536 streams: "
        "write there at least 1040MiB, or fewer streams",
    ),
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_value_is_reported(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault)
