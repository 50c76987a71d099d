"""Signatures that the KMS of the tests takes, and those that it refuses with AWS's words."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it has no types

from tests.kms.conftest import ACCESS_KEY, REGION, SECRET_KEY, TOKEN
from tests.support.aws_signatures import KnownKey
from tests.support.certificates import Authority
from tests.support.kms_server import KmsServer
from vsockproxy.protocols.sigv4 import SigningKey, sign

BODY = b'{"NumberOfBytes": 32}'


def error_of(client: Any) -> str:
    with pytest.raises(ClientError) as caught:
        client.generate_random(NumberOfBytes=32)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


# --- boto3


def test_one_that_is_right_is_noted(server: KmsServer, client: Any) -> None:
    assert len(client.generate_random(NumberOfBytes=32)["Plaintext"]) == 32
    assert server.count.access_keys == {ACCESS_KEY: 1}


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "another secret": (
        {"aws_secret_access_key": "another"},
        "InvalidSignatureException: The request signature we calculated does not match",
    ),
    "an unknown key": ({"aws_access_key_id": "AKIANOBODY"}, "UnrecognizedClientException: The sec"),
    "another token": ({"aws_session_token": "another"}, "UnrecognizedClientException: The secur"),
    "another region": (
        {"region_name": "us-east-1"},
        "InvalidSignatureException: Credential should be scoped to a valid region",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_client_is_refused(case: str, connect: Callable[..., Any]) -> None:
    changes, text = WRONG[case]
    assert error_of(connect(**changes)).startswith(text)


def test_a_client_without_a_token_is_refused(connect: Callable[..., Any]) -> None:
    text = error_of(connect(aws_session_token=None))
    assert text.startswith("UnrecognizedClientException")


@pytest.mark.parametrize(
    ("minutes", "text"), [(6, "Signature expired: 2"), (-6, "Signature not yet current: 2")]
)
def test_a_clock_may_be_wrong_by_five_minutes(
    server: KmsServer, client: Any, minutes: int, text: str
) -> None:
    def later(minutes: float) -> Callable[[], datetime]:
        return lambda: datetime.now(UTC) + timedelta(minutes=minutes)

    server.clock = later(0.75 * minutes)
    assert client.generate_random(NumberOfBytes=32)["Plaintext"]
    server.clock = later(minutes)
    assert error_of(client).startswith(f"InvalidSignatureException: {text}")


def test_credentials_that_have_expired_are_refused(
    credentials: dict[str, KnownKey], client: Any
) -> None:
    now = datetime.now(UTC).timestamp()
    credentials[ACCESS_KEY] = KnownKey(SECRET_KEY, TOKEN, now + 3600)
    assert client.generate_random(NumberOfBytes=32)["Plaintext"]
    credentials[ACCESS_KEY] = KnownKey(SECRET_KEY, TOKEN, now - 1)
    assert error_of(client).startswith("ExpiredTokenException: The security token included")


# --- Requests that are signed by ourselves, and then changed

Fields = list[tuple[str, str]]


def signed(server: KmsServer, **changes: Any) -> Fields:
    """The headers of a request that is right, but for changes of what is signed."""
    headers: Fields = [
        ("Host", changes.pop("host", f"localhost:{server.port}")),
        ("Content-Type", "application/x-amz-json-1.1"),
        ("X-Amz-Target", "TrentService.GenerateRandom"),
    ]
    arguments: dict[str, Any] = {
        "body": BODY,
        "key": SigningKey(ACCESS_KEY, SECRET_KEY, TOKEN),
        "region": REGION,
        "service": "kms",
        "at": datetime.now(UTC),
    }
    return headers + sign("POST", "/", headers, **{**arguments, **changes})


def without(fields: Fields, unwanted: str) -> Fields:
    return [(name, value) for name, value in fields if name != unwanted]


def replaced(fields: Fields, wanted: str, change: Callable[[str], str]) -> Fields:
    return [(name, change(value) if name == wanted else value) for name, value in fields]


@pytest.fixture
def connection(server: KmsServer, authority: Authority) -> Iterator[HTTPSConnection]:
    context = ssl.create_default_context(cafile=str(authority.file))
    opened = HTTPSConnection("localhost", server.port, context=context, timeout=20)
    yield opened
    opened.close()


def answer_to(
    connection: HTTPSConnection, fields: Fields, body: bytes = BODY, path: str = "/"
) -> tuple[int, Any]:
    """Status and body of the answer to a request."""
    connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
    for name, value in (*fields, ("Content-Length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_one_of_our_own_is_taken(server: KmsServer, connection: HTTPSConnection) -> None:
    status, content = answer_to(connection, signed(server))
    assert status == 200
    assert set(content) == {"Plaintext"}
    assert server.requests[-1].body == BODY


UNSIGNED = "InvalidSignatureException"
INCOMPLETE = "IncompleteSignatureException"

CHANGED: dict[str, tuple[Callable[[Fields], Fields], str]] = {
    "no signature": (
        lambda fields: without(fields, "Authorization"),
        "MissingAuthenticationTokenException",
    ),
    "another scheme": (
        lambda fields: replaced(fields, "Authorization", lambda _: "Basic dXNlcjpwYXNz"),
        INCOMPLETE,
    ),
    "no signature in it": (
        lambda fields: replaced(fields, "Authorization", lambda value: value.split(", S")[0]),
        INCOMPLETE,
    ),
    "another signature": (
        lambda fields: replaced(fields, "Authorization", lambda value: value[:-64] + "0" * 64),
        UNSIGNED,
    ),
    "another target": (
        lambda fields: replaced(fields, "X-Amz-Target", lambda _: "TrentService.ListKeys"),
        UNSIGNED,
    ),
    "another host": (lambda fields: replaced(fields, "Host", lambda _: "localhost"), UNSIGNED),
    "another day": (
        lambda fields: replaced(fields, "X-Amz-Date", lambda value: f"2001{value[4:]}"),
        UNSIGNED,
    ),
    "no time": (lambda fields: without(fields, "X-Amz-Date"), UNSIGNED),
    "a time that is none": (
        lambda fields: replaced(fields, "X-Amz-Date", lambda _: "now"),
        INCOMPLETE,
    ),
    "no token": (lambda fields: without(fields, "X-Amz-Security-Token"), UNSIGNED),
    "a header of AWS that is not signed": (
        lambda fields: [*fields, ("X-Amz-Grant", "all")],
        UNSIGNED,
    ),
    "a hash of another body": (
        lambda fields: [*fields, ("X-Amz-Content-SHA256", "0" * 64)],
        UNSIGNED,
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_changed_request_is_refused(
    case: str, server: KmsServer, connection: HTTPSConnection
) -> None:
    change, kind = CHANGED[case]
    status, content = answer_to(connection, change(signed(server)))
    assert status == 400
    assert content["__type"] == kind
    assert content["message"]


def test_another_body_is_refused(server: KmsServer, connection: HTTPSConnection) -> None:
    _, content = answer_to(connection, signed(server), BODY.replace(b"32", b"33"))
    assert content["__type"] == UNSIGNED


SIGNED_OTHERWISE: dict[str, tuple[dict[str, Any], str]] = {
    "for another service": ({"service": "sts"}, "correct service: 'kms'"),
    "for another region": ({"region": "us-east-1"}, "valid region, not 'us-east-1'"),
    "for another host": ({"host": "kms.eu-west-1.amazonaws.com"}, "this is not kms."),
}


@pytest.mark.parametrize("case", SIGNED_OTHERWISE)
def test_one_that_is_signed_for_something_else_is_refused(
    case: str, server: KmsServer, connection: HTTPSConnection
) -> None:
    changes, text = SIGNED_OTHERWISE[case]
    _, content = answer_to(connection, signed(server, **changes))
    assert content["__type"] == UNSIGNED
    assert text in content["message"]


def test_only_the_root_is_there(server: KmsServer, connection: HTTPSConnection) -> None:
    status, content = answer_to(connection, signed(server), path="/other")
    assert (status, content) == (404, {"__type": "UnknownOperationException"})


# --- What is no request

NO_REQUESTS = {
    "a bare line feed": b"POST / HTTP/1.1\nHost: localhost\n\n\r\n\r\n",
    "a space before a colon": b"POST / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a folded header": b"POST / HTTP/1.1\r\nHost: localhost\r\n more\r\n\r\n",
    "two hosts": b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"POST / HTTP/1.1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "a length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
    "a body too long": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
    "a chunk that is none": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"x\r\n",
    "HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\n\r\n",
    "an absolute target": b"POST http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "an endless head": b"POST / HTTP/1.1\r\nX: " + b"x" * 40_000,
}


@pytest.mark.parametrize("case", NO_REQUESTS)
def test_what_is_no_request_ends_the_connection(
    case: str, server: KmsServer, authority: Authority
) -> None:
    context = ssl.create_default_context(cafile=str(authority.file))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(NO_REQUESTS[case])
        received = b"".join(iter(lambda: tls.recv(4096), b""))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert server.count.bad_requests == 1
    assert server.count.requests == {}
