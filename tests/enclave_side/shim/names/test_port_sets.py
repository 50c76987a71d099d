"""Which ports names and networks have: by tables, and against a decision for every port."""

from ipaddress import IPv4Network, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from enclave_side.shim.names.port_sets import PortSets, TooManyPorts
from tests.enclave_side.shim.names.files import BLOCK, enclave_policy, port_sets_of
from vsockproxy.addresses import Host, IpAddress, normalise_host
from vsockproxy.config.patterns import AddressPattern, parse_pattern
from vsockproxy.config.ports import EVERY_PORT
from vsockproxy.policy import Lists, Policy, Rule

BLOCK_OF_16 = IPv4Network("10.9.8.0/28")


def ports_of(port_sets: PortSets, name: str) -> tuple[int, ...]:
    index = port_sets.of_name(normalise_host(name))
    return () if index is None else port_sets.sets[index]


def route(port_sets: PortSets, address: IpAddress) -> tuple[int, ...]:
    """The ports of what the kernel routes `address` to: the narrowest network decides."""
    routes = [
        (network.prefixlen, index)
        for index in (*range(len(port_sets.sets)), None)
        for network in port_sets.networks_of(index)
        if network.version == address.version and address in network
    ]
    if not routes:
        return ()
    _, index = max(routes, key=lambda each: each[0])
    return () if index is None else port_sets.sets[index]


NAMES = {
    "one name": (["address: a.test, port: 443"], [], "a.test", (443,)),
    "another name": (["address: a.test, port: 443"], [], "b.test", ()),
    "ports and ranges": (
        ["address: a.test, ports: [443, 8000-8002, 80]"],
        [],
        "a.test",
        (80, 443, 8000, 8001, 8002),
    ),
    "two rules for a name": (
        ["address: a.test, port: 443", "address: a.test, port: 80"],
        [],
        "a.test",
        (80, 443),
    ),
    "a name under a wildcard": (["address: '*.test', port: 443"], [], "a.test", (443,)),
    "a name two below a wildcard for one label": (
        ["address: '*.test', port: 443"],
        [],
        "b.a.test",
        (),
    ),
    "a name under a wildcard of any depth": (
        ["address: '**.test', port: 443"],
        [],
        "b.a.test",
        (443,),
    ),
    "the bare name of a wildcard": (["address: '**.test', port: 443"], [], "test", ()),
    "an exact name under wildcards has the ports of all": (
        [
            "address: '**.test', port: 1",
            "address: '*.a.test', port: 2",
            "address: '**.a.test', port: 3",
            "address: b.a.test, port: 4",
            "address: c.a.test, port: 5",
        ],
        [],
        "b.a.test",
        (1, 2, 3, 4),
    ),
    "a name under wildcards has the ports of all": (
        [
            "address: '**.test', port: 1",
            "address: '*.a.test', port: 2",
            "address: '**.a.test', port: 3",
            "address: b.a.test, port: 4",
        ],
        [],
        "d.a.test",
        (1, 2, 3),
    ),
    "a name below them": (
        [
            "address: '**.test', port: 1",
            "address: '*.a.test', port: 2",
            "address: '**.a.test', port: 3",
        ],
        [],
        "e.d.a.test",
        (1, 3),
    ),
    "a rule without names does not count": (
        ["address: a.test, port: 443", "address: a.test, ports: [1-65535], names: false"],
        [],
        "a.test",
        (443,),
    ),
    "a rule without names alone": (["address: a.test, port: 443, names: false"], [], "a.test", ()),
    "a denied port": (
        ["address: a.test, ports: [80, 443]"],
        ["address: a.test, port: 80"],
        "a.test",
        (443,),
    ),
    "all ports denied": (["address: a.test, port: 443"], ["address: a.test"], "a.test", ()),
    "a port denied by a wildcard around it": (
        ["address: a.test, ports: [80, 443]"],
        ["address: '*.test', port: 80"],
        "a.test",
        (443,),
    ),
    "a name denied under a wildcard": (
        ["address: '*.test', ports: [80, 443]"],
        ["address: a.test, port: 80"],
        "a.test",
        (443,),
    ),
    "its neighbour": (
        ["address: '*.test', ports: [80, 443]"],
        ["address: a.test, port: 80"],
        "b.test",
        (80, 443),
    ),
    "a name under a denied wildcard under a wildcard": (
        ["address: '**.test', port: 443"],
        ["address: '**.a.test'"],
        "c.b.a.test",
        (),
    ),
    "a name that is denied elsewhere": (
        ["address: a.test, port: 443"],
        ["address: b.test"],
        "a.test",
        (443,),
    ),
    "localhost": (["address: localhost, port: 443"], [], "localhost", ()),
    "a name below localhost": (["address: '**.localhost', port: 443"], [], "a.localhost", ()),
    "a name that ends like localhost": (
        ["address: mylocalhost, port: 443"],
        [],
        "mylocalhost",
        (443,),
    ),
}


