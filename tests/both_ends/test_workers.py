"""Workers one by one: killed under load, with a log that nobody reads, and after a crowd."""

import os
import signal
import socket
import struct
import threading
from contextlib import ExitStack
from functools import partial

import pytest

from tests.support import session_frames as wire
from tests.support.exchange_pair import CARRIERS, HOST, PORT, Carrier, ExchangePair, converse
from tests.support.hostile_peer import RawPeer
from tests.support.observation import count, descriptors, holdings, kill, unread, wait_until
from tests.support.pair import LinkKind, Pair, Side, echo, is_reset, serving
from tests.support.traffic import MEBIBYTE

OTHER_CID = 17
BATCH = 50


def test_a_killed_worker_of_the_enclave_takes_its_own_streams_alone(kind: LinkKind) -> None:
    with ExchangePair(kind, enclave={"workers": 2}) as rig:
        rig.origin.handler = echo
        victim, other = rig.enclave.workers
        with ExitStack() as stack:
            streams = {}
            for accepts, sleeps in ((victim, other), (other, victim)):
                os.kill(sleeps, signal.SIGSTOP)
                streams[accepts] = [
                    stack.enter_context(rig.connect(carrier)) for carrier in CARRIERS
                ]
                for sock in streams[accepts]:
                    converse(sock)
                os.kill(sleeps, signal.SIGCONT)
            kill(victim)
            for sock in streams[victim]:
                assert is_reset(sock)
            for sock in streams[other]:
                converse(sock)
        rig.enclave.wait_for_event("worker_died", ended="SIGKILL")
        rig.origin.handler = rig.origin.exchange
        rig.wait_for_links()
        for carrier in CARRIERS:
            rig.complete(carrier, 8, (100_000, 100_000))
        assert other in rig.enclave.workers
        assert victim not in rig.enclave.workers


def test_a_killed_worker_of_the_parent_takes_its_own_enclaves_alone() -> None:
    with ExchangePair("unix", parent={"workers": 2}, other_cid=OTHER_CID) as rig:
        rig.origin.handler = echo
        other, victim = sorted(rig.parent.workers, key=descriptors)  # one of them has the links
        with RawPeer.dial(rig.other_path) as stranger, rig.connect("shared") as sock:
            stranger.greet().open(1, HOST, PORT)
            stranger.wait_for(wire.OPENED, 1)
            converse(sock)
            kill(victim)
            assert is_reset(sock)
            stranger.send(stranger.frame(wire.DATA, 1, b"still here"))
            assert stranger.wait_for(wire.DATA, 1).payload == b"still here"
            rig.wait_for_links()
            with rig.connect("shared") as again:
                converse(again)
                kill(other)
                assert stranger.last_word() is None
                converse(again)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_reset_that_a_write_meets_first_is_no_end(carrier: Carrier) -> None:
    speak, spoken = threading.Event(), threading.Event()
    is_cut: list[bool] = []

    def origin(connection: socket.socket) -> None:
        connection.sendall(connection.recv(10))
        speak.wait(60)
        connection.sendall(b"an answer")
        spoken.set()
        is_cut.append(is_reset(connection))

    with ExchangePair("unix", other_cid=OTHER_CID) as rig:
        rig.origin.handler = origin
        (worker,) = rig.enclave.workers
        sock = rig.connect(carrier)
        converse(sock, b"a question")
        # While the enclave sleeps, bytes arrive for the program, and then the program's reset. The
        # kernel tells of a reset once, and to a write if that comes first; reads see an end then.
        os.kill(worker, signal.SIGSTOP)
        speak.set()
        assert spoken.wait(60)
        with RawPeer.dial(rig.other_path) as stranger:  # served after the bytes
            stranger.greet().open(1, "unlisted.test", PORT)
            stranger.wait_for(wire.REFUSED, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        os.kill(worker, signal.SIGCONT)
        rig.wait_until_closed()
        rig.origin.wait_for_all()
        assert is_cut == [True]
        for side in (rig.parent, rig.enclave):
            assert side.wait_for_event("close")["ended"] != "finished"


ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe beginning",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\nthe beginning\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nthe beginning",
)
"""Beginnings of HTTP answers that end by their length, by a last chunk, by the end of file."""


