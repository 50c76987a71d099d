"""What a file must keep to so that names can listen: its ports in all, and its block."""

import pytest

from vsockproxy.config.load import ConfigErrors, parse

TOP = "parent: vsock://3:5000\n"


def report(text: str) -> list[str]:
    """What `check` says of a file `f`."""
    try:
        parse(text.encode(), "f")
    except ConfigErrors as errors:
        return [str(error) for error in errors.errors]
    return []


def with_rules(*rules: str, more: str = "") -> str:
    return f"{TOP}allowlist:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules) + more


def too_many(line: int, path: str, count: int) -> str:
    return (
        f"f:{line}: {path}: names would listen on {count} different ports, 256 are possible: "
        "add names: false to the rule, or write fewer ports"
    )


WITHIN = {
    "256 ports in a rule": ["address: a.test, ports: [1000-1255]"],
    "256 ports in two rules": [
        "address: a.test, ports: [1000-1127]",
        "address: b.test, ports: [1128-1255]",
    ],
    "the same 256 ports in two rules": [
        "address: a.test, ports: [1000-1255]",
        "address: b.test, ports: [1000-1255]",
        "address: 10.0.0.0/8, port: 1100",
    ],
    "every port, without names": ["address: a.test, ports: [1-65535], names: false"],
    "256 ports beside every port without names": [
        "address: a.test, ports: [1-65535], names: false",
        "address: b.test, ports: [1000-1255]",
    ],
    "every port of loopback, which names cannot lead to": [
        "address: 127.0.0.0/8, ports: [1-65535], private: true",
        "address: '::1', ports: [1-65535], private: true",
    ],
}


@pytest.mark.parametrize("rules", WITHIN.values(), ids=WITHIN)
def test_ports_that_names_can_listen_on_are_accepted(rules: list[str]) -> None:
    assert report(with_rules(*rules)) == []


BEYOND = {
    "257 ports in a rule": (
        ["address: a.test, ports: [1000-1256]"],
        [too_many(3, "allowlist[0].ports", 257)],
    ),
    "every port of a network": (
        ["address: 10.0.0.0/8, ports: [1-65535]"],
        [too_many(3, "allowlist[0].ports", 65_535)],
    ),
    "one port too many, in another rule": (
        ["address: a.test, ports: [1000-1255]", "address: b.test, port: 443"],
        [too_many(4, "allowlist[1].port", 257)],
    ),
    "a rule that fits behind two that do not": (
        [
            "address: a.test, ports: [1-65535]",
            "address: b.test, port: 443",
            "address: c.test, ports: [1000-1299]",
            "address: d.test, ports: [1000-1254]",
        ],
        [too_many(3, "allowlist[0].ports", 65_535), too_many(5, "allowlist[2].ports", 301)],
    ),
}


@pytest.mark.parametrize(("rules", "lines"), BEYOND.values(), ids=BEYOND)
@pytest.mark.parametrize("shim", ["", "shim: {names_block: 10.99.0.0/16}\n"])
def test_more_ports_are_refused(rules: list[str], lines: list[str], shim: str) -> None:
    assert report(with_rules(*rules, more=shim)) == lines


def test_without_names_every_port_is_accepted() -> None:
    everything = "address: a.test, ports: [1-65535]"
    assert report(with_rules(everything, more="shim: {names: false}\n")) == []


def test_the_parents_file_knows_no_such_limit() -> None:
    text = "listen: vsock://any:5000\nallowlist: [{address: a.test, ports: [1-65535]}]\n"
    assert report(text) == []


WRONG_RULES = {
    "no port at all": "address: a.test",
    "a port and ports": "address: a.test, port: 1, ports: [1-65535]",
    "a broken range": "address: a.test, ports: [1-65535, 9-1]",
    "a port that is none": "address: a.test, ports: [1-65535, 70000]",
    "no pattern": "address: '*', ports: [1-65535]",
}


@pytest.mark.parametrize("rule", WRONG_RULES.values(), ids=WRONG_RULES)
def test_a_rule_that_is_wrong_in_itself_has_that_fault_alone(rule: str) -> None:
    (line,) = report(with_rules(rule))
    assert "names would listen" not in line


BLOCKS = ["198.18.0.0/15", "10.0.0.0/8", "100.64.0.0/10", "192.0.2.0/28"]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_accepted(block: str) -> None:
    assert report(f"{TOP}shim: {{names_block: {block}}}\n") == []


WRONG_BLOCKS = {
    "one address": (
        "10.0.0.1/32",
        "a block of 1 addresses: write a network of /8 to /28, as 198.18.0.0/15",
    ),
    "eight addresses": (
        "10.0.0.0/29",
        "a block of 8 addresses: write a network of /8 to /28, as 198.18.0.0/15",
    ),
    "too many addresses": (
        "10.0.0.0/7",
        "a block of 33554432 addresses: write a network of /8 to /28, as 198.18.0.0/15",
    ),
    "loopback": (
        "127.1.0.0/16",
        "programs cannot dial the addresses of 127.1.0.0/16: "
        "write a network that nothing else uses, as 198.18.0.0/15",
    ),
    "multicast": (
        "224.0.0.0/8",
        "programs cannot dial the addresses of 224.0.0.0/8: "
        "write a network that nothing else uses, as 198.18.0.0/15",
    ),
    "around the metadata service": (
        "169.0.0.0/8",
        "programs cannot dial the addresses of 169.0.0.0/8: "
        "write a network that nothing else uses, as 198.18.0.0/15",
    ),
    "this network": (
        "0.0.0.0/8",
        "programs cannot dial the addresses of 0.0.0.0/8: "
        "write a network that nothing else uses, as 198.18.0.0/15",
    ),
}


@pytest.mark.parametrize(("block", "error"), WRONG_BLOCKS.values(), ids=WRONG_BLOCKS)
def test_a_block_for_no_names_is_refused(block: str, error: str) -> None:
    assert report(f"{TOP}shim: {{names_block: {block}}}\n") == [f"f:2: shim.names_block: {error}"]