@pytest.mark.parametrize(("allow", "deny", "name", "ports"), NAMES.values(), ids=NAMES)
def test_a_name_has_its_ports(
    allow: list[str], deny: list[str], name: str, ports: tuple[int, ...]
) -> None:
    assert ports_of(port_sets_of(allow, deny), name) == ports


NETWORKS = {
    "a literal": (["address: 8.8.8.8, port: 53"], [], "8.8.8.8", (53,)),
    "another literal": (["address: 8.8.8.8, port: 53"], [], "8.8.4.4", ()),
    "an IPv6 literal": (["address: '2606:4700::1', port: 443"], [], "2606:4700::1", (443,)),
    "a network": (["address: 10.0.0.0/8, port: 1, private: true"], [], "10.1.2.3", (1,)),
    "a literal in networks has the ports of all": (
        [
            "address: 10.0.0.0/8, port: 1, private: true",
            "address: 10.1.0.0/16, port: 2, private: true",
            "address: 10.1.2.3, port: 3, private: true",
        ],
        [],
        "10.1.2.3",
        (1, 2, 3),
    ),
    "its neighbour": (
        [
            "address: 10.0.0.0/8, port: 1, private: true",
            "address: 10.1.0.0/16, port: 2, private: true",
            "address: 10.1.2.3, port: 3, private: true",
        ],
        [],
        "10.1.2.4",
        (1, 2),
    ),
    "a denied network in a network": (
        ["address: 10.0.0.0/8, ports: [1, 2], private: true"],
        ["address: 10.1.0.0/16, port: 1"],
        "10.1.0.1",
        (2,),
    ),
    "a network denied whole in a network": (
        ["address: 10.0.0.0/8, ports: [1, 2], private: true"],
        ["address: 10.1.0.0/16"],
        "10.1.0.1",
        (),
    ),
    "everything": (["address: 0.0.0.0/0, port: 443"], [], "8.8.8.8", (443,)),
    "everything, for IPv6": (["address: 0.0.0.0/0, port: 443"], [], "2606:4700::1", ()),
    "metadata that is opened": (
        ["address: 169.254.169.254, port: 80, metadata: true"],
        [],
        "169.254.169.254",
        (80,),
    ),
}


@pytest.mark.parametrize(("allow", "deny", "address", "ports"), NETWORKS.values(), ids=NETWORKS)
def test_an_address_has_its_ports(
    allow: list[str], deny: list[str], address: str, ports: tuple[int, ...]
) -> None:
    literal = normalise_host(address).address
    assert literal is not None
    assert route(port_sets_of(allow, deny), literal) == ports


LEFT_OUT = {
    "loopback": (
        "address: 127.0.0.0/8, port: 1, private: true",
        "127.0.0.0/8 port 1 at enclave.yaml:3: loopback is the command's own: "
        "use a forward, or the HTTP proxy",
    ),
    "loopback of IPv6": (
        "address: '::1', port: 1, private: true",
        "::1 port 1 at enclave.yaml:3: loopback is the command's own: "
        "use a forward, or the HTTP proxy",
    ),
    "a mapped address": (
        "address: '::ffff:8.8.8.8', port: 1",
        "::ffff:8.8.8.8 port 1 at enclave.yaml:3: the kernel dials a mapped address as IPv4: "
        "write a rule for that",
    ),
    "a network in the block": (
        "address: 198.19.0.0/16, port: 1",
        "198.19.0.0/16 port 1 at enclave.yaml:3: "
        "it lies in shim.names_block, 198.18.0.0/15: use another block",
    ),
    "a private address that is not opened": (
        "address: 10.0.0.1, port: 1",
        "10.0.0.1 port 1 at enclave.yaml:3: the address guard refuses it: private",
    ),
    "metadata that is not opened": (
        "address: 169.254.169.254, port: 80",
        "169.254.169.254 port 80 at enclave.yaml:3: "
        "the address guard refuses it: instance metadata (link-local)",
    ),
    "multicast": (
        "address: 224.0.0.1, port: 1, private: true",
        "224.0.0.1 port 1 at enclave.yaml:3: the address guard refuses it: multicast",
    ),
    "localhost": (
        "address: localhost, port: 1",
        "localhost port 1 at enclave.yaml:3: localhost is the command's own: "
        "use a forward, or the HTTP proxy",
    ),
}


