"""Target: what a program's side of the KMS proxy makes of its answers."""

import json
from collections.abc import Iterable
from typing import Any

from tests.fuzz.target import MEMORY_OF_A_HEAD, Target, same_however_cut
from tests.support.kms_answers import ANSWERS, as_http
from tests.vsockproxy.client.test_kms import BROKEN, REFUSALS
from tests.vsockproxy.client.test_kms_calls import RESULTS
from vsockproxy.client.kms_calls import Call
from vsockproxy.client.kms_errors import KmsError, KmsRefused
from vsockproxy.client.kms_exchange import Exchange, Proxy

_PROXY = Proxy("127.0.0.1", 4500)


def _read(call: Call[Any], pieces: Iterable[bytes]) -> object:
    exchange = Exchange(call, _PROXY, "eu-west-1")
    try:
        for piece in (*pieces, b""):
            if (received := exchange.receive(piece)) is not None:
                return received.result
    except KmsRefused as refused:
        return "refused", refused.status // 100, refused.code[:20]
    except KmsError as error:
        return str(error).partition(":")[0]  # what h11 says of it depends on the pieces
    raise AssertionError("neither a result nor an error")


def _execute(data: bytes) -> str:
    # The first byte says what was asked.
    operation = list(RESULTS)[data[0] % len(RESULTS)] if data else "Decrypt"
    call, result = RESULTS[operation]
    outcome = same_however_cut(lambda cut: _read(call, cut(data[1:])))
    if isinstance(outcome, str | tuple):
        return str(outcome)
    assert isinstance(outcome, type(result))
    return operation


KMS_CLIENT = Target(
    "kms_client",
    _execute,
    (
        *(
            bytes([list(RESULTS).index(operation)]) + as_http(json.dumps(answer).encode())
            for operation, answer in ANSWERS.items()
        ),
        *(b"\0" + answer for answer, *_ in REFUSALS.values()),
        *(b"\0" + answer for name, (answer, *_) in BROKEN.items() if name != "too much"),
        b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"\0HTTP/1.1 200 OK\r\n\r\n{}",
        b"\0" + as_http(json.dumps({**ANSWERS["Decrypt"], "Plaintext": "*"}).encode()),
        b"\0HTTP/1.1 100 Continue\r\n\r\n",
        b"\0" + as_http(b'{"__type":"a#B:c","message":"d"}', "400 Bad Request"),
    ),
    (
        *(f'"{name}"'.encode() for answer in ANSWERS.values() for name in answer),
        *(
            b'"__type"',
            b'"Message"',
            b'"message"',
            b"#",
            b":",
            b"{",
            b"}",
            b'""',
            b"null",
            b"\\u0000",
        ),
        *(b"\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK", b"HTTP/1.1 400 x", b"Content-Length: ", b"0"),
        *(
            b"Transfer-Encoding: chunked",
            b"\x00",
            b"\x01",
            b"\x02",
            b"\x03",
            b"\x04",
            b"=",
            b"YWJj",
        ),
    ),
    most_memory_bytes=1024 * 1024,
    most_memory_factor=MEMORY_OF_A_HEAD,
)
