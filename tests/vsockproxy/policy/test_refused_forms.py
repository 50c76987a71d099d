"""Each form of address that must be refused, by name, through the whole of policy.

The policies here list as much as rules can, so that only what the case is about can refuse.
"""

from ipaddress import ip_address

import pytest

from tests.vsockproxy.policy.files import document_of, outcome, policy_of
from vsockproxy.addresses import IpAddress
from vsockproxy.policy import Policy, Reason

WIDE = """\
listen: vsock://any:5000
allowlist:
  - {address: "0.0.0.0/0", port: 443}
  - {address: "::/0", port: 443}
  - {address: "**.test", port: 443}
  - {address: localhost, port: 443}
"""
WIDE_AND_PRIVATE = WIDE.replace("443}", "443, private: true}")

PRIVATE, METADATA, RESERVED = (
    Reason.ADDRESS_PRIVATE,
    Reason.ADDRESS_METADATA,
    Reason.ADDRESS_RESERVED,
)


@pytest.fixture(scope="module", name="wide")
def _wide() -> Policy:
    return policy_of(WIDE)


@pytest.fixture(scope="module", name="wide_and_private")
def _wide_and_private() -> Policy:
    return policy_of(WIDE_AND_PRIVATE)


def addresses(*texts: str) -> tuple[IpAddress, ...]:
    return tuple(ip_address(text) for text in texts)


