from ipaddress import ip_address

import pytest

from tests.vsockproxy.policy.files import decide, outcome, policy_of
from vsockproxy.addresses import normalise_host, parse_destination
from vsockproxy.policy import Policy, Reason

PARENT = """\
listen: vsock://any:5000
allowlist:
  - {address: kms.eu-west-1.amazonaws.com, port: 443}
  - {address: "*.s3.eu-west-1.amazonaws.com", ports: [443, 8000-8010]}
  - {address: "**.example.com", port: 443, require_tls: true}
  - {address: 10.20.0.0/16, ports: [5432, 6432-6440], private: true}
  - {address: 169.254.169.254, port: 80, metadata: true}
  - {address: 169.254.0.0/16, port: 81}
  - {address: 10.30.0.0/16, port: 443}
  - {address: db.example.com, port: 5432, private: true, require_tls: false}
denylist:
  - {address: "internal.s3.eu-west-1.amazonaws.com", port: 443}
  - {address: 10.20.9.0/24}
"""


@pytest.fixture(scope="module", name="parent")
def _parent() -> Policy:
    return policy_of(PARENT)


@pytest.mark.parametrize(
    ("host", "port", "line"),
    [
        pytest.param("kms.eu-west-1.amazonaws.com", 443, 3, id="an exact name"),
        pytest.param("KMS.EU-West-1.AmazonAWS.com.", 443, 3, id="case and trailing dot"),
        pytest.param("bucket.s3.eu-west-1.amazonaws.com", 443, 4, id="one label under *."),
        pytest.param("bucket.s3.eu-west-1.amazonaws.com", 8010, 4, id="the end of a range"),
        pytest.param("a.example.com", 443, 5, id="one label under **."),
        pytest.param("a.b.c.d.example.com", 443, 5, id="four labels under **."),
        pytest.param("xn--mnchen-3ya.example.com", 443, 5, id="an A-label"),
        pytest.param("m\u00fcnchen.example.com", 443, 5, id="the same as a U-label"),
        pytest.param("db.example.com", 443, 5, id="the first rule whose port fits"),
        pytest.param("db.example.com", 5432, 10, id="a later rule, by port"),
        pytest.param("10.20.1.2", 5432, 6, id="a literal in a CIDR"),
        pytest.param("169.254.169.254", 80, 7, id="the metadata literal"),
    ],
)
def test_listed(parent: Policy, host: str, port: int, line: int) -> None:
    decision, addresses = outcome(parent, host, port, (ip_address("8.8.8.8"),))
    assert decision.allowed
    assert decision.reason is Reason.LISTED
    assert decision.rule is not None
    assert decision.rule.source == f"parent.yaml:{line}"
    assert len(addresses) == 1