@pytest.mark.parametrize(("rule", "line"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_cannot_be_routed_is_left_out_and_told(rule: str, line: str) -> None:
    port_sets = port_sets_of([rule, "address: a.test, port: 443"])
    assert [str(each) for each in port_sets.left_out] == [line]
    assert port_sets.sets == ((443,),)
    assert port_sets.networks == {}


def test_what_says_names_false_is_left_out_without_a_word() -> None:
    assert port_sets_of(["address: 127.0.0.1, port: 1, names: false"]).left_out == ()


def test_sets_stand_in_the_order_of_the_file() -> None:
    port_sets = port_sets_of(
        [
            "address: a.test, port: 443",
            "address: b.test, port: 80",
            "address: 8.8.8.8, ports: [80]",
            "address: c.test, ports: [443]",
            "address: '*.c.test', ports: [80, 443]",
        ]
    )
    assert port_sets.sets == ((443,), (80,), (80, 443))
    assert port_sets.exact_names == (("a.test", 0), ("b.test", 1), ("c.test", 0))
    assert port_sets.networks_of(1) == (ip_network("8.8.8.8"),)
    assert port_sets.listeners == 4
    assert port_sets.unlisted is None


def test_an_empty_allowlist_has_no_set() -> None:
    port_sets = port_sets_of([])
    assert (port_sets.sets, port_sets.listeners) == ((), 0)
    assert ports_of(port_sets, "a.test") == ()


# ------------------------------------------------------------- more than there is room for


def test_sixteen_sets_stay_as_they_are() -> None:
    port_sets = port_sets_of([f"address: n{port}.test, port: {port}" for port in range(1, 17)])
    assert port_sets.sets == tuple((port,) for port in range(1, 17))


def test_of_more_sets_the_last_are_merged() -> None:
    port_sets = port_sets_of([f"address: n{port}.test, port: {port}" for port in range(1, 21)])
    assert port_sets.sets == (*((port,) for port in range(1, 16)), (16, 17, 18, 19, 20))
    assert ports_of(port_sets, "n15.test") == (15,)
    assert ports_of(port_sets, "n16.test") == ports_of(port_sets, "n20.test")


def test_sets_with_too_many_ports_together_are_merged() -> None:
    port_sets = port_sets_of(
        [
            "address: a.test, port: 443",
            "address: b.test, ports: [1000-1199]",
            "address: c.test, ports: [1100-1254]",
        ]
    )
    assert port_sets.sets == ((443,), tuple(range(1000, 1255)))
    assert port_sets.listeners == 256


def test_a_small_block_has_fewer_sets() -> None:
    rules = ["address: a.test, port: 443", "address: b.test, port: 80"]
    assert port_sets_of(rules, block=BLOCK_OF_16).sets == ((80, 443),)
    assert port_sets_of(rules, block=IPv4Network("10.9.8.0/27")).sets == ((443,), (80,))


def test_more_ports_than_names_can_listen_on_are_an_error() -> None:
    rule = Rule(parse_pattern("a.test"), EVERY_PORT, "--allow")
    with pytest.raises(TooManyPorts, match="has 65535 different ports, names listens on 256"):
        PortSets.compile(Policy(Lists((rule,), (), "--allow")), BLOCK)


# ------------------------------------------------------------- mode: report


def test_reporting_lets_every_name_pass_on_one_set_of_ports() -> None:
    port_sets = port_sets_of(
        ["address: a.test, port: 5432", "address: 8.8.8.8, port: 53"],
        ["address: b.test"],
        "mode: report\n",
    )
    assert port_sets.sets == ((53, 80, 443, 5432),)
    assert port_sets.unlisted == 0
    for name in ("a.test", "b.test", "never-heard-of.example"):
        assert ports_of(port_sets, name) == (53, 80, 443, 5432)
    assert port_sets.networks_of(0) == (ip_network("8.8.8.8"),)


def test_reporting_without_a_list_listens_on_the_ports_of_the_web() -> None:
    assert port_sets_of([], more="mode: report\n").sets == ((80, 443),)


def test_reporting_listens_on_no_more_ports_than_possible() -> None:
    port_sets = port_sets_of(["address: a.test, ports: [1000-1255]"], more="mode: report\n")
    assert port_sets.sets == (tuple(range(1000, 1256)),)


# ------------------------------------------------------------- against policy

PATTERNS = (
    *(f"{stars}{name}" for stars in ("", "*.", "**.") for name in ("test", "a.test", "b.a.test")),
    "0.0.0.0/0",
    "8.0.0.0/8",
    "8.8.0.0/16",
    "8.8.8.8",
    "::/0",
    "2606:4700::/32",
    "2606:4700::1",
)
HOSTS = tuple(
    map(
        normalise_host,
        (
            "test",
            "a.test",
            "b.a.test",
            "c.b.a.test",
            "d.c.b.a.test",
            "other.example",
            "8.8.8.8",
            "8.8.4.4",
            "8.1.1.1",
            "9.9.9.9",
            "2606:4700::1",
            "2606:4700::2",
            "2a00::1",
        ),
    )
)
PORTS = (1, 2, 3, 443)

rules = st.builds(
    Rule,
    pattern=st.sampled_from(PATTERNS).map(parse_pattern),
    ports=st.lists(st.sampled_from(PORTS), min_size=1, unique=True).map(
        lambda ports: tuple((port, port) for port in sorted(ports))
    ),
    source=st.just("enclave.yaml:1"),
    names=st.sampled_from((True, True, True, False)),
)
all_lists = st.builds(
    Lists,
    allow=st.lists(rules, max_size=6).map(tuple),
    deny=st.lists(rules, max_size=3).map(tuple),
    allowlist_name=st.just("allowlist in enclave.yaml"),
)


@given(all_lists, st.sampled_from(HOSTS))
def test_the_ports_of_a_host_are_those_that_policy_allows(lists: Lists, host: Host) -> None:
    assume(any(rule.names for rule in lists.allow))
    port_sets = PortSets.compile(Policy(lists), BLOCK)
    assume(len(port_sets.sets) < 16)  # exact sets
    offered = Policy(
        Lists(tuple(rule for rule in lists.allow if rule.names), lists.deny, lists.allowlist_name)
    )
    allowed = tuple(port for port in PORTS if offered.decide(host, port).allowed)
    if host.address is None:
        assert ports_of(port_sets, host.text) == allowed
    else:
        assert route(port_sets, host.address) == allowed


@given(all_lists)
def test_each_pattern_of_the_file_is_somewhere(lists: Lists) -> None:
    port_sets = PortSets.compile(Policy(lists), BLOCK)
    for rule in lists.allow:
        if rule.names:
            pattern = rule.pattern
            found = (
                pattern.network in port_sets.networks
                if isinstance(pattern, AddressPattern)
                else pattern in port_sets.names
            )
            assert found
    assert len(port_sets.sets) <= 16
    assert all(ports == tuple(sorted(set(ports))) for ports in port_sets.sets)


def test_ten_thousand_rules_are_worked_out_at_once() -> None:
    policy = enclave_policy(
        [f"address: n{number}.test, port: {1 + number % 250}" for number in range(5000)]
        + [
            f"address: 9.{number >> 8}.{number & 255}.0/24, port: {1 + number % 250}"
            for number in range(5000)
        ],
        [f"address: n{number}.test, port: 1" for number in range(2000)],
    )
    port_sets = PortSets.compile(policy, BLOCK)
    assert len(port_sets.sets) == 16
    assert port_sets.listeners == 250
    assert len(port_sets.exact_names) == 5000 - 8  # those that have no port but the denied one
