"""The command is reached from outside, where it listens: in a network of its own."""

import sys
from pathlib import Path

import pytest

from tests.sandbox.ingress import ask, sandbox_behind
from tests.support.tls_in import client_context, verify_tls

HTTP_SERVER = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/proc/net/route") as routes:
            devices = {line.split()[0] for line in routes} - {"Iface"}
        body = f"{self.client_address[0]} {' '.join(sorted(devices))} {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

host = sys.argv[1]
class Server(http.server.ThreadingHTTPServer):
    import socket
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

Server((host, 8080), Handler).serve_forever()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_server_that_listens_on_loopback_alone(
    namespaces: None, tmp_path: Path, host: str
) -> None:
    del namespaces
    shown = f"[{host}]" if ":" in host else host
    ingress = f"ingress: [{{service: web, to: 'tcp://{shown}:8080'}}]\n"
    command = [sys.executable, "-c", HTTP_SERVER, host]
    with sandbox_behind(tmp_path, ingress, command, {"service": "web"}) as port:
        for number in range(100):  # more than are asked for at once
            request = f"GET /{number} HTTP/1.0\r\n\r\n".encode()
            _, answer = ask(port, request)
            # It sees itself as the client, and has the devices of the command's own network.
            assert answer.endswith(f"{host} vsc-rest vsc0 /{number}".encode()), answer


UNIX_SERVER = """
import socket
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("/run/web.sock")
    listener.listen()
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"over a unix socket: " + connection.recv(100))
"""


def test_a_server_on_a_unix_socket(namespaces: None, tmp_path: Path) -> None:
    del namespaces
    ingress = "ingress: [{service: web, to: 'unix:///run/web.sock'}]\n"
    command = [sys.executable, "-c", UNIX_SERVER]
    with sandbox_behind(tmp_path, ingress, command, {"service": "web"}) as port:
        assert ask(port, b"hello")[1] == b"over a unix socket: hello"


def test_tls_ends_in_front_of_an_unmodified_server(namespaces: None, tmp_path: Path) -> None:
    del namespaces
    root = tmp_path / "root.pem"
    ingress = (
        "ingress: [{service: web, to: 'tcp://127.0.0.1:8080', tls: {}}]\n"
        f"attestation: {{device: software, root: {root}}}\n"
    )
    command = [sys.executable, "-c", HTTP_SERVER, "127.0.0.1"]
    with sandbox_behind(tmp_path, ingress, command, {"service": "web"}) as port:
        _, answer = ask(port, b"GET / HTTP/1.0\r\n\r\n", client_context())
        assert answer.endswith(b"127.0.0.1 vsc-rest vsc0 /"), answer
        done = verify_tls(port, root)
        assert (done.exit_code, done.output.partition(",")[0].split()[0]) == (0, "verified")
