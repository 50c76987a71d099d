"""The lines of real runs are as configs/log.schema.json says."""

import cbor2
import pytest

from tests.support import session_frames as wire
from tests.support.exchange_pair import CARRIERS, HOST, PORT, ExchangePair
from tests.support.hostile_peer import RawPeer
from tests.support.json_schema import faults
from tests.support.observation import count, wait_until
from vsockproxy.log_schema import AUDIT_EVENTS, generate_schema

LOOPBACK = "127.0.0.1"
OTHER_CID = 17
UNLISTED = "unlisted.test:443"


@pytest.mark.parametrize("name", [None, "ledger"])
def test_the_lines_of_both_sides_are_as_the_schema_says(name: str | None) -> None:
    rule = {"address": HOST, "port": PORT, "private": True, "dial": "127.0.0.1:1"}
    entry = {"cid": OTHER_CID, "allowlist": [rule], **({"name": name} if name else {})}
    with ExchangePair("unix", other_cid=OTHER_CID, parent={"enclaves": [entry]}) as rig:
        for carrier in CARRIERS:
            rig.complete(carrier, 3, (1000, 1000))
        sock, head = rig.pair.ask(f"CONNECT {UNLISTED} HTTP/1.1\r\nHost: {UNLISTED}\r\n\r\n")
        sock.close()
        assert b" 403 " in head
        with RawPeer.dial(rig.other_path) as peer:
            peer.greet()
            for stream, host in ((1, "unlisted.test"), (3, "<b>"), (5, HOST)):
                peer.open(stream, host, PORT)
                peer.wait_for(wire.REFUSED, stream)
            peer.send(peer.frame(wire.RESOLVE, 1, cbor2.dumps({1: "unlisted.test", 2: 1})))
            peer.wait_for(wire.RESOLVED, 1)
        wait_until(rig.parent, lambda: count(rig.parent, "resolve") == 1)
        wait_until(rig.parent, lambda: count(rig.parent, "decision", cid=OTHER_CID) == 3)
        rig.wait_until_closed()
        for side in (rig.parent, rig.enclave):
            dialled = [line for line in side.lines if line["event"] == "close"]
            assert {line["address"] for line in dialled} == {LOOPBACK}
        schema = generate_schema()
        seen = set()
        for side in (rig.parent, rig.enclave):
            assert len(side.lines) > 10
            for line in side.lines:
                assert list(faults(schema, line)) == [], line
                seen.add(line["event"])
        assert seen >= set(AUDIT_EVENTS)
