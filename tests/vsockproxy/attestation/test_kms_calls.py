"""What calls to KMS ask for, and what a Recipient changes of them: nothing else."""

import json
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.attestation.kms_calls import (
    PLAINTEXT_FIELDS,
    AttestedCall,
    KmsCall,
    may_repeat,
    read_attested_call,
    read_call,
    with_recipient,
)
from vsockproxy.attestation.kms_errors import CallUnusable

SIGNATURE = f"SignedHeaders=host, Signature={'0' * 64}"


def headers(
    target: str = "TrentService.Decrypt", scope: str = "20260101/eu-west-1/kms/aws4_request"
) -> dict[str, str]:
    return {
        "x-amz-target": target,
        "authorization": f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, {SIGNATURE}",
    }


def test_the_region_is_that_of_the_signature() -> None:
    call = read_call("POST", "/", headers(scope="20260101/cn-north-1/kms/aws4_request"))
    assert call == KmsCall("Decrypt", "cn-north-1")


@pytest.mark.parametrize("operation", PLAINTEXT_FIELDS)
def test_an_operation_that_takes_a_recipient_is_known_however_it_is_written(operation: str) -> None:
    for target in (operation, operation.lower(), operation.upper()):
        call = read_call("POST", "/", headers(f"trentservice.{target}"))
        assert (call.operation, call.takes_recipient) == (operation, True)


def test_any_other_operation_is_passed_under_its_name() -> None:
    call = read_call("POST", "/", headers("TrentService.GenerateDataKeyWithoutPlaintext"))
    assert (call.operation, call.takes_recipient) == ("GenerateDataKeyWithoutPlaintext", False)


NO_CALLS = {
    "another method": ("request_line", "GET", "/", headers()),
    "another path": ("request_line", "POST", "/service/TrentService/operation/Decrypt", headers()),
    "a query": ("request_line", "POST", "/?Action=Decrypt", headers()),
    "no target": ("target", "POST", "/", {"authorization": headers()["authorization"]}),
    "another service's target": ("target", "POST", "/", headers("DynamoDB_20120810.GetItem")),
    "a line break in the target": ("target", "POST", "/", headers("TrentService.Decrypt\n")),
    "no signature": ("signature", "POST", "/", {"x-amz-target": "TrentService.Decrypt"}),
    "a signature of version 4a": (
        "signature",
        "POST",
        "/",
        headers() | {"authorization": "AWS4-ECDSA-P256-SHA256 Credential=A/20260101/kms/x"},
    ),
    "a region that would be a path": (
        "signature",
        "POST",
        "/",
        headers(scope="20260101/a.b/kms/aws4_request"),
    ),
    "another service": (
        "service",
        "POST",
        "/",
        headers(scope="20260101/eu-west-1/sts/aws4_request"),
    ),
}


@pytest.mark.parametrize(("reason", "method", "target", "given"), NO_CALLS.values(), ids=NO_CALLS)
def test_what_is_no_call_to_kms_is_refused(
    reason: str, method: str, target: str, given: dict[str, str]
) -> None:
    with pytest.raises(CallUnusable) as caught:
        read_call(method, target, given)
    assert (caught.value.reason, caught.value.status) == (reason, 400)


WANTED = {
    "a key and a context": (
        "Decrypt",
        {"KeyId": "alias/a", "EncryptionContext": {"a": "b"}, "CiphertextBlob": "AA=="},
        ("alias/a", None),
    ),
    "no key": ("Decrypt", {"CiphertextBlob": "AA=="}, (None, None)),
    "a number of bytes": ("GenerateRandom", {"NumberOfBytes": 7}, (None, 7)),
    "a key of 32 bytes": ("GenerateDataKey", {"KeyId": "k", "KeySpec": "AES_256"}, ("k", 32)),
    "a key of 16 bytes": ("GenerateDataKey", {"KeyId": "k", "KeySpec": "AES_128"}, ("k", 16)),
    "what KMS may know": ("GenerateDataKey", {"KeyId": "k", "KeySpec": "AES_512"}, ("k", None)),
    "a number that is none": ("GenerateRandom", {"NumberOfBytes": True}, (None, None)),
    "a number that another operation ignores": ("Decrypt", {"NumberOfBytes": 7}, (None, None)),
}


@pytest.mark.parametrize(("operation", "fields", "wanted"), WANTED.values(), ids=WANTED)
def test_what_an_answer_is_held_against_is_read(
    operation: str, fields: dict[str, object], wanted: tuple[str | None, int | None]
) -> None:
    found = read_attested_call(KmsCall(operation, "eu-west-1"), json.dumps(fields).encode())
    assert found == AttestedCall(operation, "eu-west-1", *wanted)


def test_a_call_with_a_recipient_of_its_own_is_left_alone() -> None:
    body = b'{"Recip\\u0069ent": {"AttestationDocument": "AA=="}, "CiphertextBlob": "AA=="}'
    assert read_attested_call(KmsCall("Decrypt", "eu-west-1"), body) is None


UNUSABLE = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "a name twice": b'{"KeyId": "a", "KeyId": "b"}',
    "a name twice further inside": b'{"EncryptionContext": {"a": "b", "a": "c"}}',
    "a name twice, once with escapes": b'{"KeyId": "a", "K\\u0065yId": "b"}',
    "no number": b'{"NumberOfBytes": NaN}',
    "a number without end": b'{"NumberOfBytes": %s}' % (b"1" * 5000),
    "great depth": b"[" * 200_000,
    "two objects": b"{}{}",
    "a Recipient that is nothing": b'{"Recipient": null}',
    "a Recipient that is text": b'{"Recipient": "x"}',
}


@pytest.mark.parametrize("body", UNUSABLE.values(), ids=UNUSABLE)
def test_a_body_that_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    with pytest.raises(CallUnusable) as caught:
        read_attested_call(KmsCall("Decrypt", "eu-west-1"), body)
    assert caught.value.reason == "body"


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b" {\n } ",
        b'{"KeyId":"alias/a"}',
        b'\r\n\t{ "EncryptionContext" : {"\\u00e4": "\xc3\xa4"},  "GrantTokens":[ ]}\n',
    ],
)
def test_every_byte_of_the_body_stays_but_for_the_recipient(body: bytes) -> None:
    found = with_recipient(body, b"document")
    at = body.index(b"{") + 1
    rest = body[at:]
    assert found.startswith(body[:at])
    assert found.endswith(rest)
    assert json.loads(found) == {
        **json.loads(body),
        "Recipient": {
            "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
            "AttestationDocument": "ZG9jdW1lbnQ=",
        },
    }


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(), _JSON).filter(lambda fields: "Recipient" not in fields),
    st.binary(max_size=40),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_object_gets_its_recipient(
    fields: dict[str, object], document: bytes, indent: int | None, is_ascii: bool
) -> None:
    body = json.dumps(fields, indent=indent, ensure_ascii=is_ascii).encode(
        "utf-8", "surrogatepass" if is_ascii else "replace"
    )
    wanted = json.loads(body)
    found = json.loads(with_recipient(body, document))
    assert b64decode(found.pop("Recipient")["AttestationDocument"]) == document
    assert found == wanted


@pytest.mark.parametrize("operation", [*PLAINTEXT_FIELDS, "Encrypt", "ListKeys", "DescribeKey"])
def test_what_changes_nothing_may_be_asked_twice(operation: str) -> None:
    assert may_repeat(operation)


@pytest.mark.parametrize("operation", ["CreateKey", "CreateGrant", "ScheduleKeyDeletion", "Other"])
def test_what_changes_something_is_asked_once(operation: str) -> None:
    assert not may_repeat(operation)
