"""Connections from outside to services of enclaves: bytes, ends, refusals, and whom they reach."""

import contextlib
import json
import os
import select
import signal
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import ip_address
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.crowd import Crowd
from tests.support.pair import LinkKind, Pair, echo, free_port, is_reset, serving
from tests.support.several_enclaves import SeveralEnclaves
from tests.support.traffic import GIBIBYTE, MEBIBYTE, Pattern, start
from vsockproxy.protocols.proxy_v2 import ProxyHeader, ProxyHeaderReader, SocketAddress

SECONDS = 60.0

MOST_IN_FLIGHT_BYTES = 32 * MEBIBYTE
"""What three kernels' sockets and a stream's largest window may hold, and more."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def to(port: int, service: str = "web", **keys: Any) -> dict[str, Any]:
    return {"service": service, "to": f"tcp://127.0.0.1:{port}", **keys}


@contextmanager
def leading_to(port: int, kind: LinkKind = "unix", **keys: Any) -> Iterator[tuple[Pair, int]]:
    """A pair whose ingress leads to `port`, and the port that it listens on."""
    listen = free_port()
    with Pair(
        kind,
        [],
        parent={
            "ingress": [{"listen": f"tcp://127.0.0.1:{listen}", **keys.get("listener", {})}],
            **keys.get("parent", {}),
        },
        enclave={"ingress": [to(port, **keys.get("service", {}))], **keys.get("enclave", {})},
    ) as pair:
        yield pair, listen


WEB: dict[str, Any] = {"listener": {"service": "web"}}


def dial(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), SECONDS)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65_536):
        data += piece
    return data


def was_refused(port: int, first_bytes: bytes = b"") -> bool:
    """Whether a connection is reset, and nothing comes before that."""
    try:
        with dial(port) as sock:
            if first_bytes:
                sock.sendall(first_bytes)
            return not sock.recv(1)
    except ConnectionResetError:
        return True


# ------------------------------------------------------------------------ bytes and ends


def test_a_connection_reaches_the_service(kind: LinkKind) -> None:
    with serving(echo) as origin, leading_to(origin, kind, **WEB) as (pair, port):
        with dial(port) as sock:
            client = "{}:{}".format(*sock.getsockname())
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"hello"
        assert pair.parent is not None
        assert pair.enclave is not None
        cid = pair.CID if kind == "unix" else 1
        common: dict[str, Any] = {
            "way": "ingress",
            "host": "web",
            "client": client,
            "bytes_in": 5,
            "bytes_out": 5,
        }
        seen = pair.parent.wait_for_event("close", cid=cid, ended="finished", port=port, **common)
        assert seen["rule"].startswith("parent.yaml:")
        assert seen["address"] == f"127.0.0.1:{origin}"
        seen = pair.enclave.wait_for_event("close", ended="finished", port=origin, **common)
        assert seen["rule"].startswith("enclave.yaml:")


def test_half_close_both_ways() -> None:
    def answer_at_the_end(connection: socket.socket) -> None:
        request = read_all(connection)
        connection.sendall(b"got " + request + b"x" * 1_000_000)

    def speak_first(connection: socket.socket) -> None:
        connection.sendall(b"first")
        connection.shutdown(socket.SHUT_WR)
        received.put(read_all(connection))

    received: Queue[bytes] = Queue()
    with (
        serving(answer_at_the_end) as origin,
        leading_to(origin, **WEB) as (_, port),
        dial(port) as sock,
    ):
        sock.sendall(b"request")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"got request" + b"x" * 1_000_000
    with serving(speak_first) as origin, leading_to(origin, **WEB) as (_, port):
        with dial(port) as sock:
            assert read_all(sock) == b"first"
            sock.sendall(b"later")
        assert received.get(timeout=SECONDS) == b"later"


def test_a_reset_of_the_client_is_one_for_the_service() -> None:
    ends: Queue[bool] = Queue()
    with (
        serving(lambda connection: ends.put(is_reset(connection))) as origin,
        leading_to(origin, **WEB) as (pair, port),
    ):
        with dial(port) as sock:
            sock.sendall(b"hello")
            assert pair.parent is not None
            pair.parent.wait_for_event("decision", allowed=True)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        assert ends.get(timeout=SECONDS)


def test_a_reset_of_the_service_is_one_for_the_client() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    with serving(reset) as origin, leading_to(origin, **WEB) as (_, port), dial(port) as sock:
        sock.sendall(b"hello")
        assert is_reset(sock)


def test_a_killed_worker_of_the_enclave_is_a_reset() -> None:
    with serving(echo) as origin, leading_to(origin, **WEB) as (pair, port), dial(port) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
        assert pair.enclave is not None
        os.kill(pair.enclave.workers[0], 9)
        assert is_reset(sock)


def test_a_gibibyte_arrives_whole() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        _, port = stack.enter_context(leading_to(listener.getsockname()[1], **WEB))
        outside, inside = Crowd(Pattern(1)), Crowd(Pattern(2))
        sender = outside.add(stack.enter_context(dial(port)), GIBIBYTE)
        receiver = inside.add(stack.enter_context(listener.accept()[0]), 0)
        serving_inside = start(lambda: inside.run(600.0))
        outside.run(600.0)
        serving_inside.result(600.0)
        assert receiver.received.hexdigest() == sender.sent.hexdigest()


def test_a_service_that_stops_reading_stops_its_client_and_nobody_else() -> None:
    go_on = threading.Event()

    def handle(connection: socket.socket) -> None:
        if connection.recv(1) == b"s":
            go_on.wait(SECONDS)
        echo(connection)

    with (
        serving(handle) as origin,
        leading_to(origin, **WEB) as (_, port),
        dial(port) as stopped,
        dial(port) as other,
    ):
        stopped.sendall(b"s")
        sent = 0
        while select.select([], [stopped], [], 0.5)[1]:
            sent += stopped.send(bytes(65_536), socket.MSG_DONTWAIT)
        assert sent < MOST_IN_FLIGHT_BYTES
        other.sendall(b"-hello")
        assert other.recv(5) == b"hello"
        go_on.set()
        received = 0
        while received < sent:
            received += len(stopped.recv(sent))
        assert received == sent


# ------------------------------------------------------------------------------ refusals


def test_a_service_that_nobody_listens_for() -> None:
    with leading_to(free_port(), **WEB) as (pair, port):
        assert was_refused(port)
        assert pair.parent is not None
        assert pair.enclave is not None
        common: dict[str, Any] = {
            "way": "ingress",
            "allowed": False,
            "reason": "dial_refused",
            "host": "web",
        }
        pair.parent.wait_for_event("decision", side="enclave", cid=pair.CID, **common)
        pair.enclave.wait_for_event("decision", side="enclave", **common)
        pair.parent.wait_for_event("service_put_aside", service="web", reason="dial_refused")


def test_a_service_that_comes_back() -> None:
    port_of_service = free_port()
    with leading_to(port_of_service, **WEB) as (pair, port):
        assert was_refused(port)
        with (
            socket.create_server(("127.0.0.1", port_of_service)) as listener,
            dial(port) as sock,
            listener.accept()[0] as connection,
        ):
            connection.sendall(b"here")
            assert sock.recv(4) == b"here"
            assert pair.parent is not None
            pair.parent.wait_for_event("service_back", service="web", cid=pair.CID)


@pytest.mark.parametrize(
    ("listener", "text"),
    [
        pytest.param(
            {"service": "mail"},
            "no enclave that is connected offers the service mail",
            id="a service that no enclave offers",
        ),
        pytest.param(
            {"service": "web", "cid": 17},
            "no enclave with CID 17",
            id="another enclave than the one wanted",
        ),
    ],
)
def test_nobody_is_there_for_it(listener: dict[str, Any], text: str) -> None:
    keys: dict[str, Any] = {"listener": listener, "parent": {"limits": {"link_wait": 0.1}}}
    with serving(echo) as origin, leading_to(origin, **keys) as (pair, port):
        assert was_refused(port)
        assert pair.parent is not None
        seen = pair.parent.wait_for_event("decision", allowed=False, reason="not_listed")
        assert text in seen["text"]


def test_the_limit_of_streams_leaves_room_for_egress() -> None:
    limits = {"streams": 8, "receive_budget": "64MiB"}
    with (
        serving(echo) as origin,
        leading_to(origin, **WEB, parent={"limits": limits}) as (pair, port),
        ExitStack() as stack,
    ):
        for _ in range(7):
            sock = stack.enter_context(dial(port))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        assert was_refused(port)
        assert pair.parent is not None
        pair.parent.wait_for_event("decision", allowed=False, reason="limit")


def test_a_connection_waits_for_its_enclave() -> None:
    with serving(echo) as origin:
        pair = Pair(
            "unix",
            [],
            parent={
                "ingress": [
                    {"listen": f"tcp://127.0.0.1:{(port := free_port())}", "service": "web"}
                ],
                "limits": {"link_wait": SECONDS},
            },
            enclave={"ingress": [to(origin)]},
        )
        with closing(pair):
            pair.start_parent()
            with dial(port) as sock:
                sock.sendall(b"early")
                pair.start_enclave()
                assert sock.recv(5) == b"early"


# ------------------------------------------------------------------- PROXY protocol v2


def header(client: str, server: str) -> bytes:
    return ProxyHeader(
        SocketAddress(ip_address(client), 56_324), SocketAddress(ip_address(server), 443)
    ).encode()


@contextmanager
def telling(told: "Queue[ProxyHeader]") -> Iterator[int]:
    """A service that tells whose connections it gets, and then echoes."""

    def handle(connection: socket.socket) -> None:
        reader = ProxyHeaderReader()
        while (said := reader.receive(connection.recv(65_536))) is None:
            pass
        told.put(said)
        connection.sendall(reader.rest)
        echo(connection)

    with serving(handle) as port:
        yield port


@pytest.mark.parametrize(
    ("client", "server"),
    [
        pytest.param("192.0.2.7", "198.51.100.1", id="IPv4"),
        pytest.param("2001:db8::7", "2001:db8::1", id="IPv6"),
    ],
)
def test_whose_a_connection_is_goes_all_the_way(client: str, server: str) -> None:
    told: Queue[ProxyHeader] = Queue()
    listener = {"service": "web", "proxy_protocol": "v2"}
    with (
        telling(told) as origin,
        leading_to(origin, listener=listener, service={"proxy_protocol": "v2"}) as (pair, port),
        dial(port) as sock,
    ):
        sock.sendall(header(client, server)[:20])
        sock.sendall(header(client, server)[20:] + b"hello")
        assert sock.recv(5) == b"hello"
        seen = told.get(timeout=SECONDS)
        assert seen.client == SocketAddress(ip_address(client), 56_324)
        assert seen.server == SocketAddress(ip_address(server), 443)
        assert pair.parent is not None
        assert pair.enclave is not None
        for side in (pair.parent, pair.enclave):
            side.wait_for_event("decision", allowed=True, client=str(seen.client))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_service_is_told_who_connected(host: str) -> None:
    told: Queue[ProxyHeader] = Queue()
    with (
        telling(told) as origin,
        SeveralEnclaves(
            {16: [to(origin, proxy_protocol="v2")]}, {"service": "web"}, host=host
        ) as all_of_it,
        dial(all_of_it.port, host) as sock,
    ):
        seen = told.get(timeout=SECONDS)
        assert seen.client == SocketAddress.of(sock.getsockname())
        assert seen.server == SocketAddress.of(sock.getpeername())


NO_HEADERS = {
    "version 1": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "set the balancer to version 2"),
    "something else": (b"GET / HTTP/1.1\r\n\r\n", "no PROXY protocol header"),
}


@pytest.mark.parametrize("case", NO_HEADERS)
def test_a_connection_without_its_header_is_refused(case: str) -> None:
    first_bytes, text = NO_HEADERS[case]
    listener = {"service": "web", "proxy_protocol": "v2"}
    with serving(echo) as origin, leading_to(origin, listener=listener) as (pair, port):
        assert was_refused(port, first_bytes)
        assert pair.parent is not None
        assert text in pair.parent.wait_for_event("decision", reason="denied")["text"]


def test_a_header_that_does_not_come() -> None:
    listener = {"service": "web", "proxy_protocol": "v2"}
    limits = {"limits": {"handshake": 0.1}}
    with (
        serving(echo) as origin,
        leading_to(origin, listener=listener, parent=limits) as (
            pair,
            port,
        ),
    ):
        assert was_refused(port)
        assert pair.parent is not None
        seen = pair.parent.wait_for_event("decision", reason="denied", allowed=False)
        assert seen["text"] == "no PROXY header for 0.1 s"


# -------------------------------------------------------------------- several enclaves


@contextmanager
def named_servers(authority: Authority, *names: str) -> Iterator[dict[str, int]]:
    """TLS servers that say their name; their ports."""

    def handler(name: str) -> Callable[[socket.socket], None]:
        context = authority.context(name)

        def handle(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as tls:
                tls.sendall(name.encode())

        return handle

    with ExitStack() as stack:
        yield {name: stack.enter_context(serving(handler(name))) for name in names}


def ask(authority: Authority, port: int, name: str) -> str:
    """Which server answers a TLS client that wants `name`, and can prove that it is."""
    context = ssl.create_default_context(cafile=str(authority.file))
    with dial(port) as sock, context.wrap_socket(sock, server_hostname=name) as tls:
        return tls.recv(100).decode()


@pytest.mark.parametrize("workers", [1, 2])
def test_tls_is_routed_by_server_name_and_not_touched(tmp_path: Path, workers: int) -> None:
    authority = Authority(tmp_path)
    names = ("app.example", "one.wild.example", "two.wild.example")
    with named_servers(authority, *names) as ports, serving(echo) as plain:
        everything = [to(ports[name], name) for name in names]
        routes = [
            {"sni": "app.example", "service": "app.example", "cid": 16},
            {"sni": "*.wild.example", "service": "two.wild.example"},
            {"sni": "one.wild.example", "service": "one.wild.example", "name": "second"},
        ]
        with SeveralEnclaves(
            {16: [everything[0], to(plain, "plain")], 17: everything[1:]},
            {"service": "plain", "routes": routes},
            parent={
                "enclaves": [{"cid": 17, "name": "second"}, {"cid": 16}],
                "workers": workers,
            },
        ) as all_of_it:
            assert [ask(authority, all_of_it.port, name) for name in names] == list(names)
            # What is no TLS goes to the service without a route, too.
            with dial(all_of_it.port) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock) == b"GET / HTTP/1.1\r\n\r\n"
            first = all_of_it.parent.wait_for_event("decision", host="app.example")
            assert (first["cid"], first["allowed"]) == (16, True)
            second = all_of_it.parent.wait_for_event("decision", host="one.wild.example")
            assert (second["cid"], second["enclave"]) == (17, "second")


def test_a_server_name_without_a_route(tmp_path: Path) -> None:
    routes = [{"sni": "app.example", "service": "web"}]
    with (
        serving(echo) as origin,
        SeveralEnclaves({16: [to(origin)]}, {"routes": routes}) as all_of_it,
    ):
        with pytest.raises(ConnectionResetError):
            ask(Authority(tmp_path), all_of_it.port, "other.example")
        assert was_refused(all_of_it.port, b"GET / HTTP/1.1\r\n\r\n")
        parent = all_of_it.parent
        assert "other.example" in parent.wait_for_event("decision", reason="not_listed")["text"]
        assert "not TLS" in parent.wait_for_event("decision", reason="not_tls")["text"]


@contextmanager
def speaking(name: bytes) -> Iterator[int]:
    """A service that says its name, and keeps the connection until the client ends it."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(name)
        read_all(connection)

    with serving(handle) as port:
        yield port


