"""What must hold of policy for every list, host and answer."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.vsockproxy.policy.address_oracle import may_be_dialled
from tests.vsockproxy.policy.strategies import ip_addresses
from vsockproxy.addresses import AddressError, Host, IpAddress, format_ip, normalise_host
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.config.ports import EVERY_PORT
from vsockproxy.policy import Decision, Lists, Policy, Reason, Rule
from vsockproxy.policy.embedded import embedded_ipv4

NAMES = ("test", "a.test", "b.a.test", "c.b.a.test", "other.example")
PATTERNS = (
    *NAMES,
    *(f"{stars}.{name}" for stars in ("*", "**") for name in NAMES[:3]),
    "0.0.0.0/0",
    "10.0.0.0/8",
    "8.8.8.8",
    "169.254.169.254",
    "::/0",
    "64:ff9b::/96",
)

rules = st.builds(
    Rule,
    pattern=st.sampled_from(PATTERNS).map(parse_pattern),
    ports=st.sampled_from((EVERY_PORT, ((443, 443),), ((80, 80), (443, 445)))),
    source=st.integers(1, 99).map("parent.yaml:{}".format),
    private=st.booleans(),
    metadata=st.booleans(),
)
all_lists = st.builds(
    Lists,
    allow=st.lists(rules, max_size=6).map(tuple),
    deny=st.lists(rules, max_size=3).map(tuple),
    allowlist_name=st.just("allowlist in parent.yaml"),
    mode=st.sampled_from(("enforce", "report")),
    mixed=st.sampled_from(("refuse", "drop")),
)
hosts = st.one_of(
    st.sampled_from(NAMES).map(normalise_host),
    ip_addresses.map(format_ip).map(normalise_host),
)
ports = st.sampled_from((80, 443, 8443))
answers = st.lists(ip_addresses, max_size=4)


def final(
    policy: Policy, host: Host, port: int, answer: list[IpAddress]
) -> tuple[Decision, tuple[IpAddress, ...]]:
    addresses = answer if host.address is None else [host.address]
    return policy.judge(policy.decide(host, port), host, port, addresses)


@given(all_lists, hosts, ports, answers)
def test_nothing_is_dialled_that_the_oracle_would_not(
    lists: Lists, host: Host, port: int, answer: list[IpAddress]
) -> None:
    decision, dialled = final(Policy(lists), host, port, answer)
    assert bool(dialled) == decision.allowed
    rule = decision.rule
    is_private = rule is not None and rule.private
    for address in dialled:
        is_metadata_literal = (
            rule is not None and rule.metadata and str(rule.pattern) == format_ip(address)
        )
        assert may_be_dialled(address, private=is_private) or is_metadata_literal
        assert address == host.address if host.address is not None else address in answer


@given(all_lists, hosts, ports, answers)
def test_deny_wins(lists: Lists, host: Host, port: int, answer: list[IpAddress]) -> None:
    denied_too = Policy(replace(lists, deny=(*lists.deny, *lists.allow)))
    decision, dialled = final(denied_too, host, port, answer)
    assert decision.reason is not Reason.LISTED
    if lists.mode == "enforce":
        assert (decision.allowed, dialled) == (False, ())


@given(all_lists, rules, hosts, ports, answers)
def test_a_deny_rule_more_never_allows_anything(
    lists: Lists, rule: Rule, host: Host, port: int, answer: list[IpAddress]
) -> None:
    before, dialled_before = final(Policy(lists), host, port, answer)
    stricter = Policy(replace(lists, deny=(*lists.deny, rule)))
    after, dialled_after = final(stricter, host, port, answer)
    assert before.allowed or not after.allowed
    assert set(dialled_after) <= set(dialled_before)


@given(all_lists, hosts, ports, answers)
def test_no_denied_range_is_dialled_in_any_disguise(
    lists: Lists, host: Host, port: int, answer: list[IpAddress]
) -> None:
    _, dialled = final(Policy(lists), host, port, answer)
    denies_ipv4 = any(str(rule.pattern) == "0.0.0.0/0" for rule in lists.deny)
    if denies_ipv4 and port == 443:  # every deny rule here covers 443
        for address in dialled:
            assert address.version == 6
            assert embedded_ipv4(address) == ()


@given(all_lists, hosts, ports, answers)
def test_report_lets_pass_only_what_is_not_listed(
    lists: Lists, host: Host, port: int, answer: list[IpAddress]
) -> None:
    enforced = Policy(replace(lists, mode="enforce")).decide(host, port)
    reported = Policy(replace(lists, mode="report")).decide(host, port)
    assert reported.reason is enforced.reason
    is_unlisted = enforced.reason in (Reason.NOT_LISTED, Reason.PORT_NOT_LISTED)
    assert reported.reported is is_unlisted
    assert reported.allowed is (enforced.allowed or is_unlisted)


@given(all_lists, hosts, ports, answers)
def test_every_text_is_one_bounded_printable_line(
    lists: Lists, host: Host, port: int, answer: list[IpAddress]
) -> None:
    text = final(Policy(lists), host, port, answer)[0].text
    assert text.isprintable()
    assert 0 < len(text) < 1500


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[a-zA-Z0-9.:_\-%xX]{1,30}", fullmatch=True)))
def test_normalisation_is_idempotent_and_closed(text: str) -> None:
    decision, host = Policy(Lists((), (), "allowlist in f")).decide_text(text, 443)
    assert decision.reason is Reason.NOT_LISTED
    if host is None:
        return
    assert normalise_host(host.text) == host


@given(st.text(max_size=300))
def test_any_text_at_all_is_decided(text: str) -> None:
    try:
        normalise_host(text)
        is_host = True
    except AddressError:
        is_host = False
    decision, host = Policy(Lists((), (), "allowlist in f", mode="report")).decide_text(text, 443)
    assert (host is not None) is is_host
    assert decision.allowed is is_host
    assert decision.text.isprintable()
