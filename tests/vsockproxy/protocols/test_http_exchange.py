import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vsockproxy.protocols.feeding import Feed, byte_by_byte, every_feed, whole
from tests.vsockproxy.protocols.recorded_requests import FORWARDS, Recorded
from vsockproxy.protocols.errors import HttpError, HttpRequestError, HttpResponseError
from vsockproxy.protocols.http_exchange import ForwardedExchange
from vsockproxy.protocols.http_proxy import ForwardRequest, ProxyRequestReader

GET = b"GET http://example.com/a HTTP/1.1\r\nHost: example.com\r\n\r\n"
GET_1_0 = b"GET http://example.com/a HTTP/1.0\r\n\r\n"
HEAD = b"HEAD http://example.com/a HTTP/1.1\r\nHost: example.com\r\n\r\n"
UPLOAD = b"PUT http://example.com/a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\n"
CHUNKED_UPLOAD = (
    b"PUT http://example.com/a HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
)
VIA = b"Via: 1.1 vsockproxy\r\nConnection: close\r\n\r\n"


def exchange(request: bytes) -> ForwardedExchange:
    read = ProxyRequestReader().receive(request)
    assert isinstance(read, ForwardRequest)
    return ForwardedExchange(read)


def sent_to_origin(request: bytes, feed: Feed = whole) -> bytes:
    """All that the origin gets for a request whose body comes in pieces."""
    head, blank, body = request.partition(b"\r\n\r\n")
    carried = exchange(head + blank)
    return carried.start() + b"".join(carried.client_data(piece) for piece in feed(body))


def sent_to_client(
    response: bytes, feed: Feed = whole, *, request: bytes = GET, ends: bool = False
) -> bytes:
    """All that the client gets for a response; `ends`: it is complete by the origin's EOF."""
    carried = exchange(request)
    carried.start()
    sent = b"".join(carried.origin_data(piece) for piece in feed(response))
    assert carried.is_complete is not ends
    if ends:
        sent += carried.origin_eof()
    assert carried.is_complete
    return sent


# ---------------------------------------------------------------- the request


REQUESTS = {
    "curl's": (
        FORWARDS["curl 7.88 gets a URL"].head,
        b"GET /a?b=c HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n",
    ),
    "one for another port": (
        FORWARDS["curl 7.88 gets a URL with a port"].head,
        b"GET / HTTP/1.1\r\nHost: example.com:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n",
    ),
    "one whose Host named the proxy": (
        FORWARDS["Node 20's http.get names the proxy in Host"].head,
        b"GET /a HTTP/1.1\r\nHost: example.com\r\n",
    ),
    "one for an IPv6 literal": (
        b"GET http://[2001:db8::1]/ HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n",
    ),
    "one with hop-by-hop headers": (
        b"GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: X-Hop, close\r\n"
        b"X-Hop: 1\r\nX-End: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X-Sum\r\n"
        b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\nUpgrade: h2c\r\n"
        b"\r\n",
        b"GET / HTTP/1.1\r\nHost: example.com\r\nX-End: 1\r\n",
    ),
    "one for the server itself": (
        b"OPTIONS http://example.com HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: example.com\r\n",
    ),
}


