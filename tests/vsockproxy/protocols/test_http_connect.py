"""CONNECT as a client: what is asked, and what each answer comes to, however it is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.addresses import parse_destination
from vsockproxy.protocols.errors import HttpResponseError
from vsockproxy.protocols.http_connect import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_INTERIM_HEADS,
    ConnectAnswer,
    ConnectExchange,
)

DESTINATION = parse_destination("kms.example:443")


def answer(*pieces: bytes) -> ConnectAnswer | None:
    exchange = ConnectExchange(DESTINATION)
    found = None
    for piece in pieces:
        assert found is None
        found = exchange.receive(piece)
    return found


@pytest.mark.parametrize("authority", ["kms.example:443", "192.0.2.1:443", "[2001:db8::1]:8443"])
def test_the_request_names_the_destination_twice(authority: str) -> None:
    text = ConnectExchange(parse_destination(authority)).request.decode()
    assert text == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"


def test_credentials_are_a_header_of_the_request() -> None:
    request = ConnectExchange(DESTINATION, b"Basic dTpw").request
    assert request.endswith(b"\r\nProxy-Authorization: Basic dTpw\r\n\r\n")


TUNNELS = {
    "a tunnel": b"HTTP/1.1 200 OK\r\n\r\n",
    "a tunnel of HTTP/1.0, as Squid's": b"HTTP/1.0 200 Connection established\r\n\r\n",
    "a tunnel without a reason phrase": b"HTTP/1.1 200 \r\n\r\n",
    "another status of 2xx": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a length that means nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "chunks that mean nothing": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an interim response before it": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "a close that means nothing": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("head", TUNNELS.values(), ids=TUNNELS)
@given(trailing=st.binary(max_size=50), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_what_follows_the_head_of_a_tunnel_is_the_streams(
    head: bytes, trailing: bytes, cuts: list[int]
) -> None:
    whole = answer(head + trailing)
    assert whole is not None
    assert (whole.is_tunnel, whole.trailing) == (True, trailing)
    edges = sorted({0, *(cut % (len(head) + 1) for cut in cuts), len(head)})
    pieces = [head[start:stop] for start, stop in pairwise(edges)]
    found = answer(*pieces)
    assert found is not None
    assert found.is_tunnel


REFUSALS = {
    "no credentials": (407, "dial_refused", False, "see upstream_proxy.credentials"),
    "a destination that it forbids": (403, "dial_refused", False, "forbids this destination"),
    "a destination that refuses": (502, "dial_refused", True, "could not connect to it"),
    "a proxy without room": (503, "dial_refused", True, "could not connect to it"),
    "a destination that is silent": (504, "dial_timeout", True, "could not connect to it in time"),
    "a method that it lacks": (405, "dial_refused", False, "did not connect to it"),
    "a redirection": (302, "dial_refused", False, "did not connect to it"),
}


@pytest.mark.parametrize(
    ("status", "reason", "may_differ", "words"), REFUSALS.values(), ids=REFUSALS
)
def test_every_other_status_is_a_refusal_with_its_reason(
    status: int, reason: str, may_differ: bool, words: str
) -> None:
    found = answer(b"HTTP/1.1 %d secret\r\nX: secret\r\n\r\nsecret" % status)
    assert found is not None
    assert not found.is_tunnel
    assert (found.reason, found.may_differ) == (reason, may_differ)
    assert found.text.startswith(f"answered {status}: it ")
    assert words in found.text
    assert "secret" not in found.text


MALFORMED = {
    "no HTTP": b"SSH-2.0-secret\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 abc secret\r\n\r\n",
    "a bare line feed": b"HTTP/1.1 200 secret\n\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: secret\r\n y\r\n\r\n",
    "a NUL": b"HTTP/1.1 200 OK\r\nX: secret\x00\r\n\r\n",
    "a protocol switch that nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: secret\r\n\r\n"
    ),
    "an endless head": b"HTTP/1.1 200 OK\r\nX: " + b"s" * MAX_HEAD_BYTES,
    "too many headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEADERS + b"Y: z\r\n\r\n",
    "too many interim responses": b"HTTP/1.1 103 secret\r\n\r\n" * (MAX_INTERIM_HEADS + 1),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_answer_is_an_error_that_quotes_nothing(data: bytes) -> None:
    with pytest.raises(HttpResponseError) as caught:
        answer(data)
    assert caught.value.text.startswith("sent ")
    assert "secret" not in caught.value.text


def test_an_incomplete_head_is_waited_for() -> None:
    assert answer(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n") is None
    assert ConnectExchange(DESTINATION).eof().text == "closed before it had answered"
