"""A KMS proxy as programs see it: real HTTP on loopback, answers as a test scripts them."""

import json
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.pair import serving

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

PLAINTEXT = b"the plaintext \x00\xff"


def encoded(data: bytes) -> str:
    return b64encode(data).decode()


ANSWERS: dict[str, dict[str, str]] = {
    "Decrypt": {
        "Plaintext": encoded(PLAINTEXT),
        "KeyId": KEY,
        "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
    },
    "GenerateDataKey": {
        "Plaintext": encoded(PLAINTEXT),
        "CiphertextBlob": encoded(b"ciphertext"),
        "KeyId": KEY,
    },
    "GenerateDataKeyPair": {
        "PrivateKeyPlaintext": encoded(PLAINTEXT),
        "PrivateKeyCiphertextBlob": encoded(b"ciphertext"),
        "PublicKey": encoded(b"public"),
        "KeyId": KEY,
        "KeyPairSpec": "ECC_NIST_P256",
    },
    "GenerateRandom": {"Plaintext": encoded(PLAINTEXT)},
    "DeriveSharedSecret": {
        "SharedSecret": encoded(PLAINTEXT),
        "KeyId": KEY,
        "KeyAgreementAlgorithm": "ECDH",
    },
}
"""What KMS says to each operation that is attested."""


@dataclass(frozen=True, slots=True)
class Received:
    """A request."""

    first_line: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        return self.headers["x-amz-target"].removeprefix("TrentService.")

    @property
    def fields(self) -> Any:
        return json.loads(self.body)


def as_http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """The bytes of an answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def by_operation(request: Received) -> bytes:
    """What the proxy says where all is well."""
    return as_http(json.dumps(ANSWERS[request.operation]).encode())


Answering = Callable[[Received], bytes]


@dataclass(slots=True)
class KmsProxy:
    """A running one."""

    port: int = 0
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def kms_proxy(answering: Answering = by_operation) -> Iterator[KmsProxy]:
    """Serve while the body runs.

    Args:
        answering: the bytes that answer a request; the connection is closed behind them.
    """
    proxy = KmsProxy()

    def handle(connection: socket.socket) -> None:
        request = _read(connection)
        proxy.received.append(request)
        connection.sendall(answering(request))

    with serving(handle) as port:
        proxy.port = port
        yield proxy


def _read(connection: socket.socket) -> Received:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        assert piece, "a request that ends in its head"
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    while len(body) < int(headers["content-length"]):
        body += connection.recv(1 << 16)
    return Received(first, headers, body)