FORBIDDEN = [
    pytest.param("0.0.0.0", RESERVED, id="the unspecified IPv4 address"),
    pytest.param("0.1.2.3", RESERVED, id="this network, 0/8"),
    pytest.param("10.0.0.0", PRIVATE, id="the first address of 10/8"),
    pytest.param("10.255.255.255", PRIVATE, id="the last address of 10/8"),
    pytest.param("100.64.0.1", PRIVATE, id="the first of carrier-grade NAT"),
    pytest.param("100.127.255.254", PRIVATE, id="the last of carrier-grade NAT"),
    pytest.param("127.0.0.1", PRIVATE, id="loopback"),
    pytest.param("127.255.255.254", PRIVATE, id="the far end of loopback"),
    pytest.param("169.254.0.1", METADATA, id="link-local"),
    pytest.param("169.254.169.254", METADATA, id="the instance metadata service"),
    pytest.param("169.254.169.253", METADATA, id="the VPC's DNS server"),
    pytest.param("169.254.169.123", METADATA, id="the time service"),
    pytest.param("169.254.170.2", METADATA, id="the container credentials service"),
    pytest.param("172.16.0.1", PRIVATE, id="the first of 172.16/12"),
    pytest.param("172.31.255.254", PRIVATE, id="the last of 172.16/12"),
    pytest.param("192.0.0.8", RESERVED, id="the IPv4 dummy address, which is_global passes"),
    pytest.param("192.0.0.170", RESERVED, id="NAT64 discovery, in the protocol assignments"),
    pytest.param("192.0.2.1", RESERVED, id="TEST-NET-1"),
    pytest.param("192.88.99.1", RESERVED, id="the 6to4 relay anycast address"),
    pytest.param("192.168.1.1", PRIVATE, id="192.168/16"),
    pytest.param("198.18.0.1", RESERVED, id="benchmarks, where our own names live"),
    pytest.param("198.19.255.254", RESERVED, id="the far end of the benchmarks"),
    pytest.param("198.51.100.7", RESERVED, id="TEST-NET-2"),
    pytest.param("203.0.113.7", RESERVED, id="TEST-NET-3"),
    pytest.param("224.0.0.1", RESERVED, id="multicast to all hosts"),
    pytest.param("239.255.255.250", RESERVED, id="multicast of service discovery"),
    pytest.param("240.0.0.1", RESERVED, id="class E"),
    pytest.param("255.255.255.255", RESERVED, id="broadcast"),
    pytest.param("::", RESERVED, id="the unspecified IPv6 address"),
    pytest.param("::1", PRIVATE, id="IPv6 loopback"),
    pytest.param("::2", RESERVED, id="an IPv4-compatible 0.0.0.2"),
    pytest.param("::10.0.0.1", RESERVED, id="IPv4-compatible, private"),
    pytest.param("::169.254.169.254", METADATA, id="IPv4-compatible, metadata"),
    pytest.param("::8.8.8.8", RESERVED, id="IPv4-compatible, public, but not in use"),
    pytest.param("::ffff:10.0.0.1", PRIVATE, id="mapped, private"),
    pytest.param("::ffff:127.0.0.1", PRIVATE, id="mapped, loopback"),
    pytest.param("::ffff:7f00:1", PRIVATE, id="mapped loopback in hexadecimal groups"),
    pytest.param("::ffff:169.254.169.254", METADATA, id="mapped, metadata"),
    pytest.param("::ffff:0.0.0.0", RESERVED, id="mapped, unspecified"),
    pytest.param("::ffff:100.64.0.1", PRIVATE, id="mapped, carrier-grade NAT"),
    pytest.param("::ffff:0:a9fe:a9fe", METADATA, id="IPv4-translated, metadata"),
    pytest.param("::ffff:0:808:808", RESERVED, id="IPv4-translated, public, but not in use"),
    pytest.param("64:ff9b::10.0.0.1", PRIVATE, id="NAT64, private"),
    pytest.param("64:ff9b::127.0.0.1", PRIVATE, id="NAT64, loopback"),
    pytest.param("64:ff9b::169.254.169.254", METADATA, id="NAT64, metadata"),
    pytest.param("64:ff9b::224.0.0.1", RESERVED, id="NAT64, multicast"),
    pytest.param("64:ff9b::1:808:808", RESERVED, id="beside the NAT64 prefix"),
    pytest.param("64:ff9b:1::a9fe:a9fe", METADATA, id="local NAT64 of 96 bits, metadata"),
    pytest.param("64:ff9b:1:a9fe:a9:fe00::", METADATA, id="local NAT64 of 48 bits, metadata"),
    pytest.param(
        "64:ff9b:1:a9fe:a9:fe00:808:808",
        METADATA,
        id="local NAT64 of 48 bits, metadata, with a public address as its suffix",
    ),
    pytest.param("64:ff9b:1:a9:fe:a9fe::", METADATA, id="local NAT64 of 56 bits, metadata"),
    pytest.param("64:ff9b:1:0:a9:fea9:fe00::", METADATA, id="local NAT64 of 64 bits, metadata"),
    pytest.param("64:ff9b:1::", RESERVED, id="local NAT64 of nothing"),
    pytest.param("64:ff9b:2::808:808", RESERVED, id="beside the local NAT64 prefix"),
    pytest.param("100::1", RESERVED, id="the discard prefix"),
    pytest.param("2001::1", RESERVED, id="Teredo without a server"),
    pytest.param("2001:0:a00:1::f7f7:f7f7", PRIVATE, id="Teredo, private server"),
    pytest.param("2001:0:808:808::f5ff:fffe", PRIVATE, id="Teredo, private client"),
    pytest.param("2001:0:808:808::5601:5601", METADATA, id="Teredo, metadata client"),
    pytest.param("2001:1::1", RESERVED, id="the port control anycast address"),
    pytest.param("2001:2::1", RESERVED, id="IPv6 benchmarks"),
    pytest.param("2001:20::1", RESERVED, id="ORCHIDv2"),
    pytest.param("2001:1ff:ffff::1", RESERVED, id="the last protocol assignment, 2001::/23"),
    pytest.param("2001:db8::1", RESERVED, id="IPv6 documentation"),
    pytest.param("2002:a00:1::1", PRIVATE, id="6to4, private"),
    pytest.param("2002:7f00:1::1", PRIVATE, id="6to4, loopback"),
    pytest.param("2002:a9fe:a9fe::1", METADATA, id="6to4, metadata"),
    pytest.param("2002:e000:1::1", RESERVED, id="6to4, multicast"),
    pytest.param("2600::5efe:10.0.0.1", PRIVATE, id="ISATAP, private"),
    pytest.param("2600::200:5efe:a9fe:a9fe", METADATA, id="ISATAP, metadata"),
    pytest.param("2002:808:808::5efe:a9fe:a9fe", METADATA, id="ISATAP, metadata behind 6to4"),
    pytest.param("3fff::1", RESERVED, id="the newer IPv6 documentation"),
    pytest.param("4000::1", RESERVED, id="above the global unicast space"),
    pytest.param("5f00::1", RESERVED, id="segment routing"),
    pytest.param("fc00::1", PRIVATE, id="the half of ULA that nobody assigns"),
    pytest.param("fd12:3456::1", PRIVATE, id="ULA"),
    pytest.param("fd00:ec2::254", METADATA, id="the IPv6 metadata service"),
    pytest.param("fd00:ec2::253", METADATA, id="the VPC's IPv6 DNS server"),
    pytest.param("fd00:ec2::23", METADATA, id="the IPv6 pod identity service"),
    pytest.param("fe80::1", METADATA, id="IPv6 link-local"),
    pytest.param("fe80::5efe:8.8.8.8", METADATA, id="link-local ISATAP of a public address"),
    pytest.param("fec0::1", RESERVED, id="site-local, deprecated"),
    pytest.param("ff02::1", RESERVED, id="IPv6 multicast"),
    pytest.param("ff0e::1", RESERVED, id="IPv6 multicast with global scope"),
]


