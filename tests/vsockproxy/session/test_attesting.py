"""Attestation in the opening exchange: what the hellos mean, evidence, result, and the binding."""

import contextlib
import hashlib
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.session_pair import make_hello
from tests.support.wire_rules import covers
from tests.vsockproxy.protocols.feeding import Feed, every_feed
from vsockproxy.session import (
    ErrorCode,
    Hello,
    LocalProtocolError,
    PeerProtocolError,
    PrefaceReader,
)
from vsockproxy.session.attesting import (
    MAX_EVIDENCE_BYTES,
    MAX_RESULT_BYTES,
    Evidence,
    MapReader,
    Result,
    demands_attestation,
    session_nonce,
    session_user_data,
)

INITIATOR = (
    b"vsockpx\n\x00\x38"
    + bytes.fromhex("a5018201010281")
    + b"\x6battestation"
    + bytes.fromhex("03a3011940000218640319ffff0450")
    + b"i" * 16
    + bytes.fromhex("051a11111111")
)
ACCEPTOR = (
    b"vsockpx\n\x00\x5b"
    + bytes.fromhex("a6018201010281")
    + b"\x6battestation"
    + bytes.fromhex("03a3011940000218640319ffff0450")
    + b"p" * 16
    + bytes.fromhex("051a22222222")
    + b"\x09\x58\x20"
    + b"c" * 32
)
"""Hellos of both ends, by hand: the initiator can attest, the acceptor demands it."""


def hello_of(data: bytes) -> Hello:
    reader = PrefaceReader(may_be_dedicated=False)
    hello = reader.receive(data)
    assert isinstance(hello, Hello)
    assert reader.message == data
    return hello


def with_length(fields: object) -> bytes:
    body = cbor2.dumps(fields, canonical=True)
    return len(body).to_bytes(2, "big") + body


def read_evidence(data: bytes) -> Evidence:
    body = MapReader(MAX_EVIDENCE_BYTES, "evidence").receive(data)
    assert body is not None
    return Evidence.decode(body)


def read_result(data: bytes) -> Result:
    body = MapReader(MAX_RESULT_BYTES, "a result").receive(data)
    assert body is not None
    return Result.decode(body)


def test_hellos_say_what_they_did() -> None:
    initiator, acceptor = hello_of(INITIATOR), hello_of(ACCEPTOR)
    assert initiator.features == acceptor.features == {"attestation"}
    assert (initiator.challenge, acceptor.challenge) == (None, b"c" * 32)
    assert (initiator.encode(), acceptor.encode()) == (INITIATOR, ACCEPTOR)


@covers("W-132")
@pytest.mark.parametrize(
    ("ours", "theirs", "demanded"),
    [
        pytest.param(["attestation"], ["attestation"], True, id="both name it"),
        pytest.param([], ["attestation"], False, id="the initiator knows nothing of it"),
        pytest.param(["attestation"], [], False, id="the acceptor demands nothing"),
        pytest.param(["attestation", "later"], ["attestation"], True, id="others do not matter"),
    ],
)
def test_evidence_comes_where_both_name_the_feature(
    ours: list[str], theirs: list[str], demanded: bool
) -> None:
    initiator = replace(hello_of(INITIATOR), features=frozenset(ours))
    acceptor = replace(hello_of(ACCEPTOR), features=frozenset(theirs))
    assert demands_attestation(initiator, acceptor) is demanded


@covers("W-130")
def test_a_demand_without_a_challenge_is_none() -> None:
    unchallenged = ACCEPTOR.replace(b"\xa6", b"\xa5", 1).removesuffix(b"\x09\x58\x20" + b"c" * 32)
    unchallenged = unchallenged.replace(b"\x00\x5b", b"\x00\x38", 1)
    with pytest.raises(PeerProtocolError, match="unchallenged") as caught:
        demands_attestation(hello_of(INITIATOR), hello_of(unchallenged))
    assert caught.value.code == ErrorCode.PROTOCOL


