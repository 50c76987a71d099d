"""The bytes of requests, and what is made of responses."""

import pickle
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.attestation.nsm_errors import (
    NsmCode,
    NsmError,
    NsmRefused,
    NsmRequestError,
    NsmResponseError,
)
from vsockproxy.attestation.nsm_messages import (
    MAX_FIELD_BYTES,
    MAX_RANDOM_BYTES,
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    NsmDescription,
    PcrState,
    encode_attestation,
    encode_describe_nsm,
    encode_describe_pcr,
    encode_extend_pcr,
    encode_get_random,
    encode_lock_pcr,
    encode_lock_pcrs,
    parse_attestation,
    parse_describe_nsm,
    parse_describe_pcr,
    parse_extend_pcr,
    parse_get_random,
    parse_lock_pcr,
    parse_lock_pcrs,
)

REQUESTS = {
    "GetRandom": (encode_get_random(), "6947657452616e646f6d"),
    "DescribeNSM": (encode_describe_nsm(), "6b44657363726962654e534d"),
    "DescribePCR": (encode_describe_pcr(0), "a16b4465736372696265504352a165696e64657800"),
    "ExtendPCR": (
        encode_extend_pcr(16, b"abc"),
        "a169457874656e64504352a265696e6465781064646174614361 6263",
    ),
    "LockPCR": (encode_lock_pcr(31), "a1674c6f636b504352a165696e646578181f"),
    "LockPCRs": (encode_lock_pcrs(32), "a1684c6f636b50435273a16572616e67651820"),
    "Attestation": (
        encode_attestation(None, b"abc", None),
        "a16b4174746573746174696f6ea369757365725f64617461f6656e6f6e636543616263"
        "6a7075626c69635f6b6579f6",
    ),
}


