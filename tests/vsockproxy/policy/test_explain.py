from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from tests.vsockproxy.policy.files import document_of, policy_of
from vsockproxy.addresses import Host, IpAddress, normalise_host
from vsockproxy.config.model import ParentConfig
from vsockproxy.errors import Refused
from vsockproxy.policy import LookUp, Party, Policy, Reason, WayOut, explain

PARENT_TEXT = """\
listen: vsock://any:5000
mixed: drop
allowlist:
  - {address: kms.test, port: 443}
  - {address: "*.open.test", ports: [443, 8000-8010], private: true, require_tls: true}
  - {address: alias.test, port: 443, dial: "vpce.test:8443"}
  - {address: 10.0.0.0/8, port: 5432, private: true}
  - {address: 10.0.0.0/8, port: 5433}
denylist:
  - {address: no.open.test}
"""
ENCLAVE_TEXT = """\
parent: vsock://3:5000
allowlist:
  - {address: kms.test, port: 443}
  - {address: 10.0.0.5, port: 5432, private: true}
"""
PARENT = Party("parent", "parent.yaml", policy_of(PARENT_TEXT))
ENCLAVE = Party("enclave", "enclave.yaml", policy_of(ENCLAVE_TEXT, "enclave.yaml"))


def resolver_of(**names: str) -> LookUp:
    """Answers for names under .test, whose addresses are separated by spaces."""

    def look_up(host: Host) -> Sequence[IpAddress]:
        answer = names.get(host.text.removesuffix(".test").replace(".", "_"))
        if answer is None:
            raise Refused(Reason.NO_SUCH_NAME, f"{host}: no such name")
        return [ip_address(address) for address in answer.split()]

    return look_up


@pytest.mark.parametrize(
    ("host", "port", "look_up", "lines"),
    [
        pytest.param(
            "kms.test",
            443,
            None,
            [
                "allowed",
                "rule: kms.test port 443 at parent.yaml:4",
                "side: parent (parent.yaml): allowed",
                "guard: not asked, kms.test was not resolved (--resolve does)",
                "tls: not required",
            ],
            id="a name, not resolved",
        ),
        pytest.param(
            "kms.test",
            443,
            resolver_of(kms="8.8.8.8 10.0.3.7 64:ff9b::808:808"),
            [
                "allowed",
                "rule: kms.test port 443 at parent.yaml:4",
                "side: parent (parent.yaml): allowed",
                "guard: 8.8.8.8, public; 10.0.3.7, private, dropped; "
                "64:ff9b::808:808, which holds 8.8.8.8, public",
                "tls: not required",
            ],
            id="a name with public addresses and one that is dropped",
        ),
        pytest.param(
            "kms.test",
            443,
            resolver_of(kms="10.0.3.7"),
            [
                "refused: address_private",
                "rule: kms.test port 443 at parent.yaml:4",
                "side: parent (parent.yaml): refused: address_private",
                "guard: kms.test resolved to 10.0.3.7, private (a VPC endpoint?): "
                "add private: true at parent.yaml:4",
                "tls: not required",
            ],
            id="a name with a private address",
        ),
        pytest.param(
            "kms.test",
            443,
            resolver_of(),
            [
                "refused: no_such_name",
                "rule: kms.test port 443 at parent.yaml:4",
                "side: parent (parent.yaml): refused: no_such_name",
                "guard: not asked, kms.test: no such name",
                "tls: not required",
            ],
            id="a name that does not exist",
        ),
        pytest.param(
            "a.open.test",
            8005,
            resolver_of(a_open="10.0.3.7"),
            [
                "allowed",
                "rule: *.open.test ports 443, 8000-8010 at parent.yaml:5",
                "side: parent (parent.yaml): allowed",
                "guard: 10.0.3.7, private, opened by the rule",
                "tls: required, a ClientHello with the server name a.open.test comes first",
            ],
            id="a private address that the rule opens",
        ),
        pytest.param(
            "alias.test",
            443,
            resolver_of(vpce="8.8.8.8"),
            [
                "allowed",
                "rule: alias.test port 443 at parent.yaml:6, dialled as vpce.test:8443",
                "side: parent (parent.yaml): allowed",
                "guard: 8.8.8.8, public",
                "tls: not required",
            ],
            id="a rule that dials something else",
        ),
        pytest.param(
            "no.open.test",
            443,
            resolver_of(),
            [
                "refused: denied",
                "rule: no.open.test all ports at parent.yaml:10: "
                "no.open.test:443 is denied at parent.yaml:10",
                "side: parent (parent.yaml): refused: denied",
                "guard: not asked",
            ],
            id="a denied name",
        ),
        pytest.param(
            "other.test",
            443,
            resolver_of(),
            [
                "refused: not_listed",
                "rule: none: other.test:443 is not listed: "
                'add {address: "other.test", port: 443} to allowlist in parent.yaml',
                "side: parent (parent.yaml): refused: not_listed",
                "guard: not asked",
            ],
            id="a name that nobody listed",
        ),
        pytest.param(
            "10.1.2.3",
            5433,
            None,
            [
                "refused: address_private",
                "rule: 10.0.0.0/8 port 5433 at parent.yaml:8",
                "side: parent (parent.yaml): refused: address_private",
                "guard: 10.1.2.3 is private: add private: true at parent.yaml:8",
                "tls: not required",
            ],
            id="a literal is judged without being asked to",
        ),
    ],
)
def test_one_side(host: str, port: int, look_up: LookUp | None, lines: list[str]) -> None:
    explanation = explain([PARENT], normalise_host(host), port, look_up)
    assert list(explanation.lines) == lines
    assert explanation.allowed is (lines[0] == "allowed")