@covers("W-130")
@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_challenge_has_32_bytes(length: int) -> None:
    hello = make_hello(is_initiator=False)
    fields = {1: [1, 1], 2: [], 3: {1: 0, 2: 0, 3: 1024}, 4: hello.instance, 5: 0, 9: b"c" * length}
    body = cbor2.dumps(fields, canonical=True)
    with pytest.raises(PeerProtocolError, match="field 9 of the hello must be 32 to 32 bytes"):
        hello_of(b"vsockpx\n" + len(body).to_bytes(2, "big") + body)


@covers("W-135")
def test_the_nonce_binds_both_hellos() -> None:
    expected = hashlib.sha256(b"vsockproxy session\n" + INITIATOR + ACCEPTOR).digest()
    assert session_nonce(INITIATOR, ACCEPTOR) == expected
    assert session_nonce(ACCEPTOR, INITIATOR) != expected


@covers("W-135")
@pytest.mark.parametrize("end", ["initiator", "acceptor"])
@given(data=st.data())
def test_another_byte_in_a_hello_makes_another_nonce(end: str, data: st.DataObject) -> None:
    hellos = {"initiator": INITIATOR, "acceptor": ACCEPTOR}
    position = data.draw(st.integers(0, len(hellos[end]) - 1))
    change = data.draw(st.integers(1, 255))
    changed = bytearray(hellos[end])
    changed[position] ^= change
    other = hellos | {end: bytes(changed)}
    assert session_nonce(**{f"{name}_hello": hello for name, hello in other.items()}) != (
        session_nonce(INITIATOR, ACCEPTOR)
    )


@covers("W-135")
def test_the_user_data_name_the_purpose_and_the_machine() -> None:
    assert session_user_data(16) == b"vsockproxy session\n\x00\x00\x00\x10"
    assert session_user_data(None) == b"vsockproxy session\n\xff\xff\xff\xff"


@every_feed
def test_evidence_is_read_in_any_pieces(feed: Feed) -> None:
    data = b"\x00\x09\xa1\x01\x46abcdef"
    assert Evidence(b"abcdef").encode() == data
    reader = MapReader(MAX_EVIDENCE_BYTES, "evidence")
    values = [reader.receive(piece) for piece in feed(data)]
    assert values[:-1] == [None] * (len(values) - 1)
    assert values[-1] is not None
    assert Evidence.decode(values[-1]) == Evidence(b"abcdef")
    assert reader.rest == b""


@every_feed
def test_a_result_is_read_in_any_pieces(feed: Feed) -> None:
    data = b"\x00\x0c\xa2\x01\x65limit\x02\x62no"
    assert Result("limit", "no").encode() == data
    reader = MapReader(MAX_RESULT_BYTES, "a result")
    values = [reader.receive(piece) for piece in feed(data)]
    assert values[-1] is not None
    assert Result.decode(values[-1]) == Result("limit", "no")


@covers("W-136")
def test_an_empty_result_begins_the_session_and_frames_may_follow_at_once() -> None:
    reader = MapReader(MAX_RESULT_BYTES, "a result")
    body = reader.receive(b"\x00\x01\xa0\x0c\x00")
    assert body is not None
    assert Result.decode(body) == Result()
    assert Result().encode() == b"\x00\x01\xa0"
    assert reader.rest == b"\x0c\x00"


@covers("W-133")
@pytest.mark.parametrize(
    ("most_bytes", "length"),
    [
        (MAX_EVIDENCE_BYTES, 0),
        (MAX_EVIDENCE_BYTES, 16_385),
        (MAX_EVIDENCE_BYTES, 0xFFFF),
        (MAX_RESULT_BYTES, 0),
        (MAX_RESULT_BYTES, 1025),
    ],
)
def test_a_length_out_of_bounds_is_refused_with_its_two_bytes(most_bytes: int, length: int) -> None:
    reader = MapReader(most_bytes, "evidence")
    with pytest.raises(PeerProtocolError, match=f"evidence of {length} bytes"):
        reader.receive(length.to_bytes(2, "big"))


