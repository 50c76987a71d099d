"""The first bytes of a connection."""

import contextlib
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.session_frames import PING, TOKEN, total
from tests.support.session_pair import CRC32, Alone, make_hello
from tests.support.wire_rules import covers
from tests.vsockproxy.protocols.feeding import Feed, every_feed
from vsockproxy.session import (
    DedicatedPreface,
    ErrorCode,
    Hello,
    PeerProtocolError,
    PrefaceReader,
    agree_on_version,
)

HELLO_MAP = bytes.fromhex("a5018201010280 03a301194000 0218640319ffff 0450")
"""{1: [1, 1], 2: [], 3: {1: 16384, 2: 100, 3: 65535}, 4: …; the instance and {5: …} follow."""
HELLO = HELLO_MAP + b"i" * 16 + bytes.fromhex("051a11111111")


def with_head(body: bytes) -> bytes:
    return b"vsockpx\n" + len(body).to_bytes(2, "big") + body


def read(data: bytes, *, may_be_dedicated: bool = True) -> Hello | DedicatedPreface | None:
    return PrefaceReader(may_be_dedicated=may_be_dedicated).receive(data)


# Each value in its deterministic encoding, so that only the value can be what is wrong.
FIELDS: dict[int, object] = {
    1: [1, 1],
    2: [],
    3: {1: 16384, 2: 100, 3: 65535},
    4: b"i" * 16,
    5: 0x11111111,
}


def hello_with(**changes: object) -> bytes:
    """The hello above with other fields; `f3=…` is field 3, None takes one out."""
    fields = FIELDS | {int(name[1:]): value for name, value in changes.items()}
    kept = {key: value for key, value in fields.items() if value is not None}
    return with_head(cbor2.dumps(kept, canonical=True))


@every_feed
def test_a_hello_is_read_in_any_pieces(feed: Feed) -> None:
    reader = PrefaceReader(may_be_dedicated=False)
    values = [reader.receive(piece) for piece in feed(with_head(HELLO))]
    assert values[:-1] == [None] * (len(values) - 1)
    assert values[-1] == Hello(
        instance=b"i" * 16,
        first_sequence=0x11111111,
        first_window_bytes=16384,
        max_streams=100,
        max_payload_bytes=65535,
        features=frozenset(),
    )
    assert reader.rest == b""


def test_a_hello_encodes_to_the_same_bytes() -> None:
    hello = read(with_head(HELLO))
    assert isinstance(hello, Hello)
    assert hello.encode() == with_head(HELLO)
    assert hello_with() == with_head(HELLO)


@every_feed
def test_a_token_is_read_in_any_pieces(feed: Feed) -> None:
    reader = PrefaceReader(may_be_dedicated=True)
    values = [reader.receive(piece) for piece in feed(b"vsockpd\n" + TOKEN)]
    assert values[-1] == DedicatedPreface(TOKEN)
    assert reader.rest == b""
    assert DedicatedPreface(TOKEN).encode() == b"vsockpd\n" + TOKEN


@covers("W-004")
@pytest.mark.parametrize("first", [with_head(HELLO), b"vsockpd\n" + TOKEN], ids=["hello", "token"])
@given(rest=st.binary(max_size=40), data=st.data())
def test_what_follows_is_left_over(first: bytes, rest: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(first) - 1))
    reader = PrefaceReader(may_be_dedicated=True)
    assert reader.receive(first[:cut]) is None
    assert reader.receive(memoryview(first + rest)[cut:]) is not None
    assert reader.rest == rest


@covers("W-004")
def test_the_first_frame_may_come_with_the_hello() -> None:
    ping = Alone().frame(PING, 0, total(77))
    reader = PrefaceReader(may_be_dedicated=False)
    assert reader.receive(with_head(HELLO) + ping) is not None
    alone = Alone()
    assert alone.receive(reader.rest) == []
    assert [(frame.type, frame.payload) for frame in alone.take()] == [(13, total(77))]


@covers("W-001")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"G", id="the first byte of something else"),
        pytest.param(b"vsockpx\r\n", id="a line end that was converted"),
        pytest.param(b"VSOCKPX\n", id="upper case"),
        pytest.param(b"\0", id="zero"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="a TLS ClientHello"),
        pytest.param(b"vsockpd\n" + TOKEN, id="a token where none is expected"),
    ],
)
def test_another_beginning_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(PeerProtocolError, match="does not begin with our magic"):
        read(data, may_be_dedicated=False)


