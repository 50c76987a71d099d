"""Rules for one address that the address guard refuses, as `check` warns of them."""

import pytest

from vsockproxy.config.load import parse
from vsockproxy.policy.closed_literals import advise_closed_literals, needs_private

ENCLAVE = "parent: vsock://3:5000\n"
PARENT = "listen: vsock://any:5000\n"

RULES = {
    "loopback": (
        "{address: 127.0.0.1, port: 9000}",
        "127.0.0.1 is loopback, which this rule does not open: add private: true",
    ),
    "loopback of IPv6": (
        "{address: '::1', port: 9000}",
        "::1 is loopback, which this rule does not open: add private: true",
    ),
    "private": (
        "{address: 10.0.0.1, port: 9000}",
        "10.0.0.1 is private, which this rule does not open: add private: true",
    ),
    "the metadata service": (
        "{address: 169.254.169.254, port: 80}",
        "169.254.169.254 is instance metadata (link-local), which this rule does not open: "
        "add metadata: true, if programs may have this instance's role",
    ),
    "multicast": (
        "{address: 224.0.0.1, port: 80, private: true}",
        "224.0.0.1 is multicast, which this rule does not open: remove it: no rule opens it",
    ),
    "opened": ("{address: 127.0.0.1, port: 9000, private: true}", None),
    "the metadata service, opened": ("{address: 169.254.169.254, port: 80, metadata: true}", None),
    "public": ("{address: 1.1.1.1, port: 443}", None),
    "a private network": (
        "{address: 10.20.0.0/16, port: 443}",
        "10.20.0.0/16 is private, which this rule does not open: add private: true",
    ),
    "all of a class": (
        "{address: 'fc00::/8', port: 443}",
        "fc00::/8 is private, which this rule does not open: add private: true",
    ),
    "a network of metadata": (
        "{address: 169.254.169.0/24, port: 80}",
        "169.254.169.0/24 is instance metadata (link-local), which this rule does not open: "
        "write the one address that is meant, as 169.254.169.254, with metadata: true",
    ),
    "a network for documentation": (
        "{address: 192.0.2.0/24, port: 80, private: true}",
        "192.0.2.0/24 is for documentation, which this rule does not open: "
        "remove it: no rule opens it",
    ),
    "a private network, opened": ("{address: 10.0.0.0/8, port: 443, private: true}", None),
    "a public network": ("{address: 1.1.1.0/24, port: 443}", None),
    "a network of several classes": ("{address: 172.0.0.0/8, port: 443}", None),
    "everything": ("{address: 0.0.0.0/0, port: 443}", None),
    "everything in IPv6": ("{address: '::/0', port: 443}", None),
    "a network with IPv4 inside": ("{address: '64:ff9b::/96', port: 443}", None),
    "private addresses with metadata among them": ("{address: 'fc00::/7', port: 443}", None),
    "a name": ("{address: a.example, port: 443}", None),
    "something else is dialled": ("{address: 10.0.0.1, port: 443, dial: 'a.example:443'}", None),
}


@pytest.mark.parametrize("side", [ENCLAVE, PARENT], ids=["enclave", "parent"])
@pytest.mark.parametrize(("rule", "said"), RULES.values(), ids=RULES)
def test_a_rule_that_opens_nothing_is_warned_of(rule: str, said: str | None, side: str) -> None:
    found = advise_closed_literals(parse(f"{side}allowlist: [{rule}]".encode(), "f"))
    wanted = [] if said is None else [f"f:2: allowlist[0]: {said}"]
    assert [str(each) for each in found] == wanted


def test_one_of_an_entry_is_warned_of() -> None:
    rule = "{address: 10.0.0.1, port: 443}"
    text = f"{PARENT}enclaves:\n- cid: 16\n  allowlist: [{rule}]\n"
    (found,) = advise_closed_literals(parse(text.encode(), "f"))
    assert str(found).startswith("f:4: enclaves[0].allowlist[0]: 10.0.0.1 is private")


@pytest.mark.parametrize(
    ("host", "needed"),
    [
        ("kms.example", False),
        ("1.1.1.1", False),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", False),
    ],
)
def test_which_hosts_need_private(host: str, needed: bool) -> None:
    assert needs_private(host) is needed