@pytest.mark.parametrize(
    ("host", "port", "answer", "text"),
    [
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "10.0.3.7",
            "kms.eu-west-1.amazonaws.com resolved to 10.0.3.7, private (a VPC endpoint?): "
            "add private: true at parent.yaml:3",
            id="a name that leads to a VPC endpoint",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "127.0.0.1",
            "kms.eu-west-1.amazonaws.com resolved to 127.0.0.1, loopback: "
            "add private: true at parent.yaml:3",
            id="a name that leads to loopback",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "64:ff9b::10.0.3.7",
            "kms.eu-west-1.amazonaws.com resolved to 64:ff9b::a00:307, which holds 10.0.3.7, "
            "private (a VPC endpoint?): add private: true at parent.yaml:3",
            id="a private address inside NAT64",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "169.254.169.254",
            "kms.eu-west-1.amazonaws.com resolved to 169.254.169.254, instance metadata "
            "(link-local): only a rule that is that literal, with metadata: true, opens it",
            id="a name that leads to metadata",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "224.0.0.1",
            "kms.eu-west-1.amazonaws.com resolved to 224.0.0.1, multicast: no rule opens it",
            id="a name that leads to multicast",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "10.20.9.1",
            "kms.eu-west-1.amazonaws.com resolved to 10.20.9.1, denied at parent.yaml:13",
            id="a name that leads into a denied range",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "::ffff:10.20.9.1",
            "kms.eu-west-1.amazonaws.com resolved to ::ffff:10.20.9.1, which holds 10.20.9.1, "
            "denied at parent.yaml:13",
            id="a name that leads into a denied range, mapped",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            443,
            "",
            "kms.eu-west-1.amazonaws.com has no address",
            id="a name without an address",
        ),
        pytest.param(
            "10.30.0.1",
            443,
            "",
            "10.30.0.1 is private: add private: true at parent.yaml:9",
            id="a literal under a CIDR without private: true",
        ),
        pytest.param(
            "169.254.169.254",
            81,
            "",
            "169.254.169.254 is instance metadata (link-local): "
            'add {address: "169.254.169.254", port: 81, metadata: true} to allowlist in '
            "parent.yaml, before parent.yaml:8",
            id="metadata under a CIDR",
        ),
        pytest.param(
            "kms.eu-west-1.amazonaws.com",
            80,
            "",
            "kms.eu-west-1.amazonaws.com is listed for port 443 (parent.yaml:3), not for port 80: "
            'add {address: "kms.eu-west-1.amazonaws.com", port: 80} to allowlist in parent.yaml',
            id="another port",
        ),
        pytest.param(
            "db.example.com",
            1,
            "",
            "db.example.com is listed for port 443 (parent.yaml:5), port 5432 (parent.yaml:10), "
            'not for port 1: add {address: "db.example.com", port: 1} to allowlist in parent.yaml',
            id="another port, with several rules",
        ),
        pytest.param(
            "example.org",
            443,
            "",
            'example.org:443 is not listed: add {address: "example.org", port: 443} to allowlist '
            "in parent.yaml",
            id="a name nobody listed",
        ),
        pytest.param(
            "2600::1",
            443,
            "",
            '[2600::1]:443 is not listed: add {address: "2600::1", port: 443} to allowlist in '
            "parent.yaml",
            id="a literal nobody listed",
        ),
        pytest.param(
            "192.168.7.7",
            443,
            "",
            '192.168.7.7:443 is not listed: add {address: "192.168.7.7", port: 443, '
            "private: true} to allowlist in parent.yaml",
            id="a private literal nobody listed",
        ),
        pytest.param(
            "fd00:ec2::254",
            80,
            "",
            '[fd00:ec2::254]:80 is not listed: add {address: "fd00:ec2::254", port: 80, '
            "metadata: true} to allowlist in parent.yaml",
            id="a metadata literal nobody listed",
        ),
        pytest.param(
            "::ffff:169.254.169.254",
            80,
            "",
            "[::ffff:169.254.169.254]:80 is not listed: no rule opens it",
            id="metadata, mapped",
        ),
        pytest.param(
            "224.0.0.1",
            443,
            "",
            "224.0.0.1:443 is not listed: no rule opens it",
            id="multicast",
        ),
        pytest.param(
            "internal.s3.eu-west-1.amazonaws.com",
            443,
            "",
            "internal.s3.eu-west-1.amazonaws.com:443 is denied at parent.yaml:12",
            id="a denied name",
        ),
        pytest.param(
            "10.20.9.9",
            5432,
            "",
            "10.20.9.9:5432 is denied at parent.yaml:13",
            id="a denied literal within a listed CIDR",
        ),
        pytest.param(
            "a..b",
            443,
            "",
            "not a host: 'a..b' has an empty label: write single dots between labels",
            id="no host at all",
        ),
    ],
)
def test_refusals_say_what_to_do(
    parent: Policy, host: str, port: int, answer: str, text: str
) -> None:
    decision, addresses = outcome(parent, host, port, (ip_address(answer),) if answer else ())
    assert not decision.allowed
    assert addresses == ()
    assert decision.text == text


