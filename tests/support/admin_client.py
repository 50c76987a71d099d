"""Asks the admin endpoint of a parent, rightly and wrongly."""

import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

SECONDS = 30.0
STEP_SECONDS = 0.05


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Samples(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Samples of metrics, by name and labels."""

    def of(self, name: str, **labels: str) -> float:
        """The value of vsockproxy_NAME; 0 if there is no such sample."""
        return self.get((f"vsockproxy_{name}", frozenset(labels.items())), 0)


class AdminClient:
    """Asks on one unix socket."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(self.path)
        return sock

    def send(self, data: bytes, *, ends: bool = False) -> bytes:
        """Everything that is answered to some bytes."""
        with self.connect() as sock:
            try:
                sock.sendall(data)
                if ends:
                    sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough; what it said may be read
            return read_all(sock)

    def ask(self, target: str, method: str = "GET", headers: str = "") -> Answer:
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        return parse(self.send(head.encode()))

    def status(self) -> dict[str, Any]:
        return json_of(self.ask("/status"))

    def streams(self, limit: int = 1000) -> dict[str, Any]:
        return json_of(self.ask(f"/streams?limit={limit}"))

    def metrics(self) -> "Samples":
        """What /metrics says."""
        answer = self.ask("/metrics")
        assert answer.status == 200, answer
        return Samples(
            {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
            }
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Reports come every second: look until a condition holds."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.ask("/status").text
            time.sleep(STEP_SECONDS)


def json_of(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    content = json.loads(answer.body)
    assert isinstance(content, dict)
    return content


def read_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while piece := sock.recv(65_536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def parse(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split()[1]), headers, body)
