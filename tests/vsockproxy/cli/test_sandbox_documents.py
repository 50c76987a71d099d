from pathlib import Path

import pytest

from vsockproxy.addresses import AddressError, Host, UnixAddress, parse_destination
from vsockproxy.cli.sandbox_documents import (
    AllowOption,
    enclave_document,
    left_out_forwards,
    link_cid,
    parent_document,
)
from vsockproxy.config.document import Document
from vsockproxy.config.load import parse
from vsockproxy.config.model import EnclaveConfig, ParentConfig
from vsockproxy.policy import Policy

LINK = UnixAddress("/tmp/x/link.sock", cid=16)

PARENT = b"""
listen: vsock://any:5000
allowlist:
  - {address: kms.example, port: 443}
denylist:
  - {address: bad.example}
enclaves:
  - cid: 16
    allowlist: [{address: own.example, port: 443}]
  - {cid: 17}
forwards:
  - {listen: "vsock://any:8000", to: "kms.example:443"}
  - {listen: "unix:///run/f.sock", to: "kms.example:443"}
log: {level: debug}
"""

ENCLAVE = b"""
parent: vsock://3:5000
allowlist:
  - {address: kms.example, port: 443}
  - {address: db.example, port: 5432, require_tls: false}
log: {level: error}
"""


@pytest.mark.parametrize(
    ("text", "address", "port", "dial"),
    [
        pytest.param("kms.example:443", "kms.example", 443, None, id="a name"),
        pytest.param("*.s3.example:443", "*.s3.example", 443, None, id="a wildcard"),
        pytest.param("[2001:db8::1]:443", "2001:db8::1", 443, None, id="IPv6"),
        pytest.param("10.0.0.0/8:5432", "10.0.0.0/8", 5432, None, id="a CIDR"),
        pytest.param("a.example:443=127.0.0.1:8443", "a.example", 443, "127.0.0.1:8443", id="dial"),
        pytest.param("a.example:443=[::1]:8443", "a.example", 443, "[::1]:8443", id="dial IPv6"),
    ],
)
def test_allow(text: str, address: str, port: int, dial: str | None) -> None:
    expected = AllowOption(address, port, parse_destination(dial) if dial else None)
    assert AllowOption.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        pytest.param("kms.example", "has no port", id="no port"),
        pytest.param(":443", "has no port", id="no host"),
        pytest.param("kms.example:0", "is no port", id="port 0"),
        pytest.param("kms.example:65536", "is no port", id="a port too high"),
        pytest.param("kms.example:https", "is no port", id="a port by name"),
        pytest.param("2001:db8::1:443", "has no brackets", id="IPv6 without brackets"),
        pytest.param("*:443", "", id="everything"),
        pytest.param("kms.example:443=", "empty", id="an empty address to dial"),
        pytest.param("kms.example:443=127.0.0.1", "has no port", id="an address without a port"),
    ],
)
def test_what_is_no_value_of_allow(text: str, what: str) -> None:
    with pytest.raises(AddressError) as raised:
        AllowOption.parse(text)
    assert what in str(raised.value)


def allows(document: Document, host: str, port: int, cid: int | None = None) -> str | None:
    """The source of the rule that allows it; None if none does."""
    decision = Policy.compile(document, cid=cid).decide(Host(host, None), port)
    return decision.rule.source if decision.allowed and decision.rule else None


def test_without_files_the_lists_hold_what_is_allowed_and_nothing_else() -> None:
    allow = [AllowOption.parse("a.example:443=127.0.0.1:8443")]
    parent = parent_document(None, allow, LINK, is_verbose=False)
    enclave = enclave_document(None, allow, LINK, is_verbose=False)
    for document, cid in ((parent, 16), (enclave, None)):
        assert allows(document, "a.example", 443, cid) == "--allow"
        assert allows(document, "b.example", 443, cid) is None
    assert isinstance(parent.config, ParentConfig)
    assert isinstance(enclave.config, EnclaveConfig)
    (parent_rule,), (enclave_rule,) = parent.config.allowlist, enclave.config.allowlist
    assert parent_rule.private
    assert enclave_rule.private
    assert parent_rule.dial == parse_destination("127.0.0.1:8443")
    assert enclave_rule.dial is None, "only the parent dials"
    assert parent.config.listen == [LINK]
    assert enclave.config.parent == UnixAddress(LINK.path)
    assert str(enclave.config.shim.http_proxy) == "tcp://127.0.0.1:3128"