def test_a_deny_rule_with_ports_leaves_the_other_ports(parent: Policy) -> None:
    assert decide(parent, "internal.s3.eu-west-1.amazonaws.com", 443).reason is Reason.DENIED
    assert decide(parent, "internal.s3.eu-west-1.amazonaws.com", 8000).allowed


def test_among_rules_for_the_same_host_and_port_the_first_one_s_flags_hold() -> None:
    for first, second, is_private in (
        ("private: true", "private: false", True),
        ("private: false", "private: true", False),
    ):
        policy = policy_of(
            "listen: vsock://any:5000\nallowlist:\n"
            f'  - {{address: "*.a.test", port: 443, {first}}}\n'
            f"  - {{address: x.a.test, ports: [443], {second}}}\n"
        )
        decision, _ = outcome(policy, "x.a.test", 443, (ip_address("10.0.0.1"),))
        assert decision.allowed is is_private
        assert decision.rule is not None
        assert decision.rule.source == "parent.yaml:3"


class TestReport:
    POLICY = PARENT + "mode: report\n"

    @pytest.mark.parametrize(
        ("host", "port", "reason"),
        [
            pytest.param("example.org", 443, Reason.NOT_LISTED, id="a name nobody listed"),
            pytest.param("kms.eu-west-1.amazonaws.com", 80, Reason.PORT_NOT_LISTED, id="a port"),
        ],
    )
    def test_what_is_not_listed_passes_and_is_marked(
        self, host: str, port: int, reason: Reason
    ) -> None:
        public = (ip_address("8.8.8.8"),)
        decision, addresses = outcome(policy_of(self.POLICY), host, port, public)
        assert (decision.allowed, decision.reported) == (True, True)
        assert (decision.reason, decision.rule) == (reason, None)
        assert addresses == public

    def test_what_is_listed_is_not_marked(self) -> None:
        decision = decide(policy_of(self.POLICY), "kms.eu-west-1.amazonaws.com", 443)
        assert (decision.allowed, decision.reported) == (True, False)

    def test_the_denylist_stays(self) -> None:
        policy = policy_of(self.POLICY)
        assert decide(policy, "10.20.9.9", 1).reason is Reason.DENIED
        decision, _ = outcome(policy, "example.org", 443, (ip_address("10.20.9.9"),))
        assert (decision.allowed, decision.reason) == (False, Reason.DENIED)

    def test_the_guard_stays(self) -> None:
        decision, _ = outcome(policy_of(self.POLICY), "example.org", 443, (ip_address("10.0.0.1"),))
        assert (decision.allowed, decision.reported) == (False, False)
        assert decision.text == (
            "example.org resolved to 10.0.0.1, private (a VPC endpoint?): "
            'add {address: "example.org", port: 443, private: true} to allowlist in parent.yaml'
        )

    def test_a_literal_of_metadata_stays_closed(self) -> None:
        decision, _ = outcome(policy_of(self.POLICY), "fd00:ec2::254", 80)
        assert decision.reason is Reason.ADDRESS_METADATA
        assert decision.text == (
            "fd00:ec2::254 is instance metadata (link-local): "
            'add {address: "fd00:ec2::254", port: 80, metadata: true} to allowlist in parent.yaml'
        )


