"""An HTTP proxy for CONNECT, on real sockets, as a company has one: it answers as a test says."""

import socket
import threading
from base64 import b64encode
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Self

from tests.support.pair import serving

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what was asked for, and its headers by lower-case name."""

    line: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def authority(self) -> str:
        """The destination, as `HOST:PORT`."""
        return self.line.split(" ")[1]


class ConnectProxy:
    """Serves within a `with` block.

    Args:
        credentials: `user:password` that it demands; None for no demand.
        names: what names stand for, as a proxy that looks them up would find.
    """

    def __init__(
        self, credentials: str | None = None, names: dict[str, tuple[str, int]] | None = None
    ) -> None:
        self.asked: list[Asked] = []
        self.established = ESTABLISHED
        """What it says when it has connected."""
        self.answers: dict[str, bytes] = {}
        """What it says to those who ask for an authority, in place of connecting."""
        self.sources: list[str] = []
        """The addresses that connections came from."""
        self.credentials = credentials
        self._names = names or {}
        self._stack = ExitStack()
        self.port = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.port = self._stack.enter_context(serving(self._serve))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _serve(self, client: socket.socket) -> None:
        self.sources.append(client.getpeername()[0])
        head, _, rest = _read_head(client).partition(b"\r\n\r\n")
        line, *lines = head.decode("ascii").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        asked = Asked(line, headers)
        self.asked.append(asked)
        if self.credentials is not None:
            expected = f"Basic {b64encode(self.credentials.encode()).decode()}"
            if headers.get("proxy-authorization") != expected:
                client.sendall(refusal(407, "Proxy-Authenticate: Basic realm=x"))
                return
        if asked.authority in self.answers:
            client.sendall(self.answers[asked.authority])
            return
        host, _, port = asked.authority.rpartition(":")
        address = self._names.get(host, (host.strip("[]"), int(port)))
        try:
            origin = socket.create_connection(address, 30)
        except OSError:
            client.sendall(refusal(502))
            return
        with origin:
            client.sendall(self.established)
            origin.sendall(rest)
            _relay(client, origin)


def refusal(status: int, *headers: str, body: bytes = b"no") -> bytes:
    """A whole response that is no tunnel."""
    lines = [f"HTTP/1.1 {status} No", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _read_head(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65_536)
        if not piece:
            raise ConnectionResetError("the client closed before its request")
        head += piece
    return head


def _relay(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=_copy, args=(other, one), daemon=True)
    back.start()
    _copy(one, other)
    back.join(30)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
