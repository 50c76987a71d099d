"""Enclaves that have to attest themselves: which lists they get, and who gets none at all."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import cbor2
import pytest

from tests.support.attested_pair import (
    INSTANCE,
    OTHER_PCR0,
    PCR0,
    AttestedPair,
    Module,
    attested_pair,
    write_root,
)
from tests.support.hostile_peer import RawPeer, make_hello
from tests.support.nsm_server import attested, document_fields, nsm_socket
from tests.support.pair import VSOCK_LOOPBACK_CID, LinkKind, echo, is_reset, serving
from tests.support.several_enclaves import SeveralEnclaves
from tests.support.wire_rules import covers
from vsockproxy.session.attesting import session_nonce, session_user_data

LOCAL = "127.0.0.1"
ATTESTATION = frozenset({"attestation"})


def rule(port: int) -> dict[str, Any]:
    return {"address": LOCAL, "port": port, "private": True}


@pytest.fixture
def origin() -> Iterator[int]:
    with serving(echo) as port:
        yield port


def converse(pair: AttestedPair, port: int) -> None:
    with pair.connect(LOCAL, port) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"


# ------------------------------------------------------------------ which lists


def test_an_enclave_has_the_list_of_what_it_attests(origin: int) -> None:
    entries: list[dict[str, Any]] = [
        {"name": "other", "pcrs": {"0": OTHER_PCR0}},
        {"name": "web", "pcrs": {"0": PCR0.upper()}, "allowlist": [rule(origin)]},
    ]
    with attested_pair([rule(origin)], entries, Module()) as pair:
        converse(pair, origin)
        assert pair.parent is not None
        line = pair.parent.wait_for_event("decision", enclave="web", cid=pair.CID)
        assert (line["allowed"], line["reason"]) == (True, "listed")
        line = pair.parent.wait_for_event("enclave_attested")
        assert line["module"].startswith(f"{INSTANCE}-enc")


def test_the_document_names_the_cid_that_the_parent_sees(kind: LinkKind, origin: int) -> None:
    cid = AttestedPair.CID if kind == "unix" else VSOCK_LOOPBACK_CID
    module = Module()
    entries = [{"name": "web", "cid": cid, "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair([rule(origin)], entries, module, kind=kind) as pair:
        converse(pair, origin)
    user_data = document_fields(document_of(module.responses[0]))["user_data"]
    assert user_data == session_user_data(None if kind == "unix" else cid)


def test_with_a_cid_both_have_to_match(origin: int) -> None:
    entries: list[dict[str, Any]] = [
        {"name": "elsewhere", "cid": 99, "pcrs": {"0": PCR0}, "allowlist": []},
        {"name": "here", "cid": 16, "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]},
    ]
    with attested_pair([rule(origin)], entries, Module()) as pair:
        converse(pair, origin)
        assert pair.parent is not None
        pair.parent.wait_for_event("decision", enclave="here")


def test_an_entry_of_the_cid_alone_takes_who_cannot_attest(origin: int) -> None:
    entries: list[dict[str, Any]] = [
        {"name": "proven", "pcrs": {"0": PCR0}, "allowlist": []},
        {"name": "plain", "cid": 16, "allowlist": [rule(origin)]},
    ]
    with attested_pair([rule(origin)], entries, None) as pair:
        converse(pair, origin)
        assert pair.parent is not None
        pair.parent.wait_for_event("link_up", enclave="plain")
    with attested_pair([rule(origin)], entries, Module()) as pair:
        assert " 403 " in pair.refusal(LOCAL, origin)
        assert pair.parent is not None
        pair.parent.wait_for_event("link_up", enclave="proven")


def test_an_entry_before_it_asks_for_nothing(origin: int) -> None:
    module = Module()
    entries: list[dict[str, Any]] = [
        {"name": "plain", "cid": 16, "allowlist": [rule(origin)]},
        {"name": "proven", "pcrs": {"0": PCR0}, "allowlist": []},
    ]
    with attested_pair([rule(origin)], entries, module) as pair:
        converse(pair, origin)
    assert module.responses == []


def test_each_link_has_a_document_of_its_own(origin: int) -> None:
    module = Module()
    entries = [{"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    enclave = {"links": 4, "workers": 2}
    with attested_pair([rule(origin)], entries, module, enclave=enclave) as pair:
        assert pair.parent is not None
        pair.parent.wait_for_event("link_up", links=8)
        assert len(pair.parent.events("enclave_attested")) == 1
        converse(pair, origin)
    assert len({document_fields(document_of(each))["nonce"] for each in module.responses}) == 8


# ------------------------------------------------------------------ who gets nothing


def document_of(response: bytes) -> bytes:
    document: bytes = cbor2.loads(response)["Attestation"]["document"]
    return document


def late(module: Module) -> None:
    module.age = timedelta(hours=4)


def of_nothing(module: Module) -> None:
    module.forge = lambda response: cbor2.dumps({"Attestation": {"document": attested()}})


def garbage(module: Module) -> None:
    module.forge = lambda response: cbor2.dumps({"Attestation": {"document": b"no document"}})


def refusing(module: Module) -> None:
    module.forge = lambda response: cbor2.dumps({"Error": "InternalError"})


def replayed(module: Module) -> None:
    module.forge = lambda response: module.responses[0] if module.responses else response


def slightly_changed(module: Module) -> None:
    module.forge = lambda response: response[:-1] + bytes([response[-1] ^ 1])


@pytest.mark.parametrize(
    ("misbehave", "pcrs", "fault"),
    [
        pytest.param(None, {0: bytes.fromhex(OTHER_PCR0)}, "pcr_mismatch", id="another image"),
        pytest.param(None, dict.fromkeys(range(3), bytes(48)), "debug_mode", id="debug mode"),
        pytest.param(late, None, "expired", id="expired"),
        pytest.param(of_nothing, None, "nonce_mismatch", id="made for something else"),
        pytest.param(garbage, None, "not_cose_sign1", id="no document at all"),
        pytest.param(slightly_changed, None, "bad_signature", id="one bit of the signature"),
    ],
)
def test_a_document_that_is_not_believed(
    misbehave: Callable[[Module], None] | None,
    pcrs: dict[int, bytes] | None,
    fault: str,
    origin: int,
) -> None:
    module = Module(pcrs)
    if misbehave is not None:
        misbehave(module)
    entries = [{"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair([rule(origin)], entries, module, is_linked=False) as pair:
        assert pair.parent is not None
        assert pair.enclave is not None
        line = pair.parent.wait_for_event("link_refused", cid=16)
        assert line["reason"] == "attestation_refused"
        assert line["text"].startswith(f"{fault}: ")
        line = pair.enclave.wait_for_event("link_failed")
        assert f"the peer refused the session: attestation_refused: {fault}: " in line["text"]
        seen = pair.refusal(LOCAL, origin)
        assert " 503 " in seen
        assert f"parent_away: {LOCAL}:{origin}: " in seen
        assert f"attestation_refused: {fault}: " in seen
        assert not pair.parent.events("link_up")


def test_a_document_of_another_link(origin: int) -> None:
    module = Module()
    entries = [{"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair([rule(origin)], entries, module) as pair:
        assert pair.parent is not None
        replayed(module)
        worker = pair.parent.workers[0]
        os.kill(worker, signal.SIGKILL)  # the link breaks, and the next shows the same again
        line = pair.parent.wait_for_event("link_refused")
        assert line["reason"] == "attestation_refused"
        assert line["text"].startswith("nonce_mismatch: ")


@pytest.mark.parametrize("has_module", [False, True])
def test_an_enclave_without_a_document(has_module: bool, origin: int) -> None:
    module = Module() if has_module else None
    if module is not None:
        refusing(module)
    entries = [{"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair([rule(origin)], entries, module, is_linked=False) as pair:
        assert pair.parent is not None
        line = pair.parent.wait_for_event("link_refused", cid=16)
        assert line["reason"] == "attestation_required"
        assert "attestation_required: " in pair.refusal(LOCAL, origin)


def test_debug_mode_where_it_is_allowed(origin: int) -> None:
    entries = [{"name": "web", "pcrs": {"0": "0" * 96}, "allowlist": [rule(origin)]}]
    module = Module(dict.fromkeys(range(3), bytes(48)))
    with attested_pair([rule(origin)], entries, module, attestation={"allow_debug": True}) as pair:
        converse(pair, origin)
        assert pair.parent is not None
        pair.parent.wait_for_event("enclave_attested", level="warning")
        pair.reload({"attestation": {**content(pair)["attestation"], "allow_debug": False}})
        # Which the file cannot say with such an entry, so the former holds.
        pair.parent.wait_for_event("reload_failed")


def content(pair: AttestedPair) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(pair.parent_config.read_text())
    return found


@pytest.mark.parametrize("instance", [INSTANCE, "i-0123456789abcdef0"])
def test_an_enclave_of_another_instance(instance: str, origin: int) -> None:
    entries = [{"pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair(
        [rule(origin)], entries, Module(), attestation={"instance": instance}, is_linked=False
    ) as pair:
        assert pair.parent is not None
        if instance == INSTANCE:
            pair.parent.wait_for_event("link_up")
            return
        line = pair.parent.wait_for_event("link_refused")
        assert line["reason"] == "attestation_refused"
        assert line["text"].startswith("other_instance: ")


def test_a_module_that_takes_its_time_keeps_nobody_else_waiting(origin: int) -> None:
    module = Module()
    module.go_on.clear()
    entries = [{"pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair([rule(origin)], entries, module, is_linked=False) as pair:
        assert "the document is being made" in pair.refusal(LOCAL, origin)
        module.go_on.set()
        assert pair.enclave is not None
        pair.enclave.wait_for_event("link_up")
        converse(pair, origin)


def test_a_module_that_takes_too_long(origin: int) -> None:
    module = Module()
    module.go_on.clear()
    entries = [{"pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair(
        [rule(origin)], entries, module, attestation={"timeout": 0.2}, is_linked=False
    ) as pair:
        assert pair.parent is not None
        line = pair.parent.wait_for_event("link_refused")
        assert line["text"] == "no document came within 0.2 s"
        module.go_on.set()
        assert pair.enclave is not None
        pair.enclave.wait_for_event("link_up")


def test_a_raw_port_attests_nothing(origin: int) -> None:
    entries = [{"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with serving(echo), attested_pair([rule(origin)], entries, Module()) as pair:
        path = f"{pair.path}/raw.sock"
        pair.reload({"forwards": [{"listen": f"unix://{path}?cid=16", "to": f"{LOCAL}:{origin}"}]})
        with RawPeer.dial(path) as peer:
            assert peer.sock.recv(1) == b""
        assert pair.parent is not None
        line = pair.parent.wait_for_event("decision", way="forward")
        assert (line["allowed"], line["reason"]) == (False, "attestation_required")
        converse(pair, origin)


# ------------------------------------------------------------------ reload


def test_measurements_that_a_reload_takes_away_and_gives_back(origin: int) -> None:
    entry = {"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}
    with attested_pair([rule(origin)], [entry], Module()) as pair:
        assert pair.parent is not None
        assert pair.enclave is not None
        with pair.connect(LOCAL, origin) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            line = pair.reload({"enclaves": [{**entry, "pcrs": {"0": OTHER_PCR0}}]})
            assert line["ended_streams"] == 1
            assert is_reset(sock)
        refused = pair.parent.wait_for_event("link_refused")
        assert refused["reason"] == "attestation_refused"
        assert refused["text"].startswith("pcr_mismatch: ")
        after = len(pair.enclave.lines)
        pair.reload({"enclaves": [entry]})
        pair.enclave.wait_for_event("link_up", after=after)
        converse(pair, origin)


def test_lists_that_a_reload_changes(origin: int) -> None:
    entry = {"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}
    with attested_pair([rule(origin)], [entry], Module()) as pair:
        assert pair.enclave is not None
        converse(pair, origin)
        pair.reload({"enclaves": [{**entry, "allowlist": []}]})
        assert " 403 " in pair.refusal(LOCAL, origin)
        pair.reload({"enclaves": [{**entry, "name": "renamed"}]})
        converse(pair, origin)
        assert pair.parent is not None
        pair.parent.wait_for_event("decision", enclave="renamed", allowed=True)
        assert not pair.enclave.events("link_down")


def test_attestation_that_a_reload_demands(origin: int) -> None:
    plain = {"name": "web", "cid": 16, "allowlist": [rule(origin)]}
    with attested_pair([rule(origin)], [plain], Module()) as pair:
        assert pair.parent is not None
        converse(pair, origin)
        assert not pair.parent.events("enclave_attested")
        pair.reload({"enclaves": [{**plain, "pcrs": {"0": PCR0}}]})
        pair.parent.wait_for_event("enclave_attested")
        converse(pair, origin)


# ------------------------------------------------------------------ peers by hand


@pytest.fixture
def hostile_pair(origin: int) -> Iterator[AttestedPair]:
    entries = [{"name": "web", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair([rule(origin)], entries, Module()) as pair:
        yield pair


def dial(pair: AttestedPair, **hello: Any) -> RawPeer:
    return RawPeer.dial(f"{pair.path}/link.sock", make_hello(**hello))


def challenged(pair: AttestedPair) -> tuple[RawPeer, bytes]:
    """A peer that has said that it can attest, and the nonce for its link."""
    peer = dial(pair, features=ATTESTATION).greet()
    assert peer.remote is not None
    return peer, session_nonce(peer.hello.encode(), peer.remote.encode())


def evidence(document: bytes) -> bytes:
    body = cbor2.dumps({1: document}, canonical=True)
    return len(body).to_bytes(2, "big") + body


def result(peer: RawPeer) -> dict[int, Any]:
    """The parent's result, read by hand."""
    length = int.from_bytes(peer.sock.recv(2, socket.MSG_WAITALL))
    assert length, "closed without a result"
    fields: dict[int, Any] = cbor2.loads(peer.sock.recv(length, socket.MSG_WAITALL))
    return fields


