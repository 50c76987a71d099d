"""Half-close, and cuts: the end of a stream looks to the program like what it was."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
from queue import Queue
from typing import Any, Literal

import pytest

from tests.support.pair import LinkKind, Pair, free_port, is_reset, serving

SECONDS = 60.0

Way = Literal["http_proxy", "shared", "dedicated"]
WAYS: tuple[Way, ...] = ("http_proxy", "shared", "dedicated")

RULES: list[dict[str, Any]] = [
    {"address": "origin.test", "port": 443, "private": True, "require_tls": False}
]


@contextlib.contextmanager
def pair_to(origin_port: int, kind: LinkKind) -> Any:
    ports = {"shared": free_port(), "dedicated": free_port()}
    with Pair(
        kind,
        RULES,
        parent_rules=[{**RULES[0], "dial": f"127.0.0.1:{origin_port}"}],
        enclave={
            "forwards": [
                {
                    "listen": f"tcp://127.0.0.1:{port}",
                    "to": "origin.test:443",
                    "carrier": carrier,
                }
                for carrier, port in ports.items()
            ]
        },
    ) as pair:
        yield pair, ports


def enter(pair: Pair, ports: dict[str, int], way: Way) -> socket.socket:
    if way == "http_proxy":
        return pair.connect("origin.test", 443)
    return socket.create_connection(("127.0.0.1", ports[way]), 30)


def answer_at_the_end(connection: socket.socket) -> None:
    """Read a request until its end of file, then answer at length."""
    request = b""
    while data := connection.recv(65_536):
        request += data
    connection.sendall(b"got " + request + b"x" * 1_000_000)


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_half_closes_gets_the_full_answer(kind: LinkKind, way: Way) -> None:
    with serving(answer_at_the_end) as port, pair_to(port, kind) as (pair, ports):
        with enter(pair, ports, way) as sock:
            sock.sendall(b"request")
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while data := sock.recv(65_536):
                answer += data
        assert answer == b"got request" + b"x" * 1_000_000


@pytest.mark.parametrize("way", WAYS)
def test_an_origin_that_half_closes_first_still_gets_the_request(kind: LinkKind, way: Way) -> None:
    received: Queue[bytes] = Queue()

    def origin(connection: socket.socket) -> None:
        connection.sendall(b"greeting")
        connection.shutdown(socket.SHUT_WR)
        data = b""
        while piece := connection.recv(65_536):
            data += piece
        received.put(data)

    with serving(origin) as port, pair_to(port, kind) as (pair, ports):
        with enter(pair, ports, way) as sock:
            assert sock.recv(100) == b"greeting"
            assert sock.recv(100) == b""
            sock.sendall(b"y" * 500_000)
            sock.shutdown(socket.SHUT_WR)
        assert received.get(timeout=SECONDS) == b"y" * 500_000
        pair.parent.wait_for_event("close", ended="finished")


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_speaks_first_is_heard(kind: LinkKind, way: Way) -> None:
    def origin(connection: socket.socket) -> None:
        connection.sendall(b"220 ready\r\n")
        connection.sendall(b"you said " + connection.recv(100))

    with (
        serving(origin) as port,
        pair_to(port, kind) as (pair, ports),
        enter(pair, ports, way) as sock,
    ):
        assert sock.recv(100) == b"220 ready\r\n"
        sock.sendall(b"hello")
        assert sock.recv(100) == b"you said hello"


def cut_in_the_middle(connection: socket.socket) -> None:
    """Send half an answer, then reset."""
    connection.recv(100)
    connection.sendall(b"z" * 100_000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("way", WAYS)
def test_an_origin_that_resets_resets_the_program(kind: LinkKind, way: Way) -> None:
    with (
        serving(cut_in_the_middle) as port,
        pair_to(port, kind) as (pair, ports),
        enter(pair, ports, way) as sock,
    ):
        sock.sendall(b"request")
        assert is_reset(sock)


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_resets_resets_the_origin(kind: LinkKind, way: Way) -> None:
    outcomes: Queue[bool] = Queue()

    def origin(connection: socket.socket) -> None:
        outcomes.put(is_reset(connection))

    with serving(origin) as port, pair_to(port, kind) as (pair, ports):
        sock = enter(pair, ports, way)
        sock.sendall(b"half a request")
        pair.parent.wait_for_event("decision", allowed=True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        pair.parent.wait_for(lambda line: line["event"] == "close")
        assert pair.parent.events("close")[0]["ended"] != "finished"
        assert outcomes.get(timeout=SECONDS) is True


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("victim", ["parent", "enclave"])
def test_a_killed_worker_resets_both_programs(
    kind: LinkKind, way: Way, victim: Literal["parent", "enclave"]
) -> None:
    outcomes: Queue[bool] = Queue()

    def origin(connection: socket.socket) -> None:
        connection.sendall(b"half")
        outcomes.put(is_reset(connection))

    with serving(origin) as port, pair_to(port, kind) as (pair, ports):
        with enter(pair, ports, way) as sock:
            assert sock.recv(100) == b"half"
            side = pair.parent if victim == "parent" else pair.enclave
            (worker,) = side.workers
            os.kill(worker, signal.SIGKILL)
            assert is_reset(sock)
            side.wait_for_count("ready", 1)
            # The supervisor replaced the worker, and the links came back by themselves.
            with enter(pair, ports, way) as again:
                assert again.recv(100) == b"half"
        assert outcomes.get(timeout=SECONDS) is True


def test_netcat_style_clients_get_the_full_answer(kind: LinkKind) -> None:
    with serving(answer_at_the_end) as port, pair_to(port, kind) as (_, ports):
        command = f"printf request | socat -t 30 - TCP:127.0.0.1:{ports['shared']}"
        answer = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, check=True, timeout=60
        ).stdout
    assert answer == b"got request" + b"x" * 1_000_000
