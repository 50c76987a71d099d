"""The configuration that `vsock-proxy` runs: one listed destination, for every CID."""

from ipaddress import ip_address

import pytest

from parent_side.aws import make_document
from vsockproxy.addresses import ANY_CID, VsockAddress, parse_destination
from vsockproxy.config.document import Document
from vsockproxy.config.load import parse
from vsockproxy.config.model import ParentConfig, Resolver
from vsockproxy.policy import Policy, may_connect

FILE = b"""\
allowlist:
- {address: other.example, port: 443}
- address: kms.example
  port: 443
"""
CIDS = (0, 1, 2, 3, 4, 16, 0xFFFF_FFFE)


@pytest.fixture
def document() -> Document:
    """What a worker gets: through the message's form and back."""
    made = make_document(
        parse(FILE, "/etc/nitro_enclaves/vsock-proxy.yaml", "aws"),
        1,
        listen=VsockAddress(ANY_CID, 8000),
        to=parse_destination("kms.example:443"),
        log_level="warning",
        resolver=Resolver(),
    )
    return Document.from_builtins(made.to_builtins())


@pytest.mark.parametrize("cid", CIDS)
def test_every_cid_may_have_the_one_destination(document: Document, cid: int) -> None:
    config = document.config
    assert isinstance(config, ParentConfig)
    (forward,) = config.forwards
    policy = Policy.compile(document, cid=cid)
    decision = policy.decide(forward.to.host, forward.to.port)
    assert may_connect(document, cid)
    assert decision.allowed
    assert decision.rule is not None
    assert decision.rule.source == "vsock-proxy.yaml:3"
    for text in ("10.0.3.7", "127.0.0.1", "100.64.0.1", "fd12::1", "8.8.8.8"):
        judged, addresses = policy.judge(decision, forward.to.host, 443, [ip_address(text)])
        assert judged.allowed
        assert addresses == (ip_address(text),)
    assert not policy.requires_tls(decision.rule)


@pytest.mark.parametrize("cid", CIDS)
def test_nothing_else_of_the_file_is_allowed(document: Document, cid: int) -> None:
    policy = Policy.compile(document, cid=cid)
    for text in ("other.example:443", "kms.example:80"):
        destination = parse_destination(text)
        assert not policy.decide(destination.host, destination.port).allowed


@pytest.mark.parametrize("cid", CIDS)
def test_metadata_stays_closed(document: Document, cid: int) -> None:
    policy = Policy.compile(document, cid=cid)
    to = parse_destination("kms.example:443")
    decision = policy.decide(to.host, to.port)
    for text in ("169.254.169.254", "fd00:ec2::254", "64:ff9b::a9fe:a9fe"):
        judged, addresses = policy.judge(decision, to.host, to.port, [ip_address(text)])
        assert not judged.allowed
        assert judged.reason == "address_metadata"
        assert addresses == ()
