"""Questions for names, by hand on the wire to a real parent: what it answers, and what it logs."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import cbor2
import dns.rcode
import pytest

from parent_side.resolver import LOOKUPS_AT_ONCE
from tests.support import session_frames as wire
from tests.support.dns_server import (
    Addresses,
    ByTransport,
    DnsServer,
    HungUp,
    Raw,
    Records,
    Reply,
    Silent,
    Status,
    Truncated,
)
from tests.support.hostile_peer import RawPeer
from tests.support.observation import count, plain_lines
from tests.support.pair import Side
from vsockproxy.session.limits import MAX_RESOLVES

CID = 16
OTHER_CID = 17
TIMEOUT_SECONDS = 1
A, MX, TXT, AAAA, SRV, CAA = 1, 15, 16, 28, 33, 257
REASON, TEXT, RECORDS, TTL = 1, 2, 3, 4
"""Keys of the map `resolved`."""


class Parent:
    """A parent with two enclaves' listeners, and the DNS server that it asks."""

    def __init__(self, folder: Path, dns_server: DnsServer) -> None:
        self.dns = dns_server
        self.paths = {cid: str(folder / f"{cid}.sock") for cid in (CID, OTHER_CID)}
        config = folder / "parent.yaml"
        rule = {"port": 443, "private": True}
        document = {
            "listen": [f"unix://{path}?cid={cid}" for cid, path in self.paths.items()],
            "allowlist": [
                {"address": "**.open.test", **rule},
                {"address": "moved.test", "dial": "127.0.0.1:1", **rule},
            ],
            "denylist": [{"address": "secret.open.test"}],
            "enclaves": [
                {"cid": CID, "name": "web", "allowlist": [{"address": "**.test", **rule}]}
            ],
            "resolver": {"servers": [dns_server.address], "timeout": TIMEOUT_SECONDS},
        }
        config.write_text(json.dumps(document))
        self.side = Side("parent", config)
        self.side.wait_for_event("ready")

    def peer(self, cid: int = CID) -> RawPeer:
        """An enclave that has said hello."""
        return RawPeer.dial(self.paths[cid]).greet()


def question(name: str, kind: int) -> bytes:
    return cbor2.dumps({1: name, 2: kind}, canonical=True)


def ask(peer: RawPeer, name: str, kind: int, request: int = 1) -> dict[int, Any]:
    """Ask, and wait for the map that comes back."""
    peer.send(peer.frame(wire.RESOLVE, request, question(name, kind)))
    answer = cbor2.loads(peer.wait_for(wire.RESOLVED, request).payload)
    assert isinstance(answer, dict)
    return answer


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    with ExitStack() as stack:
        server = stack.enter_context(DnsServer())
        parent = Parent(tmp_path_factory.mktemp("resolves"), server)
        stack.callback(parent.side.kill)
        workers = parent.side.workers
        yield parent
        assert parent.side.workers == workers
        assert plain_lines(parent.side) == []
        assert parent.side.stop() == 0


@pytest.mark.parametrize(
    ("name", "kind", "reply", "expected"),
    [
        pytest.param(
            "a.open.test",
            A,
            Addresses("127.0.0.1", "fd00::1"),
            {RECORDS: [bytes([127, 0, 0, 1])], TTL: 60},
            id="A",
        ),
        pytest.param(
            "aaaa.open.test",
            AAAA,
            Addresses("127.0.0.1", "fd00::1"),
            {RECORDS: [ip_address("fd00::1").packed], TTL: 60},
            id="AAAA",
        ),
        pytest.param(
            "_db._tcp.open.test",
            SRV,
            Records("SRV", "1 2 5432 db.open.test.", ttl_seconds=30),
            {RECORDS: [b"\0\1\0\2\x15\x38\2db\4open\4test\0"], TTL: 30},
            id="SRV",
        ),
        pytest.param(
            "txt.open.test",
            TXT,
            Records("TXT", '"one" "two"', ttl_seconds=86_400),
            {RECORDS: [b"\3one\3two"], TTL: 300},
            id="TXT",
        ),
        pytest.param(
            "mx.open.test",
            MX,
            Records("MX", "10 mail.open.test."),
            {RECORDS: [b"\0\x0a\4mail\4open\4test\0"], TTL: 60},
            id="MX",
        ),
        pytest.param("bare.open.test", MX, Addresses("127.0.0.1"), {TTL: 5}, id="no records"),
        pytest.param(
            "moved.test", TXT, Silent(), {TTL: 300}, id="a name that is dialled elsewhere"
        ),
    ],
)
def test_an_answer(
    parent: Parent, name: str, kind: int, reply: Reply, expected: dict[int, Any]
) -> None:
    parent.dns.set(name, reply)
    after = len(parent.side.lines)
    with parent.peer(OTHER_CID) as peer:
        assert ask(peer, name, kind) == expected
    line = parent.side.wait_for_event("resolve", after=after, host=name)
    assert (line["level"], line["cid"], line["allowed"]) == ("info", OTHER_CID, True)
    assert (line["reason"], line["records"]) == ("listed", len(expected.get(RECORDS, ())))


