"""Questions for names: allowed where a stream to some port would be."""

from collections.abc import Iterable
from ipaddress import ip_address

import pytest
from hypothesis import given

from tests.vsockproxy.policy.files import policy_of
from tests.vsockproxy.policy.test_properties import all_lists, answers, hosts
from vsockproxy.addresses import Host, IpAddress, normalise_host
from vsockproxy.policy import Decision, Lists, Policy, Reason
from vsockproxy.policy.allowlist import MOST_ERROR_CHARACTERS
from vsockproxy.policy.lists import ALLOW_OPTION

PARENT = """\
listen: vsock://any:5000
allowlist:
  - {address: kms.example.com, port: 443}
  - {address: "*.apps.example.com", ports: [443, 8000-8010]}
  - {address: "**.deep.example.com", port: 443}
  - {address: db.example.com, port: 443}
  - {address: db.example.com, port: 5432, private: true}
  - {address: moved.example.com, port: 443}
  - {address: moved.example.com, port: 8443, dial: "10.0.0.1:8443", private: true}
  - {address: 192.0.2.0/24, port: 443}
  - {address: shut.example.com, ports: [443, 8443]}
denylist:
  - {address: secret.apps.example.com}
  - {address: half.apps.example.com, port: 443}
  - {address: shut.example.com, ports: [400-500, 8443]}
  - {address: unlisted.example.com, port: 443}
  - {address: gone.example.com}
  - {address: 10.1.0.0/16}
  - {address: 198.51.100.0/24, port: 443}
"""

PUBLIC = ip_address("8.8.8.8")
PRIVATE = ip_address("10.0.3.7")
IN_DENIED_RANGE = ip_address("10.1.0.1")
METADATA = ip_address("169.254.169.254")


@pytest.fixture(scope="module", name="parent")
def _parent() -> Policy:
    return policy_of(PARENT)


@pytest.fixture(scope="module", name="reporting")
def _reporting() -> Policy:
    return policy_of(PARENT + "mode: report\n")


def decide_name(policy: Policy, text: str) -> Decision:
    decision, host = policy.decide_name_text(text)
    assert host is not None
    assert decision == policy.decide_name(host)
    return decision


def judge(
    policy: Policy, text: str, addresses: Iterable[IpAddress]
) -> tuple[Decision, tuple[IpAddress, ...]]:
    host = normalise_host(text)
    return policy.judge_name(policy.decide_name(host), host, tuple(addresses))


@pytest.mark.parametrize(
    ("host", "line"),
    [
        pytest.param("kms.example.com", 3, id="an exact name"),
        pytest.param("KMS.Example.Com.", 3, id="in another form"),
        pytest.param("web.apps.example.com", 4, id="under a wildcard"),
        pytest.param("_ldap._tcp.deep.example.com", 5, id="a service, under any depth"),
        pytest.param("half.apps.example.com", 4, id="denied for one of its ports only"),
        pytest.param("db.example.com", 6, id="by two rules: the one for the lowest port"),
        pytest.param("moved.example.com", 9, id="by two rules: the one that says dial"),
        pytest.param("192.0.2.1", 10, id="a literal"),
    ],
)
def test_listed(parent: Policy, host: str, line: int) -> None:
    decision = decide_name(parent, host)
    assert (decision.allowed, decision.reason) == (True, Reason.LISTED)
    assert decision.rule is not None
    assert decision.rule.source == f"parent.yaml:{line}"
    assert decision.text == f"{normalise_host(host)} is listed at parent.yaml:{line}"
    assert not decision.reported


