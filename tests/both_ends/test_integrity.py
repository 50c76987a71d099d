"""Every byte arrives, in order, once: many bytes both ways at once, compared by SHA-256."""

import socket
import threading
from typing import Any, Literal

import pytest

from tests.support.pair import LinkKind, Pair, free_port, serving
from tests.support.traffic import GIBIBYTE, MEBIBYTE, Pattern, receive_all, start

Carrier = Literal["shared", "dedicated"]

SECONDS = 600.0


class Exchanger:
    """An origin that sends as much as it is asked for while it reads, and keeps both hashes."""

    def __init__(self, seed: int) -> None:
        self.pattern = Pattern(seed)
        self._changed = threading.Condition()
        self.seen: dict[int, tuple[str, int, str]] = {}
        """For each connection, by the number it sent: hash sent, bytes and hash received."""

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        head = b""
        while len(head) < 16:
            head += connection.recv(16 - len(head))
        number, wanted = int.from_bytes(head[:8]), int.from_bytes(head[8:])
        sending = start(lambda: self.pattern.send(connection, wanted))
        total, digest = receive_all(connection)
        with self._changed:
            self.seen[number] = (sending.result(SECONDS), total, digest)
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        """Wait until so many connections have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.seen) == count, 60)


def exchange(
    port: int, pattern: Pattern, number: int, out_bytes: int, in_bytes: int
) -> tuple[str, int, str]:
    """Send and receive at once; returns hash sent, bytes and hash received."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(number.to_bytes(8) + in_bytes.to_bytes(8))
        sending = start(lambda: pattern.send(sock, out_bytes))
        total, digest = receive_all(sock)
        return sending.result(SECONDS), total, digest


def run(
    kind: LinkKind, carrier: Carrier, *, streams: int, out_bytes: int, in_bytes: int, links: int = 4
) -> None:
    seed = 20_261_122
    print(f"seed {seed}")
    origin = Exchanger(seed)
    pattern = Pattern(seed + 1)
    port = free_port()
    rules: list[dict[str, Any]] = [
        {"address": "origin.test", "port": 443, "private": True, "require_tls": False}
    ]
    with serving(origin.serve) as origin_port:
        dialled = [{**rules[0], "dial": f"127.0.0.1:{origin_port}"}]
        forward = {
            "listen": f"tcp://127.0.0.1:{port}",
            "to": "origin.test:443",
            "carrier": carrier,
        }
        limits = {"limits": {"dedicated": 256}}
        enclave = {"forwards": [forward], "links": links, **limits}
        with Pair(kind, rules, parent_rules=dialled, enclave=enclave, parent=limits) as pair:
            running = [
                start(lambda number=number: exchange(port, pattern, number, out_bytes, in_bytes))  # type: ignore[misc] # mypy cannot infer a lambda with a default
                for number in range(streams)
            ]
            results = [future.result(SECONDS) for future in running]
            assert pair.enclave is not None
            assert pair.parent is not None
            for side in (pair.parent, pair.enclave):
                side.wait_for_count("close", streams)
            closed = pair.enclave.events("close")
            origin.wait(streams)
    for number, (sent, total, received) in enumerate(results):
        origin_sent, origin_total, origin_received = origin.seen[number]
        assert total == in_bytes
        assert received == origin_sent
        assert origin_total == out_bytes
        assert origin_received == sent
    assert {line["ended"] for line in closed} == {"finished"}
    assert sum(line["bytes_out"] for line in closed) == streams * (out_bytes + 16)
    assert sum(line["bytes_in"] for line in closed) == streams * in_bytes


@pytest.mark.timeout(900)
@pytest.mark.parametrize("carrier", ["shared", "dedicated"])
def test_a_gibibyte_each_way_at_once_on_one_stream(kind: LinkKind, carrier: Carrier) -> None:
    run(kind, carrier, streams=1, out_bytes=GIBIBYTE, in_bytes=GIBIBYTE)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("carrier", ["shared", "dedicated"])
def test_a_gibibyte_on_two_hundred_streams_at_once(kind: LinkKind, carrier: Carrier) -> None:
    each = GIBIBYTE // 400
    run(kind, carrier, streams=200, out_bytes=each, in_bytes=each)


@pytest.mark.timeout(900)
def test_one_stream_of_five_gibibytes(kind: LinkKind) -> None:
    run(kind, "shared", streams=1, out_bytes=5 * GIBIBYTE, in_bytes=MEBIBYTE)
