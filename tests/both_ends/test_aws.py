"""`vsock-proxy` in place of AWS's: programs that were written against that one."""

import contextlib
import hashlib
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.rcode
import pytest

from tests.support.aws_proxy import (
    Address,
    AwsProxy,
    allowlist,
    connect,
    is_closed,
    is_echoed,
    read_all,
)
from tests.support.certificates import Authority
from tests.support.dns_server import Addresses, DnsServer, InTurn, Status
from tests.support.pair import VSOCK_LOOPBACK_CID, LinkKind, echo, free_port, serving
from tests.support.program import DEADLINE_SECONDS, Program
from tests.support.tls_origin import Origin, body_of, digest_of
from tests.support.traffic import MEBIBYTE, Pattern, receive_all, start

NAME = "kms.test"


@contextlib.contextmanager
def proxy_to(
    port: int, kind: LinkKind, directory: Path, *options: str, **more: Any
) -> Iterator[AwsProxy]:
    """A proxy to `kms.test`, which is on loopback."""
    hosts = {"hosts": {NAME: ["127.0.0.1"]}}
    more = {"resolver": hosts, **more}
    with AwsProxy(kind, directory, [(NAME, port)], (NAME, port), *options, **more) as proxy:
        yield proxy


@contextlib.contextmanager
def traffic_forwarder(address: Address) -> Iterator[int]:
    """What samples run inside the enclave: a local TCP port whose connections go to CID and port.

    Two threads for each connection copy until the end, then shut down the other side.
    """

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1024):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def forward(local: socket.socket) -> None:
        with connect(address) as remote:
            outward = threading.Thread(target=copy, args=(local, remote))
            outward.start()
            copy(remote, local)
            outward.join()

    with serving(forward) as port:
        yield port


def fetch(sock: socket.socket, authority: Authority, request: bytes) -> bytes:
    """One request over TLS on a connection that is up; all of the answer."""
    context = ssl.create_default_context(cafile=str(authority.file))
    with context.wrap_socket(sock, server_hostname=NAME) as tls:
        tls.sendall(request)
        return read_all(tls)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()


