"""What the KMS of the tests does wrong when it is asked to: every fault is what its name says."""

import base64
import json
import os
import socket
import ssl
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kms.conftest import ACCESS_KEY, REGION, SECRET_KEY, TOKEN
from tests.kms.test_operations import calls, recipient
from tests.support.certificates import Authority
from tests.support.kms_faults import DEEP, OVERSIZE_BYTES, Fault
from tests.support.kms_server import KmsServer
from vsockproxy.attestation.kms_envelope import EnvelopeError, open_envelope
from vsockproxy.protocols.sigv4 import SigningKey, sign


def error_of(client: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        client.generate_random(NumberOfBytes=32)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


# --- Errors

ERRORS: dict[Fault, tuple[str, int]] = {
    Fault.THROTTLED: ("ThrottlingException", 400),
    Fault.INTERNAL_ERROR: ("KMSInternalException", 500),
    Fault.DEPENDENCY_TIMEOUT: ("DependencyTimeoutException", 503),
    Fault.KEY_UNAVAILABLE: ("KeyUnavailableException", 500),
    Fault.NAMESPACED_ERROR: ("NotFoundException", 400),
    Fault.STALE_DOCUMENT: ("ValidationException", 400),
    Fault.UNAVAILABLE_PAGE: ("503", 503),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_an_error_comes_as_often_as_it_was_planned(
    fault: Fault, server: KmsServer, client: Any
) -> None:
    server.plan(fault, 2)
    assert error_of(client) == ERRORS[fault]
    assert error_of(client) == ERRORS[fault]
    assert client.generate_random(NumberOfBytes=32)["Plaintext"]


def test_plans_are_for_operations_and_end_when_they_are_mended(
    server: KmsServer, client: Any
) -> None:
    server.plan(Fault.THROTTLED, None, "GenerateRandom")
    assert client.list_keys()["Keys"] == []
    assert [error_of(client)[0] for _ in range(3)] == ["ThrottlingException"] * 3
    server.mend()
    assert client.generate_random(NumberOfBytes=32)["Plaintext"]


# --- Envelopes

REFUSED_ENVELOPES = {
    Fault.WRONG_KEY: "does_not_decrypt",
    Fault.WRONG_IDENTIFIER: "wrong_recipient",
    Fault.OTHER_RECIPIENT: "wrong_recipient",
    Fault.REPLAYED_ENVELOPE: "wrong_recipient",
    Fault.CORRUPT_ENVELOPE: "does_not_decrypt",
    Fault.TRUNCATED_ENVELOPE: "malformed",
    Fault.OVERSIZE_ENVELOPE: "too_large",
    Fault.EMPTY_ENVELOPE: "malformed",
}


@pytest.mark.parametrize("fault", REFUSED_ENVELOPES)
def test_an_envelope_that_does_not_open(
    fault: Fault, server: KmsServer, client: Any, enclave_key: rsa.RSAPrivateKey
) -> None:
    other = rsa.generate_private_key(65537, 2048)
    client.generate_random(NumberOfBytes=32, Recipient=recipient(other))
    server.plan(fault)

    answer = client.generate_random(NumberOfBytes=32, Recipient=recipient(enclave_key))

    with pytest.raises(EnvelopeError) as caught:
        open_envelope(answer["CiphertextForRecipient"], enclave_key)
    assert caught.value.reason == REFUSED_ENVELOPES[fault]


RIGHT_ENVELOPES = (
    Fault.PRIMITIVE_ENVELOPE,
    Fault.ENVELOPE_IN_PIECES,
    Fault.NULL_PLAINTEXT_BESIDE,
    Fault.EMPTY_PLAINTEXT_BESIDE,
    Fault.CONTINUED,
    Fault.CHUNKED,
    Fault.DRIBBLING,
    Fault.CLOSED_AFTER,
    Fault.CLOSED_SILENTLY_AFTER,
)


@pytest.mark.parametrize("fault", RIGHT_ENVELOPES)
def test_an_answer_that_is_right_all_the_same(
    fault: Fault, server: KmsServer, client: Any, enclave_key: rsa.RSAPrivateKey
) -> None:
    call, arguments = calls(server, client)["Decrypt"]
    server.plan(fault)

    answer = call(**arguments, Recipient=recipient(enclave_key))

    assert open_envelope(answer["CiphertextForRecipient"], enclave_key) == b"secret"
    assert not answer.get("Plaintext")


def test_an_envelope_that_is_repeated_opens_to_what_it_held(
    server: KmsServer, client: Any, enclave_key: rsa.RSAPrivateKey
) -> None:
    def opened() -> bytes:
        answer = client.generate_random(NumberOfBytes=32, Recipient=recipient(enclave_key))
        return open_envelope(answer["CiphertextForRecipient"], enclave_key)

    first, second = opened(), opened()
    server.plan(Fault.REPEATED_ENVELOPE)
    assert first != second
    assert opened() == first


# --- Fields and bytes, as they are on the wire


class Wire:
    """A connection on which answers are read byte by byte."""

    def __init__(self, server: KmsServer, authority: Authority) -> None:
        context = ssl.create_default_context(cafile=str(authority.file))
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        # An end without TLS's own word is to be seen as one.
        self.tls = context.wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        )
        self._port = server.port
        self.received = bytearray()
        """What `read_all` has read."""

    def ask(self, operation: str, body: bytes) -> None:
        headers = [
            ("Host", f"localhost:{self._port}"),
            ("Content-Type", "application/x-amz-json-1.1"),
            ("X-Amz-Target", f"TrentService.{operation}"),
        ]
        key = SigningKey(ACCESS_KEY, SECRET_KEY, TOKEN)
        headers += sign(
            *("POST", "/", headers, body, key), region=REGION, service="kms", at=datetime.now(UTC)
        )
        lines = [f"{name}: {value}" for name, value in headers]
        head = "\r\n".join(["POST / HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""])
        self.tls.sendall(head.encode() + body)

    def read_all(self) -> bytes:
        """What comes until the server ends; raises what the TLS library does."""
        while data := self.tls.recv(65536):
            self.received += data
        return bytes(self.received)

    def read_head(self) -> tuple[bytes, bytes]:
        """The head, and what has come of the body."""
        received = b""
        while b"\r\n\r\n" not in received and (data := self.tls.recv(65536)):
            received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        return head, rest

    def read_body(self) -> bytes:
        """The body of one answer, by its length."""
        head, body = self.read_head()
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < size:
            body += self.tls.recv(65536)
        return body

    def close(self) -> None:
        self.tls.close()


@pytest.fixture
def wire(server: KmsServer, authority: Authority) -> Any:
    opened = Wire(server, authority)
    yield opened
    opened.close()


def attested_body(key: rsa.RSAPrivateKey) -> bytes:
    who = recipient(key)
    who["AttestationDocument"] = base64.b64encode(who["AttestationDocument"]).decode()
    return json.dumps({"NumberOfBytes": 32, "Recipient": who}).encode()


FIELDS: dict[Fault, Any] = {
    Fault.NULL_ENVELOPE: lambda answer: answer == {"CiphertextForRecipient": None},
    Fault.NUMBER_FOR_ENVELOPE: lambda answer: answer == {"CiphertextForRecipient": 1},
    Fault.NO_ENVELOPE: lambda answer: answer == {},
    Fault.BAD_BASE64: lambda answer: "%%%" in answer["CiphertextForRecipient"],
    Fault.PLAINTEXT_INSTEAD: lambda answer: set(answer) == {"Plaintext"},
    Fault.PLAINTEXT_BESIDE: lambda answer: (
        set(answer) == {"Plaintext", "CiphertextForRecipient"} and len(answer["Plaintext"]) == 44
    ),
}


@pytest.mark.parametrize("fault", FIELDS)
def test_a_field_that_is_odd(
    fault: Fault, server: KmsServer, wire: Wire, enclave_key: rsa.RSAPrivateKey
) -> None:
    server.plan(fault)
    wire.ask("GenerateRandom", attested_body(enclave_key))
    assert FIELDS[fault](json.loads(wire.read_body()))


KEY_IDS: dict[Fault, Any] = {
    Fault.WRONG_KEY_ID: lambda answer, arn: (
        answer["KeyId"].rpartition("/")[0] in arn and answer["KeyId"] != arn
    ),
    Fault.NO_KEY_ID: lambda answer, arn: "KeyId" not in answer,
    Fault.NUMBER_FOR_KEY_ID: lambda answer, arn: answer["KeyId"] == 1,
}


@pytest.mark.parametrize("fault", KEY_IDS)
def test_a_key_id_that_is_odd(fault: Fault, server: KmsServer, wire: Wire) -> None:
    key = server.store.create()
    server.plan(fault)
    wire.ask("GenerateDataKey", json.dumps({"KeyId": key.arn, "KeySpec": "AES_256"}).encode())
    assert KEY_IDS[fault](json.loads(wire.read_body()), key.arn)


def test_a_field_may_come_twice(server: KmsServer, wire: Wire) -> None:
    server.plan(Fault.FIELD_TWICE)
    wire.ask("GenerateRandom", b'{"NumberOfBytes": 32}')
    assert wire.read_body().count(b'"Plaintext"') == 2


BODIES: dict[Fault, Any] = {
    Fault.BAD_JSON: lambda body: body.endswith(b", "),
    Fault.NOT_AN_OBJECT: lambda body: body.startswith(b"["),
    Fault.NOT_UTF8: lambda body: b"\xff\xfe" in body,
    Fault.DEEP_JSON: lambda body: len(body) == 2 * DEEP,
    Fault.EMPTY_BODY: lambda body: body == b"",
    Fault.OVERSIZE_BODY: lambda body: len(body) > OVERSIZE_BYTES,
}


@pytest.mark.parametrize("fault", BODIES)
def test_a_body_that_is_odd(fault: Fault, server: KmsServer, wire: Wire) -> None:
    server.plan(fault)
    wire.ask("GenerateRandom", b'{"NumberOfBytes": 32}')
    assert BODIES[fault](wire.read_body())


HEADS: dict[Fault, Any] = {
    Fault.OTHER_CONTENT_TYPE: lambda head: b"content-type: text/html" in head,
    Fault.NO_CONTENT_TYPE: lambda head: b"content-type" not in head,
    Fault.CHUNKED: lambda head: b"transfer-encoding: chunked" in head,
    Fault.CONTINUED: lambda head: head == b"http/1.1 100 continue",
    Fault.TWO_LENGTHS: lambda head: head.count(b"content-length: ") == 2,
    Fault.COMPRESSED: lambda head: b"content-encoding: gzip" in head,
    Fault.NO_CONTENT: lambda head: head.startswith(b"http/1.1 204 "),
    Fault.REDIRECTED: lambda head: b"location: https://169.254.169.254/" in head,
    Fault.ENDLESS_HEAD: lambda head: len(head) > 1_000_000,
    Fault.CLOSED_AFTER: lambda head: b"connection: close" in head,
}


@pytest.mark.parametrize("fault", HEADS)
def test_a_head_that_is_odd(fault: Fault, server: KmsServer, wire: Wire) -> None:
    server.plan(fault)
    wire.ask("GenerateRandom", b'{"NumberOfBytes": 32}')
    assert HEADS[fault](wire.read_head()[0].lower())


# --- The end of a connection

ENDS: dict[Fault, Any] = {
    Fault.WITHOUT_LENGTH: lambda received: (
        b"content-length" not in received.lower() and received.endswith(b'"}')
    ),
    Fault.CLOSED_SILENTLY_AFTER: lambda received: (
        b"connection" not in received.lower() and received.endswith(b'"}')
    ),
}


@pytest.mark.parametrize("fault", ENDS)
def test_a_connection_that_ends_cleanly(fault: Fault, server: KmsServer, wire: Wire) -> None:
    server.plan(fault)
    wire.ask("GenerateRandom", b'{"NumberOfBytes": 32}')
    assert ENDS[fault](wire.read_all())


CUTS: dict[Fault, Any] = {
    Fault.CUT_BEFORE: lambda received: received == b"",
    Fault.CUT_IN_HEAD: lambda received: received and b"\r\n\r\n" not in received,
    Fault.CUT_IN_BODY: lambda received: b"\r\n\r\n{" in received and b"}" not in received,
}


@pytest.mark.parametrize("fault", CUTS)
def test_a_connection_that_is_cut(fault: Fault, server: KmsServer, wire: Wire) -> None:
    server.plan(fault)
    wire.ask("GenerateRandom", b'{"NumberOfBytes": 32}')
    with pytest.raises(ssl.SSLEOFError):
        wire.read_all()
    assert CUTS[fault](bytes(wire.received))


def test_a_connection_that_is_reset(server: KmsServer, wire: Wire) -> None:
    server.plan(Fault.RESET)
    wire.ask("GenerateRandom", b'{"NumberOfBytes": 32}')
    # Below TLS: Python's library reports a reset as an end at times.
    wire.tls.settimeout(None)
    with pytest.raises(ConnectionResetError):
        all(iter(lambda: os.read(wire.tls.fileno(), 65536), b""))


def test_something_else_than_http(server: KmsServer, wire: Wire) -> None:
    server.plan(Fault.NOT_HTTP)
    wire.ask("GenerateRandom", b'{"NumberOfBytes": 32}')
    assert wire.tls.recv(65536).startswith(b"SSH-2.0-")


# --- Time


def test_an_answer_that_is_slow(server: KmsServer, client: Any) -> None:
    server.slow_seconds = 0.3
    server.plan(Fault.SLOW)
    before = datetime.now(UTC)
    assert client.generate_random(NumberOfBytes=32)["Plaintext"]
    assert (datetime.now(UTC) - before).total_seconds() >= 0.3


def test_answers_that_are_held_come_when_they_are_let_go(server: KmsServer, connect: Any) -> None:
    clients = [connect() for _ in range(3)]
    server.plan(Fault.HELD, 3)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda client=client: answers.append(client.list_keys()))
        for client in clients
    ]
    for thread in threads:
        thread.start()

    assert server.wait_for_held(3)
    assert answers == []
    assert server.count.open == 3
    server.release()
    for thread in threads:
        thread.join()
    assert len(answers) == 3


# --- Counting


def test_a_connection_that_is_kept_has_one_handshake(server: KmsServer, client: Any) -> None:
    for _ in range(20):
        client.generate_random(NumberOfBytes=32)

    assert server.count.handshakes == 1
    assert server.count.requests["GenerateRandom"] == 20
    assert server.count.most_open == 1
    assert server.count.names == {"localhost": 1}


def test_statistics_can_be_asked_for(server: KmsServer, client: Any, wire: Wire) -> None:
    client.generate_random(NumberOfBytes=32)
    wire.tls.sendall(b"GET /statistics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    statistics = json.loads(wire.read_body())
    assert statistics["requests"] == {"GenerateRandom": 1}
    assert statistics["handshakes"] == 2


def test_no_fault_is_without_a_test() -> None:
    tables = (
        *(ERRORS, REFUSED_ENVELOPES, RIGHT_ENVELOPES, FIELDS, KEY_IDS, BODIES, HEADS, ENDS, CUTS),
        {Fault.REPEATED_ENVELOPE, Fault.FIELD_TWICE, Fault.RESET, Fault.NOT_HTTP},
        {Fault.SLOW, Fault.HELD},
    )
    assert {fault for table in tables for fault in table} == set(Fault)
