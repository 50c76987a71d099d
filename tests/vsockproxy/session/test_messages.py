"""The CBOR maps: what is taken, and hostile CBOR of every kind."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wire_rules import covers
from vsockproxy.session import ErrorCode, LocalProtocolError, PeerProtocolError
from vsockproxy.session.messages import (
    Fields,
    Open,
    Opened,
    Refusal,
    Resolve,
    Resolved,
    decode_map,
    encode_map,
    printable,
)


def tagged(number: int, value: object) -> str:
    return cbor2.dumps(cbor2.CBORTag(number, value)).hex()


OUTERMOST = {
    "nothing": "",
    "an integer": "01",
    "a list": "80",
    "text": "6161",
    "two maps": "a0a0",
    "a byte behind the map": "a000",
    "a break behind the map": "a0ff",
    "a map cut short": "a2010102",
    "an indefinite map": "bf0101ff",
    "an indefinite map, unbroken": "bf0101",
    "a map inside a tag": "d9d9f7a0",
    "a map that claims 2^64 - 1 pairs": "bbffffffffffffffff",
    "a reserved length": "bc",
}

VALUES = {
    "an integer in two bytes that fits in one": "a1011801",
    "an integer in three that fits in two": "a10119001f",
    "an integer in nine that fits in five": "a1011b0000000000000001",
    "a text length in two bytes that fits in one": "a101780161",
    "an indefinite text": "a1017f6161ff",
    "an indefinite byte string": "a1015f4161ff",
    "an indefinite list": "a1019fff",
    "a text that ends early": "a1016261",
    "a byte string that claims 2^63 bytes": "a1015b8000000000000000",
    "a list that claims 2^63 items": "a1019b8000000000000000",
    "bytes that are no UTF-8": "a10161ff",
    "a surrogate in UTF-8": "a10163eda080",
    "an overlong slash": "a10162c0af",
    "a simple value": "a101f0",
    "a simple value in two bytes": "a101f8ff",
    "a break where a value should be": "a101ff",
}

KEYS = {
    "the same key twice": "a201010102",
    "keys out of order": "a202010101",
    "a negative key": "a12001",
    "a key of text": "a1616101",
    "a key of bytes": "a1416101",
    "true as a key, which Python takes for 1": "a1f501",
    "false as a key, which Python takes for 0": "a1f401",
    "1.0 as a key, which Python takes for 1": "a1f93c0001",
    "1 and true": "a20101f501",
    "null as a key": "a1f601",
    "a list as a key": "a1810101",
    "a map as a key": "a1a0 01",
    "a NaN as a key": "a1f97e0001",
    "a key of 65 bits": "a1c249010000000000000000 01",
    "a key that is no unsigned integer, in an inner map": "a101a1616101",
    "true as a key in an inner map": "a101a1f501",
}

KINDS = {
    "half a float": "a101f93c00",
    "a float": "a101fa3f800000",
    "a double": "a101fb3ff0000000000000",
    "a NaN": "a101f97e00",
    "an infinity": "a101f97c00",
    "undefined": "a101f7",
    "a bignum": "a101c249010000000000000000",
    "a negative bignum": "a101c349010000000000000000",
    "a bignum that fits": "a101c24101",
    "a date": "a101" + tagged(0, "2026-01-01T00:00:00Z"),
    "an epoch": "a101" + tagged(1, 2**62),
    "a decimal with an exponent of 10^15": "a101" + tagged(4, [10**15, 1]),
    "a bigfloat with an exponent of 10^9": "a101" + tagged(5, [10**9, 1]),
    "a fraction over 0": "a101" + tagged(30, [1, 0]),
    "a regular expression": "a101" + tagged(35, "(a{1,500}){1,500}" * 50),
    "a regular expression that warns": "a101" + tagged(35, "[[a]"),
    "a mail": "a101" + tagged(36, "From: x"),
    "a UUID": "a101" + tagged(37, b"i" * 16),
    "a set": "a101" + tagged(258, [1, 2]),
    "a network": "a101" + tagged(261, {b"\x0a": 8}),
    "self-described CBOR inside": "a101" + tagged(55799, 1),
    "a list that contains itself": "a101d81c81d81d00",
    "a reference to nothing": "a101d81d00",
    "an unknown tag": "a101" + tagged(99999, 1),
    "a tag in an inner map": "a101a101" + tagged(99999, 1),
}

NESTED = {
    "five maps": "a100" * 4 + "a0",
    "five lists and maps": "a100818181a0",
    "400 lists": "a101" + "81" * 400 + "80",
    "8,000 lists": "a101" + "81" * 8000 + "80",
    "8,000 maps": "a100" * 8000 + "a0",
}


def refuse(hexadecimal: str) -> PeerProtocolError:
    with pytest.raises(PeerProtocolError) as caught:
        decode_map(bytes.fromhex(hexadecimal), "the map")
    assert caught.value.code == ErrorCode.PROTOCOL
    assert caught.value.text.startswith("the map is no")
    return caught.value


@covers("W-010")
@pytest.mark.parametrize("case", OUTERMOST)
def test_what_is_not_one_map(case: str) -> None:
    refuse(OUTERMOST[case])


@covers("W-010")
@pytest.mark.parametrize("case", VALUES)
def test_what_is_not_deterministic(case: str) -> None:
    refuse(VALUES[case])


@covers("W-010", "W-011")
@pytest.mark.parametrize("case", KEYS)
def test_keys(case: str) -> None:
    refuse(KEYS[case])


@covers("W-012")
@pytest.mark.parametrize("case", KINDS)
def test_kinds_of_values(case: str) -> None:
    refuse(KINDS[case])


@covers("W-013")
@pytest.mark.parametrize("case", NESTED)
def test_nesting(case: str) -> None:
    refuse(NESTED[case])


@covers("W-013")
def test_four_levels_are_taken() -> None:
    assert decode_map(bytes.fromhex("a101a102a10380"), "the map") == {1: {2: {3: []}}}


@covers("W-012")
def test_integers_of_64_bits_are_taken() -> None:
    data = bytes.fromhex("a2011bffffffffffffffff023bffffffffffffffff")
    assert decode_map(data, "the map") == {1: 2**64 - 1, 2: -(2**64)}


@covers("W-010")
def test_keys_are_sorted_by_their_encoding() -> None:
    data = bytes.fromhex("a4 1701 181801 18ff01 19010001".replace(" ", ""))
    assert decode_map(data, "the map") == {23: 1, 24: 1, 255: 1, 256: 1}


def test_hostile_tags_import_nothing() -> None:
    """A tag's own module would be loaded to parse it: mail, regular expressions, networks."""
    script = (
        "import sys\n"
        "from vsockproxy.session.messages import decode_map\n"
        "from vsockproxy.session import PeerProtocolError\n"
        "before = set(sys.modules)\n"
        f"for data in {[KINDS[case] for case in KINDS]!r}:\n"
        "    try:\n"
        "        decode_map(bytes.fromhex(data), 'x')\n"
        "    except PeerProtocolError:\n"
        "        pass\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


plain = st.recursive(
    st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=8) | st.text(max_size=8) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 2**64 - 1), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.integers(0, 2**64 - 1), plain, max_size=4))