@covers("W-131")
def test_a_peer_that_knows_nothing_of_attestation_is_told(hostile_pair: AttestedPair) -> None:
    with dial(hostile_pair, instance=b"of an older time") as peer:
        peer.greet()
        assert peer.remote is not None
        assert peer.remote.refusal.startswith("attestation_required: ")
        assert peer.remote.challenge is None
        assert peer.sock.recv(1) == b""


@covers("W-130", "W-135", "W-136")
def test_a_peer_that_attests_by_hand(hostile_pair: AttestedPair) -> None:
    peer, nonce = challenged(hostile_pair)
    with peer:
        document = attested(nonce=nonce, user_data=session_user_data(None))
        peer.send(evidence(document) + peer.frame(12, 0, bytes(8)))
        assert result(peer) == {}
        peer.wait_for(13, 0)


@covers("W-135", "W-136")
@pytest.mark.parametrize(
    ("user_data", "fault"),
    [
        pytest.param(None, "user_data_mismatch", id="none"),
        pytest.param(b"vsockproxy session\n\x00\x00\x00\x10", "user_data_mismatch", id="a CID"),
        pytest.param(b"another purpose", "user_data_mismatch", id="another purpose"),
    ],
)
def test_a_document_for_another_purpose(
    user_data: bytes | None, fault: str, hostile_pair: AttestedPair
) -> None:
    peer, nonce = challenged(hostile_pair)
    with peer:
        peer.send(evidence(attested(nonce=nonce, user_data=user_data)))
        assert result(peer)[1] == "attestation_refused"
        assert peer.sock.recv(1) == b""
    assert hostile_pair.parent is not None
    line = hostile_pair.parent.wait_for_event("link_refused")
    assert line["reason"] == "attestation_refused"
    assert line["text"].startswith(f"{fault}: ")


