"""Which lists of which file hold for which enclave."""

from ipaddress import ip_address

import pytest

from tests.vsockproxy.policy.files import decide, document_of, outcome, policy_of
from vsockproxy.policy import Reason, may_connect


class TestByCid:
    TEXT = """\
listen: vsock://any:5000
allowlist:
  - {address: all.test, port: 443}
denylist:
  - {address: 9.9.9.9}
enclaves:
  - {cid: 16, name: web, allowlist: [{address: web.test, port: 443}]}
  - cid: 17
    denylist:
      - {address: 8.8.8.8}
  - cid: 3
    allowlist:
      - {address: self.test, port: 443}
"""

    @pytest.mark.parametrize(
        ("cid", "allowed"),
        [
            pytest.param(None, "all.test", id="the file's own lists"),
            pytest.param(4, "all.test", id="an enclave without an entry"),
            pytest.param(16, "web.test", id="an entry with an allowlist replaces the file's"),
            pytest.param(17, None, id="an entry without an allowlist allows nothing"),
            pytest.param(3, "self.test", id="a low CID with an entry"),
            pytest.param(2, None, id="a low CID without an entry"),
        ],
    )
    def test_which_allowlist_holds(self, cid: int | None, allowed: str | None) -> None:
        policy = policy_of(self.TEXT, cid=cid)
        names = ("all.test", "web.test", "self.test")
        found = [name for name in names if decide(policy, name, 443).allowed]
        assert found == ([allowed] if allowed is not None else [])

    def test_a_denylist_is_added(self) -> None:
        text = self.TEXT.replace(
            "cid: 17\n", "cid: 17\n    allowlist: [{address: a.test, port: 443}]\n"
        )
        policy = policy_of(text, cid=17)
        sources = {}
        for address in ("9.9.9.9", "8.8.8.8"):
            decision, _ = outcome(policy, "a.test", 443, (ip_address(address),))
            assert decision.reason is Reason.DENIED
            assert decision.rule is not None
            sources[address] = decision.rule.source
        assert sources == {"9.9.9.9": "parent.yaml:5", "8.8.8.8": "parent.yaml:11"}
        assert outcome(policy_of(text), "all.test", 443, (ip_address("8.8.8.8"),))[0].allowed

    @pytest.mark.parametrize(
        ("cid", "where"),
        [
            pytest.param(16, "allowlist of cid 16 in parent.yaml", id="an entry's own list"),
            pytest.param(
                2,
                "allowlist of a new entry for cid 2 under enclaves in parent.yaml",
                id="a low CID that needs an entry",
            ),
        ],
    )
    def test_a_refusal_says_which_list_to_add_to(self, cid: int, where: str) -> None:
        text = decide(policy_of(self.TEXT, cid=cid), "x.test", 443).text
        assert text.endswith(f"to {where}")

    def test_report_does_not_help_a_low_cid_without_an_entry(self) -> None:
        policy = policy_of(self.TEXT + "mode: report\n", cid=1)
        assert not decide(policy, "all.test", 443).allowed

    @pytest.mark.parametrize(
        ("cid", "connects"),
        [
            *(pytest.param(cid, cid == 3, id=f"CID {cid}") for cid in range(4)),
            pytest.param(4, True, id="the first CID that needs no entry"),
            pytest.param(16, True, id="a CID with an entry"),
            pytest.param(0xFFFF_FFFE, True, id="the last CID"),
        ],
    )
    def test_which_cids_may_connect(self, cid: int, connects: bool) -> None:
        assert may_connect(document_of(self.TEXT), cid) is connects

    def test_nobody_connects_to_an_enclave_s_policy(self) -> None:
        assert not may_connect(document_of("parent: vsock://3:5000\n", "enclave.yaml"), 16)


class TestAws:
    TEXT = """\
allowlist:
- {address: kms.us-east-1.amazonaws.com, port: 443}
- {address: 169.254.169.254, port: 80}
"""

    def test_a_listed_entry_may_be_private(self) -> None:
        policy = policy_of(self.TEXT, "vsock-proxy.yaml")
        for address in ("10.0.0.1", "127.0.0.1", "fd00::1", "8.8.8.8"):
            answer = (ip_address(address),)
            decision, dialled = outcome(policy, "kms.us-east-1.amazonaws.com", 443, answer)
            assert (decision.allowed, dialled) == (True, answer)
        assert not policy.requires_tls(decision.rule)

    def test_metadata_stays_closed(self) -> None:
        decision, _ = outcome(policy_of(self.TEXT, "vsock-proxy.yaml"), "169.254.169.254", 80)
        assert decision.reason is Reason.ADDRESS_METADATA
        assert decision.text == (
            "169.254.169.254 is instance metadata (link-local): only a rule with metadata: true in "
            "a file of `vsockproxy parent` opens it"
        )

    def test_a_refusal_suggests_only_keys_that_the_file_has(self) -> None:
        decision = decide(policy_of(self.TEXT, "vsock-proxy.yaml"), "10.0.0.1", 443)
        assert decision.text == (
            '10.0.0.1:443 is not listed: add {address: "10.0.0.1", port: 443} to allowlist in '
            "vsock-proxy.yaml"
        )

    def test_any_cid_connects(self) -> None:
        assert may_connect(document_of(self.TEXT, "vsock-proxy.yaml"), 1)
