"""The port sets and tables of an enclave's file, as its processes come to them."""

from collections.abc import Sequence
from ipaddress import IPv4Network

from enclave_side.shim.names.port_sets import PortSets
from tests.vsockproxy.policy.files import policy_of
from vsockproxy.policy import Policy

BLOCK = IPv4Network("198.18.0.0/15")
TOP = "parent: vsock://3:5000\n"


def enclave_policy(allow: Sequence[str], deny: Sequence[str] = (), more: str = "") -> Policy:
    """The policy of an enclave's file; the first allow rule is in line 3."""
    text = f"{TOP}allowlist:{_entries(allow)}\ndenylist:{_entries(deny)}\n{more}"
    return policy_of(text, "enclave.yaml")


def port_sets_of(
    allow: Sequence[str], deny: Sequence[str] = (), more: str = "", block: IPv4Network = BLOCK
) -> PortSets:
    return PortSets.compile(enclave_policy(allow, deny, more), block)


def _entries(rules: Sequence[str]) -> str:
    return "".join(f"\n  - {{{rule}}}" for rule in rules) if rules else " []"
