"""A forward with `protocol: http`: programs that can do only http:// reach an https API."""

import http.client
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.pair import Line, Pair, free_port, is_reset
from tests.support.tls_origin import Origin, body_of, digest_of
from tests.support.tls_servers import tls_serving

SECONDS = 60.0
LARGE_BYTES = 5_000_000

HOST = "api.test"
STRICT = "strict.test"
RAW = "raw.test"
MUTUAL = "mutual.test"
AWAY = "away.test"
UNLISTED = "unlisted.test"


class Raw:
    """A TLS server that answers each connection with what the test has put down for it."""

    def __init__(self) -> None:
        self.answers: Queue[list[bytes]] = Queue()
        self.requests: Queue[bytes] = Queue()

    def serve(self, connection: ssl.SSLSocket) -> None:
        """Give one answer for each request head; `!` in its place ends without close_notify."""
        for answer in self.answers.get(timeout=SECONDS):
            request = b""
            while b"\r\n\r\n" not in request:
                data = connection.recv(65_536)
                if not data:
                    return
                request += data
            self.requests.put(request)
            if answer.endswith(b"!"):
                connection.sendall(answer[:-1])
                connection.shutdown(socket.SHUT_RDWR)
                return
            connection.sendall(answer)
        connection.unwrap()


class Rig:
    """A pair, its forwards by the name that they lead to, and the raw server."""

    def __init__(self, pair: Pair, ports: dict[str, int], raw: Raw) -> None:
        self.pair = pair
        self.ports = ports
        self.raw = raw

    def connect(self, host: str = HOST) -> HTTPConnection:
        """A client of the standard library."""
        return HTTPConnection("127.0.0.1", self.ports[host], timeout=SECONDS)

    def decisions(self, host: str) -> list[Line]:
        """What the enclave has decided about a host."""
        assert self.pair.enclave is not None
        return [line for line in self.pair.enclave.events("decision") if line["host"] == host]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    raw = Raw()
    with ExitStack() as stack:
        origin = stack.enter_context(Origin(authority.context(HOST)))
        strict = stack.enter_context(Origin(authority.context("other.test")))
        context = authority.context(RAW)
        mutual = authority.context(MUTUAL)
        mutual.verify_mode = ssl.CERT_REQUIRED
        mutual.load_verify_locations(authority.file)
        dials = {
            HOST: origin.address,
            STRICT: strict.address,
            RAW: f"127.0.0.1:{stack.enter_context(tls_serving(context, raw.serve))}",
            MUTUAL: f"127.0.0.1:{stack.enter_context(tls_serving(mutual, raw.serve))}",
            AWAY: f"127.0.0.1:{free_port()}",
        }
        ports = {host: free_port() for host in (*dials, UNLISTED)}
        own: list[dict[str, Any]] = [{"address": host, "port": 443} for host in dials]
        parents = [{**rule, "private": True, "dial": dials[rule["address"]]} for rule in own]
        tls = {"ca": str(authority.file)}
        forwards = [
            {
                "listen": f"tcp://127.0.0.1:{port}",
                "to": f"{host}:443",
                "tls": tls,
                "protocol": "http",
            }
            for host, port in ports.items()
        ]
        pair = Pair(
            "unix",
            own,
            parent_rules=parents,
            enclave={"forwards": forwards, "limits": {"handshake": 2}},
        )
        yield Rig(stack.enter_context(pair), ports, raw)


def ask(client: HTTPConnection, path: str, **how: Any) -> tuple[int, bytes]:
    client.request(how.pop("method", "GET"), path, **how)
    response = client.getresponse()
    return response.status, response.read()


def test_one_connection_carries_many_requests(rig: Rig) -> None:
    before = len(rig.decisions(HOST))
    client = rig.connect()
    greeting = f"hello from {HOST}, over TLSv1.3\n".encode()
    for _ in range(3):
        assert ask(client, "/") == (200, greeting)  # the Host that the origin saw
    assert ask(client, f"/bytes/{LARGE_BYTES}") == (200, body_of(LARGE_BYTES))
    assert ask(client, f"/chunked/{LARGE_BYTES}") == (200, body_of(LARGE_BYTES))
    body = body_of(LARGE_BYTES)
    assert ask(client, "/digest", method="POST", body=body) == (200, digest_of(body).encode())
    pieces = iter([body[:1000], body[1000:]])
    assert ask(client, "/digest", method="PUT", body=pieces, encode_chunked=True) == (
        *(200, digest_of(body).encode()),
    )
    client.request("HEAD", "/bytes/100")
    head = client.getresponse()
    assert (head.status, head.headers["Content-Length"], head.read()) == (200, "100", b"")
    assert ask(client, "/") == (200, greeting)
    client.close()
    assert rig.pair.enclave is not None
    rig.pair.enclave.wait_for_event("close", host=HOST, ended="finished")
    assert len(rig.decisions(HOST)) == before + 1


