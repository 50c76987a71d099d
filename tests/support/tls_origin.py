"""An HTTP/1.1 server on loopback with TLS, or without: what unmodified programs talk to.

GET /            one line that names the host and the version of TLS
GET /bytes/N     N bytes with a Content-Length
GET /chunked/N   N bytes in chunks
GET /locations   the line of /, in an answer as Hetzner's API gives it to a program in Go
POST /digest     the length and the SHA-256 of the body; PUT likewise
/NAME.git/...    git's own smart HTTP, of the repositories in a directory
POST /           KMS's Decrypt and STS's GetCallerIdentity, as the AWS SDKs ask
"""

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Self
from urllib.parse import urlsplit

from tests.support import aws_answers

PATTERN = bytes(range(251))
"""What large bodies repeat; its length is prime, so that no shifted block looks right."""
_CHUNK_BYTES = 10_000
_POLL_SECONDS = 0.02


def body_of(count: int) -> bytes:
    """The body of /bytes/COUNT and /chunked/COUNT."""
    return (PATTERN * (count // len(PATTERN) + 1))[:count]


def digest_of(body: bytes) -> str:
    """The answer of /digest."""
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}\n"


class Origin(ThreadingHTTPServer):
    """Serves within a `with` block.

    Args:
        context: for TLS; None for plain HTTP.
        repositories: a directory of bare git repositories.
    """

    daemon_threads = True

    def __init__(
        self, context: ssl.SSLContext | None = None, repositories: Path | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.address = f"127.0.0.1:{self.server_port}"
        self._context = context
        self._thread = Thread(target=self.serve_forever, args=(_POLL_SECONDS,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        """Bind without looking the address's name up, as the base class would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def finish_request(self, request: object, client_address: object) -> None:
        """Serve one connection, in a thread of its own: the handshake too."""
        assert isinstance(request, socket.socket)
        if self._context is None:
            _Handler(request, client_address, self)
            return
        with self._context.wrap_socket(request, server_side=True) as tls:
            _Handler(tls, client_address, self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Programs that refuse a certificate, or leave early, are no news; other errors are."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # as it came


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Origin

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        word, _, number = path.removeprefix("/").partition("/")
        if path == "/":
            self._answer(f"{self._greeting()}\n".encode())
        elif path == "/locations":
            content = {"locations": [{"id": 1, "description": self._greeting()}]}
            self._answer(json.dumps(content).encode(), content_type="application/json")
        elif word == "bytes" and number.isdigit():
            self._answer(body_of(int(number)))
        elif word == "chunked" and number.isdigit():
            self._answer_in_chunks(body_of(int(number)))
        elif self._is_for_git(path):
            self._answer_as_git(b"")
        else:
            self._answer(b"no such page\n", 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self._read_body()
        path = urlsplit(self.path).path
        if path == "/digest":
            self._answer(digest_of(body).encode())
        elif self._is_for_git(path):
            self._answer_as_git(body)
        elif path == "/" and (answer := aws_answers.answer(self.headers, body)) is not None:
            self._answer(answer.body, content_type=answer.content_type)
        else:
            self._answer(b"no such page\n", 404)

    def do_PUT(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002 — the base class's
        """Say nothing."""

    def _greeting(self) -> str:
        version = self.connection.version() if isinstance(self.connection, ssl.SSLSocket) else None
        host = self.headers["Host"].partition(":")[0]
        return f"hello from {host}, over {version or 'plain HTTP'}"

    def _is_for_git(self, path: str) -> bool:
        return self.server.repositories is not None and ".git/" in path

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return body

    def _answer(self, body: bytes, status: int = 200, content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer_in_chunks(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(body), _CHUNK_BYTES):
            piece = body[start : start + _CHUNK_BYTES]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _answer_as_git(self, body: bytes) -> None:
        """Let `git http-backend` answer, a CGI program (git-http-backend(1), RFC 3875)."""
        url = urlsplit(self.path)
        variables = {
            "GIT_PROJECT_ROOT": str(self.server.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": url.path,
            "QUERY_STRING": url.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"],
            env={**os.environ, **variables},
            input=body,
            stdout=subprocess.PIPE,
            check=True,
        )
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.get("Status", "200").split()[0])
        self._answer(answer, status, fields.get("Content-Type", "text/plain"))
