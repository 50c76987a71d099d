"""A connection's first bytes: a request for a document, or the service's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.protocols.attestation_request import (
    MAX_NONCE_BYTES,
    AttestationRequest,
    AttestationRequestReader,
    OtherBytes,
    document_answer,
    refusal_answer,
)
from vsockproxy.protocols.errors import HttpRequestError

HEAD = b" HTTP/1.1\r\nHost: a.example\r\n\r\n"
TARGET = b"GET /.well-known/attestation"
ASKED = TARGET + b"?nonce=00ff" + HEAD

OTHERS = {
    "nothing like HTTP": b"\x00\x01",
    "another method": b"POST /.well-known/attestation?nonce=00" + HEAD,
    "a method in lower case": b"get /.well-known/attestation?nonce=00" + HEAD,
    "HEAD": b"HEAD /.well-known/attestation?nonce=00" + HEAD,
    "another path": b"GET / HTTP/1.1\r\n\r\n",
    "a longer path": TARGET + b"s?nonce=00" + HEAD,
    "a path below it": TARGET + b"/x" + HEAD,
    "HTTP/0.9": TARGET + b"\r\n",
    "an absolute target": b"GET https://a/.well-known/attestation?nonce=00" + HEAD,
    "another case": b"GET /.Well-Known/attestation?nonce=00" + HEAD,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an empty line before": b"\r\n" + ASKED,
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_the_services_stays_as_it_is(case: str) -> None:
    data = OTHERS[case]
    assert AttestationRequestReader().receive(data) == OtherBytes(data)
    reader = AttestationRequestReader()
    result = at = None
    for at in range(len(data)):
        if (result := reader.receive(data[at : at + 1])) is not None:
            break
    assert at is not None
    assert result == OtherBytes(data[: at + 1])


ALIVE = {
    "HTTP/1.1": (ASKED, True),
    "HTTP/1.1 that closes": (ASKED[:-2] + b"Connection: close\r\n\r\n", False),
    "close among others": (ASKED[:-2] + b"Connection: TE, Close\r\n\r\n", False),
    "another option": (ASKED[:-2] + b"Connection: keep-alive\r\n\r\n", True),
    "HTTP/1.0": (ASKED.replace(b"1.1", b"1.0"), False),
    "a body of nothing": (ASKED[:-2] + b"Content-Length: 0\r\n\r\n", True),
}


@pytest.mark.parametrize("case", ALIVE)
@pytest.mark.parametrize("following", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_request_whatever_its_pieces(case: str, following: bytes) -> None:
    data, keeps_alive = ALIVE[case]
    expected = AttestationRequest(b"\x00\xff", keeps_alive, following)
    assert AttestationRequestReader().receive(data + following) == expected
    reader = AttestationRequestReader()
    for at in range(len(data) - 1):
        assert reader.receive(data[at : at + 1]) is None
    assert reader.receive(data[-1:] + following) == expected


def test_until_when_the_bytes_may_be_the_services() -> None:
    reader = AttestationRequestReader()
    assert reader.receive(TARGET) is None
    assert (reader.is_ours, reader.undecided) == (False, TARGET)
    assert reader.receive(b"?") is None
    assert reader.is_ours


MALFORMED = {
    "no query": (TARGET + HEAD, 400, "not one nonce"),
    "an empty query": (TARGET + b"?" + HEAD, 400, "not one nonce"),
    "another key": (TARGET + b"?challenge=00" + HEAD, 400, "not one nonce"),
    "a key too many": (TARGET + b"?nonce=00&x=1" + HEAD, 400, "not one nonce"),
    "two nonces": (TARGET + b"?nonce=00&nonce=01" + HEAD, 400, "not one nonce"),
    "an empty nonce": (TARGET + b"?nonce=" + HEAD, 400, "not bytes in hex"),
    "half a byte": (TARGET + b"?nonce=000" + HEAD, 400, "not bytes in hex"),
    "no hex": (TARGET + b"?nonce=0g" + HEAD, 400, "not bytes in hex"),
    "percent-encoded": (TARGET + b"?nonce=%30%30" + HEAD, 400, "not bytes in hex"),
    "too long": (
        TARGET + b"?nonce=" + b"00" * (MAX_NONCE_BYTES + 1) + HEAD,
        400,
        f"more than {MAX_NONCE_BYTES} bytes",
    ),
    "a body": (ASKED[:-2] + b"Content-Length: 5\r\n\r\nhello", 400, "with a body"),
    "chunks": (ASKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", 400, "with a body"),
    "a folded line": (ASKED[:-2] + b" x\r\n\r\n", 400, "a folded line"),
    "a bare line feed": (ASKED.replace(b"\r\n", b"\n"), 400, "ends without CRLF"),
    "no Host": (TARGET + b"?nonce=00 HTTP/1.1\r\n\r\n", 400, "Host"),
    "a version that is none": (TARGET + b"?nonce=00 HTTP/x\r\n\r\n", 400, "illegal request line"),
    "too many headers": (ASKED[:-2] + b"a: b\r\n" * 70 + b"\r\n", 431, "headers"),
    "a head without end": (ASKED[:-2] + b"a: " + b"b" * 17_000, 431, "bytes"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_request_is_answered(case: str) -> None:
    data, status, text = MALFORMED[case]
    with pytest.raises(HttpRequestError, match=text) as caught:
        AttestationRequestReader().receive(data)
    assert caught.value.status == status


def test_the_longest_nonce() -> None:
    nonce = bytes(range(256)) * 2
    data = TARGET + b"?nonce=" + nonce.hex().encode() + HEAD
    assert AttestationRequestReader().receive(data) == AttestationRequest(nonce, True, b"")


def test_answers() -> None:
    alive = document_answer(b"\x84\r\n", keeps_alive=True)
    head, _, body = alive.partition(b"\r\n\r\n")
    assert body == b"\x84\r\n"
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert b"Content-Length: 3" in head
    assert b"Connection" not in head
    assert b"Connection: close" in document_answer(b"", keeps_alive=False)
    busy = refusal_answer(429, "too many")
    assert busy.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"Retry-After: 1\r\n" in busy
    assert busy.endswith(b"\r\n\r\ntoo many\n")
    assert b"Retry-After" not in refusal_answer(400, "bad")


@given(st.binary(max_size=80), st.lists(st.integers(1, 20), max_size=20))
def test_nothing_of_the_services_is_lost(data: bytes, sizes: list[int]) -> None:
    """What the reader gives back, and what it was not given yet, is the whole."""
    reader = AttestationRequestReader()
    at = 0
    result = None
    while at < len(data) and result is None:
        size = sizes.pop() if sizes else len(data)
        try:
            result = reader.receive(data[at : at + size])
        except HttpRequestError:
            assert data.startswith(TARGET)
            return
        at += size
    if isinstance(result, OtherBytes):
        assert result.data + data[at:] == data
    else:
        assert data.startswith(TARGET) or TARGET.startswith(data)
