"""Destinations that are refused, each for a reason of its own, as arguments of a `Pair`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.dns_server import DnsServer, Silent
from tests.support.full_backlog import full_backlog
from tests.support.pair import free_port

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 0.3


def rule(host: str, port: int = 443, **more: Any) -> dict[str, Any]:
    """A rule that opens all but what `more` says."""
    return {"address": host, "port": port, "private": True, "require_tls": False, **more}


@dataclass(frozen=True, slots=True)
class RefusedDestinations:
    """See the module.

    Args:
        dns: the parent's name server, for names of a test's own.
        keywords: for `Pair`.
    """

    dns: DnsServer
    keywords: dict[str, Any]


@contextmanager
def refused_destinations(*more: dict[str, Any]) -> Iterator[RefusedDestinations]:
    """Serve them.

    Args:
        more: further rules of both sides.
    """
    with DnsServer() as dns, full_backlog() as full:
        dns.set("unanswered.test", Silent())
        both = [
            rule("denied.test"),
            rule("parent-denied.test"),
            rule("private.test", private=False),
            rule("metadata.test"),
            rule("reserved.test"),
            rule("missing.test"),
            rule("unanswered.test"),
            rule("full.test", dial=f"{LOOPBACK}:{full}"),
            rule("refusing.test", dial=f"{LOOPBACK}:{free_port()}"),
            *more,
        ]
        parent = {
            "denylist": [{"address": "parent-denied.test"}],
            "limits": {"connect": CONNECT_SECONDS},
            "resolver": {
                "servers": [dns.address],
                "timeout": 2,
                "hosts": {
                    "private.test": ["10.1.2.3"],
                    "metadata.test": ["169.254.169.254"],
                    "reserved.test": ["240.0.0.1"],
                },
            },
        }
        keywords = {
            "rules": [*both, rule("enclave-only.test")],
            "parent_rules": both,
            "parent": parent,
            "enclave": {"denylist": [{"address": "denied.test"}]},
        }
        yield RefusedDestinations(dns, keywords)
