import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vsockproxy.protocols.feeding import Feed, every_feed
from tests.vsockproxy.protocols.recorded_requests import CONNECTS, FORWARDS, Recorded
from tests.vsockproxy.protocols.refused_requests import CONNECT, END, GET, HOST, REFUSED
from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_proxy import ConnectRequest, ForwardRequest, ProxyRequestReader


def read(pieces: Iterable[bytes]) -> ConnectRequest | ForwardRequest | None:
    """What a reader makes of `pieces`, with all that follows the head as trailing bytes."""
    reader = ProxyRequestReader()
    rest = iter(pieces)
    for piece in rest:
        request = reader.receive(piece)
        if isinstance(request, ConnectRequest):
            return ConnectRequest(request.destination, request.trailing + b"".join(rest))
        if isinstance(request, ForwardRequest):
            trailing = request.trailing + b"".join(rest)
            return ForwardRequest(
                request.destination, request.method, request.target, request.head, trailing
            )
    return None


def refused(pieces: Iterable[bytes]) -> HttpRequestError:
    with pytest.raises(HttpRequestError) as caught:
        read(pieces)
    return caught.value


@every_feed
@pytest.mark.parametrize("recorded", CONNECTS.values(), ids=CONNECTS)
def test_tunnels_that_real_clients_ask_for(recorded: Recorded, feed: Feed) -> None:
    hello = b"\x16\x03\x01\r\n\x00 first bytes of the tunnel\n"

    request = read(feed(recorded.head + hello))

    assert isinstance(request, ConnectRequest)
    assert str(request.destination) == recorded.destination
    assert request.trailing == hello


@every_feed
@pytest.mark.parametrize("recorded", FORWARDS.values(), ids=FORWARDS)
def test_requests_that_real_clients_send(recorded: Recorded, feed: Feed) -> None:
    body = b"\x00body\n\r\r\n"

    request = read(feed(recorded.head + body))

    assert isinstance(request, ForwardRequest)
    assert str(request.destination) == recorded.destination
    assert request.head == recorded.head
    assert request.trailing == body


ACCEPTED_CONNECTS = {
    "Host and target may differ in case and by a trailing dot": (
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: EXAMPLE.COM.:443\r\n\r\n"
    ),
    "a length of 0 is no body": (
        b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n"
    ),
    "Host may be the proxy itself by name": (
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: localhost:3128\r\n\r\n"
    ),
    "an expectation passes": (
        b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\n\r\n"
    ),
    "100 headers": (b"CONNECT example.com:443 HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 99 + b"\r\n"),
}


@every_feed
@pytest.mark.parametrize("head", ACCEPTED_CONNECTS.values(), ids=ACCEPTED_CONNECTS)
def test_tunnels_that_are_accepted(head: bytes, feed: Feed) -> None:
    request = read(feed(head))

    assert isinstance(request, ConnectRequest)
    assert str(request.destination) == "example.com:443"
    assert request.trailing == b""


TARGETS = {
    "the path and query stay as they are": (
        b"GET http://example.com/a%20b?c=//d?e",
        "/a%20b?c=//d?e",
    ),
    "no path is the root": (b"GET http://example.com", "/"),
    "a query without a path gets one": (b"GET http://example.com?q", "/?q"),
    "the scheme may be in capitals": (b"GET HTTP://example.com/a", "/a"),
    "the default port may be written": (b"GET http://example.com:80/a", "/a"),
    "a path of two slashes is no authority": (
        b"GET http://example.com//evil.test/",
        "//evil.test/",
    ),
    "OPTIONS without a path is for the server itself": (b"OPTIONS http://example.com", "*"),
    "OPTIONS with a path is for the path": (b"OPTIONS http://example.com/", "/"),
    "an unknown method passes": (b"BREW http://example.com/pot", "/pot"),
}


@pytest.mark.parametrize(("line", "target"), TARGETS.values(), ids=TARGETS)
def test_targets_in_origin_form(line: bytes, target: str) -> None:
    request = read([line + b" HTTP/1.1\r\n" + HOST + b"\r\n"])

    assert isinstance(request, ForwardRequest)
    assert request.target == target
    assert request.method.encode() == line.split(b" ", maxsplit=1)[0]
    assert str(request.destination) == "example.com:80"


def test_an_ipv6_literal_in_a_url() -> None:
    request = read([b"GET http://[2001:DB8::0:1]/ HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n"])

    assert isinstance(request, ForwardRequest)
    assert str(request.destination) == "[2001:db8::1]:80"


def test_the_address_that_the_client_reached_is_the_proxys_own() -> None:
    head = b"CONNECT example.com:443 HTTP/1.1\r\nHost: 198.18.0.1:3128\r\n\r\n"

    assert ProxyRequestReader("198.18.0.1").receive(head) is not None
    with pytest.raises(HttpRequestError, match=r"names 198\.18\.0\.1:3128"):
        ProxyRequestReader().receive(head)


@every_feed
@pytest.mark.parametrize(("head", "status", "text"), REFUSED.values(), ids=REFUSED)
def test_requests_that_are_refused(head: bytes, status: int, text: str, feed: Feed) -> None:
    error = refused(feed(head))

    assert (error.status, error.reason) == (status, "http_request_error")
    assert text in error.text
    assert "secret" not in error.text
    assert "\n" not in error.text


def test_a_head_of_exactly_16_kib_is_read() -> None:
    padding = 16384 - len(CONNECT + HOST + b"X: \r\n\r\n")
    head = CONNECT + HOST + b"X: " + b"y" * padding + b"\r\n\r\n"

    request = read([head + b"tail"])

    assert isinstance(request, ConnectRequest)
    assert request.trailing == b"tail"


def test_a_malformed_header_is_not_quoted() -> None:
    error = refused([CONNECT + HOST + b"Authorization Bearer secret\r\n\r\n"])

    assert error.text == "illegal header line"


def test_a_client_that_speaks_something_else_is_refused_at_its_first_byte() -> None:
    assert refused([b"\x16"]).status == 400
    assert refused([b"{"]).status == 400


def test_no_bytes_are_no_decision() -> None:
    reader = ProxyRequestReader()

    assert reader.receive(b"") is None
    assert reader.receive(CONNECT + HOST + END) is not None


def test_a_reader_reads_one_request() -> None:
    reader = ProxyRequestReader()
    reader.receive(CONNECT + HOST + END)
    with pytest.raises(RuntimeError):
        reader.receive(b"")


def test_nothing_is_read_after_a_refusal() -> None:
    reader = ProxyRequestReader()
    with pytest.raises(HttpRequestError):
        reader.receive(CONNECT + b"Host: evil.test\r\n\r\n" + CONNECT + HOST + END)
    with pytest.raises(RuntimeError):
        reader.receive(CONNECT + HOST + END)


@pytest.mark.parametrize("recorded", (CONNECTS | FORWARDS).values(), ids=CONNECTS | FORWARDS)
def test_every_beginning_of_a_head_asks_for_more(recorded: Recorded) -> None:
    for end in range(len(recorded.head)):
        assert ProxyRequestReader().receive(recorded.head[:end]) is None


@given(
    st.lists(
        st.sampled_from(
            [
                CONNECT,
                GET,
                HOST,
                END,
                b"\n",
                b"\r",
                b"\x00",
                b" ",
                b"X: y\r\n",
                b"Host: a\r\n",
                b":",
            ]
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_the_outcome_does_not_depend_on_the_pieces(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]

    def outcome(pieces: list[bytes]) -> object:
        try:
            return read(pieces)
        except HttpRequestError as error:
            return error.status, error.text

    assert outcome([data]) == outcome(pieces)