@pytest.mark.parametrize(("text", "reason"), FORBIDDEN)
def test_refused_as_a_literal_under_a_wide_cidr(wide: Policy, text: str, reason: Reason) -> None:
    decision, passed = outcome(wide, text, 443)
    assert (decision.allowed, decision.reason, passed) == (False, reason, ())


@pytest.mark.parametrize(("text", "reason"), FORBIDDEN)
def test_refused_as_the_answer_for_a_listed_name(wide: Policy, text: str, reason: Reason) -> None:
    decision, passed = outcome(wide, "name.test", 443, addresses(text))
    assert (decision.allowed, decision.reason, passed) == (False, reason, ())


@pytest.mark.parametrize(("text", "reason"), FORBIDDEN)
def test_refused_beside_a_public_address(wide: Policy, text: str, reason: Reason) -> None:
    for answer in (addresses("8.8.8.8", text), addresses(text, "2600::1")):
        decision, passed = outcome(wide, "name.test", 443, answer)
        assert (decision.allowed, decision.reason, passed) == (False, reason, ())


@pytest.mark.parametrize(("text", "reason"), FORBIDDEN)
def test_private_true_opens_private_addresses_only(
    wide_and_private: Policy, text: str, reason: Reason
) -> None:
    for host, answer in ((text, ()), ("name.test", addresses(text))):
        decision, passed = outcome(wide_and_private, host, 443, answer)
        opened = reason is PRIVATE
        assert decision.allowed is opened
        assert decision.reason is (Reason.LISTED if opened else reason)
        assert passed == (addresses(text) if opened else ())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("8.8.8.8", id="a public IPv4 address"),
        pytest.param("2600:1f18::1", id="a public IPv6 address"),
        pytest.param("::ffff:8.8.8.8", id="mapped, public"),
        pytest.param("64:ff9b::8.8.8.8", id="NAT64, public"),
        pytest.param("64:ff9b:1::808:808", id="local NAT64, public"),
        pytest.param("2002:808:808::1", id="6to4, public"),
        pytest.param("2001:0:808:808::f7f7:f7f7", id="Teredo, public server and client"),
        pytest.param("172.15.255.255", id="just below 172.16/12"),
        pytest.param("172.32.0.0", id="just above 172.16/12"),
        pytest.param("100.128.0.0", id="just above carrier-grade NAT"),
        pytest.param("169.255.0.0", id="just above link-local"),
        pytest.param("2001:200::1", id="just above the protocol assignments"),
        pytest.param("3fff:1000::1", id="just above the newer documentation"),
    ],
)
def test_public_addresses_pass(wide: Policy, text: str) -> None:
    for host, answer in ((text, ()), ("name.test", addresses(text))):
        decision, passed = outcome(wide, host, 443, answer)
        assert decision.reason is Reason.LISTED
        assert passed == addresses(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("0177.0.0.1", id="octal loopback"),
        pytest.param("0300.0250.0001.0001", id="octal throughout"),
        pytest.param("010.0.0.1", id="a leading zero"),
        pytest.param("127.0.0.01", id="a leading zero in the last number"),
        pytest.param("0x7f.0.0.1", id="a hexadecimal number"),
        pytest.param("0x7f000001", id="one hexadecimal number"),
        pytest.param("0xa9fea9fe", id="metadata as one hexadecimal number"),
        pytest.param("169.254.0xa9.0xfe", id="metadata with hexadecimal numbers"),
        pytest.param("2130706433", id="loopback as one decimal number"),
        pytest.param("2852039166", id="metadata as one decimal number"),
        pytest.param("0", id="zero, which is 0.0.0.0"),
        pytest.param("127.1", id="loopback in two numbers"),
        pytest.param("127.0.1", id="loopback in three numbers"),
        pytest.param("169.254.43518", id="metadata in three numbers"),
        pytest.param("1.2.3.4.5", id="five numbers"),
        pytest.param("256.0.0.1", id="a number above 255"),
        pytest.param("127.0.0.1.", id="a literal with a trailing dot"),
        pytest.param("127.0.0.1:80", id="a literal with a port"),
        pytest.param("name.test:443", id="a name with a port"),
        pytest.param("127.0.0.1%eth0", id="IPv4 with a zone"),
        pytest.param("fe80::1%eth0", id="IPv6 with a zone"),
        pytest.param("fe80::1%25eth0", id="IPv6 with an escaped zone"),
        pytest.param("[::1]", id="IPv6 in brackets"),
        pytest.param("[name.test]", id="a name in brackets"),
        pytest.param("::ffff:0177.0.0.1", id="mapped octal"),
        pytest.param("1::2::3", id="two gaps"),
        pytest.param("10.0.0.0/8", id="a CIDR as a host"),
        pytest.param("*.test", id="a pattern as a host"),
        pytest.param("**.test", id="a deep pattern as a host"),
        pytest.param("", id="nothing"),
        pytest.param(".", id="a lone dot"),
        pytest.param("..", id="two lone dots"),
        pytest.param(".name.test", id="a leading dot"),
        pytest.param("name..test", id="a doubled dot"),
        pytest.param("name.test..", id="two trailing dots"),
        pytest.param("name.test ", id="a trailing space"),
        pytest.param(" name.test", id="a leading space"),
        pytest.param("name.test\t", id="a trailing tab"),
        pytest.param("name.test\r\nHost: other.test", id="a header behind the name"),
        pytest.param("name.test\x00.other.test", id="a NUL in the name"),
        pytest.param("user@name.test", id="user information"),
        pytest.param("http://name.test", id="a URL"),
        pytest.param("name.test/path", id="a path"),
        pytest.param("name\\.test", id="a backslash"),
        pytest.param("-name.test", id="a label that begins with a hyphen"),
        pytest.param("name-.test", id="a label that ends with a hyphen"),
        pytest.param("a" * 64 + ".test", id="a label of 64 bytes"),
        pytest.param("a." * 125 + "test", id="a name of 254 bytes"),
        pytest.param("a" * 100_000, id="a name of 100 kB"),
        pytest.param("name\u3002test", id="an ideographic full stop"),
        pytest.param("name\uff0etest", id="a fullwidth full stop"),
        pytest.param("name\uff61test", id="a halfwidth full stop"),
        pytest.param("name\u2024test", id="a one dot leader"),
        pytest.param("127\u30020\u30020\u30021", id="loopback with ideographic full stops"),
        pytest.param("\uff11\uff12\uff17.0.0.1", id="loopback with fullwidth digits"),
        pytest.param("\u2460\u2461\u2466.0.0.1", id="loopback with circled digits"),
        pytest.param("\u0661\u0662\u0667.0.0.1", id="loopback with Arabic digits"),
        pytest.param("name\u200b.test", id="a zero width space"),
        pytest.param("na\u00adme.test", id="a soft hyphen"),
        pytest.param("name\u2215.test", id="a division slash"),
        pytest.param("\u2100.test", id="a sign that maps to a path, a/c"),
        pytest.param("\ud800.test", id="half a surrogate pair"),
        pytest.param("xn--\uff0e.test", id="a dot inside an A-label"),
    ],
)
def test_refused_before_any_rule_is_asked(wide: Policy, text: str) -> None:
    for policy in (wide, policy_of(WIDE + "mode: report\n")):
        decision, host = policy.decide_text(text, 443)
        assert host is None
        assert (decision.allowed, decision.reason) == (False, Reason.NOT_LISTED)
        assert decision.text.isprintable()
        assert len(decision.text) < 500