def test_a_plain_map_comes_back(value: dict[int, object]) -> None:
    def depth(item: object) -> int:
        if isinstance(item, dict):
            return 1 + max(map(depth, item.values()), default=0)
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    data = encode_map(value)
    if depth(value) <= 4:
        assert decode_map(data, "the map") == value
    else:
        refuse(data.hex())


Value = TypeVar("Value")


def decoded(decode: Callable[[bytes], Value], data: bytes) -> Value | None:
    """What `decode` makes of hostile bytes; None for its one error."""
    with contextlib.suppress(PeerProtocolError):
        return decode(data)
    return None


@given(st.binary(max_size=64))
def test_any_bytes_are_a_map_or_an_error(data: bytes) -> None:
    for beginning in (b"", b"\xa1", b"\xa1\x01", b"\xa2\x01"):
        value = decoded(lambda whole: decode_map(whole, "the map"), beginning + data)
        assert value is None or encode_map(value) == beginning + data


@given(st.data())
def test_a_valid_map_with_a_byte_changed(data: st.DataObject) -> None:
    encoded = bytearray(Open("kms.eu-west-1.amazonaws.com", 443, dedicated=True).encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    value = decoded(Open.decode, bytes(encoded))
    assert value is None or Open.decode(value.encode()) == value


# -------------------------------------------------------------------------- messages

Message = Open | Opened | Refusal | Resolve | Resolved

GOOD: dict[str, tuple[Message, str]] = {
    "open": (Open("h", 123), "a201616802187b"),
    "open dedicated": (Open("h", 123, dedicated=True), "a301616802187b03f5"),
    "open a service": (Open(service="web"), "a10463776562"),
    "open a service, dedicated": (Open(service="web", dedicated=True), "a203f50463776562"),
    "open a service for a client": (
        Open(service="web", client="192.0.2.1:80", server="[::1]:443"),
        "a304637765620" + "56c3139322e302e322e313a3830" + "06695b3a3a315d3a343433",
    ),
    "opened": (Opened(), "a0"),
    "opened with all": (
        Opened("10.0.0.1:443", b"t" * 16, 65536),
        "a3016c31302e302e302e313a343433025074747474747474747474747474747474" + "031a00010000",
    ),
    "refused": (Refusal("limit"), "a101656c696d6974"),
    "refused with a text": (Refusal("limit", "no"), "a201656c696d697402626e6f"),
    "resolve": (Resolve("h", 16), "a20161680210"),
    "resolved": (Resolved(ttl_seconds=60), "a104183c"),
    "resolved with records": (
        Resolved(records=(b"\x0a\0\0\1", b""), ttl_seconds=5),
        "a20382440a000001400405",
    ),
    "resolved with a reason": (
        Resolved("no_such_name", "x"),
        "a3016c6e6f5f737563685f6e616d650261780400",
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_message(case: str) -> None:
    message, data = GOOD[case]
    assert message.encode().hex() == data
    assert type(message).decode(bytes.fromhex(data)) == message


@covers("W-007")
@pytest.mark.parametrize("case", GOOD)
def test_a_message_of_a_later_version(case: str) -> None:
    message, data = GOOD[case]
    fields = cbor2.loads(bytes.fromhex(data))
    later = encode_map(fields | {9: {1: [True, None, b"x"]}, 2**64 - 1: "later"})
    assert type(message).decode(later) == message


BAD: dict[str, tuple[type[Message], dict[int, object], str]] = {
    "OPEN of nothing": (Open, {}, "field 1"),
    "OPEN without a port": (Open, {1: "h"}, "field 2"),
    "OPEN without a host": (Open, {2: 1}, "field 1"),
    "OPEN of port 0": (Open, {1: "h", 2: 0}, "field 2"),
    "OPEN of port 65536": (Open, {1: "h", 2: 65536}, "field 2"),
    "OPEN of port true": (Open, {1: "h", 2: True}, "field 2"),
    "OPEN of port null": (Open, {1: "h", 2: None}, "field 2"),
    "OPEN of a host of bytes": (Open, {1: b"h", 2: 1}, "field 1"),
    "OPEN of an empty host": (Open, {1: "", 2: 1}, "field 1"),
    "OPEN of a host of 256 bytes": (Open, {1: "h" * 256, 2: 1}, "field 1"),
    "OPEN of a host of 128 letters of 2 bytes": (Open, {1: "é" * 128, 2: 1}, "field 1"),
    "OPEN of a host with a line end": (Open, {1: "h\n", 2: 1}, "field 1"),
    "OPEN of a host with a zero": (Open, {1: "h\0", 2: 1}, "field 1"),
    "OPEN of a host with a bidirectional mark": (Open, {1: "h\u202e", 2: 1}, "field 1"),
    "OPEN that is dedicated 1": (Open, {1: "h", 2: 1, 3: 1}, "field 3"),
    "OPEN that is dedicated null": (Open, {1: "h", 2: 1, 3: None}, "field 3"),
    "OPEN of a host and a service": (Open, {1: "h", 2: 1, 4: "s"}, "a service and a host"),
    "OPEN of a port and a service": (Open, {2: 1, 4: "s"}, "a service and a host"),
    "OPEN of an empty service": (Open, {4: ""}, "field 4"),
    "OPEN for a client of 65 bytes": (Open, {4: "s", 5: "1" * 65}, "field 5"),
    "OPEN for an empty client": (Open, {4: "s", 5: ""}, "field 5"),
    "OPEN for a client with a line end": (Open, {4: "s", 5: "1\n"}, "field 5"),
    "OPEN by way of a server of 65 bytes": (Open, {4: "s", 6: "1" * 65}, "field 6"),
    "OPEN by way of a server null": (Open, {4: "s", 6: None}, "field 6"),
    "OPENED with an address of 65 bytes": (Opened, {1: "1" * 65}, "field 1"),
    "OPENED with an empty address": (Opened, {1: ""}, "field 1"),
    "OPENED with a token of 15 bytes": (Opened, {2: b"t" * 15}, "field 2"),
    "OPENED with a token of text": (Opened, {2: "t" * 16}, "field 2"),
    "OPENED with a token null": (Opened, {2: None}, "field 2"),
    "OPENED with negative credit": (Opened, {3: -1}, "field 3"),
    "OPENED with credit null": (Opened, {3: None}, "field 3"),
    "REFUSED without a reason": (Refusal, {}, "field 1"),
    "REFUSED with an empty reason": (Refusal, {1: ""}, "field 1"),
    "REFUSED with a reason of 65 bytes": (Refusal, {1: "r" * 65}, "field 1"),
    "REFUSED with a text of 513 bytes": (Refusal, {1: "r", 2: "t" * 513}, "field 2"),
    "REFUSED with a text of two lines": (Refusal, {1: "r", 2: "t\nt"}, "field 2"),
    "REFUSED with a text that turns a log line": (Refusal, {1: "r", 2: "t\x1b[2J"}, "field 2"),
    "RESOLVE without a type": (Resolve, {1: "h"}, "field 2"),
    "RESOLVE of type 0": (Resolve, {1: "h", 2: 0}, "field 2"),
    "RESOLVED with 257 records": (Resolved, {3: [b""] * 257}, "field 3"),
    "RESOLVED with a record of 1,025 bytes": (Resolved, {3: [b"x" * 1025]}, "1024 bytes"),
    "RESOLVED with a record of text": (Resolved, {3: ["x"]}, "1024 bytes"),
    "RESOLVED with records that are no list": (Resolved, {3: {}}, "field 3"),
    "RESOLVED with a negative time": (Resolved, {4: -1}, "field 4"),
    "RESOLVED with a time of 2^31": (Resolved, {4: 2**31}, "field 4"),
}


@covers("W-014", "W-015", "W-043")
@pytest.mark.parametrize("case", BAD)
def test_a_message_out_of_bounds(case: str) -> None:
    kind, fields, text = BAD[case]
    with pytest.raises(PeerProtocolError, match=text) as caught:
        kind.decode(encode_map(fields))
    assert caught.value.code == ErrorCode.PROTOCOL


UNSENDABLE: dict[str, Message] = {
    "a host of 256 bytes": Open("h" * 256, 1),
    "no host": Open("", 1),
    "a host with a line end": Open("h\n", 1),
    "a host with a lone surrogate": Open("h\udc80", 1),
    "port 0": Open("h", 0),
    "port 65536": Open("h", 65536),
    "a service with a tab": Open(service="a\tb"),
    "a client of 65 bytes": Open(service="s", client="1" * 65),
    "a server with a line end": Open(service="s", server="1\n"),
    "an address of 65 bytes": Opened("1" * 65),
    "no reason": Refusal(""),
    "a reason of 65 bytes": Refusal("r" * 65),
    "a name with a zero": Resolve("a\0b", 1),
    "type 0": Resolve("h", 0),
    "an answer with a reason of two lines": Resolved("a\nb"),
}


@pytest.mark.parametrize("case", UNSENDABLE)
def test_what_a_peer_would_not_take_is_not_sent(case: str) -> None:
    with pytest.raises(LocalProtocolError, match="must be"):
        UNSENDABLE[case].encode()


def test_an_answer_may_live_for_68_years_at_most() -> None:
    assert Resolved.decode(Resolved(ttl_seconds=2**32).encode()).ttl_seconds == 2**31 - 1
    assert Resolved.decode(Resolved(ttl_seconds=-1).encode()).ttl_seconds == 0


@given(st.text())
def test_any_text_becomes_one_that_a_peer_takes(text: str) -> None:
    refusal = Refusal("limit", text)
    assert Refusal.decode(refusal.encode()).text == printable(text)
    assert len(printable(text).encode()) <= 512


def test_fields_say_which_map_they_are_of() -> None:
    fields = Fields(encode_map({1: {1: 2}}), "the thing")
    assert fields.inner(1).integer(1, 0, 9) == 2
    with pytest.raises(PeerProtocolError, match="field 5 of the thing, field 1 must be"):
        fields.inner(1).integer(5, 0, 9)
    assert not fields.inner(2).has(1)