def test_curl_reuses_its_connection(rig: Rig, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{rig.ports[HOST]}"
    (tmp_path / "body").write_bytes(body_of(LARGE_BYTES))
    done = subprocess.run(
        [
            *("curl", "-sS", "-w", "%{num_connects} ", f"{url}/", f"{url}/chunked/5"),
            *("--next", "-sS", "-w", "%{num_connects}", "-T", str(tmp_path / "body")),
            *("-H", "Transfer-Encoding: chunked", f"{url}/digest"),
        ],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    digest = digest_of(body_of(LARGE_BYTES)).encode()
    greeting = f"hello from {HOST}, over TLSv1.3\n".encode()
    assert done.stdout == greeting + b"1 " + body_of(5) + b"0 " + digest + b"0"


def test_requests_that_come_at_once_are_answered_in_order(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.ports[HOST]), SECONDS) as sock:
        request = "GET /bytes/{} HTTP/1.1\r\nHost: x\r\n\r\n"
        last = "GET /bytes/3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        sock.sendall((request.format(1) + request.format(2) + last).encode())
        answer = b""
        while data := sock.recv(65_536):
            answer += data
    assert [part[:3] for part in answer.split(b"\r\n\r\n")[1:]] == [b"\0HT", b"\0\1H", b"\0\1\2"]


def test_a_body_without_length_ends_with_the_connection(rig: Rig) -> None:
    rig.raw.answers.put([b"HTTP/1.0 200 OK\r\n\r\nuntil the end"])
    client = rig.connect(RAW)
    assert ask(client, "/") == (200, b"until the end")
    assert b"\r\nHost: raw.test\r\n" in rig.raw.requests.get(timeout=SECONDS)


CUT = {
    "a length": b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf an answer!",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf !",
    "neither": b"HTTP/1.1 200 OK\r\n\r\nhalf an answer!",
}


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
def test_an_answer_that_is_cut_short_is_no_whole_one(rig: Rig, answer: bytes) -> None:
    rig.raw.answers.put([answer])
    with socket.create_connection(("127.0.0.1", rig.ports[RAW]), SECONDS) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_reset(sock)


def test_what_goes_wrong_behind_the_handshake_is_told_too(rig: Rig) -> None:
    assert rig.pair.enclave is not None
    # With TLS 1.3 a server says only then that it does not take us.
    status, text = ask(rig.connect(MUTUAL), "/")
    assert (status, text.split(b":")[0]) == (502, b"tls_failed")
    failed = rig.pair.enclave.wait_for_event("tls_failed", host=MUTUAL)
    assert (failed["text"], failed["port"]) == ("it wants a client certificate, and got none", 443)
    rig.pair.enclave.wait_for_event("close", host=MUTUAL, ended="tls_failed")
    rig.raw.answers.put([CUT["neither"]])
    with socket.create_connection(("127.0.0.1", rig.ports[RAW]), SECONDS) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_reset(sock)
    rig.pair.enclave.wait_for_event("close", host=RAW, ended="tls_truncated")


def test_a_destination_that_closes_between_requests_closes_the_program(rig: Rig) -> None:
    rig.raw.answers.put([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
    with socket.create_connection(("127.0.0.1", rig.ports[RAW]), SECONDS) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while data := sock.recv(65_536):
            answer += data
    assert answer.endswith(b"\r\n\r\nok")


REFUSED = {
    UNLISTED: (403, "not_listed"),
    AWAY: (502, "dial_refused"),
    STRICT: (502, "tls_failed"),
}


@pytest.mark.parametrize("host", REFUSED)
def test_a_refusal_is_an_answer(rig: Rig, host: str) -> None:
    status, reason = REFUSED[host]
    client = rig.connect(host)
    client.request("GET", "/")
    response = client.getresponse()
    assert (response.status, response.headers["Proxy-Status"]) == (
        status,
        f"vsockproxy; error={reason}",
    )
    assert response.read().startswith(f"{reason}: {host}:443: ".encode())


BAD = {
    "no HTTP": (b"\x16\x03\x01\x00\x00\r\n\r\n", 400),
    "CONNECT": (b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n", 501),
    "two framings": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    "half a head": (b"GET / HTTP/1.1\r\n", 408),
}


@pytest.mark.parametrize(("request_bytes", "status"), BAD.values(), ids=BAD)
def test_a_request_that_is_none_is_answered(rig: Rig, request_bytes: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", rig.ports[HOST]), SECONDS) as sock:
        sock.sendall(request_bytes)
        response = http.client.HTTPResponse(sock)
        response.begin()
        assert response.status == status
        response.close()


def test_no_upgrade_is_asked_for(rig: Rig) -> None:
    rig.raw.answers.put([b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"])
    client = rig.connect(RAW)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert ask(client, "/socket", headers=upgrade)[0] == 400
    head = rig.raw.requests.get(timeout=SECONDS).lower()
    assert b"\r\nupgrade:" not in head
    assert b"\r\nvia: 1.1 vsockproxy\r\n" in head
    client.close()


def test_a_program_that_leaves_in_the_middle_takes_its_stream_along(rig: Rig) -> None:
    rig.raw.answers.put([b""])  # it never answers
    with socket.create_connection(("127.0.0.1", rig.ports[RAW]), SECONDS) as sock:
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        rig.raw.requests.get(timeout=SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert rig.pair.enclave is not None
    rig.pair.enclave.wait_for_event("close", host=RAW, ended="local_reset")