class TestDial:
    LISTS = """\
listen: vsock://any:5000
allowlist:
  - {address: kms.test, port: 443, dial: "10.0.0.9:8443", private: true}
  - {address: shut.test, port: 443, dial: "10.0.0.9:8443"}
  - {address: named.test, port: 443, dial: "vpce.test:8443"}
  - {address: banned.test, port: 443, dial: "banned-vpce.test:443"}
  - {address: banned-literal.test, port: 443, dial: "192.0.2.1:443"}
  - {address: other-port.test, port: 443, dial: "8.8.8.8:8443"}
  - {address: 169.254.169.254, port: 80, dial: "169.254.170.2:80", metadata: true}
denylist:
  - {address: banned-vpce.test}
  - {address: 192.0.2.0/24}
  - {address: 8.8.8.8, port: 443}
"""

    def test_the_rule_says_what_is_dialled(self) -> None:
        policy = policy_of(self.LISTS)
        host = normalise_host("kms.test")
        decision = policy.decide(host, 443)
        assert decision.dialled(host, 443) == parse_destination("10.0.0.9:8443")
        final, addresses = outcome(policy, "kms.test", 443)
        assert (final.allowed, addresses) == (True, (ip_address("10.0.0.9"),))

    def test_without_it_the_host_is_dialled(self, parent: Policy) -> None:
        host = normalise_host("kms.eu-west-1.amazonaws.com")
        assert parent.decide(host, 443).dialled(host, 443) == parse_destination(f"{host}:443")

    @pytest.mark.parametrize(
        ("host", "answer", "text"),
        [
            pytest.param(
                "shut.test",
                "",
                "shut.test is dialled as 10.0.0.9, private: add private: true at parent.yaml:4",
                id="a private literal needs private: true here too",
            ),
            pytest.param(
                "named.test",
                "10.0.0.9",
                "named.test is dialled as vpce.test, which resolved to 10.0.0.9, private "
                "(a VPC endpoint?): add private: true at parent.yaml:5",
                id="a name that leads to a private address",
            ),
            pytest.param(
                "named.test",
                "",
                "vpce.test has no address",
                id="a name without an address",
            ),
            pytest.param(
                "named.test",
                "192.0.2.7",
                "named.test is dialled as vpce.test, which resolved to 192.0.2.7, denied at "
                "parent.yaml:12",
                id="a name that leads into a denied range",
            ),
            pytest.param(
                "banned.test",
                "8.8.8.8",
                "banned.test:443 is dialled as banned-vpce.test:443, denied at parent.yaml:11",
                id="a denied name",
            ),
            pytest.param(
                "banned-literal.test",
                "",
                "banned-literal.test:443 is dialled as 192.0.2.1:443, denied at parent.yaml:12",
                id="a denied literal",
            ),
        ],
    )
    def test_what_is_dialled_is_judged(self, host: str, answer: str, text: str) -> None:
        decision, addresses = outcome(
            policy_of(self.LISTS), host, 443, (ip_address(answer),) if answer else ()
        )
        assert (decision.allowed, addresses) == (False, ())
        assert decision.text == text

    def test_an_enclave_dials_nothing_so_its_own_file_says_nothing_about_it(self) -> None:
        text = self.LISTS.replace("listen: vsock://any:5000", "parent: vsock://3:5000")
        policy = policy_of(text, "enclave.yaml")
        for name in ("kms.test", "shut.test", "banned.test", "banned-literal.test"):
            host = normalise_host(name)
            decision = policy.decide(host, 443)
            assert decision.allowed
            assert decision.dialled(host, 443) == parse_destination(f"{name}:443")

    def test_deny_rules_see_the_dialled_port(self) -> None:
        assert outcome(policy_of(self.LISTS), "other-port.test", 443)[0].allowed

    def test_metadata_true_opens_the_rule_s_own_literal_only(self) -> None:
        decision, _ = outcome(policy_of(self.LISTS), "169.254.169.254", 80)
        assert decision.reason is Reason.ADDRESS_METADATA


class TestTls:
    def test_the_rule_s_own_word_comes_before_the_file_s(self) -> None:
        for text, by_file in ((PARENT, False), (PARENT + "require_tls: true\n", True)):
            policy = policy_of(text)
            asked = {
                "kms.eu-west-1.amazonaws.com": 443,
                "a.example.com": 443,
                "db.example.com": 5432,
            }
            needs = [
                policy.requires_tls(decide(policy, host, port).rule) for host, port in asked.items()
            ]
            assert needs == [by_file, True, False]
            assert policy.requires_tls(None) is by_file

    def test_an_enclave_requires_it_unless_told_otherwise(self) -> None:
        assert policy_of("parent: vsock://3:5000\n", "enclave.yaml").requires_tls(None)
