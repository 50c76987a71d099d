import http.client
import socket

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsockproxy.policy.reasons import Reason
from vsockproxy.protocols.http_answers import (
    STATUS_BY_REASON,
    connect_established,
    refusal,
    status_for,
)


def parse(answer: bytes, method: str = "CONNECT") -> tuple[h11.Response, bytes]:
    """The only response in `answer`, read as a client reads it to its end."""
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", "example.com:443"), ("Connection", "close")]
    connection.send(h11.Request(method=method, target="example.com:443", headers=headers))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer)
    connection.receive_data(b"")
    response = connection.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == b""
    return response, body


def test_a_tunnel_is_announced_by_a_head_alone() -> None:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", "example.com:443")]
    connection.send(h11.Request(method="CONNECT", target="example.com:443", headers=headers))
    connection.send(h11.EndOfMessage())

    connection.receive_data(connect_established() + b"tunnel")

    response = connection.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == 200
    assert list(response.headers) == []
    assert connection.trailing_data[0] == b"tunnel"


def test_a_refusal_says_who_what_and_why() -> None:
    response, body = parse(
        refusal(403, "not_listed", "example.com:443", "add it to the allowlist of parent.yaml")
    )

    assert response.status_code == 403
    assert response.reason == b"Forbidden"
    assert dict(response.headers) == {
        b"proxy-status": b"vsockproxy; error=not_listed",
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": str(len(body)).encode(),
        b"connection": b"close",
    }
    assert body == b"not_listed: example.com:443: add it to the allowlist of parent.yaml\n"


def test_pythons_own_client_reads_a_refusal() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(refusal(504, "dial_timeout", "a.test:443", "no answer in 10 s"))
        far.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(near)
        response.begin()
        assert (response.status, response.reason) == (504, "Gateway Timeout")
        assert response.read() == b"dial_timeout: a.test:443: no answer in 10 s\n"
        response.close()


def test_a_refused_head_request_gets_no_body() -> None:
    answer = refusal(403, "denied", "a.test:80", "no", has_body=False)

    assert answer.endswith(b"\r\n\r\n")
    assert parse(answer, "HEAD")[0].status_code == 403


HOSTILE = {
    "a new header": "a.test:443\r\nX-Injected: 1",
    "a new line": "a.test:443\nlisted: b.test:443: fine",
    "a second response": "a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "a NUL": "a\x00b",
    "a line separator": "a\u2028b",
    "a next line of ISO 6429": "a\x85b",
    "a change of direction": "a\u202eb",
    "half of a surrogate pair": "a\udce4b",
    "an escape sequence": "\x1b[2J",
    "ten thousand characters": "a" * 10_000,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_arguments_stay_in_their_line(hostile: str) -> None:
    for answer in (
        refusal(403, "denied", hostile, "no"),
        refusal(403, "denied", "a.test:443", hostile),
        refusal(403, hostile, "a.test:443", "no"),
    ):
        response, body = parse(answer)
        assert [name for name, _ in response.headers] == [
            b"proxy-status",
            b"content-type",
            b"content-length",
            b"connection",
        ]
        assert body.count(b"\n") == 1
        assert body.decode().removesuffix("\n").isprintable()
        assert len(body) < 1500


def test_a_host_cannot_speak_for_the_text() -> None:
    body = parse(refusal(403, "denied", "a.test:443: all is well", "no"))[1]

    assert body == b"denied: a.test:443:?all?is?well: no\n"


@given(st.text(), st.text(), st.text())
def test_no_text_can_split_an_answer(reason: str, host_port: str, text: str) -> None:
    response, body = parse(refusal(403, reason, host_port, text))

    assert len(response.headers) == 4
    assert body.endswith(b"\n")
    assert len(body.decode().splitlines()) == 1
    assert len(body.decode().split(": ", 2)) == 3


def test_every_refusing_reason_has_a_status() -> None:
    assert set(STATUS_BY_REASON) == set(Reason) - {Reason.LISTED}


STATUSES = {
    403: (
        Reason.NOT_LISTED,
        Reason.PORT_NOT_LISTED,
        Reason.DENIED,
        Reason.ADDRESS_PRIVATE,
        Reason.ADDRESS_METADATA,
        Reason.ADDRESS_RESERVED,
        Reason.NOT_TLS,
        Reason.SNI_MISMATCH,
    ),
    502: (Reason.NO_SUCH_NAME, Reason.LOOKUP_FAILED, Reason.DIAL_REFUSED),
    503: (Reason.LIMIT, Reason.PARENT_AWAY),
    504: (Reason.DIAL_TIMEOUT,),
}


@pytest.mark.parametrize("status", STATUSES)
def test_statuses(status: int) -> None:
    assert {status_for(reason) for reason in STATUSES[status]} == {status}


def test_a_reason_from_the_future_is_a_no() -> None:
    assert status_for("quota_of_next_year") == 403