def test_rules_are_added_to_the_enclaves_file_and_lines_stay_right() -> None:
    allow = [AllowOption.parse("a.example:443"), AllowOption.parse("db.example:5432")]
    document = enclave_document(parse(ENCLAVE, "enclave.yaml"), allow, LINK, is_verbose=False)
    assert isinstance(document.config, EnclaveConfig)
    assert document.config.parent == UnixAddress(LINK.path)
    assert allows(document, "a.example", 443)
    assert allows(document, "kms.example", 443) == "enclave.yaml:4"
    decision = Policy.compile(document).decide(Host("db.example", None), 5432)
    assert decision.rule is not None
    assert decision.rule.private, "the option comes before the file's rule"
    assert document.location("allowlist[3].require_tls") == "enclave.yaml:5"


def test_rules_are_added_to_the_parents_file_for_the_sandboxs_cid() -> None:
    allow = [AllowOption.parse("a.example:443")]
    document = parent_document(parse(PARENT, "parent.yaml"), allow, LINK, is_verbose=False)
    assert allows(document, "a.example", 443, 16)
    assert allows(document, "own.example", 443, 16) == "parent.yaml:9"
    assert allows(document, "kms.example", 443, 16) is None, "its own list replaces the file's"
    assert allows(document, "kms.example", 443, 18) == "parent.yaml:4"
    assert allows(document, "bad.example", 443, 16) is None
    assert isinstance(document.config, ParentConfig)
    assert document.config.listen == [LINK]
    assert document.config.enclaves[1].allowlist == []


def test_forwards_on_vsock_are_left_out() -> None:
    file = parse(PARENT, "parent.yaml")
    document = parent_document(file, [], LINK, is_verbose=False)
    assert left_out_forwards(file) == (0,)
    assert isinstance(document.config, ParentConfig)
    assert [str(each.listen) for each in document.config.forwards] == ["unix:///run/f.sock"]


@pytest.mark.parametrize(
    ("is_verbose", "parent_level", "enclave_level"),
    [
        pytest.param(False, "warning", "error", id="refusals, or less where the file says less"),
        pytest.param(True, "debug", "error", id="what the files say"),
    ],
)
def test_log_level_with_files(is_verbose: bool, parent_level: str, enclave_level: str) -> None:
    parent = parent_document(parse(PARENT, "p"), [], LINK, is_verbose=is_verbose)
    enclave = enclave_document(parse(ENCLAVE, "e"), [], LINK, is_verbose=is_verbose)
    assert isinstance(parent.config, ParentConfig)
    assert isinstance(enclave.config, EnclaveConfig)
    assert (parent.config.log.level, enclave.config.log.level) == (parent_level, enclave_level)


@pytest.mark.parametrize(("is_verbose", "level"), [(False, "warning"), (True, "info")])
def test_log_level_without_files(is_verbose: bool, level: str) -> None:
    parent = parent_document(None, [], LINK, is_verbose=is_verbose)
    enclave = enclave_document(None, [], LINK, is_verbose=is_verbose)
    assert isinstance(parent.config, ParentConfig)
    assert isinstance(enclave.config, EnclaveConfig)
    assert parent.config.log.level == enclave.config.log.level == level


def test_listen_is_replaced_whatever_it_is(tmp_path: Path) -> None:
    for listen in (
        "vsock://any:5000",
        f"unix://{tmp_path}/s?cid=9",
        "[vsock://any:1, vsock://2:2]",
    ):
        text = f"listen: {listen if listen[0] == '[' else repr(listen)}"
        document = parent_document(parse(text.encode(), "p"), [], LINK, is_verbose=True)
        assert isinstance(document.config, ParentConfig)
        assert document.config.listen == [LINK]


@pytest.mark.parametrize(
    ("listen", "cid"),
    [
        pytest.param("vsock://any:5000", 4, id="a vsock listener"),
        pytest.param("unix:///s", 4, id="a unix socket without one"),
        pytest.param("unix:///s?cid=21", 21, id="a unix socket with one"),
        pytest.param("['vsock://any:5000', 'unix:///s?cid=21']", 21, id="the only one of two"),
        pytest.param("['unix:///s', 'unix:///t?cid=21', 'unix:///u?cid=22']", 21, id="the first"),
    ],
)
def test_a_sandbox_has_the_cid_of_the_parents_file(listen: str, cid: int) -> None:
    assert link_cid(parse(f"listen: {listen}\n".encode(), "p", "parent")) == cid


def test_a_sandbox_without_a_file_has_the_first_cid_of_enclaves() -> None:
    assert link_cid(None) == 4
