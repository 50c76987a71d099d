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
    "a network": ("{address: 10.0.0.0/8, port: 443}", None),
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
