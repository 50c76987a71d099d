"""Signatures of AWS requests: a vector, the pages' rules, and botocore as the oracle."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]  # it has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # it has no types
from botocore.credentials import Credentials  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.protocols.errors import SignatureError
from vsockproxy.protocols.sigv4 import (
    MAX_AUTHORIZATION_CHARACTERS,
    Credential,
    Scope,
    SigningKey,
    authorization,
    canonical_request,
    format_time,
    parse_authorization,
    parse_credential,
    sign,
    signature,
    string_to_sign,
)

BODY = b'{"KeyId":"alias/test","NumberOfBytes":32}'
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY = SigningKey("AKIDEXAMPLE", SECRET, "SESSIONTOKENEXAMPLE==")
AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HEADERS = [
    ("Host", "kms.us-east-1.amazonaws.com"),
    ("X-Amz-Target", "TrentService.GenerateDataKey"),
    ("Content-Type", "application/x-amz-json-1.1"),
]
SCOPE = Scope("20150830", "us-east-1", "kms")


def signed(**changes: Any) -> dict[str, str]:
    arguments: dict[str, Any] = {
        "method": "POST",
        "target": "/",
        "headers": HEADERS,
        "body": BODY,
        "key": KEY,
        "region": "us-east-1",
        "service": "kms",
        "at": AT,
    }
    return dict(sign(**{**arguments, **changes}))


# --- A vector, equal to botocore's and worked out step by step


def test_each_step_of_the_vector() -> None:
    payload_hash = hashlib.sha256(BODY).hexdigest()
    headers = [(name.lower(), value) for name, value in HEADERS]
    headers += [
        ("x-amz-date", "20150830T123600Z"),
        ("x-amz-security-token", "SESSIONTOKENEXAMPLE=="),
    ]

    canonical = canonical_request("POST", "/", "", headers, payload_hash)
    text = string_to_sign(canonical, "20150830T123600Z", SCOPE)

    assert payload_hash == "9548dccab67c6c1cb2081d130da0288e313189750a25d5a2051d406f53619476"
    assert (
        hashlib.sha256(canonical.encode()).hexdigest()
        == "4dab3ca2d6ab6d7faaa2b557b8b7e086988273016504a8d2cdf8d893ae813640"
    )
    assert (
        signature(text, SECRET, SCOPE)
        == "24c85dc12f0f723e2278a7a09b05c21a93b96d201f2bed81d381b1b596708d4a"
    )


def test_the_headers_of_the_vector() -> None:
    assert signed() == {
        "X-Amz-Date": "20150830T123600Z",
        "X-Amz-Security-Token": "SESSIONTOKENEXAMPLE==",
        "Authorization": "AWS4-HMAC-SHA256 "
        "Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, "
        "Signature=24c85dc12f0f723e2278a7a09b05c21a93b96d201f2bed81d381b1b596708d4a",
    }


def test_keys_of_a_user_have_no_token() -> None:
    headers = signed(key=SigningKey("AKIDEXAMPLE", SECRET))

    assert set(headers) == {"X-Amz-Date", "Authorization"}
    assert "security-token" not in headers["Authorization"]


def test_secrets_are_not_shown() -> None:
    assert repr(KEY) == "SigningKey(access_key_id='AKIDEXAMPLE')"


def test_the_day_is_that_of_utc() -> None:
    at = datetime(2015, 8, 31, 1, 0, tzinfo=timezone(timedelta(hours=2)))

    assert "/20150830/" in signed(at=at)["Authorization"]


# --- botocore

_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
_path_segments = st.lists(
    st.one_of(st.sampled_from(["", ".", "..", "~", "a b", "ä"]), st.text(max_size=8)), max_size=5
)
_pairs = st.lists(st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=8)), max_size=4)
_names = st.from_regex(r"x-[a-z0-9]{1,12}(-[a-z0-9]{1,8})?", fullmatch=True).filter(
    lambda name: name not in {"x-amz-date", "x-amz-security-token", "x-amzn-trace-id"}
)


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
    segments=_path_segments,
    ends_with_slash=st.booleans(),
    pairs=_pairs,
    headers=st.dictionaries(_names, _text, max_size=6),
    body=st.binary(max_size=300),
    region=st.sampled_from(["us-east-1", "eu-west-1", "cn-north-1", "us-gov-west-1"]),
    service=st.sampled_from(["kms", "sts", "execute-api"]),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64),
    token=st.none() | st.from_regex(r"[A-Za-z0-9+/=]{1,200}", fullmatch=True),
    at=st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)),
)
def test_signatures_are_those_of_botocore(
    method: str,
    segments: list[str],
    ends_with_slash: bool,
    pairs: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    region: str,
    service: str,
    secret: str,
    token: str | None,
    at: datetime,
) -> None:
    path = "/" + "/".join(quote(segment, safe="") for segment in segments)
    path += "/" if ends_with_slash else ""
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    target = f"{path}?{query}" if query else path
    host = f"{service}.{region}.amazonaws.com"

    ours = sign(
        method,
        target,
        [("Host", host), *headers.items()],
        body,
        SigningKey("AKIDEXAMPLE", secret, token),
        region=region,
        service=service,
        at=at,
    )

    request = AWSRequest(method, f"https://{host}{target}", headers=headers, data=body)
    request.headers["X-Amz-Date"] = at.strftime("%Y%m%dT%H%M%SZ")
    if token is not None:
        request.headers["X-Amz-Security-Token"] = token
    request.context["timestamp"] = request.headers["X-Amz-Date"]
    oracle = SigV4Auth(Credentials("AKIDEXAMPLE", secret, token), service, region)
    theirs = oracle.signature(
        oracle.string_to_sign(request, oracle.canonical_request(request)), request
    )
    oracle._inject_signature_to_request(request, theirs)
    assert dict(ours)["Authorization"] == request.headers["Authorization"]


# --- What cannot be signed

UNSIGNABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no Host": ({"headers": HEADERS[1:]}, "without a Host"),
    "signed already": ({"headers": [*HEADERS, ("x-amz-date", "now")]}, "signed already: x-amz-da"),
    "a line break in a value": ({"headers": [("Host", "a\r\nb: c")]}, "a header has"),
    "a letter that is none of ASCII": ({"headers": [("Host", "ä")]}, "a header has"),
    "a colon in a name": ({"headers": [*HEADERS, ("x:y", "")]}, "a header has"),
    "an empty name": ({"headers": [*HEADERS, ("", "")]}, "a header has"),
    "a method in lower case": ({"method": "post"}, "the request line"),
    "a method with a line break": ({"method": "POST\n/"}, "the request line"),
    "a space in the path": ({"target": "/a b"}, "the request line"),
    "a path that begins with a host": ({"target": "example.com/"}, "the request line"),
    "a line break in the query": ({"target": "/?a\n"}, "the request line"),
}


@pytest.mark.parametrize("case", UNSIGNABLE)
def test_what_cannot_be_signed_is_refused(case: str) -> None:
    changes, text = UNSIGNABLE[case]
    with pytest.raises(SignatureError, match=text):
        signed(**changes)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        format_time(datetime(2015, 8, 30))


# --- What comes in a request

CREDENTIAL = "Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request"
NAMES = "SignedHeaders=host;x-amz-date"
SIGNATURE = "Signature=" + "0a" * 32
VALID = f"AWS4-HMAC-SHA256 {CREDENTIAL}, {NAMES}, {SIGNATURE}"


def test_what_is_written_is_read() -> None:
    read = parse_authorization(VALID)

    assert read.credential == Credential("AKIDEXAMPLE", SCOPE)
    assert read.signed_headers == ("host", "x-amz-date")
    assert authorization(read) == VALID


def test_spaces_and_order_do_not_matter() -> None:
    other = f" AWS4-HMAC-SHA256  {SIGNATURE},{NAMES} , {CREDENTIAL} "

    assert parse_authorization(other) == parse_authorization(VALID)


MALFORMED = {
    "empty": ("", "algorithm"),
    "another scheme": ("Basic dXNlcjpwYXNz", "algorithm"),
    "the asymmetric algorithm": (VALID.replace("HMAC", "ECDSA-P256"), "algorithm"),
    "nothing else": ("AWS4-HMAC-SHA256", "needs Credential"),
    "no signature": (f"AWS4-HMAC-SHA256 {CREDENTIAL}, {NAMES}", "needs Credential"),
    "one field too many": (f"{VALID}, Extra=1", "and no more"),
    "a field twice": (f"{VALID}, {NAMES}", "twice"),
    "a short signature": (VALID[:-1], "64 hex"),
    "a signature in capitals": (VALID[:-64] + "0A" * 32, "64 hex"),
    "an empty name": (VALID.replace("host;", "host;;"), "list of headers"),
    "a name in capitals": (VALID.replace("host", "Host"), "list of headers"),
    "names that are not sorted": (VALID.replace("host;x-amz-date", "x-a;host"), "not sorted"),
    "a name twice": (VALID.replace("host;", "host;host;"), "twice"),
    "too long": (VALID + " " * MAX_AUTHORIZATION_CHARACTERS, "over 8192"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_header_is_refused(case: str) -> None:
    value, text = MALFORMED[case]
    with pytest.raises(SignatureError, match=text):
        parse_authorization(value)


CREDENTIALS = {
    "no key": "/20150830/us-east-1/kms/aws4_request",
    "no region": "K/20150830//kms/aws4_request",
    "no service": "K/20150830/us-east-1//aws4_request",
    "another end": "K/20150830/us-east-1/kms/aws5_request",
    "a part too many": "K/20150830/us-east-1/kms/aws4_request/x",
    "a short day": "K/2015083/us-east-1/kms/aws4_request",
    "a region with a dot": "K/20150830/evil.example/kms/aws4_request",
    "a region that begins with a hyphen": "K/20150830/-a/kms/aws4_request",
    "a region that ends with a hyphen": "K/20150830/a-/kms/aws4_request",
    "a region that ends the line": "K/20150830/a\n/kms/aws4_request",
    "a region too long for a name": f"K/20150830/{'a' * 64}/kms/aws4_request",
    "a key too long": f"{'K' * 129}/20150830/us-east-1/kms/aws4_request",
    "digits of another script": "K/\u0662\u0660150830/us-east-1/kms/aws4_request",
}


@pytest.mark.parametrize("case", CREDENTIALS)
def test_a_malformed_credential_is_refused(case: str) -> None:
    with pytest.raises(SignatureError, match="KEY/YYYYMMDD"):
        parse_credential(CREDENTIALS[case])