@pytest.mark.parametrize(
    ("host", "reason", "text"),
    [
        pytest.param(
            "other.example.com",
            Reason.NOT_LISTED,
            'other.example.com is not listed: add {address: "other.example.com", port: PORT} '
            "to allowlist in parent.yaml",
            id="not listed",
        ),
        pytest.param(
            "a.b.apps.example.com",
            Reason.NOT_LISTED,
            'a.b.apps.example.com is not listed: add {address: "a.b.apps.example.com", '
            "port: PORT} to allowlist in parent.yaml",
            id="deeper than the wildcard",
        ),
        pytest.param(
            "unlisted.example.com",
            Reason.NOT_LISTED,
            'unlisted.example.com is not listed: add {address: "unlisted.example.com", '
            "port: PORT} to allowlist in parent.yaml",
            id="not listed, and denied for one port",
        ),
        pytest.param(
            "secret.apps.example.com",
            Reason.DENIED,
            "secret.apps.example.com is denied at parent.yaml:13",
            id="denied for every port",
        ),
        pytest.param(
            "shut.example.com",
            Reason.DENIED,
            "shut.example.com is denied at parent.yaml:15",
            id="denied for every port that is listed",
        ),
        pytest.param(
            "gone.example.com",
            Reason.DENIED,
            "gone.example.com is denied at parent.yaml:17",
            id="denied for every port, and not listed",
        ),
    ],
)
def test_refused(parent: Policy, host: str, reason: Reason, text: str) -> None:
    decision = decide_name(parent, host)
    assert (decision.allowed, decision.reason, decision.text) == (False, reason, text)


def test_a_refusal_names_the_option_where_the_rules_come_from_it() -> None:
    policy = Policy(Lists(allow=(), deny=(), allowlist_name=ALLOW_OPTION))
    assert decide_name(policy, "a.test").text == "a.test is not listed: add --allow a.test:PORT"


@pytest.mark.parametrize("text", ["", "a..test", "[::1%eth0", "a" * 2000, "a\0.test"])
def test_a_text_that_is_no_host_is_not_listed_in_any_mode(
    parent: Policy, reporting: Policy, text: str
) -> None:
    for policy in (parent, reporting):
        decision, host = policy.decide_name_text(text)
        assert host is None
        assert (decision.allowed, decision.reason) == (False, Reason.NOT_LISTED)
        assert decision.text.startswith("not a host: ")
        assert decision.text.isprintable()
        assert len(decision.text) < MOST_ERROR_CHARACTERS + 20


@pytest.mark.parametrize(
    ("host", "allowed", "reason"),
    [
        pytest.param("kms.example.com", True, Reason.LISTED, id="a listed name stays listed"),
        pytest.param("other.example.com", True, Reason.NOT_LISTED, id="an unlisted name passes"),
        pytest.param(
            "unlisted.example.com", True, Reason.NOT_LISTED, id="also one with a denied port"
        ),
        pytest.param(
            "shut.example.com", True, Reason.NOT_LISTED, id="a listed one, for its other ports"
        ),
        pytest.param("gone.example.com", False, Reason.DENIED, id="a denied name does not"),
    ],
)
def test_report(reporting: Policy, host: str, allowed: bool, reason: Reason) -> None:
    decision = decide_name(reporting, host)
    assert (decision.allowed, decision.reason) == (allowed, reason)
    assert decision.reported == (allowed and reason is not Reason.LISTED)


@pytest.mark.parametrize(
    ("host", "addresses", "told"),
    [
        pytest.param("kms.example.com", [PUBLIC], [PUBLIC], id="a public address"),
        pytest.param(
            "db.example.com", [PRIVATE], [PRIVATE], id="a private one, by the second rule"
        ),
        pytest.param(
            "db.example.com",
            [PRIVATE, PUBLIC],
            [PRIVATE, PUBLIC],
            id="both, in the order of the answer",
        ),
        pytest.param(
            "web.apps.example.com",
            [ip_address("198.51.100.1"), PUBLIC],
            [],
            id="one for documentation refuses the name",
        ),
    ],
)
def test_judged(
    parent: Policy, host: str, addresses: list[IpAddress], told: list[IpAddress]
) -> None:
    decision, passed = judge(parent, host, addresses)
    assert list(passed) == told
    assert decision.allowed == bool(told)


@pytest.mark.parametrize(
    ("host", "address", "reason", "text"),
    [
        pytest.param(
            "kms.example.com",
            PRIVATE,
            Reason.ADDRESS_PRIVATE,
            "kms.example.com resolved to 10.0.3.7, private (a VPC endpoint?): "
            "add private: true at parent.yaml:3",
            id="private",
        ),
        pytest.param(
            "db.example.com",
            IN_DENIED_RANGE,
            Reason.DENIED,
            "db.example.com resolved to 10.1.0.1, denied at parent.yaml:18",
            id="denied, although the second rule opens private addresses",
        ),
        pytest.param(
            "db.example.com",
            METADATA,
            Reason.ADDRESS_METADATA,
            "db.example.com resolved to 169.254.169.254, instance metadata (link-local): "
            "only a rule that is that literal, with metadata: true, opens it",
            id="metadata",
        ),
        pytest.param(
            "kms.example.com",
            None,
            Reason.NO_SUCH_NAME,
            "kms.example.com has no address",
            id="no address",
        ),
    ],
)
def test_judged_and_refused(
    parent: Policy, host: str, address: IpAddress | None, reason: Reason, text: str
) -> None:
    decision, passed = judge(parent, host, [address] if address else [])
    assert passed == ()
    assert (decision.allowed, decision.reason, decision.text) == (False, reason, text)


