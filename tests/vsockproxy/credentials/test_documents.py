import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.credentials.documents import (
    MAX_DOCUMENT_BYTES,
    Credentials,
    container_document,
    metadata_document,
    parse_metadata_document,
    parse_role,
    parse_shared_credentials,
    parse_shared_region,
    shared_credentials,
    shared_region,
)
from vsockproxy.credentials.errors import CredentialsError

EXPIRES_AT = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""

HELD = Credentials("the-role", "ASIAEXAMPLE", "se/cr+et", "to/ken==", EXPIRES_AT)

DOCUMENT = {
    "Code": "Success",
    "LastUpdated": "2025-12-31T18:00:00Z",
    "Type": "AWS-HMAC",
    "AccessKeyId": "ASIAEXAMPLE",
    "SecretAccessKey": "se/cr+et",
    "Token": "to/ken==",
    "Expiration": "2026-01-01T00:00:00Z",
}


def test_a_document_of_the_metadata_service_is_read() -> None:
    assert parse_metadata_document("the-role", json.dumps(DOCUMENT).encode()) == HELD


def test_keys_that_aws_adds_are_left_aside() -> None:
    body = json.dumps({**DOCUMENT, "AccountId": "123456789012"}).encode()
    assert parse_metadata_document("the-role", body) == HELD


WRONG = {
    "no JSON": b"<html>",
    "no mapping": b"[]",
    "nothing": b"",
    "half a document": json.dumps(DOCUMENT).encode()[:-9],
    "bytes that are no text": b'{"AccessKeyId": "\xff"}',
    "nested beyond reason": b'{"x":' * 100_000,
    "too long": json.dumps({**DOCUMENT, "x": "x" * MAX_DOCUMENT_BYTES}).encode(),
    **{
        f"no {key}": json.dumps({k: v for k, v in DOCUMENT.items() if k != key}).encode()
        for key in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
    },
    **{
        f"a {what}": json.dumps({**DOCUMENT, key: value}).encode()
        for what, key, value in (
            ("key with a line break", "AccessKeyId", "ASIA\r\nX: y"),
            ("key with a line break at its end", "AccessKeyId", "ASIAEXAMPLE\n"),
            ("secret with a space", "SecretAccessKey", "a b"),
            ("token with a line break", "Token", "a\r\nb"),
            ("token that is a number", "Token", 7),
            ("token beyond reason", "Token", "x" * 20_000),
            ("time in another form", "Expiration", "2026-01-01 00:00:00"),
            ("time that is none", "Expiration", "2026-13-41T00:00:00Z"),
            ("time in another zone", "Expiration", "2026-01-01T00:00:00+02:00"),
        )
    },
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_what_is_no_document_is_refused_and_not_quoted(body: bytes) -> None:
    with pytest.raises(CredentialsError) as caught:
        parse_metadata_document("the-role", body)
    for secret in ("se/cr+et", "to/ken"):
        assert secret not in str(caught.value)


def test_a_failure_that_the_service_reports_is_passed_on() -> None:
    body = json.dumps({"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume\n"})
    with pytest.raises(CredentialsError, match=r"AssumeRoleUnauthorizedAccess: EC2 cannot assume"):
        parse_metadata_document("the-role", body.encode())


def test_secrets_are_not_shown() -> None:
    assert "se/cr+et" not in repr(HELD)
    assert "to/ken" not in repr(HELD)


@pytest.mark.parametrize(
    ("body", "role"),
    [
        pytest.param(b"the-role", "the-role", id="one"),
        pytest.param(b"the-role\n", "the-role", id="with a line break"),
        pytest.param(b"a@b.c\nother", "a@b.c", id="the first of two"),
    ],
)
def test_the_name_of_the_role(body: bytes, role: str) -> None:
    assert parse_role(body) == role


@pytest.mark.parametrize("body", [b"", b"\n", b"../x", b"a b", b"\xff", b"<html>", b"x" * 200])
def test_what_is_no_role(body: bytes) -> None:
    with pytest.raises(CredentialsError):
        parse_role(body)


def test_what_the_parent_shares_is_what_the_enclave_reads() -> None:
    assert parse_shared_credentials(shared_credentials(HELD)) == HELD
    assert parse_shared_region(shared_region("eu-west-1")) == "eu-west-1"


def test_what_sdks_are_told() -> None:
    keys = {k: DOCUMENT[k] for k in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")}
    assert json.loads(container_document(HELD)) == keys
    assert json.loads(metadata_document(HELD, EXPIRES_AT - 6 * 3600)) == DOCUMENT


@given(st.binary(max_size=200))
def test_whatever_the_parent_says_is_read_or_refused(body: bytes) -> None:
    for parse in (parse_shared_credentials, parse_shared_region):
        with suppress(CredentialsError):
            parse(body)
