"""Requests to a plain front of an https destination: what is taken, and what goes on."""

import pytest

from vsockproxy.addresses import parse_destination
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_exchange import ForwardedExchange
from vsockproxy.protocols.http_front import DEFAULT_HTTPS_PORT, FrontRequestReader

DESTINATION = parse_destination("api.test:443")

TARGETS = {
    "a path": ("GET", "/a/b?c=d", "/a/b?c=d"),
    "our own URL": ("GET", "http://127.0.0.1:8080/a?b", "/a?b"),
    "our own URL without a path": ("GET", "http://127.0.0.1:8080", "/"),
    "our own URL with a query alone": ("GET", "http://127.0.0.1:8080?b", "/?b"),
    "the server": ("OPTIONS", "*", "*"),
    "the server, in a URL": ("OPTIONS", "http://127.0.0.1:8080", "*"),
}


def head(method: str, target: str, *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: x", *lines, "", ""]).encode()


@pytest.mark.parametrize(("method", "target", "wanted"), TARGETS.values(), ids=TARGETS)
def test_the_target_is_what_an_origin_wants(method: str, target: str, wanted: str) -> None:
    request = FrontRequestReader(DESTINATION).receive(head(method, target) + b"body")
    assert request is not None
    assert (request.target, request.method, request.trailing) == (wanted, method, b"body")
    first, _, rest = ForwardedExchange(request, default_port=443).start().partition(b"\r\n")
    assert first == f"{method} {wanted} HTTP/1.1".encode()
    assert rest.startswith(b"Host: api.test\r\n")


def test_a_head_may_come_in_pieces() -> None:
    reader = FrontRequestReader(DESTINATION)
    data = head("GET", "/")
    assert [reader.receive(data[at : at + 1]) for at in range(len(data) - 1)] == [None] * (
        len(data) - 1
    )
    assert reader.receive(data[-1:]) is not None


BAD = {
    "a tunnel": (head("CONNECT", "api.test:443"), 501),
    "no path": (head("GET", "api.test"), 400),
    "the server, but not asked for its options": (head("GET", "*"), 400),
    "two framings": (head("POST", "/", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
    "chunks in HTTP/1.0": (head("POST", "/", "Transfer-Encoding: chunked", version="1.0"), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "a line that ends without CR": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "a head without end": (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
}


@pytest.mark.parametrize(("data", "status"), BAD.values(), ids=BAD)
def test_what_is_no_request_to_an_origin_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(HttpRequestError) as caught:
        FrontRequestReader(DESTINATION).receive(data)
    assert caught.value.status == status


def exchange(request_bytes: bytes) -> ForwardedExchange:
    request = FrontRequestReader(DESTINATION).receive(request_bytes)
    assert request is not None
    return ForwardedExchange(request, default_port=DEFAULT_HTTPS_PORT, may_persist=True)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

PERSISTENCE = {
    "both want it": (head("GET", "/"), OK, True),
    "the client closes": (head("GET", "/", "Connection: Close"), OK, False),
    "a client of HTTP/1.0": (head("GET", "/", version="1.0"), OK, False),
    "the origin closes": (
        head("GET", "/"),
        OK.replace(b"\r\n\r\n", b"\r\nConnection: x, close\r\n\r\n"),
        False,
    ),
    "an origin of HTTP/1.0": (head("GET", "/"), OK.replace(b"1.1", b"1.0"), False),
    "the origin says more than it was asked": (head("GET", "/"), OK + b"HTTP/1.1 200", False),
    "the request goes on behind the response": (head("POST", "/", "Content-Length: 5"), OK, False),
}


@pytest.mark.parametrize(("request_bytes", "answer", "kept"), PERSISTENCE.values(), ids=PERSISTENCE)
def test_connections_are_kept_if_both_ends_want_it(
    request_bytes: bytes, answer: bytes, kept: bool
) -> None:
    one = exchange(request_bytes)
    asked = one.start()
    answered = one.origin_data(answer)
    assert one.is_complete
    assert one.persists is kept
    says_close = b"\r\nConnection: close\r\n"
    client_wants = b"Close" not in request_bytes and b"HTTP/1.0" not in request_bytes
    assert (says_close in asked) is not client_wants
    if kept:
        assert says_close not in answered


def test_what_follows_a_request_is_the_next_one() -> None:
    second = head("GET", "/second")
    one = exchange(head("POST", "/", "Content-Length: 3") + b"abc" + second)
    assert one.start().endswith(b"\r\n\r\nabc")
    assert one.client_data(b"more") == b""
    assert (one.request_is_complete, one.surplus) == (True, second + b"more")


def test_what_follows_a_chunked_request_is_the_next_one() -> None:
    second = head("GET", "/second")
    one = exchange(head("POST", "/", "Transfer-Encoding: chunked"))
    one.start()
    body = b"3\r\nabc\r\n0\r\n\r\n"
    for at in range(len(body)):
        one.client_data(body[at : at + 1] + (second if at == len(body) - 1 else b""))
    assert (one.request_is_complete, one.surplus) == (True, second)