@pytest.mark.parametrize(
    ("text", "normal_form"),
    [
        pytest.param(
            "\u0440\u0430ypal.test", "xn--ypal-43d9g.test", id="Cyrillic letters in paypal"
        ),
        pytest.param(
            "g\u043e\u043egle.test", "xn--ggle-55da.test", id="Cyrillic letters in google"
        ),
        pytest.param(
            "\uff4eame.test.evil", "name.test.evil", id="a fullwidth letter, another domain"
        ),
        pytest.param("fa\u00df.test", "xn--fa-hia.test", id="a sharp s, which is not ss"),
        pytest.param("xn--80ak6aa92e.test", "xn--80ak6aa92e.test", id="an A-label look-alike"),
        pytest.param("evil-name.test", "evil-name.test", id="a name that only ends alike"),
        pytest.param("name.test.evil.example", "name.test.evil.example", id="a name in front"),
    ],
)
def test_look_alikes_of_a_listed_name_are_other_names(text: str, normal_form: str) -> None:
    policy = policy_of(
        "listen: vsock://any:5000\n"
        "allowlist:\n"
        + "".join(
            f"  - {{address: {name}, port: 443}}\n"
            for name in ("paypal.test", "google.test", "name.test", "fass.test", "apple.test")
        )
    )
    decision, host = policy.decide_text(text, 443)
    assert host is not None
    assert host.text == normal_form
    assert (decision.allowed, decision.reason) == (False, Reason.NOT_LISTED)