def test_a_range_that_is_denied_for_one_port_leaves_the_others() -> None:
    policy = policy_of(
        "listen: vsock://any:5000\n"
        "allowlist: [{address: a.test, ports: [443, 8443]}, {address: b.test, port: 443}]\n"
        "denylist: [{address: 8.8.8.0/24, port: 443}]\n"
    )
    assert judge(policy, "a.test", [PUBLIC])[1] == (PUBLIC,)
    decision, passed = judge(policy, "b.test", [PUBLIC])
    assert (decision.reason, passed) == (Reason.DENIED, ())


def test_mixed_drop_tells_the_addresses_that_are_left() -> None:
    policy = policy_of(PARENT + "mixed: drop\n")
    decision, passed = judge(policy, "kms.example.com", [PRIVATE, PUBLIC, METADATA])
    assert (decision.allowed, passed) == (True, (PUBLIC,))


def test_the_guard_stays_where_an_unlisted_name_is_reported(reporting: Policy) -> None:
    decision, passed = judge(reporting, "other.example.com", [PRIVATE])
    assert (decision.allowed, decision.reason, passed) == (False, Reason.ADDRESS_PRIVATE, ())
    assert decision.text == (
        "other.example.com resolved to 10.0.3.7, private (a VPC endpoint?): "
        'add {address: "other.example.com", port: PORT, private: true} to allowlist in parent.yaml'
    )


def test_a_refused_name_stays_refused_whatever_its_addresses(parent: Policy) -> None:
    decision, passed = judge(parent, "gone.example.com", [PUBLIC])
    assert (decision.reason, passed) == (Reason.DENIED, ())


def ports_of_the_lists(lists: Lists) -> list[int]:
    """Every port at which anything in these lists begins or ends, and those beside them."""
    edges = {
        port
        for rule in (*lists.allow, *lists.deny)
        for span in rule.ports
        for edge in span
        for port in (edge - 1, edge, edge + 1)
    }
    return sorted(port for port in {1, *edges} if 1 <= port <= 65_535)


@given(all_lists, hosts)
def test_a_name_is_allowed_if_and_only_if_some_port_is(lists: Lists, host: Host) -> None:
    policy = Policy(lists)
    streams = [policy.decide(host, port) for port in ports_of_the_lists(lists)]
    decision = policy.decide_name(host)
    assert decision.allowed == any(stream.allowed for stream in streams)
    assert (decision.reason is Reason.LISTED) == any(
        stream.reason is Reason.LISTED for stream in streams
    )
    if decision.reason is Reason.DENIED:
        assert any(stream.reason is Reason.DENIED for stream in streams)


@given(all_lists, hosts.filter(lambda host: host.address is None), answers)
def test_an_address_is_told_if_and_only_if_some_stream_may_be_dialled_to_it(
    lists: Lists, host: Host, answer: list[IpAddress]
) -> None:
    policy = Policy(lists)
    dialled = {
        address
        for port in ports_of_the_lists(lists)
        for address in policy.judge(policy.decide(host, port), host, port, answer)[1]
    }
    decision, told = policy.judge_name(policy.decide_name(host), host, answer)
    assert told == tuple(address for address in answer if address in dialled)
    assert decision.allowed == bool(told)


@given(all_lists, hosts)
def test_a_decision_about_a_name_has_one_of_three_reasons(lists: Lists, host: Host) -> None:
    decision = Policy(lists).decide_name(host)
    assert decision.reason in {Reason.LISTED, Reason.NOT_LISTED, Reason.DENIED}
    assert decision.reported == (decision.allowed and decision.reason is not Reason.LISTED)