@pytest.mark.parametrize(("request_head", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_heads_for_the_origin(request_head: bytes, expected: bytes) -> None:
    assert sent_to_origin(request_head) == expected + VIA


def test_an_old_clients_request_goes_on_as_http_1_1() -> None:
    assert sent_to_origin(GET_1_0) == (
        b"GET /a HTTP/1.1\r\nHost: example.com\r\nVia: 1.0 vsockproxy\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("recorded", FORWARDS.values(), ids=FORWARDS)
def test_what_real_clients_send_goes_on_without_the_proxys_headers(recorded: Recorded) -> None:
    head = sent_to_origin(recorded.head)

    assert head.count(b"Connection") == 1
    assert head.count(b"Host:") == 1


@every_feed
def test_a_body_with_a_length(feed: Feed) -> None:
    assert sent_to_origin(UPLOAD + b"hello", feed) == (
        b"PUT /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n" + VIA + b"hello"
    )


def test_a_connection_header_cannot_take_the_length_away() -> None:
    request = UPLOAD.replace(b"\r\n\r\n", b"\r\nConnection: Content-Length, Host\r\n\r\nhello")

    assert sent_to_origin(request) == (
        b"PUT /a HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n" + VIA + b"hello"
    )


def test_a_body_that_comes_with_the_head() -> None:
    carried = exchange(UPLOAD + b"hello and more")

    assert carried.start().endswith(VIA + b"hello")
    assert carried.client_data(b"GET / HTTP/1.1\r\n") == b""


@every_feed
def test_a_chunked_body_goes_on_in_chunks_of_what_was_read(feed: Feed) -> None:
    body = b"5;name=value\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
    sent = sent_to_origin(CHUNKED_UPLOAD + body, feed)

    head, _, chunks = sent.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert chunks.endswith(b"\r\n0\r\n\r\n")
    assert b"".join(chunks.split(b"\r\n")[1:-3:2]) == b"hello world"
    assert b"Trailer" not in sent


BROKEN_BODIES = {
    "a chunk size that is no number": b"x\r\n",
    "a chunk size with a sign": b"-1\r\nx\r\n",
    "a chunk that is longer than it said": b"1\r\nab\r\n",
    "a chunk size of 21 digits": b"000000000000000000001\r\n",
    "an endless chunk extension": b"5;" + b"x" * 10_000,
    "an endless trailer section": b"0\r\n" + b"X: y\r\n" * 2000,
}


@every_feed
@pytest.mark.parametrize("body", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
def test_a_broken_body_ends_the_exchange(body: bytes, feed: Feed) -> None:
    carried = exchange(CHUNKED_UPLOAD)
    carried.start()
    sent: list[bytes] = []

    with pytest.raises(HttpRequestError) as caught:
        sent.extend(carried.client_data(piece) for piece in feed(body))

    assert b"0\r\n\r\n" not in b"".join(sent)
    assert caught.value.status in (400, 431)
    assert carried.may_answer


def test_a_client_that_closes_inside_its_body_has_not_sent_it() -> None:
    for request in (UPLOAD + b"hell", CHUNKED_UPLOAD + b"4\r\nhell\r\n"):
        carried = exchange(request)
        carried.start()
        with pytest.raises(HttpRequestError):
            carried.client_eof()


def test_a_client_that_half_closes_after_its_request_gets_its_answer() -> None:
    carried = exchange(UPLOAD + b"hello")
    carried.start()
    carried.client_eof()

    assert carried.origin_data(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert carried.is_complete


# ---------------------------------------------------------------- the response


RESPONSES = {
    "a length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + VIA + b"hello",
    ),
    "a length and bytes behind it": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + VIA + b"hello",
    ),
    "a length of nothing": (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n" + VIA,
    ),
    "no content": (
        b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n" + VIA,
    ),
    "not modified": (
        b'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: "a"\r\n\r\n',
        b'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: "a"\r\n' + VIA,
    ),
    "an interim response first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + VIA,
    ),
    "hop-by-hop headers": (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nTrailer: X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + VIA,
    ),
    "cookies in their order": (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: b=1\r\nSet-Cookie: a=2\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: b=1\r\nSet-Cookie: a=2\r\nContent-Length: 0\r\n" + VIA,
    ),
    "no reason phrase": (
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length: 0\r\n" + VIA,
    ),
}


@every_feed
@pytest.mark.parametrize(("response", "expected"), RESPONSES.values(), ids=RESPONSES)
def test_responses(response: bytes, expected: bytes, feed: Feed) -> None:
    assert sent_to_client(response, feed) == expected


def test_a_response_to_head_has_the_length_and_no_body() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

    assert sent_to_client(response, request=HEAD) == response.removesuffix(b"\r\n") + VIA


@every_feed
@pytest.mark.parametrize("also", [b"", b"Content-Length: 3\r\n"])
def test_a_chunked_response(also: bytes, feed: Feed) -> None:
    response = (
        b"HTTP/1.1 200 OK\r\n" + also + b"Transfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    sent = sent_to_client(response, feed)

    head, _, chunks = sent.partition(b"\r\n\r\n")
    assert b"Content-Length" not in head
    assert b"".join(chunks.split(b"\r\n")[1:-3:2]) == b"hello world"
    assert chunks.endswith(b"\r\n0\r\n\r\n")


@every_feed
def test_an_old_client_gets_chunks_as_plain_bytes(feed: Feed) -> None:
    response = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    )

    assert sent_to_client(response, feed, request=GET_1_0) == (
        b"HTTP/1.1 200 OK\r\n" + VIA + b"hello"
    )


def test_an_old_client_gets_no_interim_response() -> None:
    response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    assert b"100" not in sent_to_client(response, request=GET_1_0)


@every_feed
def test_a_body_that_ends_with_the_connection(feed: Feed) -> None:
    response = b"HTTP/1.0 200 OK\r\n\r\nhello world"

    to_new = sent_to_client(response, feed, ends=True)
    to_old = sent_to_client(response, feed, request=GET_1_0, ends=True)

    assert to_new.endswith(b"0\r\n\r\n")  # Only now: until the clean end it may have been cut.
    assert b"Transfer-Encoding: chunked\r\n" in to_new
    assert (
        to_old == b"HTTP/1.1 200 OK\r\nVia: 1.0 vsockproxy\r\nConnection: close\r\n\r\nhello world"
    )


CUT = {
    "before any byte": b"",
    "inside the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "after an interim response": b"HTTP/1.1 100 Continue\r\n\r\n",
    "inside a body with a length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
    "before the body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "inside a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "inside the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
}


@every_feed
@pytest.mark.parametrize("response", CUT.values(), ids=CUT)
def test_a_cut_response_is_never_complete(response: bytes, feed: Feed) -> None:
    carried = exchange(GET)
    carried.start()
    for piece in feed(response):
        assert not carried.origin_data(piece).endswith(b"0\r\n\r\n")

    with pytest.raises(HttpResponseError) as caught:
        carried.origin_eof()

    assert (caught.value.status, caught.value.reason) == (502, "http_response_incomplete")
    assert not carried.is_complete
    has_begun = b" 200 " in response and b"\r\n\r\n" in response
    assert carried.may_answer is not has_begun
    assert ("inside its response" if has_begun else "before it had answered") in caught.value.text


BROKEN = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "an empty head": b"\r\n\r\n",
    "a line that ends in LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\x00\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a compressed transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a switch of protocols that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "a head of more than 32 KiB": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 32_768,
    "257 headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 257 + b"\r\n",
}


@pytest.mark.parametrize("feed", [whole, byte_by_byte])
@pytest.mark.parametrize("response", BROKEN.values(), ids=BROKEN)
def test_a_broken_head_leaves_the_answer_to_us(response: bytes, feed: Feed) -> None:
    carried = exchange(GET)
    carried.start()
    sent: list[bytes] = []

    with pytest.raises(HttpResponseError) as caught:
        sent.extend(carried.origin_data(piece) for piece in feed(response))

    assert b"".join(sent) == b""

    assert (caught.value.status, caught.value.reason) == (502, "http_protocol_error")
    assert "\n" not in caught.value.text
    assert carried.may_answer


def test_a_switch_that_the_client_asked_for_is_not_passed_on_either() -> None:
    request = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    carried = exchange(request)
    assert b"pgrade" not in carried.start()

    with pytest.raises(HttpResponseError):
        carried.origin_data(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")


def test_a_broken_chunk_is_a_cut() -> None:
    carried = exchange(GET)
    carried.start()
    carried.origin_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    with pytest.raises(HttpResponseError):
        carried.origin_data(b"not a number\r\n")

    assert not carried.may_answer
    assert not carried.is_complete


def test_an_expectation_is_answered_by_the_origin() -> None:
    carried = exchange(UPLOAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert b"\r\nExpect: 100-continue\r\n" in carried.start()

    assert carried.origin_data(b"HTTP/1.1 100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert carried.may_answer
    assert carried.client_data(b"hello") == b"hello"
    assert carried.origin_data(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert carried.is_complete


def test_an_expectation_that_the_origin_refuses_ends_without_the_body() -> None:
    carried = exchange(UPLOAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    carried.start()

    carried.origin_data(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")

    assert carried.is_complete
    assert carried.client_data(b"hello") == b""
    carried.client_eof()
    assert carried.origin_data(b"more") == b""
    assert carried.origin_eof() == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 134217728", b"Transfer-Encoding: chunked"])
def test_a_long_body_is_not_kept(framing: bytes) -> None:
    carried = exchange(GET)
    carried.start()
    carried.origin_data(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
    piece = b"10000\r\n" + bytes(65_536) + b"\r\n"
    tracemalloc.start()
    for _ in range(100):
        assert len(carried.origin_data(piece)) == len(piece)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 10_000
    assert peak < 10 * len(piece)


def test_chunked_bytes_are_not_cut_into_smaller_chunks_than_were_read() -> None:
    carried = exchange(GET)
    carried.start()
    carried.origin_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n")

    assert carried.origin_data(bytes(65_536)) == b"10000\r\n" + bytes(65_536) + b"\r\n"


SLOW_FOR_H11 = {
    "a chunk extension of spaces": b"0;" + b" " * 250_000 + b"\n\r\n",
    "a trailer of spaces": b"0\r\nX:" + b" " * 250_000 + b"\x0b\r\n\r\n",
}


@pytest.mark.parametrize("body", SLOW_FOR_H11.values(), ids=SLOW_FOR_H11)
def test_framing_that_h11_is_slow_on_is_cut_short(body: bytes) -> None:
    carried = exchange(GET)
    carried.start()
    carried.origin_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    began = time.process_time()

    with pytest.raises(HttpResponseError):
        carried.origin_data(body)

    assert time.process_time() - began < 1  # Unbounded, h11 takes a minute and more.


@given(
    st.lists(
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.0 200 OK\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"HTTP/1.1 204 No Content\r\n",
                b"Content-Length: 5\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"Connection: content-length, x\r\n",
                b"X: y\r\n",
                b"\r\n",
                b"hello",
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"\n",
            ]
        ),
        max_size=10,
    ),
    st.sampled_from([GET, GET_1_0, HEAD]),
)
def test_a_response_ends_the_same_in_whatever_pieces(parts: list[bytes], request: bytes) -> None:
    data = b"".join(parts)

    def outcome(feed: Feed) -> tuple[str, bool]:
        carried = exchange(request)
        carried.start()
        try:
            for piece in feed(data):
                carried.origin_data(piece)
            carried.origin_eof()
        except HttpError as error:
            return error.text, carried.may_answer
        return "complete", carried.may_answer

    assert outcome(whole) == outcome(byte_by_byte)