@covers("W-135")
def test_a_document_relayed_from_another_link(hostile_pair: AttestedPair) -> None:
    one, nonce = challenged(hostile_pair)
    other, other_nonce = challenged(hostile_pair)
    assert nonce != other_nonce
    with one, other:
        document = attested(nonce=nonce, user_data=session_user_data(None))
        other.send(evidence(document))
        refused = result(other)
        assert refused[1] == "attestation_refused"
        assert refused[2].startswith("nonce_mismatch: ")
        one.send(evidence(document))
        assert result(one) == {}


@covers("W-132", "W-133", "W-134")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x00", id="a length of 0"),
        pytest.param(b"\x40\x01", id="a length over 16 KiB"),
        pytest.param(b"\xff\xff" + bytes(70_000), id="the longest length"),
        pytest.param(b"\x0c\x00\x00\x08" + bytes(3070), id="a PING in its place"),
        pytest.param(b"\x00\x01\xa0", id="an empty map"),
        pytest.param(b"\x00\x02\x81\x00", id="a list"),
        pytest.param(b"\x00\x05\xa1\x01\xc1\x41d", id="a tag"),
    ],
)
def test_evidence_that_is_none(data: bytes, hostile_pair: AttestedPair) -> None:
    peer, _ = challenged(hostile_pair)
    with peer:
        peer.send(data)
        with contextlib.suppress(ConnectionResetError):
            assert peer.sock.recv(1) == b""
    assert hostile_pair.parent is not None
    hostile_pair.parent.wait_for_event("link_refused", cid=16)


