"""A parent with several enclaves at work: real processes, whose page and `top` are shown."""

import contextlib
import json
import math
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.pair import Side, free_port, serving

ENCLAVES = {16: "ledger", 17: "web", 18: "batch"}
ENDING = (19, "nightly")
"""One whose command ends with an error, half a minute before the pictures."""

ENDING_COMMAND = (
    *("sh", "-c"),
    "echo 'reading rates: 3 of 5 files'; echo 'cannot open rates/2026-11.csv: no such file' >&2; "
    "sleep 4; exit 3",
)
PORT = 443
HOSTS = {
    16: ("kms.eu-west-1.amazonaws.com", "db.ledger.internal.example"),
    17: ("api.payments.example", "s3.eu-west-1.amazonaws.com", "cdn.example"),
    18: ("s3.eu-west-1.amazonaws.com", "warehouse.example"),
}
PRIVATE_HOST = "intranet.example"
DEAD_HOST = "closed.example"
LOADS = {16: (5, 40_000), 17: (14, 260_000), 18: (3, 900_000)}
"""Streams of each enclave, and bytes each second of one of them."""


@dataclass(frozen=True)
class Scene:
    """Where the parent's admin endpoint is, and the parent."""

    admin: Path
    parent: Side


@contextlib.contextmanager
def scene(seconds_before: float) -> Iterator[Scene]:
    """Everything at work, for so long already."""
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="vsockproxy-scene-"))
        )
        origin = stack.enter_context(serving(_origin))
        dead = free_port()
        parent = Side("parent", _write(directory, "parent.yaml", _parent(directory, origin, dead)))
        stack.callback(parent.kill)
        parent.wait_for_event("ready")
        stop = threading.Event()
        stack.callback(stop.set)
        proxies = {}
        for cid in ENCLAVES:
            proxies[cid] = free_port()
            config = _write(directory, f"{cid}.yaml", _enclave(directory, cid, proxies[cid]))
            enclave = Side("enclave", config)
            stack.callback(enclave.kill)
            enclave.wait_for_event("link_up")
        for cid, (streams, rate) in LOADS.items():
            for number in range(streams):
                host = HOSTS[cid][number % len(HOSTS[cid])]
                arguments = (stop, proxies[cid], host, rate, number)
                threading.Thread(target=_keep_busy, args=arguments, daemon=True).start()
        threading.Thread(target=_be_refused, args=(stop, proxies), daemon=True).start()
        time.sleep(max(0.0, seconds_before - 30))
        cid, _ = ENDING
        content = _enclave(directory, cid, free_port()) | {"log": {"to_parent": True}}
        ending = Side("enclave", _write(directory, f"{cid}.yaml", content), ENDING_COMMAND)
        stack.callback(ending.kill)
        parent.wait_for_event("enclave_exit")
        time.sleep(min(25.0, seconds_before))
        yield Scene(directory / "admin.sock", parent)


def _write(directory: Path, name: str, content: dict[str, Any]) -> Path:
    path = directory / name
    path.write_text(json.dumps({"log": {"format": "json"}, **content}, indent=1))
    return path


def _parent(directory: Path, origin: int, dead: int) -> dict[str, Any]:
    everybody = {**ENCLAVES, ENDING[0]: ENDING[1]}

    def rules(cid: int) -> list[dict[str, Any]]:
        dialled = {"dial": f"127.0.0.1:{origin}", "private": True}
        return [
            *({"address": host, "port": PORT, **dialled} for host in HOSTS.get(cid, ())),
            {"address": PRIVATE_HOST, "port": PORT},
            {"address": DEAD_HOST, "port": PORT, "dial": f"127.0.0.1:{dead}", "private": True},
        ]

    return {
        "listen": [f"unix://{directory}/{cid}.sock?cid={cid}" for cid in everybody],
        "workers": 2,
        "admin": {"listen": f"unix://{directory}/admin.sock"},
        "resolver": {"hosts": {PRIVATE_HOST: ["10.0.3.7"]}},
        "enclaves": [
            {"cid": cid, "name": name, "allowlist": rules(cid)} for cid, name in everybody.items()
        ],
    }


def _enclave(directory: Path, cid: int, proxy: int) -> dict[str, Any]:
    return {
        "parent": f"unix://{directory}/{cid}.sock",
        "require_tls": False,
        "allowlist": [
            *({"address": host, "port": PORT, "private": True} for host in HOSTS.get(cid, ())),
            *({"address": host, "port": PORT} for host in (PRIVATE_HOST, DEAD_HOST)),
            {"address": "**.example", "ports": [80, 443, 8443]},
        ],
        "shim": {"http_proxy": f"127.0.0.1:{proxy}", "names": False, "streams": None},
    }


def _origin(connection: socket.socket) -> None:
    """Take as many bytes as a request announces, and give as many as it asks for."""
    with contextlib.suppress(OSError), connection.makefile("rb") as reader:
        while request := reader.read(32):
            sent, wanted = map(int, request.split())
            reader.read(sent)
            connection.sendall(bytes(wanted))


def _keep_busy(stop: threading.Event, proxy: int, host: str, rate: int, number: int) -> None:
    """Ask for bytes again and again, now more and now fewer."""
    with contextlib.suppress(OSError):
        while not stop.wait(0.2 * (number % 5)):
            with _connect(proxy, host, PORT) as sock:
                until = time.monotonic() + 15 + 7 * number
                while time.monotonic() < until and not stop.wait(0.25):
                    swing = 1 + 0.7 * math.sin(time.monotonic() / 9 + number * 0.4)
                    wanted = int(rate * swing / 4)
                    sent = wanted // (2 if number % 3 == 0 else 25)
                    sock.sendall(f"{sent:<16}{wanted:<16}".encode() + bytes(sent))
                    while wanted > 0:
                        wanted -= len(sock.recv(65_536))


def _be_refused(stop: threading.Event, proxies: dict[int, int]) -> None:
    """Ask, every now and then, for what is not allowed."""
    asked = (
        (17, "telemetry.example", 443),
        (18, PRIVATE_HOST, 443),
        (16, "kms.eu-west-1.amazonaws.com", 443),
        (17, "api.payments.example", 8443),
        (16, DEAD_HOST, 443),
        (17, "updates.example", 80),
    )
    turn = 0
    while not stop.wait(1.7):
        cid, host, port = asked[turn % len(asked)]
        turn += 1
        with contextlib.suppress(OSError), _connect(proxies[cid], host, port):
            pass


def _connect(proxy: int, host: str, port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", proxy), 30)
    sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(1)
        if not piece:
            break
        head += piece
    if b" 200 " not in head.partition(b"\r\n")[0]:
        sock.close()
        raise ConnectionRefusedError(head.decode(errors="replace"))
    return sock
