"""Every byte arrives, in order, once: many bytes both ways at once, compared by SHA-256."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import pytest

from tests.support.crowd import Crowd, Member
from tests.support.pair import LinkKind, Pair, free_port
from tests.support.traffic import GIBIBYTE, MEBIBYTE, Pattern, start

Carrier = Literal["shared", "dedicated"]

SECONDS = 600.0


@contextmanager
def forwarding(kind: LinkKind, carrier: Carrier, origin_port: int) -> Iterator[tuple[Pair, int]]:
    """A pair, and the local port that leads to the origin."""
    port = free_port()
    rule: dict[str, Any] = {"address": "origin.test", "port": 443, "private": True}
    rule["require_tls"] = False
    limits = {"limits": {"dedicated": 256}}
    forward = {"listen": f"tcp://127.0.0.1:{port}", "to": "origin.test:443", "carrier": carrier}
    with Pair(
        kind,
        [rule],
        parent_rules=[{**rule, "dial": f"127.0.0.1:{origin_port}"}],
        enclave={"forwards": [forward], **limits},
        parent=limits,
    ) as pair:
        yield pair, port


def run(kind: LinkKind, carrier: Carrier, *, streams: int, out_bytes: int, in_bytes: int) -> None:
    """Send and receive on `streams` streams at once, and compare both ends of each."""
    seed = 20_261_122
    print(f"seed {seed}")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        origin_port = listener.getsockname()[1]
        pair, port = stack.enter_context(forwarding(kind, carrier, origin_port))
        programs, origins = Crowd(Pattern(seed)), Crowd(Pattern(seed + 1))
        by_number: dict[int, Member] = {}

        def serve() -> None:
            for _ in range(streams):
                connection = stack.enter_context(listener.accept()[0])
                number = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
                by_number[number] = origins.add(connection, in_bytes)
            origins.run(SECONDS)

        serving = start(serve)
        for number in range(streams):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS))
            sock.sendall(number.to_bytes(2))
            programs.add(sock, out_bytes)
        programs.run(SECONDS)
        serving.result(SECONDS)
        assert pair.enclave is not None
        assert pair.parent is not None
        for side in (pair.parent, pair.enclave):
            side.wait_for_count("close", streams)
        closed = pair.enclave.events("close")
        for number, program in enumerate(programs.members):
            origin = by_number[number]
            assert (program.received_bytes, origin.received_bytes) == (in_bytes, out_bytes)
            assert program.received.digest() == origin.sent.digest()
            assert origin.received.digest() == program.sent.digest()
    assert {line["ended"] for line in closed} == {"finished"}
    assert sum(line["bytes_out"] for line in closed) == streams * (out_bytes + 2)
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
