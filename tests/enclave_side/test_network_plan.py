from ipaddress import IPv4Address, IPv6Network, ip_network

from enclave_side.network_plan import NetworkPlan, make_plan

SERVER = IPv4Address("198.18.0.1")
COMMAND = IPv4Address("198.18.0.2")


def networks(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_network, texts))


def test_each_set_of_ports_has_a_pair_and_the_rest_has_the_last() -> None:
    plan = make_plan(
        SERVER,
        COMMAND,
        [[ip_network("198.18.0.0/16")], [ip_network("198.19.0.0/16"), ip_network("fd00::/8")]],
        refused=[ip_network("fd00:1::/32")],
    )
    assert [(pair.ours, pair.theirs, pair.networks) for pair in plan.pairs] == [
        ("vsp0", "vsc0", networks("198.18.0.0/16")),
        ("vsp1", "vsc1", networks("198.19.0.0/16", "fd00::/8")),
        ("vsp-rest", "vsc-rest", networks("0.0.0.0/0", "::/0", "fd00:1::/32")),
    ]


def test_nothing_listed_leaves_everything_to_the_last_pair() -> None:
    (pair,) = make_plan(SERVER, COMMAND, []).pairs
    assert pair.networks == networks("0.0.0.0/0", "::/0")


def test_a_rule_for_all_addresses_leaves_nothing_to_the_last_pair() -> None:
    plan = make_plan(SERVER, COMMAND, [[ip_network("0.0.0.0/0")]])
    assert plan.pairs[-1].networks == (IPv6Network("::/0"),)


def test_names_of_devices_fit_the_kernel() -> None:
    plan = make_plan(SERVER, COMMAND, [[ip_network("10.0.0.0/8")]] * 16)
    names = [name for pair in plan.pairs for name in (pair.ours, pair.theirs)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 16  # IFNAMSIZ, with its NUL


def test_a_plan_travels_as_text() -> None:
    plan = make_plan(SERVER, COMMAND, [[ip_network("198.18.0.0/15"), ip_network("2001:db8::/32")]])
    assert NetworkPlan.from_json(plan.to_json()) == plan
