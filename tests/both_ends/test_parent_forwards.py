"""`forwards:` of parent.yaml: many raw ports in one process, each decided by the lists of its CID.

A real vsock has one CID here, so what differs by CID is tested on unix sockets only.
"""

import contextlib
import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws_proxy import Address, connect, is_closed, is_echoed, read_all
from tests.support.certificates import Authority
from tests.support.pair import (
    VSOCK_LOOPBACK_CID,
    LinkKind,
    Side,
    echo,
    free_port,
    is_reset,
    serving,
)

UNIX_CID = 16


def rule(address: str, port: int, **more: Any) -> dict[str, Any]:
    return {"address": address, "port": port, "private": True, **more}


@contextlib.contextmanager
def parent(
    kind: LinkKind,
    directory: Path,
    destinations: list[str],
    rules: list[dict[str, Any]],
    **more: Any,
) -> Iterator[tuple[Side, list[Address]]]:
    """A parent with a raw port for each destination, and `rules` for the CID that connects."""
    cid = UNIX_CID if kind == "unix" else VSOCK_LOOPBACK_CID
    addresses: list[Address] = []
    forwards = []
    for number, to in enumerate(destinations):
        if kind == "unix":
            path = f"{directory}/{number}.sock"
            addresses.append(path)
            listen = f"unix://{path}?cid={cid}"
        else:
            port = 20_000 + free_port() % 20_000
            addresses.append((cid, port))
            listen = f"vsock://any:{port}"
        forwards.append({"listen": listen, "to": to})
    with running(
        directory,
        forwards=forwards,
        enclaves=[{"cid": cid, "name": "web", "allowlist": rules}],
        **more,
    ) as side:
        yield side, addresses


@contextlib.contextmanager
def running(directory: Path, **content: Any) -> Iterator[Side]:
    """A parent with this file, serving."""
    config = directory / "parent.yaml"
    settings = {"listen": f"unix://{directory}/link.sock", "log": {"format": "json"}, **content}
    config.write_text(json.dumps(settings))
    side = Side("parent", config)
    try:
        side.wait_for_event("ready")
        yield side
    finally:
        side.kill()