def test_each_death_is_one_line_and_cuts_the_answers_that_were_passed_on(kind: LinkKind) -> None:
    request = f"GET http://{HOST}:{PORT}/ HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n\r\n"
    with ExchangePair(kind) as rig:
        for number, answer in enumerate(ANSWERS, 1):
            rig.origin.handler = partial(begin_to_answer, answer)
            sock, head = rig.pair.ask(request)
            with sock:
                assert head.startswith(b"HTTP/1.1 200 ")
                kill(rig.parent.workers[0])
                assert is_reset(sock)
            wait_until(rig.enclave, partial(has_lost_links, rig, number * rig.links))
            rig.wait_for_links()
            rig.origin.handler = rig.origin.exchange
            rig.complete("shared", 4, (1000, 1000))
        assert [line["deaths"] for line in rig.parent.events("worker_died")] == [1, 2, 3]


def begin_to_answer(answer: bytes, connection: socket.socket) -> None:
    """Answer a request, but not to the end."""
    connection.recv(10_000)
    connection.sendall(answer)
    connection.recv(1)


def has_lost_links(rig: ExchangePair, links: int) -> bool:
    """Whether so many links have ended, in all."""
    return count(rig.enclave, "link_down") == links


def test_a_log_that_nobody_reads_blocks_nobody_and_says_what_it_lost(kind: LinkKind) -> None:
    requests = 16 * BATCH
    rules = [
        {"address": address, "port": PORT, "private": True, "require_tls": False}
        for address in (HOST, "**.test")
    ]
    host = ".".join(["x" * 60] * 4)[:248] + ".test"
    request = f"CONNECT {host}:{PORT} HTTP/1.1\r\nHost: {host}:{PORT}\r\n\r\n".encode()
    with serving(echo) as port:
        dialled = [{**rules[0], "dial": f"127.0.0.1:{port}"}]
        with Pair(kind, rules, parent_rules=dialled) as pair:
            assert pair.parent is not None
            assert pair.enclave is not None
            sides = (pair.parent, pair.enclave)
            with unread(pair.parent), unread(pair.enclave):
                for _ in range(requests // BATCH):
                    refuse_batch(pair.proxy_port, request)
                with pair.connect(HOST, PORT) as sock:
                    converse(sock)
            tunnels = 1
            # Until the backlog has been read, further lines are lost as well.
            while not all(side.events("log_lines_dropped") for side in sides):
                tunnels += 1
                assert tunnels < 100
                with pair.connect(HOST, PORT) as sock:
                    converse(sock)
            for side in sides:
                wait_until(side, partial(has_accounted_for, side, requests + 2 * tunnels))


def refuse_batch(proxy_port: int, request: bytes) -> None:
    """Send many requests at once, which are refused."""
    with ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy_port), 60))
            for _ in range(BATCH)
        ]
        for sock in socks:
            sock.sendall(request)
        for sock in socks:
            assert sock.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 403"


def has_accounted_for(side: Side, lines: int) -> bool:
    """Whether so many audit lines were written, or are known to be lost."""
    lost: int = sum(line["lines"] for line in side.events("log_lines_dropped"))
    return lost > 0 and count(side, "decision") + count(side, "close") + lost == lines


@pytest.mark.alone
def test_crowds_of_short_connections_leave_nothing_behind(kind: LinkKind) -> None:
    crowd = 200
    rounds = 10 if kind == "unix" else 2  # User Mode Linux is slow
    with ExchangePair(kind, parent={"limits": {"dedicated": crowd}}) as rig:

        def round_of_exchanges() -> None:
            for carrier in CARRIERS:
                rig.complete(carrier, crowd // 2, (1000, 3000))
            rig.wait_until_closed()

        def growth() -> int:
            """How many bytes the worker that grew most has grown in many rounds."""
            before = holdings(rig.pair)
            for _ in range(rounds):
                round_of_exchanges()
            after = holdings(rig.pair)
            assert set(after) == set(before)
            assert all(after[pid].descriptors <= before[pid].descriptors for pid in after)
            return max(after[pid].resident_bytes - before[pid].resident_bytes for pid in after)

        round_of_exchanges()
        round_of_exchanges()
        # Memory is reused from some point on; what leaks grows each time.
        assert any(growth() < 2 * MEBIBYTE for _ in range(4))
        for side in (rig.parent, rig.enclave):
            assert {line["ended"] for line in side.events("close")} == {"finished"}
