"""What a refused program sees: the HTTP and the forward column of the design's table (§10)."""

import socket
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.pair import LinkKind, Pair, echo, free_port, is_refused, is_reset, serving

PUBLIC = "192.0.2.1"
"""A documentation address (RFC 5737): nobody is there, and nothing is sent to it."""


def rule(host: str, port: int, **more: Any) -> dict[str, Any]:
    return {"address": host, "port": port, "private": True, "require_tls": False, **more}


CASES: dict[str, tuple[str, int, str, int]] = {
    "a host that neither side lists": ("unlisted.test", 443, "not_listed", 403),
    "a port that is not listed": ("listed.test", 444, "port_not_listed", 403),
    "a host that the denylist names": ("denied.test", 443, "denied", 403),
    "a host that only the enclave lists": ("enclave-only.test", 443, "not_listed", 403),
    "a name that resolves to a private address": ("private.test", 443, "address_private", 403),
    "a name that resolves to a metadata address": ("metadata.test", 443, "address_metadata", 403),
    "a name that resolves to a reserved address": ("reserved.test", 443, "address_reserved", 403),
    "a destination that refuses the dial": ("refusing.test", 443, "dial_refused", 502),
    "a lookup that fails": ("unanswered.test", 443, "lookup_failed", 502),
}


@pytest.fixture(scope="module", params=["unix", pytest.param("vsock", marks=pytest.mark.vsock)])
def refusing(request: pytest.FixtureRequest) -> Any:
    both = [
        rule("listed.test", 443),
        rule("denied.test", 443),
        rule("private.test", 443, private=False),
        rule("metadata.test", 443),
        rule("reserved.test", 443),
        rule("refusing.test", 443, dial=f"127.0.0.1:{free_port()}"),
        rule("unanswered.test", 443),
    ]
    ports = {name: free_port() for name in CASES}
    with ExitStack() as stack:
        silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind(("127.0.0.1", 0))
        pair = Pair(
            request.param,
            [*both, rule("enclave-only.test", 443)],
            parent_rules=both,
            parent={
                "denylist": [{"address": "denied.test"}],
                "resolver": {
                    "servers": [f"127.0.0.1:{silent.getsockname()[1]}"],
                    "timeout": 0.3,
                    "hosts": {
                        "private.test": ["10.1.2.3"],
                        "metadata.test": ["169.254.169.254"],
                        "reserved.test": ["240.0.0.1"],
                    },
                },
            },
            enclave={
                "denylist": [{"address": "denied.test"}],
                "forwards": [
                    {"listen": f"tcp://127.0.0.1:{ports[name]}", "to": f"{host}:{port}"}
                    for name, (host, port, _, _) in CASES.items()
                ],
            },
        )
        stack.enter_context(pair)
        yield pair, ports


@pytest.mark.parametrize("name", CASES)
def test_the_http_proxy_says_status_reason_host_and_text(
    refusing: tuple[Pair, dict[str, int]], name: str
) -> None:
    pair, _ = refusing
    host, port, reason, status = CASES[name]
    sock, head = pair.ask(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")
    with sock:
        lines = head.decode().split("\r\n")
        assert lines[0].startswith(f"HTTP/1.1 {status} ")
        assert f"Proxy-Status: vsockproxy; error={reason}" in lines
        body = sock.makefile("rb").read().decode()
    assert body.startswith(f"{reason}: {host}:{port}: ")
    assert body.count("\n") == 1


@pytest.mark.parametrize("name", CASES)
def test_a_forward_resets_the_connection(refusing: tuple[Pair, dict[str, int]], name: str) -> None:
    _, ports = refusing
    assert is_refused(ports[name])


def test_each_refusal_is_one_decision_line_with_its_reason(
    refusing: tuple[Pair, dict[str, int]],
) -> None:
    pair, _ = refusing
    assert pair.enclave is not None
    sock, _ = pair.ask("CONNECT unlisted.test:8443 HTTP/1.1\r\nHost: unlisted.test:8443\r\n\r\n")
    sock.close()
    line = pair.enclave.wait_for_event("decision", host="unlisted.test", port=8443)
    assert line["allowed"] is False
    assert line["reason"] == "not_listed"
    assert line["side"] == "enclave"


def test_a_refusal_by_the_parent_names_the_parent(refusing: tuple[Pair, dict[str, int]]) -> None:
    pair, _ = refusing
    assert pair.enclave is not None
    assert pair.parent is not None
    sock, _ = pair.ask("CONNECT enclave-only.test:443 HTTP/1.1\r\nHost: enclave-only.test\r\n\r\n")
    sock.close()
    assert pair.enclave.wait_for_event("decision", host="enclave-only.test")["side"] == "parent"
    line = pair.parent.wait_for_event("decision", host="enclave-only.test")
    assert (line["allowed"], line["reason"]) == (False, "not_listed")


def test_while_the_parent_is_away_a_request_waits_link_wait_and_gets_503(kind: LinkKind) -> None:
    pair = Pair(kind, [rule("listed.test", 443)], enclave={"limits": {"link_wait": 0.2}})
    try:
        pair.start_enclave(links=False)
        sock, head = pair.ask("CONNECT listed.test:443 HTTP/1.1\r\nHost: listed.test:443\r\n\r\n")
        with sock:
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"error=parent_away" in head
    finally:
        pair.close()


def test_a_program_without_tls_is_reset_and_named_not_tls(kind: LinkKind) -> None:
    with serving(echo) as port:
        listed = [{"address": "tls.test", "port": 443, "private": True}]
        hosts = {"resolver": {"hosts": {"tls.test": ["127.0.0.1"]}}}
        listed_parent = [{**listed[0], "dial": f"127.0.0.1:{port}"}]
        with Pair(kind, listed, parent=hosts, parent_rules=listed_parent) as pair:
            with pair.connect("tls.test", 443) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert is_reset(sock)
            assert pair.enclave is not None
            pair.enclave.wait_for_event("decision", host="tls.test", reason="not_tls")
            sock, head = pair.ask("GET http://tls.test:443/ HTTP/1.1\r\nHost: tls.test:443\r\n\r\n")
            with sock:
                assert head.startswith(b"HTTP/1.1 403 ")
                assert b"error=not_tls" in head
                assert b"require_tls: false" in sock.makefile("rb").read()