def settle(port: int, names: bytes) -> None:
    """Wait until every service of `names` has answered in a row of four, so all workers know it."""
    deadline = time.monotonic() + SECONDS
    row = b""
    while set(row[-4:]) != set(names) or len(row) < 4:
        assert time.monotonic() < deadline, row
        with contextlib.suppress(ConnectionResetError), dial(port) as sock:
            row += sock.recv(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_enclave_with_the_fewest_streams_is_chosen(workers: int) -> None:
    with (
        speaking(b"a") as one,
        speaking(b"b") as other,
        SeveralEnclaves(
            {16: [to(one)], 17: [to(other)]}, {"service": "web"}, parent={"workers": workers}
        ) as all_of_it,
        ExitStack() as stack,
    ):
        held: list[tuple[bytes, socket.socket]] = []
        for _ in range(10):
            sock = stack.enter_context(dial(all_of_it.port))
            held.append((sock.recv(1), sock))
        chosen = [name for name, _ in held]
        # Of several workers each chooses by itself, by what the others said last.
        assert min(chosen.count(b"a"), chosen.count(b"b")) >= 6 - workers
        for name, sock in held:
            if name == b"a":
                sock.close()
        all_of_it.parent.wait_for_count("close", chosen.count(b"a"))
        names = []
        for _ in range(3):
            sock = stack.enter_context(dial(all_of_it.port))
            names.append(sock.recv(1))
        assert names == [b"a"] * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_another_enclave_serves_when_one_does_not(workers: int) -> None:
    with (
        speaking(b"b") as other,
        SeveralEnclaves(
            {16: [to(free_port())], 17: [to(other)]},
            {"service": "web"},
            parent={"workers": workers},
        ) as all_of_it,
    ):
        settle(all_of_it.port, b"b")
        for _ in range(4):
            with dial(all_of_it.port) as sock:
                assert sock.recv(1) == b"b"
        seen = all_of_it.parent.wait_for_event("service_put_aside", cid=16)
        assert seen["seconds"] == 1.0
        assert len(all_of_it.parent.events("service_put_aside")) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_another_enclave_serves_when_one_is_killed(workers: int) -> None:
    with (
        speaking(b"a") as one,
        speaking(b"b") as other,
        SeveralEnclaves(
            {16: [to(one)], 17: [to(other)]}, {"service": "web"}, parent={"workers": workers}
        ) as all_of_it,
    ):
        settle(all_of_it.port, b"ab")
        all_of_it.enclaves[16].kill()
        all_of_it.parent.wait_for_event("link_down", cid=16)
        for _ in range(4):
            with dial(all_of_it.port) as sock:
                assert sock.recv(1) == b"b"
        all_of_it.start_enclave(16)
        settle(all_of_it.port, b"ab")


def test_new_connections_while_enclaves_come_and_go() -> None:
    """Nobody is refused as long as one of two enclaves is there."""
    answers: Queue[bytes] = Queue()
    stop = threading.Event()

    def keep_asking(port: int) -> None:
        while not stop.is_set():
            try:
                with dial(port) as sock:
                    answers.put(sock.recv(1))
            except OSError as error:
                answers.put(str(error).encode())

    with (
        speaking(b"a") as one,
        speaking(b"b") as other,
        SeveralEnclaves({16: [to(one)], 17: [to(other)]}, {"service": "web"}) as all_of_it,
    ):
        asking = start(lambda: keep_asking(all_of_it.port))
        for cid in (16, 17, 16):
            # An established connection to a killed enclave is lost; a drained one's is not.
            all_of_it.enclaves[cid].stop()
            all_of_it.start_enclave(cid)
        stop.set()
        asking.result(SECONDS)
    seen = set(answers.queue)
    assert seen == {b"a", b"b"}


# ------------------------------------------------------------------ workers and reloads


def test_connections_while_workers_of_the_parent_are_killed() -> None:
    """Streams of the other worker go on; connections that come are served again at once."""
    with (
        speaking(b"a") as one,
        speaking(b"b") as other,
        SeveralEnclaves(
            {16: [to(one)], 17: [to(other)]},
            {"service": "web"},
            parent={"workers": 2, "limits": {"link_wait": SECONDS}},
        ) as all_of_it,
        ExitStack() as stack,
    ):
        settle(all_of_it.port, b"ab")
        held = [stack.enter_context(dial(all_of_it.port)) for _ in range(4)]
        names = [sock.recv(1) for sock in held]
        os.kill(all_of_it.parent.workers[0], signal.SIGKILL)
        all_of_it.parent.wait_for_event("worker_died")
        settle(all_of_it.port, b"ab")
        survivors = []
        for name, sock in zip(names, held, strict=True):
            sock.settimeout(1.0)
            try:
                sock.recv(1)
            except TimeoutError:
                survivors.append(name)
            except ConnectionResetError:
                pass
        # Each worker had one of the enclaves.
        assert set(survivors) in ({b"a"}, {b"b"})
        assert len(survivors) == names.count(survivors[0])


def reload_parent(pair: Pair, ingress: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """Give the parent another file; the line that says what became of it."""
    content = json.loads(pair.parent_config.read_text())
    pair.parent_config.write_text(json.dumps({**content, "ingress": ingress, **keys}))
    assert pair.parent is not None
    after = len(pair.parent.lines)
    pair.parent.process.send_signal(signal.SIGHUP)
    return pair.parent.wait_for_event("reloaded", after=after)


def test_a_reload_changes_where_connections_lead() -> None:
    first, second = free_port(), free_port()
    listeners = {
        port: {"listen": f"tcp://127.0.0.1:{port}", "service": "web"} for port in (first, second)
    }
    with (
        speaking(b"a") as origin,
        Pair(
            "unix",
            [],
            parent={"ingress": [listeners[first]]},
            enclave={"ingress": [to(origin), to(origin, "other")]},
        ) as pair,
        dial(first) as kept,
    ):
        assert kept.recv(1) == b"a"
        # The listener that was the first is the second now, and the stream goes on.
        seen = reload_parent(pair, [{**listeners[second], "service": "other"}, listeners[first]])
        assert seen["ended_streams"] == 0
        for port, service in ((first, "web"), (second, "other")):
            with dial(port) as sock:
                assert sock.recv(1) == b"a"
                assert pair.parent is not None
                pair.parent.wait_for_event("decision", port=port, host=service, allowed=True)
        seen = reload_parent(pair, [{**listeners[second], "service": "other"}])
        assert seen["ended_streams"] == 1
        assert is_reset(kept)
        with pytest.raises(ConnectionRefusedError):
            dial(first)


def test_a_reload_may_keep_streams_that_nothing_leads_to() -> None:
    port = free_port()
    with (
        speaking(b"a") as origin,
        Pair(
            "unix",
            [],
            parent={"ingress": [{"listen": f"tcp://127.0.0.1:{port}", "service": "web"}]},
            enclave={"ingress": [to(origin)]},
        ) as pair,
        dial(port) as kept,
    ):
        assert kept.recv(1) == b"a"
        assert reload_parent(pair, [], forbidden_streams="keep")["ended_streams"] == 0
        kept.sendall(b"more")
        kept.shutdown(socket.SHUT_WR)
        assert read_all(kept) == b""


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_lets_streams_end(workers: int) -> None:
    keys = {**WEB, "parent": {"workers": workers}}
    with serving(echo) as origin, leading_to(origin, **keys) as (pair, port), dial(port) as sock:
        sock.sendall(b"before")
        assert sock.recv(6) == b"before"
        assert pair.parent is not None
        pair.parent.process.send_signal(signal.SIGTERM)
        pair.parent.wait_for_event("stopping")
        sock.sendall(b"after")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"after"
        assert pair.parent.process.wait(SECONDS) == 0