@pytest.mark.parametrize(("request_bytes", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_the_bytes_of_a_request(request_bytes: bytes, expected: str) -> None:
    assert request_bytes == bytes.fromhex(expected)


def test_the_longest_fields_make_a_request() -> None:
    field = bytes(MAX_FIELD_BYTES)
    assert len(encode_attestation(field, field, field)) <= MAX_REQUEST_BYTES
    assert encode_attestation(b"", b"", None) != encode_attestation(None, None, None)


IMPOSSIBLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "user_data that are too long": (
        lambda: encode_attestation(bytes(1025), None, None),
        "^user_data of 1025 bytes, over 1024$",
    ),
    "a nonce that is too long": (
        lambda: encode_attestation(None, bytes(1025), None),
        "^nonce of 1025 bytes, over 1024$",
    ),
    "a key that is too long": (
        lambda: encode_attestation(None, None, bytes(1025)),
        "^public_key of 1025 bytes, over 1024$",
    ),
    "a key that is empty": (lambda: encode_attestation(None, None, b""), "empty public_key"),
    "a register too far": (lambda: encode_describe_pcr(32), "there is no PCR 32: they are 0 to 31"),
    "a register before the first": (lambda: encode_lock_pcr(-1), "there is no PCR -1"),
    "too many registers": (lambda: encode_lock_pcrs(33), "33 registers, of which there are 32"),
    "data that are too long": (
        lambda: encode_extend_pcr(16, bytes(MAX_REQUEST_BYTES)),
        "over 4096: extend with a hash",
    ),
}


@pytest.mark.parametrize(("encode", "text"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_asked_is_an_error(encode: Callable[[], bytes], text: str) -> None:
    with pytest.raises(NsmRequestError, match=text):
        encode()


PCR = bytes(range(48))
DESCRIPTION = {
    "version_major": 1,
    "version_minor": 2,
    "version_patch": 3,
    "module_id": "i-1-enc2",
    "max_pcrs": 32,
    "locked_pcrs": [0, 1, 31],
    "digest": "SHA384",
}

PARSERS: dict[str, tuple[Callable[[bytes], object], object, object]] = {
    "GetRandom": (parse_get_random, {"GetRandom": {"random": b"abc"}}, b"abc"),
    "DescribeNSM": (
        parse_describe_nsm,
        {"DescribeNSM": DESCRIPTION},
        NsmDescription((1, 2, 3), "i-1-enc2", 32, (0, 1, 31), "SHA384"),
    ),
    "DescribePCR": (
        parse_describe_pcr,
        {"DescribePCR": {"lock": True, "data": PCR}},
        PcrState(PCR, is_locked=True),
    ),
    "ExtendPCR": (parse_extend_pcr, {"ExtendPCR": {"data": PCR}}, PCR),
    "LockPCR": (parse_lock_pcr, "LockPCR", None),
    "LockPCRs": (parse_lock_pcrs, "LockPCRs", None),
    "Attestation": (parse_attestation, {"Attestation": {"document": b"abc"}}, b"abc"),
}
NAMES = list(PARSERS)


@pytest.mark.parametrize(("parse", "response", "expected"), PARSERS.values(), ids=NAMES)
def test_a_response(parse: Callable[[bytes], object], response: object, expected: object) -> None:
    assert parse(cbor2.dumps(response)) == expected


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("Lock")])
def test_what_later_versions_add_is_left_aside(name: str) -> None:
    parse, response, expected = PARSERS[name]
    assert isinstance(response, dict)
    ((_, fields),) = response.items()
    assert parse(cbor2.dumps({name: {**fields, "later": 1}})) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code", [*NsmCode, "SomethingLater"])
def test_a_refusal_has_its_code(name: str, code: str) -> None:
    with pytest.raises(NsmRefused, match=f"^the module refused {name}: '{code}'$") as caught:
        PARSERS[name][0](cbor2.dumps({"Error": code}))
    assert (caught.value.request, caught.value.code) == (name, code)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_long_refusal_is_cut() -> None:
    with pytest.raises(NsmRefused, match=f"'{'x' * 64}'$"):
        parse_get_random(cbor2.dumps({"Error": "x" * 9999}))


ELSE = {
    "a bare name": (cbor2.dumps("GetRandom"), "answered by something else"),
    "two entries": (cbor2.dumps({"GetRandom": {"random": b"a"}, "Error": "b"}), "something else"),
    "a list": (cbor2.dumps([1]), "answered by something else"),
    "another response": (cbor2.dumps({"Other": {}}), "answered by something else"),
    "an error that is none": (cbor2.dumps({"Error": 5}), "answered by something else"),
    "nothing": (b"", "no CBOR"),
    "cut": (cbor2.dumps({"GetRandom": {"random": bytes(100)}})[:50], "no CBOR"),
    "more behind it": (cbor2.dumps({"GetRandom": {"random": b"a"}}) + b"\0", "no CBOR"),
    "a key twice": (bytes.fromhex("a2614101614102"), "no CBOR"),
    "too long": (bytes(MAX_RESPONSE_BYTES + 1), "12289 bytes, over 12288"),
    "deep": (b"\x81" * 5000, "no CBOR"),
    "half of a character": (b"\x61\xc3", "no CBOR"),
    "a value that contains itself": (bytes.fromhex("d81c81d81d00"), "something else|no CBOR"),
}


@pytest.mark.parametrize(("response", "text"), ELSE.values(), ids=ELSE)
def test_a_response_to_nothing_is_an_error(response: bytes, text: str) -> None:
    with pytest.raises(NsmResponseError, match=text):
        parse_get_random(response)


def _described(**changed: object) -> object:
    return {"DescribeNSM": {**DESCRIPTION, **changed}}


WRONG: dict[str, tuple[str, object, str]] = {
    "no random bytes": ("GetRandom", {"GetRandom": {"random": b""}}, "1 to 256"),
    "too many": ("GetRandom", {"GetRandom": {"random": bytes(257)}}, "1 to 256"),
    "text": ("GetRandom", {"GetRandom": {"random": "4"}}, "1 to 256"),
    "no field": ("GetRandom", {"GetRandom": {}}, "1 to 256"),
    "a version of text": ("DescribeNSM", _described(version_minor="1"), "version_minor"),
    "a version that is true": ("DescribeNSM", _described(version_minor=True), "version_minor"),
    "a version too large": ("DescribeNSM", _described(version_patch=65536), "version_patch"),
    "no name": ("DescribeNSM", _described(module_id=""), "module_id"),
    "a name with a line break": ("DescribeNSM", _described(module_id="i-1\nx"), "module_id"),
    "a long name": ("DescribeNSM", _described(module_id="i" * 257), "module_id"),
    "a digest of bytes": ("DescribeNSM", _described(digest=b"SHA384"), "digest"),
    "locks of text": ("DescribeNSM", _described(locked_pcrs="012"), "locked_pcrs"),
    "a lock of text": ("DescribeNSM", _described(locked_pcrs=[0, "1"]), "locked_pcrs"),
    "a negative lock": ("DescribeNSM", _described(locked_pcrs=[-1]), "locked_pcrs"),
    "a lock of 1": ("DescribePCR", {"DescribePCR": {"lock": 1, "data": PCR}}, "lock"),
    "a short register": ("DescribePCR", {"DescribePCR": {"lock": True, "data": b"a"}}, "data"),
    "no register": ("ExtendPCR", {"ExtendPCR": {}}, "data"),
    "no document": ("Attestation", {"Attestation": {"document": b""}}, "document"),
    "a document of text": ("Attestation", {"Attestation": {"document": "abc"}}, "document"),
}


@pytest.mark.parametrize(("name", "response", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_an_error(name: str, response: object, text: str) -> None:
    with pytest.raises(NsmResponseError, match=f"^{name} was answered without .*{text}"):
        PARSERS[name][0](cbor2.dumps(response))


def _error(name: str, response: bytes) -> NsmError | None:
    try:
        PARSERS[name][0](response)
    except NsmError as error:
        return error
    return None


@given(st.sampled_from(NAMES), st.binary(max_size=600))
def test_any_bytes_are_a_response_or_an_error(name: str, response: bytes) -> None:
    error = _error(name, response)
    assert error is None or name in str(error)


_ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=64) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(st.sampled_from(NAMES), _ANYTHING)
def test_any_fields_are_a_response_or_an_error(name: str, fields: object) -> None:
    error = _error(name, cbor2.dumps({name: fields}))
    assert error is None or str(error).startswith(name)


def test_random_bytes_are_taken_as_they_are() -> None:
    random = bytes(range(MAX_RANDOM_BYTES))
    assert parse_get_random(cbor2.dumps({"GetRandom": {"random": random}})) == random
