"""HAProxy in front of the parent, and behind the enclave: a real counterpart for PROXY v2."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.pair import Pair, free_port, serving

SECONDS = 30.0

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is missing: apt-get install haproxy"
)


@contextmanager
def haproxy(directory: Path, text: str, port: int) -> Iterator[None]:
    """HAProxy with a configuration, as soon as it listens on `port`."""
    file = directory / "haproxy.cfg"
    times = "defaults\n timeout connect 9s\n timeout client 60s\n timeout server 60s\n"
    file.write_text(times + text)
    with subprocess.Popen(["haproxy", "-db", "-q", "-f", str(file)]) as process:
        try:
            deadline = time.monotonic() + SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline
                    assert process.poll() is None
            yield
        finally:
            process.kill()


def test_haproxy_sends_and_takes_what_we_take_and_send(tmp_path: Path) -> None:
    """client, HAProxy (send-proxy-v2), parent, enclave, HAProxy (accept-proxy), HTTP origin."""

    def origin(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65_536)
        body = next(line for line in head.split(b"\r\n") if line.startswith(b"x-client:"))
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
            % (len(body), body)
        )

    front, listen, back = free_port(), free_port(), free_port()
    with (
        serving(origin) as origin_port,
        haproxy(
            tmp_path,
            f"""
listen front
 mode tcp
 bind 127.0.0.1:{front}
 server parent 127.0.0.1:{listen} send-proxy-v2
listen back
 mode http
 bind 127.0.0.1:{back} accept-proxy
 http-request set-header x-client %[src]:%[src_port]
 server origin 127.0.0.1:{origin_port}
""",
            front,
        ),
        Pair(
            "unix",
            [],
            parent={
                "ingress": [
                    {
                        "listen": f"tcp://127.0.0.1:{listen}",
                        "service": "web",
                        "proxy_protocol": "v2",
                    }
                ]
            },
            enclave={
                "ingress": [
                    {
                        "service": "web",
                        "to": f"tcp://127.0.0.1:{back}",
                        "proxy_protocol": "v2",
                    }
                ]
            },
        ) as pair,
        socket.create_connection(("127.0.0.1", front), SECONDS) as sock,
    ):
        client = "{}:{}".format(*sock.getsockname())
        sock.sendall(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
        assert answer.endswith(f"x-client: {client}".encode()), answer
        assert pair.enclave is not None
        pair.enclave.wait_for_event("decision", allowed=True, client=client)