def test_a_peer_that_says_nothing_more_is_let_go(origin: int) -> None:
    entries = [{"pcrs": {"0": PCR0}, "allowlist": [rule(origin)]}]
    with attested_pair([rule(origin)], entries, Module(), attestation={"timeout": 0.2}) as pair:
        peer, _ = challenged(pair)
        with peer:
            assert result(peer)[1] == "attestation_required"
            assert peer.sock.recv(1) == b""


def test_who_redials_in_a_loop_is_refused_unverified_and_others_are_served(
    hostile_pair: AttestedPair, origin: int
) -> None:
    pair = hostile_pair
    assert pair.parent is not None
    refused = ""
    for _ in range(200):
        with dial(pair, features=ATTESTATION) as peer:
            peer.greet()
            assert peer.remote is not None
            if refused := peer.remote.refusal:
                break
            peer.send(evidence(b"garbage"))
            assert result(peer)[1] == "attestation_refused"
    assert refused.startswith("limit: ")
    line = pair.parent.wait_for_event("link_refused", reason="limit")
    assert "attestation documents a second" in line["text"]
    converse(pair, origin)


def test_an_unattested_link_of_an_enclave_that_has_attested(origin: int) -> None:
    entries: list[dict[str, Any]] = [
        {"name": "proven", "pcrs": {"0": PCR0}, "allowlist": [rule(origin)]},
        {"name": "plain", "cid": 16, "allowlist": []},
    ]
    with attested_pair([rule(origin)], entries, Module()) as pair:
        first, nonce = challenged(pair)
        with first:
            first.send(evidence(attested(nonce=nonce, user_data=session_user_data(None))))
            assert result(first) == {}
            with dial(pair) as second:
                second.greet()
                assert second.remote is not None
                assert second.remote.refusal.startswith("attestation_required: ")


