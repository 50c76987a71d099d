"""Answers to attested calls: opened where all is as it has to be, and refused otherwise."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.attestation.kms_answers import check_account, open_answer
from vsockproxy.attestation.kms_calls import PLAINTEXT_FIELDS, AttestedCall
from vsockproxy.attestation.kms_errors import AnswerRefused
from vsockproxy.attestation.kms_headers import answer_headers, passed_headers, signed_headers
from vsockproxy.errors import VsockproxyError

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER = KEY.replace("1234abcd", "0000abcd")
STRANGER = KEY.replace("111122223333", "444455556666")
PLAINTEXT = b"p" * 32


def reverse(blob: bytes) -> bytes:
    """Stands for the envelope: what it holds is the other way round."""
    if blob == b"broken":
        raise VsockproxyError("the envelope does not decrypt with this key")
    return blob[::-1]


def call(
    operation: str = "Decrypt", key_id: str | None = None, length: int | None = None
) -> AttestedCall:
    return AttestedCall(operation, "eu-west-1", key_id, length)


def body(**fields: Any) -> bytes:
    blob = b64encode(PLAINTEXT[::-1]).decode()
    given = {"CiphertextForRecipient": blob, "KeyId": KEY, **fields}
    return json.dumps({name: value for name, value in given.items() if value != "-"}).encode()


@pytest.mark.parametrize(("operation", "name"), PLAINTEXT_FIELDS.items())
def test_the_plaintext_comes_where_it_would_be(operation: str, name: str) -> None:
    sent = body(CiphertextBlob="AAAA", KeyMaterialId="ä", Other={"a": [1, 2.5]}, **{name: None})
    found = json.loads(open_answer(call(operation), sent, reverse))
    assert found == {
        name: b64encode(PLAINTEXT).decode(),
        "KeyId": KEY,
        "CiphertextBlob": "AAAA",
        "KeyMaterialId": "ä",
        "Other": {"a": [1, 2.5]},
    }


ID = KEY.rpartition("/")[2]
NAMED = {
    "nothing": None,
    "its ARN": KEY,
    "its id": ID,
    "an alias": "alias/a",
    "an alias' ARN": "arn:aws:kms:eu-west-1:111122223333:alias/team/a",
}


@pytest.mark.parametrize("key_id", NAMED.values(), ids=NAMED)
def test_a_key_may_be_named_in_every_way(key_id: str | None) -> None:
    found = json.loads(open_answer(call(key_id=key_id), body(), reverse))
    assert found["KeyId"] == KEY


REFUSED = {
    "no JSON": ("answer_body", call(), b"<html>"),
    "a name twice": ("answer_body", call(), b'{"KeyId": "a", "KeyId": "a"}'),
    "a plaintext": ("plaintext", call(), body(Plaintext="AAAA")),
    "a plaintext in place of it": (
        "plaintext",
        call(),
        body(Plaintext="AAAA", CiphertextForRecipient="-"),
    ),
    "a plaintext of another kind": ("plaintext", call(), body(Plaintext=0)),
    "a plaintext under another name": ("plaintext", call(), body(SharedSecret="AAAA")),
    "no ciphertext": ("no_ciphertext", call(), body(CiphertextForRecipient="-")),
    "an empty one": ("no_ciphertext", call(), body(CiphertextForRecipient="")),
    "one that is a number": ("no_ciphertext", call(), body(CiphertextForRecipient=1)),
    "one that is no base64": ("no_ciphertext", call(), body(CiphertextForRecipient="AA==\n")),
    "one that is not ASCII": ("no_ciphertext", call(), body(CiphertextForRecipient="ä")),
    "one that is too long": ("no_ciphertext", call(), body(CiphertextForRecipient="A" * 8200)),
    "one that does not open": (
        "envelope",
        call(),
        body(CiphertextForRecipient=b64encode(b"broken").decode()),
    ),
    "another length than was asked for": ("plaintext_length", call(length=16), body()),
    "another key than the ARN's": ("key", call(key_id=OTHER), body()),
    "another key than the id's": ("key", call(key_id=ID.replace("1", "2")), body()),
    "a key of another region": (
        "key",
        call(key_id=ID),
        body(KeyId=KEY.replace("eu-west-1", "eu-west-2")),
    ),
    "a key of another account than the alias'": (
        "key",
        call(key_id="arn:aws:kms:eu-west-1:999922223333:alias/a"),
        body(),
    ),
    "an alias for a key": ("key", call(key_id=ID), body(KeyId=KEY.replace(":key/", ":alias/"))),
    "no key, where one was named": ("key", call(key_id=KEY), body(KeyId="-")),
    "a key that is a number": ("key", call(key_id=KEY), body(KeyId=1)),
    "an id, where an alias was named": ("key", call(key_id="alias/app"), body(KeyId=ID)),
    "nonsense, where none was named": ("key", call(key_id=None), body(KeyId="moon")),
    "a key of another region, for an alias": (
        "key",
        call(key_id="alias/app"),
        body(KeyId=KEY.replace("eu-west-1", "eu-west-2")),
    ),
    "a number that is none": ("answer_body", call(), body(More="-")[:-1] + b',"Big": 1e999}'),
    "a key with a line break": ("key", call(key_id=ID), body(KeyId=f"{KEY}\n")),
}


@pytest.mark.parametrize(("reason", "asked", "sent"), REFUSED.values(), ids=REFUSED)
def test_an_odd_answer_is_an_error(reason: str, asked: AttestedCall, sent: bytes) -> None:
    with pytest.raises(AnswerRefused) as caught:
        open_answer(asked, sent, reverse)
    error = caught.value
    assert (error.reason, error.status) == (reason, 502)
    shown = json.loads(error.body)
    assert shown["__type"] == "VsockproxyAnswerException"
    assert shown["message"].startswith(f"vsockproxy: {reason}: ")
    assert b64encode(PLAINTEXT).decode() not in error.body.decode()


def test_without_accounts_nobody_has_to_say_which_key_an_alias_is() -> None:
    for key_id in (None, "alias/a"):
        sent = body(KeyId="-")
        assert "KeyId" not in json.loads(open_answer(call(key_id=key_id), sent, reverse))
        with pytest.raises(AnswerRefused, match="does not say which key"):
            open_answer(call(key_id=key_id), sent, reverse, ["111122223333"])


def test_only_keys_of_the_accounts_are_used() -> None:
    for key_id in NAMED.values():
        assert open_answer(call(key_id=key_id), body(), reverse, ["111122223333"])
        with pytest.raises(AnswerRefused, match="account 111122223333") as caught:
            open_answer(call(key_id=key_id), body(), reverse, ["444455556666"])
        assert caught.value.reason == "account"


@pytest.mark.parametrize(
    ("operation", "sent", "reason"),
    [
        pytest.param("Encrypt", {"KeyId": KEY}, None, id="a key of the account"),
        pytest.param("Encrypt", {"KeyId": STRANGER}, "account", id="a key of another"),
        pytest.param("Encrypt", {}, "key", id="no word of the key"),
        pytest.param("Sign", {"KeyId": ID}, "key", id="no word of the account"),
        pytest.param("ReEncrypt", {"KeyId": KEY, "SourceKeyId": KEY}, None, id="two keys"),
        pytest.param(
            "ReEncrypt", {"KeyId": KEY, "SourceKeyId": STRANGER}, "account", id="a strange source"
        ),
        pytest.param("ListKeys", {"Keys": []}, None, id="no key is used"),
    ],
)
def test_the_account_of_a_call_that_is_not_attested(
    operation: str, sent: dict[str, Any], reason: str | None
) -> None:
    data = json.dumps(sent).encode()
    check_account(operation, data, [])
    if reason is None:
        check_account(operation, data, ["111122223333"])
        return
    with pytest.raises(AnswerRefused) as caught:
        check_account(operation, data, ["111122223333"])
    assert caught.value.reason == reason


def test_an_empty_plaintext_is_an_error() -> None:
    with pytest.raises(AnswerRefused) as caught:
        open_answer(call(), body(), lambda _: b"")
    assert caught.value.reason == "plaintext_length"


@given(st.binary(max_size=200))
def test_no_bytes_are_an_answer_by_chance(data: bytes) -> None:
    with pytest.raises(AnswerRefused):
        open_answer(call(), data, reverse)


def test_headers_of_the_program_s_signature_stay_behind() -> None:
    given = {
        "host": "127.0.0.1:4500",
        "authorization": "AWS4-HMAC-SHA256 …",
        "x-amz-date": "20260101T000000Z",
        "x-amz-security-token": "t",
        "x-amz-content-sha256": "0",
        "x-amz-target": "TrentService.Decrypt",
        "x-amz-user-agent": "aws-sdk-js",
        "content-type": "application/x-amz-json-1.1",
        "content-length": "2",
        "transfer-encoding": "chunked",
        "expect": "100-continue",
        "connection": "keep-alive",
        "accept-encoding": "gzip",
        "amz-sdk-request": "attempt=1",
        "user-agent": "Boto3",
        "cookie": "a=b",
    }
    passed = passed_headers(given)
    assert sorted(passed) == [
        ("accept-encoding", "identity"),
        ("amz-sdk-request", "attempt=1"),
        ("content-type", "application/x-amz-json-1.1"),
        ("user-agent", "Boto3"),
        ("x-amz-target", "TrentService.Decrypt"),
        ("x-amz-user-agent", "aws-sdk-js"),
    ]
    assert sorted(signed_headers("kms.eu-west-1.amazonaws.com", passed)) == [
        ("content-type", "application/x-amz-json-1.1"),
        ("host", "kms.eu-west-1.amazonaws.com"),
        ("x-amz-target", "TrentService.Decrypt"),
        ("x-amz-user-agent", "aws-sdk-js"),
    ]


def test_a_sum_over_the_body_goes_with_the_body() -> None:
    given = [
        ("x-amzn-requestid", "1"),
        ("x-amz-crc32", "2"),
        ("content-length", "3"),
        ("connection", "keep-alive"),
        ("set-cookie", "a=b"),
        ("date", "now"),
    ]
    kept = [("x-amzn-requestid", "1"), ("x-amz-crc32", "2"), ("date", "now")]
    assert answer_headers(given, is_body_changed=False) == kept
    assert answer_headers(given, is_body_changed=True) == [kept[0], kept[2]]
