"""Targets: requests to our HTTP proxy, and whole exchanges with an origin."""

from collections.abc import Iterable
from dataclasses import replace

import h11

from tests.fuzz.target import MEMORY_OF_A_HEAD, Cut, Target, in_pieces, same_however_cut, whole
from tests.vsockproxy.protocols.recorded_requests import CONNECTS, FORWARDS
from tests.vsockproxy.protocols.refused_requests import REFUSED
from vsockproxy.addresses import parse_destination
from vsockproxy.protocols.errors import (
    HeadError,
    HttpError,
    HttpRequestError,
    HttpResponseError,
)
from vsockproxy.protocols.http_answers import refusal
from vsockproxy.protocols.http_connect import ConnectExchange
from vsockproxy.protocols.http_exchange import ForwardedExchange
from vsockproxy.protocols.http_front import DEFAULT_HTTPS_PORT, FrontRequestReader
from vsockproxy.protocols.http_head import HeadReader
from vsockproxy.protocols.http_proxy import ConnectRequest, ForwardRequest, ProxyRequestReader
from vsockproxy.protocols.http_service import MAX_HEAD_BYTES, MAX_HEADERS, read_request

_DICTIONARY = (
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\x00",
    b"\x0b",
    b" " * 5000,
    b"CONNECT ",
    b"GET ",
    b"HEAD ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"http://",
    b"https://",
    b"example.com",
    b"example.com:443",
    b"[2001:db8::1]:443",
    b"user@",
    b"%00",
    b"\r\nHost: example.com",
    b"\r\nContent-Length: 5",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nConnection: close, content-length",
    b"\r\nExpect: 100-continue",
    b"\r\nX: y" * 60,
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
)

_BETWEEN = b"\xff\xff"
"""In an input for an exchange: the client's bytes, this, the origin's bytes."""
_TOO_LONG = "Receive buffer too long"
"""h11's words for more framing than `http_head.MAX_FRAMING_BYTES`."""


def _read_request(pieces: Iterable[bytes]) -> ConnectRequest | ForwardRequest | str:
    reader = ProxyRequestReader()
    rest = iter(pieces)
    try:
        for piece in rest:
            if (request := reader.receive(piece)) is not None:
                return replace(request, trailing=request.trailing + b"".join(rest))
    except HttpRequestError as error:
        answer = refusal(error.status, error.reason, "-", error.text)
        assert answer.count(b"\n") == 7, "five headers and their lines around, one line of text"
        return f"{error.status} {error.text}"
    return "more"


def _execute_request(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _read_request(cut(data)))
    return outcome if isinstance(outcome, str) else type(outcome).__name__


def _execute_exchange(data: bytes) -> str:
    from_client, _, from_origin = data.partition(_BETWEEN)
    request = _read_request([from_client])
    if not isinstance(request, ForwardRequest):
        return "no request to forward"
    of_whole = _carry(request, from_origin, whole)
    of_pieces = _carry(request, from_origin, in_pieces)
    if _TOO_LONG not in of_whole[0] + of_pieces[0]:  # Where that begins depends on the pieces.
        assert of_whole == of_pieces, f"whole: {of_whole!r:.300}, in pieces: {of_pieces!r:.300}"
    return of_whole[0]


def _carry(request: ForwardRequest, from_origin: bytes, cut: Cut) -> tuple[str, bool, bytes]:
    """How the exchange ended, whether it may still be answered, and the payload of a whole one."""
    exchange = ForwardedExchange(replace(request, trailing=b""))
    sent = b""
    outcome = "complete"
    try:
        to_origin = exchange.start()
        assert to_origin.count(b"\r\nHost: ") == 1
        for piece in cut(request.trailing):
            exchange.client_data(piece)
        for piece in cut(from_origin):
            sent += exchange.origin_data(piece)
        sent += exchange.origin_eof()
    except HttpError as error:
        outcome = f"{error.status} {error.text}"
    assert exchange.is_complete is (outcome == "complete")
    payload, is_whole = _as_the_client_reads(sent, request.method)
    if not request.head.split(b"\r\n", 1)[0].endswith(b"1.0"):
        # In HTTP/1.0 a body without a length looks whole wherever it is cut, but for the reset.
        assert is_whole is exchange.is_complete, "a cut looks like an end, or the other way round"
    return outcome, exchange.may_answer, payload if exchange.is_complete else b""


def _read_to_front(pieces: Iterable[bytes]) -> ForwardRequest | str:
    reader = FrontRequestReader(parse_destination("api.example:443"))
    rest = iter(pieces)
    try:
        for piece in rest:
            if (request := reader.receive(piece)) is not None:
                return replace(request, trailing=request.trailing + b"".join(rest))
    except HttpRequestError as error:
        return f"{error.status} {error.text}"
    return "more"