def test_a_program_that_speaks_tls_to_cid_and_port(kind: LinkKind, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    body = b"request" * 10_000
    post = f"POST /digest HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n"
    post += f"Content-Length: {len(body)}\r\n\r\n"
    with (
        Origin(authority.context(NAME)) as origin,
        proxy_to(origin.server_port, kind, tmp_path) as proxy,
    ):
        answer = fetch(proxy.connect(), authority, get("/"))
        assert answer.endswith(b"hello from kms.test, over TLSv1.3\n")
        answer = fetch(proxy.connect(), authority, get("/bytes/1000000"))
        assert answer.endswith(b"\r\n\r\n" + body_of(1_000_000))
        answer = fetch(proxy.connect(), authority, post.encode() + body)
        assert answer.endswith(digest_of(body).encode())
        for closed in proxy.events("close", 3, ended="finished"):
            assert (closed["way"], closed["host"], closed["address"]) == (
                *("forward", NAME),
                "127.0.0.1",
            )


def test_a_traffic_forwarder_inside_the_enclave(kind: LinkKind, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with (
        Origin(authority.context(NAME)) as origin,
        proxy_to(origin.server_port, kind, tmp_path) as proxy,
        traffic_forwarder(proxy.address) as port,
    ):
        for _ in range(3):
            local = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
            answer = fetch(local, authority, get("/bytes/100000"))
            assert answer.endswith(b"\r\n\r\n" + body_of(100_000))
        proxy.events("close", 3, ended="finished")


def test_half_close_each_way(kind: LinkKind, tmp_path: Path) -> None:
    """AWS's proxy takes the first end of file for the end of both directions."""
    received: list[bytes] = []

    def origin(connection: socket.socket) -> None:
        if connection.recv(1) == b"c":  # the client ends first
            request = read_all(connection)
            connection.sendall(b"got " + request + b"x" * 1_000_000)
        else:
            connection.sendall(b"greeting")
            connection.shutdown(socket.SHUT_WR)
            received.append(read_all(connection))

    with serving(origin) as port, proxy_to(port, kind, tmp_path) as proxy:
        with proxy.connect() as client:
            client.sendall(b"crequest")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"got request" + b"x" * 1_000_000
        with proxy.connect() as client:
            client.sendall(b"o")
            assert read_all(client) == b"greeting"
            client.sendall(b"y" * 500_000)
            client.shutdown(socket.SHUT_WR)
            closed = proxy.events("close", 2, ended="finished")
    assert received == [b"y" * 500_000]
    assert [(each["bytes_out"], each["bytes_in"]) for each in closed] == [
        *((8, 1_000_011), (500_001, 8)),
    ]


def test_ten_slow_connections_are_served_at_once(kind: LinkKind, tmp_path: Path) -> None:
    """AWS's proxy serves four; a fifth waits until one has ended."""
    all_there = threading.Barrier(10, timeout=DEADLINE_SECONDS)

    def origin(connection: socket.socket) -> None:
        number = connection.recv(1)
        all_there.wait()
        connection.sendall(number)

    with serving(origin) as port, proxy_to(port, kind, tmp_path, "-w", "1") as proxy:
        clients = [proxy.connect() for _ in range(10)]
        for number, client in enumerate(clients):
            client.sendall(bytes([number]))
        for number, client in enumerate(clients):
            with client:
                assert read_all(client) == bytes([number])


def test_a_mebibyte_each_way_at_once(kind: LinkKind, tmp_path: Path) -> None:
    pattern, far = Pattern(1), Pattern(2)
    results: list[tuple[int, str, str]] = []

    def origin(connection: socket.socket) -> None:
        sending = start(lambda: far.send(connection, MEBIBYTE))
        total, digest = receive_all(connection)
        results.append((total, digest, sending.result(DEADLINE_SECONDS)))

    with serving(origin) as port, proxy_to(port, kind, tmp_path) as proxy:
        with proxy.connect() as client:
            sending = start(lambda: pattern.send(client, MEBIBYTE))
            total, digest = receive_all(client)
            sent = sending.result(DEADLINE_SECONDS)
        closed = proxy.event("close")
    assert results == [(MEBIBYTE, sent, digest)]
    assert total == MEBIBYTE
    assert sent != digest != hashlib.sha256().hexdigest()
    assert (closed["bytes_out"], closed["bytes_in"]) == (MEBIBYTE, MEBIBYTE)


def test_a_refused_dial_closes_at_once_and_costs_nothing_else(
    kind: LinkKind, tmp_path: Path
) -> None:
    """In AWS's proxy the worker panics; the connection ends with it."""
    port = free_port()
    with proxy_to(port, kind, tmp_path) as proxy:
        with proxy.connect() as client:
            assert is_closed(client)
        refused = proxy.event("decision", allowed=False)
        assert (refused["reason"], refused["way"]) == ("dial_refused", "forward")
        assert f"127.0.0.1:{port}: Connection refused" in refused["text"]
        with socket.create_server(("127.0.0.1", port)) as late, proxy.connect() as client:
            far, _ = late.accept()
            with far:
                far.sendall(b"here")
                assert client.recv(4) == b"here"


def test_a_lookup_that_fails_closes_and_the_name_may_come_back(
    kind: LinkKind, tmp_path: Path
) -> None:
    """AWS's proxy resolves when it starts, and exits when a lookup fails at any time."""
    with DnsServer() as server, serving(echo) as port:
        server.set(NAME, Status(dns.rcode.SERVFAIL))
        resolver = {"servers": [server.address], "timeout": 5}
        with proxy_to(port, kind, tmp_path, resolver=resolver) as proxy:
            assert server.count(NAME) == 0, "nothing is looked up before a connection comes"
            with proxy.connect() as client:
                assert is_closed(client)
            refused = proxy.event("decision", allowed=False)
            assert (refused["reason"], refused["host"]) == ("lookup_failed", NAME)
            server.set(NAME, Addresses("127.0.0.1"))
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not is_echoed(proxy.address):
                assert time.monotonic() < deadline
                time.sleep(0.1)  # a failure is remembered for a second


def test_each_connection_resolves_again_once_the_ttl_is_over(tmp_path: Path) -> None:
    with DnsServer() as server:
        moving = InTurn(Addresses("127.0.0.3", ttl_seconds=0), Addresses("127.0.0.4"))
        server.set(NAME, moving)
        with proxy_to(free_port(), "unix", tmp_path, resolver={"servers": [server.address]}) as it:
            for _ in range(3):
                with it.connect() as client:
                    assert is_closed(client)
            texts = [line["text"] for line in it.events("decision", 3, reason="dial_refused")]
    assert ["127.0.0.3" in text for text in texts] == [True, False, False]
    assert ["127.0.0.4" in text for text in texts] == [False, True, True]
    assert server.count(NAME, "A") == 2


def test_all_addresses_of_a_name_are_tried(tmp_path: Path) -> None:
    """AWS's proxy dials the first one only."""
    hosts = {NAME: ["127.0.0.7", "127.0.0.8", "127.0.0.1"]}
    with serving(echo) as port, proxy_to(port, "unix", tmp_path, resolver={"hosts": hosts}) as it:
        assert is_echoed(it.address)
        assert it.event("decision")["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("option", "addresses", "dialled"),
    [
        pytest.param("-4", ["127.0.0.1", "::1"], {"127.0.0.1"}, id="-4 and both families"),
        pytest.param("-6", ["127.0.0.1", "::1"], {"[::1]"}, id="-6 and both families"),
        pytest.param("--ipv4", ["::1"], set(), id="--ipv4 and IPv6 only"),
        pytest.param("--ipv6", ["127.0.0.1"], set(), id="--ipv6 and IPv4 only"),
        pytest.param("-w2", ["127.0.0.1", "::1"], {"127.0.0.1", "[::1]"}, id="neither"),
    ],
)
def test_only_addresses_of_the_wanted_family_are_dialled(
    option: str, addresses: list[str], dialled: set[str], tmp_path: Path
) -> None:
    """With AWS's proxy, -6 fails for a name that has addresses of both families."""
    port = free_port()
    resolver = {"hosts": {NAME: addresses}}
    with proxy_to(port, "unix", tmp_path, option, resolver=resolver) as proxy:
        with proxy.connect() as client:
            assert is_closed(client)
        refused = proxy.event("decision")
    assert refused["reason"] == ("dial_refused" if dialled else "no_such_name")
    tried = {address for address in ("127.0.0.1", "[::1]") if f"{address}:" in refused["text"]}
    assert tried == dialled
    if not dialled:
        version = option[-1]
        assert refused["text"].startswith(f"{NAME} has no IPv{version} address")


@pytest.mark.parametrize("cid", [0, 1, 2, 3, 4, 4_294_967_294])
def test_any_cid_may_connect(cid: int, tmp_path: Path) -> None:
    with serving(echo) as port, proxy_to(port, "unix", tmp_path, cid=cid) as proxy:
        assert is_echoed(proxy.address)
        decision = proxy.event("decision")
        assert (decision["cid"], decision["allowed"]) == (cid, True)
        assert decision["rule"] == "vsock-proxy.yaml:2"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param("169.254.169.254", "address_metadata", id="metadata"),
        pytest.param("::ffff:169.254.169.254", "address_metadata", id="metadata, mapped"),
        pytest.param("fd00:ec2::254", "address_metadata", id="metadata, IPv6"),
        pytest.param("224.0.0.1", "address_reserved", id="multicast"),
    ],
)
def test_a_listed_name_does_not_open_metadata(address: str, reason: str, tmp_path: Path) -> None:
    resolver = {"hosts": {NAME: [address]}}
    with proxy_to(80, "unix", tmp_path, resolver=resolver) as proxy:
        with proxy.connect() as client:
            assert is_closed(client)
        assert proxy.event("decision", allowed=False)["reason"] == reason


