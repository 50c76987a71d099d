"""Policies of YAML texts, read the way the commands read them."""

import tempfile
from pathlib import Path

from vsockproxy.addresses import IpAddress, normalise_host
from vsockproxy.config.load import Document, load
from vsockproxy.policy import Decision, Policy


def document_of(text: str, name: str = "parent.yaml") -> Document:
    """Load `text` as a file called `name`; its first line is line 1."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        file.write_text(text, encoding="utf-8")
        return load(str(file))


def policy_of(text: str, name: str = "parent.yaml", cid: int | None = None) -> Policy:
    return Policy.compile(document_of(text, name), cid=cid)


def outcome(
    policy: Policy, host_text: str, port: int, addresses: tuple[IpAddress, ...] = ()
) -> tuple[Decision, tuple[IpAddress, ...]]:
    """What a side does about a host as a program wrote it, and about what it resolved to."""
    decision, host = policy.decide_text(host_text, port)
    if host is None or not decision.allowed:
        return decision, ()
    dialled = decision.dialled(host, port).host
    literal = () if dialled.address is None else (dialled.address,)
    return policy.judge(decision, host, port, literal or addresses)


def decide(policy: Policy, host_text: str, port: int) -> Decision:
    return policy.decide(normalise_host(host_text), port)