def _execute_front(data: bytes) -> str:
    from_client, _, from_origin = data.partition(_BETWEEN)
    request = same_however_cut(lambda cut: _read_to_front(cut(from_client)))
    if isinstance(request, str):
        return request
    exchange = ForwardedExchange(request, default_port=DEFAULT_HTTPS_PORT, may_persist=True)
    try:
        assert exchange.start().count(b"\r\nHost: api.example\r\n") == 1
        assert request.trailing.endswith(exchange.surplus)
        for piece in in_pieces(from_origin):
            exchange.origin_data(piece)
        exchange.origin_eof()
    except HttpError as error:
        assert not exchange.persists
        return f"{error.status} {error.text}"
    assert exchange.request_is_complete or not exchange.persists
    return "kept" if exchange.persists else "closed"


def _as_the_client_reads(sent: bytes, method: str) -> tuple[bytes, bool]:
    """The payload of the response in `sent`, and whether that response is whole without EOF."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "example.com")]))
    client.send(h11.EndOfMessage())
    if sent:
        client.receive_data(sent)
    payload = b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Data):
            payload += event.data
        elif not isinstance(event, h11.InformationalResponse | h11.Response):
            break
    is_whole = isinstance(event, h11.EndOfMessage)
    assert not (is_whole and client.trailing_data[0]), "bytes follow the response"
    return payload, is_whole


def _ask_for_tunnel(pieces: Iterable[bytes]) -> tuple[int, bytes] | str:
    exchange = ConnectExchange(parse_destination("kms.example:443"), b"Basic dTpw")
    rest = iter(pieces)
    try:
        for piece in rest:
            if (answer := exchange.receive(piece)) is not None:
                assert "\n" not in answer.text
                return answer.status, answer.trailing + b"".join(rest)
    except HttpResponseError as error:
        return error.text
    return "more"


def _execute_connect(data: bytes) -> str:
    outcome = same_however_cut(lambda cut: _ask_for_tunnel(cut(data)))
    if isinstance(outcome, str):
        assert "\n" not in outcome
        return outcome
    status, trailing = outcome
    assert data.endswith(trailing)
    return str(status)


_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nConnection: x\r\nX: y\r\n\r\n",
)
_UPLOADS = (
    b"PUT http://example.com/ HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT http://example.com/ HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HEAD http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
)

HTTP_PROXY = Target(
    "http_proxy",
    _execute_request,
    corpus=(
        *(recorded.head + b"trailing" for recorded in (CONNECTS | FORWARDS).values()),
        *(request for request, _, _ in REFUSED.values()),
    ),
    dictionary=_DICTIONARY,
    most_memory_factor=MEMORY_OF_A_HEAD,
)


def _execute_service_request(data: bytes) -> str:
    def read(cut: Cut) -> str:
        reader = HeadReader(MAX_HEAD_BYTES, MAX_HEADERS)
        try:
            for piece in cut(data):
                if parts := reader.receive(piece):
                    request = read_request(parts[0])
                    assert request.path.startswith("/")
                    return f"{request.method} with {len(request.headers)} headers"
        except (HeadError, HttpRequestError) as error:
            return error.text
        return "more"

    outcome = same_however_cut(read)
    assert outcome.isprintable()
    return outcome


SERVICE_REQUEST = Target(
    "service_request",
    _execute_service_request,
    corpus=(
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"HEAD /streams?all HTTP/1.0\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ),
    dictionary=_DICTIONARY,
    most_memory_factor=MEMORY_OF_A_HEAD,
)

HTTP_EXCHANGE = Target(
    "http_exchange",
    _execute_exchange,
    corpus=tuple(
        request + _BETWEEN + response
        for request in (*(recorded.head for recorded in FORWARDS.values()), *_UPLOADS)
        for response in _RESPONSES
    ),
    dictionary=(*_DICTIONARY, _BETWEEN),
    most_memory_factor=MEMORY_OF_A_HEAD,
)

HTTP_FRONT = Target(
    "http_front",
    _execute_front,
    corpus=tuple(
        request.replace(b"http://example.com", b"") + _BETWEEN + response
        for request in (*(recorded.head for recorded in FORWARDS.values()), *_UPLOADS)
        for response in _RESPONSES
    )
    + _UPLOADS
    + (
        b"CONNECT api.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"OPTIONS http://127.0.0.1:8080 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://127.0.0.1:8080?q HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    dictionary=(*_DICTIONARY, _BETWEEN, b"OPTIONS * ", b"/"),
    most_memory_factor=MEMORY_OF_A_HEAD,
)

HTTP_CONNECT = Target(
    "http_connect",
    _execute_connect,
    corpus=(
        *_RESPONSES,
        b"HTTP/1.0 200 Connection established\r\nVia: 1.0 proxy\r\n\r\nstream",
        b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n',
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
    dictionary=_DICTIONARY,
    most_memory_factor=MEMORY_OF_A_HEAD,
)
