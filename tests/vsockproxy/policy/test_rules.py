"""The table against a slow reading of the same rules, one after the other, label by label."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.addresses import Host, normalise_host
from vsockproxy.config.patterns import AddressPattern, NameDepth, parse_pattern
from vsockproxy.config.ports import EVERY_PORT, PortSpan
from vsockproxy.policy.rules import Rule, RuleTable, describe_ports

NAMES = ("test", "a.test", "b.test", "a.a.test", "b.a.test", "a.b.a.test", "xa.test", "test.a")
LITERALS = ("10.0.0.1", "10.0.0.2", "10.1.0.1", "8.8.8.8", "fd00::1", "fd00::2", "2600::1")
PATTERNS = (
    *NAMES,
    *(f"{stars}.{name}" for stars in ("*", "**") for name in NAMES[:5]),
    *LITERALS,
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/30",
    "10.0.0.2/31",
    "::/0",
    "fd00::/127",
)

ports = st.integers(1, 12)
spans = st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair)))


def disjoint(drawn: list[PortSpan]) -> tuple[PortSpan, ...]:
    """As a file's ports are once they are read: ascending, and no span touches another."""
    kept: list[PortSpan] = []
    for low, high in sorted(drawn):
        if not kept or low > kept[-1][1] + 1:
            kept.append((low, high))
    return tuple(kept)


rules = st.builds(
    Rule,
    pattern=st.sampled_from(PATTERNS).map(parse_pattern),
    ports=st.one_of(st.just(EVERY_PORT), st.lists(spans, max_size=4).map(disjoint)),
    source=st.just("file:1"),
)
hosts = st.sampled_from((*NAMES, *LITERALS)).map(normalise_host)


def covers(rule: Rule, host: Host) -> bool:
    pattern = rule.pattern
    if isinstance(pattern, AddressPattern):
        return host.address is not None and host.address in pattern.network
    if host.address is not None:
        return False
    labels, tail = host.text.split("."), pattern.name.split(".")
    if pattern.depth is NameDepth.EXACT:
        return labels == tail
    in_front = len(labels) - len(tail)
    depth_fits = in_front == 1 if pattern.depth is NameDepth.ONE_LABEL else in_front >= 1
    return depth_fits and labels[in_front:] == tail


@given(st.lists(rules, max_size=12), hosts, ports)
def test_the_first_rule_in_file_order_decides(listed: list[Rule], host: Host, port: int) -> None:
    expected = next(
        (
            rule
            for rule in listed
            if covers(rule, host) and any(low <= port <= high for low, high in rule.ports)
        ),
        None,
    )
    assert RuleTable(listed).match(host, port) is expected


@given(st.lists(rules, max_size=12), hosts, st.integers(1, 4))
def test_covering_rules_come_in_file_order(listed: list[Rule], host: Host, most: int) -> None:
    expected = [rule for rule in listed if covers(rule, host)][:most]
    assert list(RuleTable(listed).covering(host, most)) == expected


def test_ten_thousand_rules_for_one_name_are_told_apart_by_port() -> None:
    pattern = parse_pattern("api.test")
    table = RuleTable(Rule(pattern, ((port, port),), f"f:{port}") for port in range(1, 10_001))
    found = table.match(normalise_host("api.test"), 9_999)
    assert found is not None
    assert found.source == "f:9999"


def test_ten_thousand_names_and_networks_are_told_apart() -> None:
    names = [Rule(parse_pattern(f"**.n{i}.test"), EVERY_PORT, f"f:{i}") for i in range(5_000)]
    networks = [
        Rule(parse_pattern(f"10.{i >> 8}.{i & 255}.0/24"), EVERY_PORT, f"g:{i}")
        for i in range(5_000)
    ]
    table = RuleTable(names + networks)
    by_name = table.match(normalise_host("a.b.n4321.test"), 443)
    by_address = table.match_address(ip_address("10.16.225.7"), 443)
    assert by_name is names[4321]
    assert by_address is networks[0x10E1]


@pytest.mark.parametrize(
    ("spans_given", "text"),
    [
        pytest.param(((443, 443),), "port 443", id="one port"),
        pytest.param(((80, 80), (6432, 6440)), "ports 80, 6432-6440", id="a port and a range"),
        pytest.param(((1, 65_535),), "all ports", id="every port"),
        pytest.param(
            tuple((port, port) for port in range(1, 100, 2)),
            "ports 1, 3, 5, 7, 9, 11, 13, 15, …",
            id="more ports than a refusal should carry",
        ),
    ],
)
def test_ports_in_words(spans_given: tuple[PortSpan, ...], text: str) -> None:
    assert describe_ports(spans_given) == text