@pytest.mark.parametrize("length", range(8))
def test_half_a_magic_waits_for_more(length: int) -> None:
    assert read(b"vsockpx\n"[:length]) is None
    assert read(b"vsockpd\n"[:length]) is None


@covers("W-002")
@pytest.mark.parametrize("length", [0, 16 * 1024 + 1, 0xFFFF])
def test_a_length_out_of_bounds_is_refused_with_the_header(length: int) -> None:
    with pytest.raises(PeerProtocolError, match=f"a hello of {length} bytes"):
        read(b"vsockpx\n" + length.to_bytes(2, "big"))


def test_the_largest_length_waits_for_more() -> None:
    assert read(b"vsockpx\n" + (16 * 1024).to_bytes(2, "big")) is None


@covers("W-003", "W-015")
@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(hello_with(f1=None), "range of versions", id="no versions"),
        pytest.param(hello_with(f1=[1]), "range of versions", id="one version"),
        pytest.param(hello_with(f1=[1, 2, 3]), "field 1", id="three versions"),
        pytest.param(hello_with(f1=[2, 1]), "range of versions", id="an empty range"),
        pytest.param(hello_with(f1=[0, 1]), "range of versions", id="version 0"),
        pytest.param(hello_with(f1=[1, 65536]), "range of versions", id="version 65536"),
        pytest.param(hello_with(f1=[True, True]), "range of versions", id="true is no number"),
        pytest.param(hello_with(f1=1), "field 1", id="a version that is no range"),
        pytest.param(hello_with(f2={}), "field 2", id="features that are no list"),
        pytest.param(hello_with(f2=["x"] * 65), "field 2", id="65 features"),
        pytest.param(hello_with(f2=["x" * 33]), "no name", id="a feature of 33 letters"),
        pytest.param(hello_with(f2=[b"x"]), "no name", id="a feature of bytes"),
        pytest.param(hello_with(f3=None), "field 1 of the hello, field 3", id="no limits"),
        pytest.param(hello_with(f3=[]), "field 3", id="limits that are no map"),
        pytest.param(hello_with(f3={2: 1, 3: 1024}), "field 1", id="no first window"),
        pytest.param(hello_with(f3={1: 2**30 + 1, 2: 1, 3: 1024}), "field 1", id="window > 1 GiB"),
        pytest.param(hello_with(f3={1: -1, 2: 1, 3: 1024}), "field 1", id="a negative window"),
        pytest.param(hello_with(f3={1: 1, 2: 2**32 + 1, 3: 1024}), "field 2", id="streams > 2^32"),
        pytest.param(hello_with(f3={1: 1, 2: 1, 3: 1023}), "field 3", id="payloads of 1,023"),
        pytest.param(hello_with(f3={1: 1, 2: 1, 3: 65536}), "field 3", id="payloads of 65,536"),
        pytest.param(hello_with(f4=None), "no instance", id="no instance"),
        pytest.param(hello_with(f4=b"i" * 15), "field 4", id="an instance of 15 bytes"),
        pytest.param(hello_with(f4="i" * 16), "field 4", id="an instance of text"),
        pytest.param(hello_with(f5=None), "field 5", id="no sequence number"),
        pytest.param(hello_with(f5=2**32), "field 5", id="a sequence number of 33 bits"),
        pytest.param(hello_with(f6=b""), "field 6", id="an empty attestation document"),
        pytest.param(hello_with(f6=b"x" * 12289), "field 6", id="an attestation of over 12 KiB"),
        pytest.param(hello_with(f7=""), "field 7", id="an empty refusal"),
        pytest.param(hello_with(f7="x" * 513), "field 7", id="a refusal of 513 bytes"),
        pytest.param(hello_with(f7="a\nb"), "field 7", id="a refusal of two lines"),
        pytest.param(hello_with(f8={}), "field 8", id="services that are no list"),
        pytest.param(hello_with(f8=["s"] * 33), "field 8", id="33 services"),
        pytest.param(hello_with(f8=["s" * 65]), "no name", id="a service of 65 letters"),
        pytest.param(hello_with(f8=[""]), "no name", id="a service without a name"),
        pytest.param(hello_with(f8=["a\nb"]), "no name", id="a service of two lines"),
        pytest.param(hello_with(f8=[b"s"]), "no name", id="a service of bytes"),
        pytest.param(with_head(b"\x80"), "not one map", id="a list"),
        pytest.param(with_head(HELLO + b"\0"), "not one map", id="something behind the map"),
        pytest.param(with_head(HELLO[:-1]), "no CBOR", id="a map cut short"),
    ],
)
def test_a_hello_out_of_bounds(data: bytes, text: str) -> None:
    with pytest.raises(PeerProtocolError, match=text) as caught:
        read(data)
    assert caught.value.code == ErrorCode.PROTOCOL


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({1: 0, 2: 0, 3: 1024}, id="nothing allowed yet"),
        pytest.param({1: 2**30, 2: 2**32, 3: 65535}, id="the most"),
    ],
)
def test_limits_at_their_bounds_are_taken(limits: dict[int, int]) -> None:
    hello = read(hello_with(f3=limits))
    assert isinstance(hello, Hello)
    assert hello.first_window_bytes == limits[1]
    assert hello.max_streams == limits[2]
    assert hello.max_payload_bytes == limits[3]


