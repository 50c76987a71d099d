"""Targets: requests to our HTTP proxy, and whole exchanges with an origin."""

from collections.abc import Iterable

import h11

from tests.fuzz.target import Target, same_in_pieces
from tests.vsockproxy.protocols.recorded_requests import CONNECTS, FORWARDS
from tests.vsockproxy.protocols.refused_requests import REFUSED
from vsockproxy.protocols.errors import HttpError, HttpRequestError
from vsockproxy.protocols.http_answers import refusal
from vsockproxy.protocols.http_exchange import ForwardedExchange
from vsockproxy.protocols.http_proxy import ConnectRequest, ForwardRequest, ProxyRequestReader

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


def _read_request(pieces: Iterable[bytes]) -> ConnectRequest | ForwardRequest | str | None:
    reader = ProxyRequestReader()
    rest = iter(pieces)
    try:
        for piece in rest:
            request = reader.receive(piece)
            if request is not None:
                return _with_trailing(request, request.trailing + b"".join(rest))
    except HttpRequestError as error:
        answer = refusal(error.status, error.reason, "-", error.text)
        assert answer.count(b"\n") == 7, "a refusal has six lines, a blank one among them, and text"
        return f"{error.status} {error.text}"
    return None


def _with_trailing(
    request: ConnectRequest | ForwardRequest, trailing: bytes
) -> ConnectRequest | ForwardRequest:
    if isinstance(request, ConnectRequest):
        return ConnectRequest(request.destination, trailing)
    return ForwardRequest(
        request.destination, request.method, request.target, request.head, trailing
    )


def _execute_request(data: bytes) -> str:
    outcome = same_in_pieces(_read_request, data)
    if outcome is None:
        return "more"
    return outcome if isinstance(outcome, str) else type(outcome).__name__


def _execute_exchange(data: bytes) -> str:
    from_client, _, from_origin = data.partition(_BETWEEN)
    request = _read_request([from_client])
    if not isinstance(request, ForwardRequest):
        return "no request to forward"
    method = request.method.encode()
    is_1_0 = b" HTTP/1.0\r\n" in request.head[: request.head.index(b"\r\n") + 2]
    body = request.trailing

    def carry(pieces: Iterable[bytes]) -> tuple[str, bool, bytes]:
        exchange = ForwardedExchange(_with_trailing(request, b""))  # type: ignore[arg-type]  # a ForwardRequest stays one
        sent = b""
        outcome = "complete"
        try:
            to_origin = exchange.start()
            assert to_origin.count(b"\r\nHost: ") == 1
            for piece in same_body_pieces(body):
                exchange.client_data(piece)
            for piece in pieces:
                sent += exchange.origin_data(piece)
            sent += exchange.origin_eof()
        except HttpError as error:
            outcome = f"{error.status} {error.text}"
        assert exchange.is_complete is (outcome == "complete")
        payload, is_whole = _as_client(sent, method)
        if not is_1_0:  # To HTTP/1.0, a body without a length looks whole wherever it is cut.
            assert is_whole is exchange.is_complete, "a cut looks like an end"
        return outcome, exchange.may_answer, payload if exchange.is_complete else b""

    return same_in_pieces(carry, from_origin)[0]