# ------------------------------------------------------------------ ingress


@pytest.mark.parametrize("workers", [1, 2])
def test_only_who_has_attested_offers_services_under_a_name(
    workers: int, tmp_path_factory: pytest.TempPathFactory, origin: int
) -> None:
    web = {"service": "web", "to": f"tcp://{LOCAL}:{origin}"}
    directory = tmp_path_factory.mktemp("m")
    entries = [{"name": "proven", "pcrs": {"0": PCR0}}, {"name": "plain", "cid": 21}]
    root = str(write_root(directory / "root.pem"))
    module = Module()
    with (
        nsm_socket(directory / "nsm", module.respond),
        SeveralEnclaves(
            {20: [web], 21: [web]},
            {"service": "web", "name": "proven"},
            parent={"enclaves": entries, "attestation": {"root": root}, "workers": workers},
            enclave={"attestation": {"device": str(directory / "nsm")}},
            links=1,
        ) as several,
    ):
        # Both have a module, but 21 answers nothing good from now on, and has an entry of its own.
        refusing(module)
        several.start_enclave(21)
        several.parent.wait_for_event("link_up", cid=21, enclave="plain")
        for _ in range(4):
            with socket.create_connection((LOCAL, several.port), 30) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
        several.parent.wait_for_count("decision", 4)
        assert {line["enclave"] for line in several.parent.events("decision")} == {"proven"}