def naming(name: bytes) -> Any:
    """An origin that says its name, then sends back what comes."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(name)
        echo(connection)

    return serve


def test_several_raw_ports_lead_to_several_destinations(kind: LinkKind, tmp_path: Path) -> None:
    names = ["one.test", "two.test", "three.test"]
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(serving(naming(name.encode()))) for name in names]
        rules = [rule(name, port) for name, port in zip(names, ports, strict=True)]
        destinations = [f"{name}:{port}" for name, port in zip(names, ports, strict=True)]
        hosts = {"hosts": {name: ["127.0.0.1"] for name in names}}
        side, addresses = stack.enter_context(
            parent(kind, tmp_path, destinations, rules, resolver=hosts)
        )
        clients = [stack.enter_context(connect(address)) for address in addresses]
        for client, name in zip(clients, names, strict=True):
            client.sendall(b"+")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == name.encode() + b"+"
        cid = UNIX_CID if kind == "unix" else VSOCK_LOOPBACK_CID
        for name, port in zip(names, ports, strict=True):
            common: dict[str, Any] = {
                "host": name,
                "port": port,
                "cid": cid,
                "enclave": "web",
                "way": "forward",
            }
            decision = side.wait_for_event("decision", **common)
            assert (decision["allowed"], decision["reason"]) == (True, "listed")
            assert decision["address"] == "127.0.0.1"
            assert decision["rule"].startswith("parent.yaml:")
            close = side.wait_for_event("close", **common, rule=decision["rule"])
            assert (close["bytes_out"], close["bytes_in"]) == (1, len(name) + 1)
            assert close["ended"] == "finished"
            assert close["duration"] >= 0
        assert side.stop() == 0


def test_each_refusal_is_a_close_and_a_line_with_its_reason(kind: LinkKind, tmp_path: Path) -> None:
    cases = {
        "unlisted.test:443": "not_listed",
        "listed.test:444": "port_not_listed",
        "denied.test:443": "denied",
        "private.test:443": "address_private",
        "127.0.0.1:443": "address_private",
        "metadata.test:443": "address_metadata",
        f"listed.test:{(closed_port := free_port())}": "dial_refused",
        "missing.test:443": "lookup_failed",
    }
    rules = [
        *(rule("listed.test", port) for port in (443, closed_port)),
        rule("denied.test", 443),
        {"address": "private.test", "port": 443},
        {"address": "127.0.0.1", "port": 443},
        rule("metadata.test", 443),
        rule("missing.test", 443),
    ]
    hosts = {
        "listed.test": ["127.0.0.1"],
        "private.test": ["10.0.3.7"],
        "metadata.test": ["169.254.169.254"],
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        servers = [f"127.0.0.1:{silent.getsockname()[1]}"]
        with parent(
            kind,
            tmp_path,
            list(cases),
            rules,
            denylist=[{"address": "denied.test"}],
            resolver={"hosts": hosts, "servers": servers, "timeout": 0.3},
        ) as (side, addresses):
            for address, (to, reason) in zip(addresses, cases.items(), strict=True):
                with connect(address) as client:
                    assert is_closed(client)
                host, _, port = to.partition(":")
                line = side.wait_for_event("decision", host=host, port=int(port))
                assert (line["allowed"], line["reason"], line["way"]) == (False, reason, "forward")
            text = side.wait_for_event("decision", host="private.test")["text"]
            assert text.startswith("private.test resolved to 10.0.3.7, private")
            assert "add private: true at parent.yaml:" in text
            assert side.events("close") == []


def test_the_lists_are_those_of_the_cid(tmp_path: Path) -> None:
    def forward(cid: int, to: str) -> dict[str, str]:
        return {"listen": f"unix://{tmp_path}/{cid}.sock?cid={cid}", "to": to}

    with serving(echo) as port, serving(echo) as other:
        to = f"127.0.0.1:{port}"
        with running(
            tmp_path,
            forwards=[forward(cid, to) for cid in (2, 3, 4, 17, 18)],
            allowlist=[rule("127.0.0.1", other)],
            enclaves=[
                {"cid": 2, "allowlist": [rule("127.0.0.1", port)]},
                {"cid": 17, "allowlist": [rule("127.0.0.1", port)]},
                {"cid": 18, "allowlist": [rule("127.0.0.1", other)]},
            ],
        ) as side:
            allowed = {cid: is_echoed(f"{tmp_path}/{cid}.sock") for cid in (2, 3, 4, 17, 18)}
            assert allowed == {2: True, 3: False, 4: False, 17: True, 18: False}
            assert side.wait_for_event("connection_refused", cid=3)["reason"] == "not_listed"
            for cid in (4, 18):
                line = side.wait_for_event("decision", cid=cid)
                assert (line["allowed"], line["reason"]) == (False, "port_not_listed")


def test_an_enclave_has_only_so_many_connections(tmp_path: Path) -> None:
    with serving(echo) as port:
        to = f"127.0.0.1:{port}"
        listed = [rule("127.0.0.1", port)]
        forwards = [
            {"listen": f"unix://{tmp_path}/{name}.sock?cid={cid}", "to": to}
            for name, cid in (("a", 16), ("b", 16), ("c", 17))
        ]
        content = {"forwards": forwards, "allowlist": listed, "limits": {"streams": 2}}
        with running(tmp_path, **content) as side, contextlib.ExitStack() as stack:
            first = stack.enter_context(connect(f"{tmp_path}/a.sock"))
            second = stack.enter_context(connect(f"{tmp_path}/b.sock"))
            for client in (first, second):
                client.sendall(b"there?")
                assert client.recv(6) == b"there?"
            assert not is_echoed(f"{tmp_path}/a.sock")
            refused = side.wait_for_event("decision", cid=16, allowed=False)
            assert (refused["reason"], refused["text"]) == ("limit", "2 connections are open")
            assert is_echoed(f"{tmp_path}/c.sock"), "the limit is for each enclave"
            first.close()
            side.wait_for_event("close", cid=16)
            assert is_echoed(f"{tmp_path}/a.sock")


@pytest.mark.parametrize(
    ("limits", "finishes"),
    [
        pytest.param({"idle": 0.3}, False, id="idle"),
        pytest.param({"half_closed": 0.3}, True, id="half-closed"),
    ],
)
def test_a_connection_that_moves_no_byte_for_its_limit_is_cut(
    limits: dict[str, float], finishes: bool, kind: LinkKind, tmp_path: Path
) -> None:
    outcomes: list[bool] = []
    has_ended = threading.Event()

    def origin(connection: socket.socket) -> None:
        connection.sendall(b"waiting")
        if finishes:
            assert connection.recv(1) == b""  # and never answers
        with contextlib.suppress(ConnectionError):
            while not finishes:
                assert connection.recv(1) != b""
        outcomes.append(True)
        has_ended.wait(30)

    with (
        serving(origin) as port,
        parent(kind, tmp_path, [f"127.0.0.1:{port}"], [rule("127.0.0.1", port)], limits=limits) as (
            side,
            (address,),
        ),
        connect(address) as client,
    ):
        assert client.recv(7) == b"waiting"
        if finishes:
            client.shutdown(socket.SHUT_WR)
        assert is_closed(client)
        closed = side.wait_for_event("close")
        assert (closed["ended"], closed["bytes_in"]) == ("timed_out", 7)
        has_ended.set()
    assert outcomes == [True]


def test_require_tls_holds_for_raw_ports(kind: LinkKind, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.context("kms.test", "other.test")

    def origin(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK):  # else it was reset before its first byte
            with server.wrap_socket(connection, server_side=True) as tls:
                tls.sendall(b"hello, " + tls.recv(100))

    with (
        serving(origin) as port,
        parent(
            kind,
            tmp_path,
            [f"kms.test:{port}"],
            [rule("kms.test", port)],
            require_tls=True,
            resolver={"hosts": {"kms.test": ["127.0.0.1"]}},
            limits={"handshake": 2},
        ) as (side, (address,)),
    ):
        context = ssl.create_default_context(cafile=str(authority.file))
        with context.wrap_socket(connect(address), server_hostname="kms.test") as tls:
            tls.sendall(b"program")
            assert read_all(tls) == b"hello, program"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(connect(address), server_hostname="other.test")
        with connect(address) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert is_closed(client)
        with connect(address) as client:
            client.shutdown(socket.SHUT_WR)
            assert is_closed(client)
        with connect(address) as client:
            client.sendall(b"\x16")
            assert is_closed(client), "the rest of a ClientHello never came"
        for reason, text in (
            ("sni_mismatch", "the ClientHello names other.test, kms.test was asked for"),
            ("not_tls", "the program closed before a ClientHello"),
            ("not_tls", "no ClientHello for 2 s"),
        ):
            side.wait_for_event("decision", allowed=False, reason=reason, text=text)
        side.wait_for_count("decision", 5)
        # A stream that was refused was never open: it has no close line.
        assert [line["ended"] for line in side.events("close")] == ["finished"]


def test_a_reset_by_the_destination_ends_the_connection(kind: LinkKind, tmp_path: Path) -> None:
    def origin(connection: socket.socket) -> None:
        connection.sendall(b"half")
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with (
        serving(origin) as port,
        parent(kind, tmp_path, [f"127.0.0.1:{port}"], [rule("127.0.0.1", port)]) as (
            side,
            (address,),
        ),
        connect(address) as client,
    ):
        assert client.recv(4) == b"half"
        client.sendall(b"x")
        assert is_closed(client)
        assert side.wait_for_event("close")["ended"] == "local_reset"


def test_a_killed_worker_resets_the_destination_and_is_replaced(
    kind: LinkKind, tmp_path: Path
) -> None:
    outcomes: list[bool] = []
    has_looked = threading.Event()

    def origin(connection: socket.socket) -> None:
        connection.sendall(b"half")
        outcomes.append(is_reset(connection))
        has_looked.set()

    with (
        serving(origin) as port,
        parent(kind, tmp_path, [f"127.0.0.1:{port}"], [rule("127.0.0.1", port)]) as (
            side,
            (address,),
        ),
    ):
        with connect(address) as client:
            assert client.recv(4) == b"half"
            (worker,) = side.workers
            os.kill(worker, signal.SIGKILL)
            assert is_closed(client)
        assert has_looked.wait(30)
        assert outcomes == [True]
        assert side.wait_for_event("worker_died")["ended"] == "SIGKILL"
        with connect(address) as client:
            assert client.recv(4) == b"half"
