"""Requests with bodies, one after the other on one connection, however their bytes arrive."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.protocols.errors import HttpRequestError
from vsockproxy.protocols.http_conversation import BodyRequest, Conversation
from vsockproxy.protocols.http_service import ServiceAnswer

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"
PLAIN = HEAD + b"Content-Length: 3\r\n\r\nabc"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: t\r\n\r\n"
BODILESS = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LIMIT = 1000


def converse(conversation: Conversation, pieces: list[bytes]) -> list[BodyRequest]:
    """Every request that arrives; each is answered at once."""
    found: list[BodyRequest] = []
    for piece in pieces:
        request = conversation.receive(piece)
        while request is not None:
            found.append(request)
            conversation.answer(ServiceAnswer(200))
            if conversation.is_over or conversation.is_idle:
                break
            request = conversation.receive(b"")
    return found


@given(st.lists(st.sampled_from([PLAIN, CHUNKED, BODILESS]), max_size=4), st.data())
def test_the_pieces_in_which_requests_arrive_make_no_difference(
    requests: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[low:high] for low, high in itertools.pairwise(edges)]
    found = converse(Conversation(LIMIT), pieces)
    with_body = ("POST", "/a", b"abc")
    wanted = [("GET", "/", b"") if each == BODILESS else with_body for each in requests]
    assert [(each.method, each.target, each.body) for each in found] == wanted


def test_an_answer_says_how_long_the_connection_is_kept() -> None:
    conversation = Conversation(LIMIT)
    assert conversation.receive(PLAIN) is not None
    answer = ServiceAnswer(404, b"no", "text/x", (("X-A", "b"),))
    assert conversation.answer(answer, keep_seconds=7) == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/x\r\nContent-Length: 2\r\nX-A: b\r\n"
        b"Keep-Alive: timeout=7\r\n\r\nno"
    )
    assert conversation.is_idle
    assert not conversation.is_over


LAST = {
    "Connection: close": HEAD + b"Connection: Keep-Alive, Close\r\n\r\n",
    "HTTP/1.0": b"POST /a HTTP/1.0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", LAST.values(), ids=LAST)
def test_a_client_may_end_the_connection(request_bytes: bytes) -> None:
    conversation = Conversation(LIMIT)
    assert conversation.receive(request_bytes) is not None
    assert b"Connection: close\r\n" in conversation.answer(ServiceAnswer(200))
    assert conversation.is_over


def test_the_answer_to_head_has_no_body() -> None:
    conversation = Conversation(LIMIT)
    assert conversation.receive(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n") is not None
    answer = conversation.answer(ServiceAnswer(200, b"abc"))
    assert b"Content-Length: 3" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_status_without_a_phrase_is_passed() -> None:
    conversation = Conversation(LIMIT)
    assert conversation.receive(PLAIN) is not None
    assert conversation.answer(ServiceAnswer(499)).startswith(b"HTTP/1.1 499 \r\n")


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    conversation = Conversation(LIMIT)
    expecting = HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    assert conversation.receive(expecting) is None
    assert conversation.interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    conversation.interim = b""
    request = conversation.receive(b"abc")
    assert request is not None
    assert (request.body, conversation.interim) == (b"abc", b"")


def test_no_leave_is_given_for_a_body_that_is_here() -> None:
    conversation = Conversation(LIMIT)
    whole = HEAD + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
    assert conversation.receive(whole) is not None
    assert conversation.interim == b""


REFUSED = {
    "no HTTP": (400, b"\x16\x03\x01\r\n\r\n"),
    "bare line feeds": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "a folded line": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    "two lengths": (400, HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    "a length below nothing": (400, HEAD + b"Content-Length: -1\r\n\r\n"),
    "another coding": (400, HEAD + b"Transfer-Encoding: gzip\r\n\r\n"),
    "broken chunks": (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "a proxy's request": (400, b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a head without end": (431, HEAD + b"X: " + b"x" * 20_000),
    "too many headers": (431, HEAD + b"X: x\r\n" * 100 + b"\r\n"),
    "a length beyond the limit": (413, HEAD + b"Content-Length: 1001\r\n\r\n"),
    "such a length, and an expectation": (
        413,
        HEAD + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n",
    ),
    "a length of many digits": (413, HEAD + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "chunks beyond the limit": (
        413,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n%s\r\n" % bytes(500) * 3,
    ),
}


@pytest.mark.parametrize(("status", "request_bytes"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_request_ends_the_connection(status: int, request_bytes: bytes) -> None:
    conversation = Conversation(LIMIT)
    with pytest.raises(HttpRequestError) as caught:
        conversation.receive(request_bytes)
    assert caught.value.status == status
    assert conversation.interim == b""
    answer = conversation.answer(ServiceAnswer(caught.value.status))
    assert b"Connection: close\r\n" in answer


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_refused_or_waited_for(data: bytes) -> None:
    conversation = Conversation(LIMIT)
    try:
        request = conversation.receive(data)
    except HttpRequestError:
        assert conversation.is_over
    else:
        assert request is None or len(request.body) <= LIMIT
