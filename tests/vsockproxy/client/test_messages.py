from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.client.messages import (
    INCOMING,
    LISTEN,
    LISTENING,
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    PENDING,
    Answer,
    Incoming,
    Listen,
    Listening,
    Message,
    PacketError,
    Pending,
    Request,
    pack,
    unpack_answer,
    unpack_request,
)
from vsockproxy.session.frames import FrameType
from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved


def raw(kind: int, fields: Any) -> bytes:
    return bytes([kind]) + cbor2.dumps(fields, canonical=True)


PACKETS: dict[str, tuple[Message, bytes]] = {
    "OPEN": (Open("kms.test", 443), raw(1, {1: "kms.test", 2: 443})),
    "OPEN of a dedicated stream": (Open("a", 1, dedicated=True), raw(1, {1: "a", 2: 1, 3: True})),
    "OPEN of a service of the parent": (Open(service="vsockproxy.x"), raw(1, {4: "vsockproxy.x"})),
    "PENDING": (Pending(), b"\x40"),
    "OPENED": (Opened("192.0.2.1"), raw(2, {1: "192.0.2.1"})),
    "OPENED without an address": (Opened(), raw(2, {})),
    "REFUSED": (Refusal("denied", "no"), raw(3, {1: "denied", 2: "no"})),
    "RESOLVE": (Resolve("kms.test", 28), raw(10, {1: "kms.test", 2: 28})),
    "RESOLVED": (Resolved(records=(b"abcd",), ttl_seconds=60), raw(11, {3: [b"abcd"], 4: 60})),
    "LISTEN": (Listen("web"), raw(65, {1: "web"})),
    "LISTENING": (Listening(), b"\x42"),
    "INCOMING": (Incoming("192.0.2.1:2", "[::1]:3"), raw(67, {1: "192.0.2.1:2", 2: "[::1]:3"})),
    "INCOMING from somewhere": (Incoming(), raw(67, {})),
    "RESOLVED with a reason": (Resolved("no_such_name"), raw(11, {1: "no_such_name", 4: 0})),
}


@pytest.mark.parametrize(("message", "packet"), PACKETS.values(), ids=PACKETS)
def test_a_message_is_its_kind_and_its_map(message: Message, packet: bytes) -> None:
    assert pack(message) == packet
    if isinstance(message, Request):
        assert unpack_request(packet) == message
    else:
        assert unpack_answer(packet) == message


def test_no_frame_on_a_link_has_a_number_of_ours() -> None:
    assert set(FrameType).isdisjoint({PENDING, LISTEN, LISTENING, INCOMING})


BAD_REQUESTS = {
    "nothing": (b"", "an empty packet"),
    "a kind alone": (b"\x01", "OPEN is no CBOR"),
    "an answer": (raw(2, {}), "a packet of kind 2, which is no request"),
    "PENDING": (b"\x40", "a packet of kind 64, which is no request"),
    "an unknown kind": (raw(99, {1: "a", 2: 1}), "a packet of kind 99, which is no request"),
    "no CBOR": (b"\x01\xff\xff", "OPEN is no CBOR"),
    "no map": (raw(1, [1]), "OPEN is not one map"),
    "no port": (raw(1, {1: "a"}), "field 2 of OPEN must be an integer"),
    "port 0": (raw(1, {1: "a", 2: 0}), "field 2 of OPEN must be an integer"),
    "no host": (raw(1, {2: 1}), "field 1 of OPEN must be printable text"),
    "a host of 256 bytes": (raw(1, {1: "h" * 256, 2: 1}), "field 1 of OPEN must be printable"),
    "a line break in the host": (raw(1, {1: "a\n", 2: 1}), "field 1 of OPEN must be printable"),
    "a service that is not the parent's": (raw(1, {4: "web"}), "OPEN names a service"),
    "a service without a name": (raw(65, {1: ""}), "field 1 of LISTEN must be printable"),
    "a service of 65 letters": (raw(65, {1: "s" * 65}), "field 1 of LISTEN must be printable"),
    "no service": (raw(65, {}), "field 1 of LISTEN must be printable"),
    "LISTENING": (b"\x42", "a packet of kind 66, which is no request"),
    "a type of 0": (raw(10, {1: "a", 2: 0}), "field 2 of RESOLVE must be an integer"),
    "something behind the map": (raw(1, {1: "a", 2: 1}) + b"\0", "OPEN is not one map"),
    "a byte too many": (bytes(MAX_REQUEST_BYTES + 1), "a packet of more than 1025 bytes"),
}


@pytest.mark.parametrize(("packet", "text"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_is_no_request_is_refused(packet: bytes, text: str) -> None:
    with pytest.raises(PacketError) as caught:
        unpack_request(packet)
    assert text in str(caught.value)


BAD_ANSWERS = {
    "nothing": (b"", "an empty packet"),
    "a request": (raw(1, {1: "a", 2: 1}), "a packet of kind 1 and 7 bytes, which is no answer"),
    "PENDING with a map": (raw(64, {}), "a packet of kind 64 and 2 bytes, which is no answer"),
    "a refusal without a reason": (raw(3, {}), "field 1 of REFUSED must be printable text"),
    "an address that is a number": (raw(2, {1: 1}), "field 1 of OPENED must be printable text"),
    "LISTENING with a map": (raw(66, {}), "a packet of kind 66 and 2 bytes, which is no answer"),
    "a client of 65 bytes": (raw(67, {1: "1" * 65}), "field 1 of INCOMING must be printable"),
    "a byte too many": (bytes(MAX_ANSWER_BYTES + 1), "a packet of more than 16385 bytes"),
}


@pytest.mark.parametrize(("packet", "text"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_what_is_no_answer_is_refused(packet: bytes, text: str) -> None:
    with pytest.raises(PacketError) as caught:
        unpack_answer(packet)
    assert text in str(caught.value)


def test_the_longest_packets_pass() -> None:
    longest = Resolved(records=(b"r" * 1020,) * 16, ttl_seconds=0)
    packet = pack(longest)
    assert MAX_ANSWER_BYTES - 16 < len(packet) <= MAX_ANSWER_BYTES
    assert unpack_answer(packet) == longest
    padded = {1: "a", 2: 1, 9: b"p" * 1014}
    assert len(raw(1, padded)) == MAX_REQUEST_BYTES
    assert unpack_request(raw(1, padded)) == Open("a", 1)


@given(st.binary(max_size=64) | st.binary(max_size=8).map(lambda data: b"\x01\xa2\x01" + data))
def test_garbage_is_a_message_or_one_error(packet: bytes) -> None:
    for unpack in (unpack_request, unpack_answer):
        with suppress(PacketError):
            message: Answer | Request = unpack(packet)
            assert pack(message)[0] == packet[0]
