"""A program inside a sandbox that looks names up and connects as it is told, on stdin.

    python -m tests.names.agent

Each line is a JSON list: what to do, and its arguments; each gets a line in answer, `[value, null]`
or `[null, error]`.
"""

import errno
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.support import socks5_client

WAIT_SECONDS = 25.0
HTTP_PORT = 3128
SOCKS_PORT = 1080
"""Where the proxies of a sandbox listen."""


def addresses(name: str) -> list[str]:
    """What the C library finds."""
    found = socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def many_addresses(names: list[str]) -> list[str]:
    """The only address of each name."""
    return [socket.gethostbyname(name) for name in names]


def fetch(host: str, port: int) -> str:
    """Connect, and read to the end."""
    with socket.create_connection((host, port), WAIT_SECONDS) as sock:
        return sock.makefile().read()


def fetch_each(hosts: list[str], port: int) -> list[str]:
    """`fetch` for one after the other."""
    return [fetch(host, port) for host in hosts]


def serve_and_fetch(ports: list[int], host: str, port: int) -> str:
    """Listen on all of `ports`, on every address of IPv4 and of IPv6, and fetch meanwhile."""
    listeners = []
    try:
        for each in ports:
            for family, where in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                listeners.append(
                    socket.create_server((where, each), family=family, dualstack_ipv6=False)
                )
        return fetch(host, port)
    finally:
        for listener in listeners:
            listener.close()


def query(message: str, wait_seconds: float) -> str:
    """Send bytes to the DNS server over UDP; its answer, both in hexadecimal digits."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(wait_seconds)
        sock.connect(("198.18.0.1", 53))
        sock.send(bytes.fromhex(message))
        return sock.recv(65_535).hex()


_standing: dict[int, socket.socket] = {}


def _by_http(host: str, port: int) -> tuple[socket.socket, str]:
    """CONNECT; the status."""
    sock = socket.create_connection(("127.0.0.1", HTTP_PORT), WAIT_SECONDS)
    bracketed = f"[{host}]" if ":" in host else host
    sock.sendall(f"CONNECT {bracketed}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and (piece := sock.recv(1)):
        head += piece
    return sock, head.split()[1].decode()


def _by_socks(host: str, port: int) -> tuple[socket.socket, str]:
    """CONNECT of SOCKS 5; the reply."""
    sock, reply = socks5_client.ask(SOCKS_PORT, host, port)
    return sock, str(reply)


def _directly(host: str, port: int) -> tuple[socket.socket, str]:
    """As most programs do: to a name, to a forward on 127.0.0.1, or through the socket shim."""
    return socket.create_connection((host, port), WAIT_SECONDS), "connected"


_OPEN = {"http": _by_http, "socks": _by_socks}


def open_by(way: str, host: str, port: int) -> list[object]:
    """Connect; a number for the connection, and the proxy's answer, or `connected`."""
    sock, answer = _OPEN.get(way, _directly)(host, port)
    _standing[sock.fileno()] = sock
    return [sock.fileno(), answer]


def end_of(number: int) -> str:
    """How a connection ends: `end`, or the error."""
    with _standing.pop(number) as sock:
        sock.settimeout(WAIT_SECONDS)
        while sock.recv(65_536):
            pass
    return "end"


def seconds_to_first_byte(way: str, host: str, port: int, count: int) -> list[float]:
    """How long each of `count` connections takes, from the lookup to the first byte."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        sock, _ = _OPEN.get(way, _directly)(host, port)
        with sock:
            sock.recv(1)
            taken.append(time.perf_counter() - began)
    return taken


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task
    for task in (
        addresses,
        many_addresses,
        fetch,
        fetch_each,
        serve_and_fetch,
        query,
        open_by,
        end_of,
        seconds_to_first_byte,
    )
}


def describe(error: OSError) -> str:
    """The symbol of an error: ECONNREFUSED, EAI_NONAME, TimeoutError."""
    if isinstance(error, socket.gaierror):
        symbols = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}
        return symbols[error.errno]
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def main() -> None:
    """Do what each line says."""
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer = [TASKS[name](*arguments), None]
        except OSError as error:
            answer = [None, describe(error)]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