LISTED_NAMES = """\
listen: vsock://any:5000
allowlist:
  - {address: "*.one.test", port: 443}
  - {address: "**.deep.test", port: 443}
  - {address: name.test, port: 443}
  - {address: 8.8.8.8, port: 443}
denylist:
  - {address: "no.one.test"}
  - {address: "**.no.deep.test"}
  - {address: 9.9.9.0/24}
  - {address: "2620:fe::/48"}
"""


@pytest.mark.parametrize(
    ("host", "port", "answer", "reason"),
    [
        pytest.param("other.test", 443, "8.8.8.8", Reason.NOT_LISTED, id="a name nobody listed"),
        pytest.param("one.test", 443, "8.8.8.8", Reason.NOT_LISTED, id="the bare domain of *."),
        pytest.param("a.b.one.test", 443, "8.8.8.8", Reason.NOT_LISTED, id="two labels under *."),
        pytest.param("deep.test", 443, "8.8.8.8", Reason.NOT_LISTED, id="the bare domain of **."),
        pytest.param("xdeep.test", 443, "8.8.8.8", Reason.NOT_LISTED, id="no dot before a suffix"),
        pytest.param("8.8.4.4", 443, "", Reason.NOT_LISTED, id="a literal nobody listed"),
        pytest.param("::ffff:8.8.8.8", 443, "", Reason.NOT_LISTED, id="a listed literal, mapped"),
        pytest.param("9.9.9.9", 443, "", Reason.DENIED, id="a literal within a denied range"),
        pytest.param("::ffff:9.9.9.9", 443, "", Reason.DENIED, id="mapped, in a denied range"),
        pytest.param("name.test", 80, "8.8.8.8", Reason.PORT_NOT_LISTED, id="another port"),
        pytest.param("name.test", 0, "8.8.8.8", Reason.PORT_NOT_LISTED, id="port 0"),
        pytest.param("name.test", 65_979, "8.8.8.8", Reason.PORT_NOT_LISTED, id="443 + 65536"),
        pytest.param("name.test", -1, "8.8.8.8", Reason.PORT_NOT_LISTED, id="a negative port"),
        pytest.param("no.one.test", 443, "8.8.8.8", Reason.DENIED, id="a denied name under *."),
        pytest.param("NO.one.test.", 443, "8.8.8.8", Reason.DENIED, id="a denied name, disguised"),
        pytest.param("a.no.deep.test", 443, "8.8.8.8", Reason.DENIED, id="a denied subtree"),
        pytest.param("name.test", 443, "9.9.9.9", Reason.DENIED, id="an answer in a denied range"),
        pytest.param("name.test", 443, "2620:fe::fe", Reason.DENIED, id="the same in IPv6"),
        pytest.param("name.test", 443, "64:ff9b::909:909", Reason.DENIED, id="denied, in NAT64"),
        pytest.param("name.test", 443, "2002:909:909::1", Reason.DENIED, id="denied, in 6to4"),
        pytest.param(
            "name.test", 443, "2001:0:909:909::f7f7:f7f7", Reason.DENIED, id="a Teredo server"
        ),
        pytest.param(
            "name.test", 443, "2001:0:808:808::f6f6:f6f6", Reason.DENIED, id="a Teredo client"
        ),
        pytest.param(
            "name.test", 443, "169.254.169.254", METADATA, id="metadata behind an exact name"
        ),
        pytest.param("a.one.test", 443, "169.254.169.254", METADATA, id="metadata behind *."),
        pytest.param("a.b.deep.test", 443, "fd00:ec2::254", METADATA, id="metadata behind **."),
        pytest.param(
            "a.one.test", 443, "::ffff:169.254.169.254", METADATA, id="mapped metadata behind *."
        ),
        pytest.param("name.test", 443, "", Reason.NO_SUCH_NAME, id="a name without an address"),
    ],
)
def test_refused_by_the_lists(host: str, port: int, answer: str, reason: Reason) -> None:
    policy = policy_of(LISTED_NAMES)
    decision, passed = outcome(policy, host, port, addresses(answer) if answer else ())
    assert (decision.allowed, decision.reason, passed) == (False, reason, ())