def test_both_sides_must_allow_and_each_one_s_answer_is_shown() -> None:
    explanation = explain([ENCLAVE, PARENT], normalise_host("a.open.test"), 443)
    assert not explanation.allowed
    assert list(explanation.lines) == [
        "refused: not_listed",
        "rule: none: a.open.test:443 is not listed: "
        'add {address: "a.open.test", port: 443} to allowlist in enclave.yaml',
        "side: enclave (enclave.yaml): refused: not_listed",
        "guard: not asked",
        "",
        "rule: *.open.test ports 443, 8000-8010 at parent.yaml:5",
        "side: parent (parent.yaml): allowed",
        "guard: not asked, a.open.test was not resolved (--resolve does)",
        "tls: required, a ClientHello with the server name a.open.test comes first",
    ]


def test_the_reason_is_that_of_the_first_side_that_refuses() -> None:
    explanation = explain(
        [ENCLAVE, PARENT], normalise_host("kms.test"), 443, resolver_of(kms="10.0.0.1")
    )
    assert explanation.lines[0] == "refused: address_private"
    assert "side: enclave (enclave.yaml): allowed" in explanation.lines
    assert "guard: not asked, kms.test is resolved and judged on the parent" in explanation.lines


def test_an_enclave_judges_literals_and_asks_for_no_server_name_in_them() -> None:
    explanation = explain([ENCLAVE], normalise_host("10.0.0.5"), 5432)
    assert explanation.lines[0] == "allowed"
    assert "guard: 10.0.0.5, private, opened by the rule" in explanation.lines
    assert "tls: required, a ClientHello with no server name comes first" in explanation.lines


def test_report_is_said() -> None:
    party = Party("parent", "parent.yaml", policy_of("listen: vsock://any:5000\nmode: report\n"))
    explanation = explain([party], normalise_host("any.test"), 443, resolver_of(any="8.8.8.8"))
    assert explanation.lines[:2] == (
        "allowed",
        "rule: none, and mode: report lets it pass: any.test:443 is not listed: "
        'add {address: "any.test", port: 443} to allowlist in parent.yaml',
    )


UPSTREAM_TEXT = """\
listen: vsock://any:5000
allowlist:
  - {address: "**.test", port: 443, private: true}
upstream_proxy:
  address: proxy.corp:3128
  except: ["*.here.test", 10.0.0.0/8]
"""


@pytest.mark.parametrize(
    ("host", "resolve", "way_out", "guard"),
    [
        pytest.param(
            "a.test",
            "here",
            "the upstream proxy proxy.corp:3128",
            "8.8.8.8, public",
            id="through the proxy",
        ),
        pytest.param(
            "a.test",
            "upstream",
            "the upstream proxy proxy.corp:3128",
            "not asked, the upstream proxy resolves a.test",
            id="through the proxy, which looks it up",
        ),
        pytest.param(
            "b.here.test",
            "upstream",
            "dialled directly, b.here.test is in upstream_proxy.except",
            "10.0.0.7, private, opened by the rule",
            id="an exception by name",
        ),
        pytest.param(
            "c.test",
            "here",
            "dialled directly, 10.0.0.8 is in upstream_proxy.except",
            "10.0.0.8, private, opened by the rule",
            id="an exception by address",
        ),
    ],
)
def test_the_way_out(host: str, resolve: str, way_out: str, guard: str) -> None:
    text = f"{UPSTREAM_TEXT}  resolve: {resolve}\n"
    document = document_of(text)
    assert isinstance(document.config, ParentConfig)
    assert document.config.upstream_proxy is not None
    way_out_of_file = WayOut(document.config.upstream_proxy)
    party = Party("parent", "parent.yaml", Policy.compile(document), way_out_of_file)
    look_up = resolver_of(a="8.8.8.8", b_here="10.0.0.7", c="10.0.0.8")
    explanation = explain([party], normalise_host(host), 443, look_up)
    assert explanation.allowed
    assert f"way out: {way_out}" in explanation.lines
    assert f"guard: {guard}" in explanation.lines