@pytest.mark.parametrize(
    ("name", "kind", "reply", "reason"),
    [
        pytest.param("other.example", A, Silent(), "not_listed", id="not listed"),
        pytest.param("[::1%eth0", A, Silent(), "not_listed", id="no name"),
        pytest.param("secret.open.test", A, Silent(), "denied", id="denied"),
        pytest.param("a.open.test", CAA, Silent(), "lookup_failed", id="another type"),
        pytest.param(
            "nowhere.open.test", TXT, Status(dns.rcode.NXDOMAIN), "no_such_name", id="absent"
        ),
        pytest.param(
            "meta.open.test", A, Addresses("169.254.169.254"), "address_metadata", id="guarded"
        ),
        pytest.param("silent.open.test", TXT, Silent(), "lookup_failed", id="silence"),
        pytest.param("garbage.open.test", TXT, Raw(b"\xff" * 900), "lookup_failed", id="garbage"),
        pytest.param(
            "huge.open.test",
            TXT,
            Records("TXT", *(f'"{number:0200d}"' for number in range(250))),
            "lookup_failed",
            id="more than RESOLVED carries",
        ),
        pytest.param(
            "cut.open.test",
            TXT,
            ByTransport(Truncated(), HungUp()),
            "lookup_failed",
            id="a reply that ends too soon",
        ),
    ],
)
def test_a_refusal(parent: Parent, name: str, kind: int, reply: Reply, reason: str) -> None:
    parent.dns.set(name, reply)
    after = len(parent.side.lines)
    with parent.peer(OTHER_CID) as peer:
        answer = ask(peer, name, kind)
        assert answer[REASON] == reason
        assert RECORDS not in answer
        parent.dns.set("fine.open.test", Addresses("127.0.0.1"))
        assert RECORDS in ask(peer, "fine.open.test", A)  # the session goes on
    line = parent.side.wait_for_event("resolve", after=after, host=name)
    assert (line["level"], line["allowed"], line["reason"]) == ("warning", False, reason)
    assert line["text"] == answer[TEXT]


def test_each_enclave_has_its_own_lists(parent: Parent) -> None:
    parent.dns.set("only-web.test", Addresses("127.0.0.1"))
    after = len(parent.side.lines)
    with parent.peer(CID) as peer, parent.peer(OTHER_CID) as other:
        assert RECORDS in ask(peer, "only-web.test", A)
        assert ask(other, "only-web.test", A)[REASON] == "not_listed"
    lines = [parent.side.wait_for_event("resolve", after=after, cid=cid) for cid in (16, 17)]
    assert [line.get("enclave") for line in lines] == ["web", None]


def test_a_link_that_goes_with_all_its_questions_open_harms_nobody(parent: Parent) -> None:
    parent.dns.set("*.slow.open.test", Silent())
    parent.dns.set("*.quick.open.test", Addresses("127.0.0.1"))
    before = count(parent.side, "resolve", cid=CID)
    with parent.peer(OTHER_CID) as other:
        with parent.peer(CID) as peer:
            peer.send(
                b"".join(
                    peer.frame(wire.RESOLVE, number, question(f"n{number}.slow.open.test", TXT))
                    for number in range(1, MAX_RESOLVES + 1)
                )
            )
            parent.dns.wait_for_questions(LOOKUPS_AT_ONCE, below=".slow.open.test")
            for number in range(20):
                name = f"n{number}.quick.open.test"
                assert RECORDS in ask(other, name, A, request=number + 1)
        parent.side.wait_for(
            lambda _: count(parent.side, "resolve", cid=CID) == before + MAX_RESOLVES
        )
        assert RECORDS in ask(other, "again.quick.open.test", A, request=500)
    for line in parent.side.events("resolve"):
        if line["host"].endswith(".slow.open.test"):
            assert (line["allowed"], line["reason"]) == (False, "lookup_failed")
    with parent.peer(CID) as peer:
        assert RECORDS in ask(peer, "b.quick.open.test", A)