@covers("W-007")
def test_keys_of_later_versions_are_ignored() -> None:
    data = hello_with(f10={1: [None, True]}, f11="later", f3={1: 16384, 2: 100, 3: 65535, 4: 9})
    assert read(data) == read(with_head(HELLO))


def test_a_hello_names_services() -> None:
    named = replace(make_hello(is_initiator=True), services=frozenset({"web", "admin"}))
    assert read(named.encode()) == named
    assert read(hello_with(f8=["web", "admin"])) != read(hello_with())


@covers("W-005")
@pytest.mark.parametrize(
    ("local", "remote", "agreed"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (2, 5), 3),
        ((2, 5), (1, 3), 3),
        ((1, 9), (4, 4), 4),
        ((1, 1), (2, 3), None),
        ((3, 4), (1, 2), None),
    ],
)
def test_the_highest_common_version(
    local: tuple[int, int], remote: tuple[int, int], agreed: int | None
) -> None:
    ours = replace(make_hello(is_initiator=True), lowest_version=local[0], highest_version=local[1])
    theirs = read(hello_with(f1=list(remote)))
    assert isinstance(theirs, Hello)
    if agreed is not None:
        assert agree_on_version(ours, theirs) == agreed
        return
    with pytest.raises(PeerProtocolError, match=r"no common version.*update the older"):
        agree_on_version(ours, theirs)


@covers("W-006")
@pytest.mark.parametrize(
    ("ours", "theirs", "is_used"),
    [
        (CRC32, ["crc32"], True),
        (CRC32, [], False),
        ((), ["crc32"], False),
        (CRC32, ["crc32", "later"], True),
        (CRC32, ["later"], False),
    ],
)
def test_a_feature_is_used_when_both_name_it(
    ours: frozenset[str], theirs: list[str], is_used: bool
) -> None:
    remote = read(hello_with(f2=theirs))
    assert isinstance(remote, Hello)
    alone = Alone(local=make_hello(is_initiator=False, features=ours), remote=remote)
    assert alone.session.has_checksums is is_used
    assert alone.session.trailer_bytes == (4 if is_used else 0)


@covers("W-008")
def test_a_refusal_ends_it() -> None:
    remote = read(hello_with(f7="go away: the CID is not listed"))
    assert isinstance(remote, Hello)
    with pytest.raises(PeerProtocolError, match="the CID is not listed") as caught:
        agree_on_version(make_hello(is_initiator=True), remote)
    assert caught.value.code == ErrorCode.NONE


def test_a_refusal_is_written_as_a_text_field_may_hold_it() -> None:
    hello = replace(make_hello(is_initiator=False), refusal="two\nlines " + "é" * 400)
    back = read(hello.encode())
    assert isinstance(back, Hello)
    assert back.refusal.startswith("two lines é")
    assert len(back.refusal.encode()) <= 512


@given(
    hello=st.builds(
        Hello,
        instance=st.binary(min_size=16, max_size=16),
        first_sequence=st.integers(0, 2**32 - 1),
        first_window_bytes=st.integers(0, 2**30),
        max_streams=st.integers(0, 2**32),
        max_payload_bytes=st.integers(1024, 65535),
        features=st.frozensets(st.text("abc32", max_size=8), max_size=4),
        attestation=st.none() | st.binary(min_size=1, max_size=100),
    )
)
def test_a_hello_comes_back_as_it_was(hello: Hello) -> None:
    assert read(hello.encode()) == hello


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_more_or_an_error(data: bytes) -> None:
    for prefix in (b"", b"vsockpx\n", b"vsockpd\n", b"vsockpx\n\x00\x20"):
        with contextlib.suppress(PeerProtocolError):
            assert isinstance(read(prefix + data), Hello | DedicatedPreface | None)