def test_a_worker_that_dies_is_replaced(kind: LinkKind, tmp_path: Path) -> None:
    with serving(echo) as port, proxy_to(port, kind, tmp_path) as proxy:
        with proxy.connect() as client:
            client.sendall(b"there?")
            assert client.recv(6) == b"there?"
            pid = proxy.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            assert is_closed(client)
        assert proxy.event("worker_died")["ended"] == "SIGKILL"
        assert is_echoed(proxy.address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0_when_told_to(number: signal.Signals, tmp_path: Path) -> None:
    with proxy_to(free_port(), "unix", tmp_path) as proxy:
        proxy.signal(number)
        assert proxy.end() == (0, "")


def test_a_port_that_is_taken_is_awss_text_and_1(kind: LinkKind, tmp_path: Path) -> None:
    with serving(echo) as port, proxy_to(port, kind, tmp_path) as proxy:
        with Program([*proxy.process.args]) as second:  # type: ignore[misc] # a list, as given
            assert second.end() == (1, "")
        assert is_echoed(proxy.address)
    (line,) = second.lines
    assert line.startswith("Error: Could not listen for connections: Could not bind to ")
    assert "it is in use" in line


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        pytest.param("", {"decision"}, id="refusals are shown by default"),
        pytest.param("error", set(), id="error"),
        pytest.param("warn", {"decision"}, id="warn, as in AWS's unit"),
        pytest.param("vsock_proxy=info", {"ready", "decision", "stopping"}, id="info, by module"),
    ],
)
def test_rust_log_says_what_is_logged(level: str, shown: set[str], tmp_path: Path) -> None:
    file = tmp_path / "vsock-proxy.yaml"
    port = free_port()
    file.write_text(allowlist([("127.0.0.1", port)]))
    listen = f'{{"listen": "unix://{tmp_path}/proxy.sock", "resolver": {{}}}}'
    words = ["8000", "127.0.0.1", str(port), "--config", str(file)]
    command = [sys.executable, "-m", "tests.support.aws_proxy", listen, *words]
    with Program(command, {"RUST_LOG": level}) as program:
        with connect_when_it_listens(program, str(tmp_path / "proxy.sock")) as client:
            assert is_closed(client)
        program.signal(signal.SIGTERM)
        assert program.end() == (0, "")
    events = {line.partition('"event": "')[2].partition('"')[0] for line in program.lines}
    assert events == shown


