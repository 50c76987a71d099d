import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.attestation.nsm_messages import (
    MAX_RANDOM_BYTES,
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    NsmError,
    encode_get_random,
    parse_get_random,
)


def test_the_bytes_of_the_request() -> None:
    assert encode_get_random() == bytes.fromhex("6947657452616e646f6d")
    assert len(encode_get_random()) <= MAX_REQUEST_BYTES


@pytest.mark.parametrize("length", [1, 32, MAX_RANDOM_BYTES])
def test_random_bytes_are_taken_as_they_are(length: int) -> None:
    random = bytes(range(256))[:length]
    assert parse_get_random(cbor2.dumps({"GetRandom": {"random": random}})) == random


def test_what_later_versions_add_is_left_aside() -> None:
    response = {"GetRandom": {"random": b"abc", "source": "trng"}}
    assert parse_get_random(cbor2.dumps(response)) == b"abc"


WRONG = {
    "a refusal": (cbor2.dumps({"Error": "InternalError"}), "refused GetRandom: 'InternalError'"),
    "a long refusal is cut": (cbor2.dumps({"Error": "x" * 9999}), f"'{'x' * 64}'$"),
    "no bytes": (cbor2.dumps({"GetRandom": {"random": b""}}), "without 1 to 256 random bytes"),
    "too many": (cbor2.dumps({"GetRandom": {"random": bytes(257)}}), "without 1 to 256"),
    "text": (cbor2.dumps({"GetRandom": {"random": "4"}}), "without 1 to 256"),
    "no field": (cbor2.dumps({"GetRandom": {}}), "without 1 to 256"),
    "another response": (cbor2.dumps({"DescribeNSM": {}}), "answered by something else"),
    "a bare name": (cbor2.dumps("GetRandom"), "answered by something else"),
    "two entries": (cbor2.dumps({"GetRandom": {"random": b"a"}, "Error": "b"}), "something else"),
    "a list": (cbor2.dumps([1]), "answered by something else"),
    "nothing": (b"", "no CBOR"),
    "cut": (cbor2.dumps({"GetRandom": {"random": bytes(100)}})[:50], "no CBOR"),
    "too long": (bytes(MAX_RESPONSE_BYTES + 1), "12289 bytes, over 12288"),
    "deep": (b"\x81" * 5000, "no CBOR"),
}


@pytest.mark.parametrize(("response", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_response_is_an_error(response: bytes, text: str) -> None:
    with pytest.raises(NsmError, match=text):
        parse_get_random(response)


@given(st.binary(max_size=600))
def test_any_bytes_are_random_bytes_or_an_error(response: bytes) -> None:
    try:
        random = parse_get_random(response)
    except NsmError:
        return
    assert 0 < len(random) <= MAX_RANDOM_BYTES