def test_a_name_that_changes_its_answer_is_judged_each_time() -> None:
    policy = policy_of(LISTED_NAMES)
    first, dialled = outcome(policy, "name.test", 443, addresses("8.8.8.8"))
    assert (first.allowed, dialled) == (True, addresses("8.8.8.8"))
    second, dialled = outcome(policy, "name.test", 443, addresses("127.0.0.1"))
    assert (second.reason, dialled) == (PRIVATE, ())


def test_only_addresses_of_the_judged_answer_are_handed_back() -> None:
    policy = policy_of(LISTED_NAMES)
    answer = addresses("8.8.8.8", "2600::1", "1.1.1.1")
    assert outcome(policy, "name.test", 443, answer)[1] == answer


def test_mixed_drop_dials_what_is_left_and_nothing_else() -> None:
    policy = policy_of(LISTED_NAMES + "mixed: drop\n")
    answer = addresses("10.0.0.1", "8.8.8.8", "9.9.9.9", "::ffff:127.0.0.1", "2600::1")
    decision, dialled = outcome(policy, "name.test", 443, answer)
    assert decision.reason is Reason.LISTED
    assert dialled == addresses("8.8.8.8", "2600::1")


def test_mixed_drop_refuses_when_nothing_is_left() -> None:
    policy = policy_of(LISTED_NAMES + "mixed: drop\n")
    decision, dialled = outcome(policy, "name.test", 443, addresses("10.0.0.1", "224.0.0.1"))
    assert (decision.reason, dialled) == (RESERVED, ())


def test_the_reason_does_not_change_with_the_order_of_the_answer() -> None:
    policy = policy_of(LISTED_NAMES)
    answer = addresses("10.0.0.1", "169.254.169.254", "224.0.0.1", "8.8.8.8")
    for turned in (answer, answer[::-1], answer[2:] + answer[:2]):
        assert outcome(policy, "name.test", 443, turned)[0].reason is METADATA


def test_this_page_names_enough_forms() -> None:
    assert len(FORBIDDEN) >= 80
    assert len({parameter.id for parameter in FORBIDDEN}) == len(FORBIDDEN)


def test_a_document_survives_the_way_to_a_worker_with_its_refusals() -> None:
    document = document_of(WIDE)
    again = type(document).from_builtins(document.to_builtins())
    decision, _ = outcome(Policy.compile(again), "127.0.0.1", 443)
    assert decision.text == "127.0.0.1 is loopback: add private: true at parent.yaml:3"