def connect_when_it_listens(program: Program, address: Address) -> socket.socket:
    """Connect to a program that is too quiet to say when it is ready."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            return connect(address)
        except (FileNotFoundError, ConnectionError):
            assert time.monotonic() < deadline
            assert program.process.poll() is None
            time.sleep(0.05)


@pytest.mark.vsock
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_command_itself_on_a_real_vsock(host: str, tmp_path: Path) -> None:
    """As AWS's unit has it: options behind the positionals, RUST_LOG=warn."""
    vsock_port = 20_000 + free_port() % 20_000
    file = tmp_path / "vsock-proxy.yaml"
    with serving(echo) as port:
        file.write_text(allowlist([("kms.test", 443), (host, port)]))
        words = [str(vsock_port), host, str(port), "--config", str(file)]
        command = [sys.executable, "-m", "vsockproxy.cli.aws", *words]
        with Program(command, {"RUST_LOG": "warn"}) as program:
            address = (VSOCK_LOOPBACK_CID, vsock_port)
            with connect_when_it_listens(program, address) as client:
                client.sendall(b"there?")
                client.shutdown(socket.SHUT_WR)
                assert read_all(client) == b"there?"
            program.signal(signal.SIGTERM)
            assert program.end() == (0, "")
            assert program.lines == []