@pytest.mark.parametrize("most_bytes", [MAX_EVIDENCE_BYTES, MAX_RESULT_BYTES])
def test_the_largest_length_waits_for_more(most_bytes: int) -> None:
    assert MapReader(most_bytes, "evidence").receive(most_bytes.to_bytes(2, "big")) is None


@covers("W-134")
@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(with_length({}), "not one of", id="neither"),
        pytest.param(with_length({1: b"d", 2: "no"}), "not one of", id="both"),
        pytest.param(with_length({1: b""}), "field 1", id="an empty document"),
        pytest.param(with_length({1: b"d" * 12_289}), "field 1", id="over 12 KiB"),
        pytest.param(with_length({1: "d"}), "field 1", id="a document of text"),
        pytest.param(with_length({1: None}), "field 1", id="a document that is null"),
        pytest.param(with_length({2: ""}), "field 2", id="an empty text"),
        pytest.param(with_length({2: "x" * 513}), "field 2", id="a text of 513 bytes"),
        pytest.param(with_length({2: "a\nb"}), "field 2", id="two lines"),
        pytest.param(with_length([b"d"]), "not one map", id="a list"),
        pytest.param(b"\x00\x05\xbf\x01\x41d\xff", "deterministic", id="an indefinite map"),
        pytest.param(b"\x00\x05\xa1\x01\xc1\x41d", "no CBOR", id="a tag"),
        pytest.param(b"\x00\x02\xa1\x01", "no CBOR", id="a map cut short"),
    ],
)
def test_evidence_out_of_bounds(data: bytes, text: str) -> None:
    with pytest.raises(PeerProtocolError, match=text) as caught:
        read_evidence(data)
    assert caught.value.code == ErrorCode.PROTOCOL


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(with_length({1: ""}), "field 1", id="an empty reason"),
        pytest.param(with_length({1: "x" * 65}), "field 1", id="a reason of 65 bytes"),
        pytest.param(with_length({1: 7}), "field 1", id="a number"),
        pytest.param(with_length({1: "r", 2: "x" * 513}), "field 2", id="a text of 513 bytes"),
        pytest.param(with_length([]), "not one map", id="a list"),
    ],
)
def test_a_result_out_of_bounds(data: bytes, text: str) -> None:
    with pytest.raises(PeerProtocolError, match=text):
        read_result(data)


@covers("W-007")
def test_later_keys_are_ignored() -> None:
    assert read_evidence(with_length({1: b"d", 3: {1: [None]}})) == Evidence(b"d")
    assert read_result(with_length({3: b"later"})) == Result()


@pytest.mark.parametrize(
    "evidence",
    [Evidence(), Evidence(b"d", "and a text"), Evidence(b""), Evidence(b"d" * 12_289)],
    ids=["neither", "both", "empty", "over 12 KiB"],
)
def test_what_the_peer_would_refuse_is_not_sent(evidence: Evidence) -> None:
    with pytest.raises(LocalProtocolError):
        evidence.encode()


def test_texts_are_written_as_fields_may_hold_them() -> None:
    assert read_evidence(Evidence(refusal="two\nlines").encode()).refusal == "two lines"
    back = read_result(Result("limit", "é" * 400).encode())
    assert (back.reason, len(back.text)) == ("limit", 256)


@given(
    evidence=st.one_of(
        st.builds(Evidence, st.binary(min_size=1, max_size=200)),
        st.builds(Evidence, st.none(), st.text("ab cé", min_size=1, max_size=100)),
    )
)
def test_evidence_comes_back_as_it_was(evidence: Evidence) -> None:
    assert read_evidence(evidence.encode()) == evidence


@given(data=st.binary(max_size=100))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    for decode in (Evidence.decode, Result.decode):
        with contextlib.suppress(PeerProtocolError):
            assert isinstance(decode(data), Evidence | Result)
