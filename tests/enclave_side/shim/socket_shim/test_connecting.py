"""What becomes of a connect when the worker does this or that, packet by packet."""

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enclave_side.shim.socket_shim.address_book import AddressBook
from enclave_side.shim.socket_shim.connecting import Connector
from enclave_side.shim.socket_shim.connection import Connections
from enclave_side.shim.socket_shim.local_names import HOSTS_FILE
from enclave_side.shim.socket_shim.lookups import Lookups
from enclave_side.shim.socket_shim.stderr_lines import StderrLines
from tests.enclave_side.shim.socket_shim.errors_told import symbol
from tests.support.scripted_streams import (
    OPENED,
    PENDING,
    REFUSED,
    RESOLVE,
    RESOLVED,
    SECONDS,
    Script,
    ScriptedStreams,
    is_gone,
    opens,
    packet,
    pending,
    refuses,
    request_of,
    send,
)
from vsockproxy.policy.reasons import Reason

HOST = "203.0.113.5"
PORT = 443
NAME = "origin.test"


class Shim:
    """The shim's parts, without the functions that put them in front of Python's own."""

    def __init__(self, path: str, hosts_file: str = HOSTS_FILE) -> None:
        self.said: list[str] = []
        lines = StderrLines(self.said.append)
        self.connections = Connections(lines)
        self.lookups = Lookups(AddressBook(), lines, path, seconds=0.2, hosts_file=hosts_file)
        self.connector = Connector(self.lookups, self.connections, lines, path, taken_seconds=0.2)

    def outcome(self, host: str = HOST, *, blocks: bool = True) -> str:
        """The error of a connect, by its symbol."""
        with socket.socket() as sock:
            sock.setblocking(blocks)
            try:
                self.connector.connect(sock, (host, PORT))
            except OSError as error:
                if error.errno != errno.EINPROGRESS:
                    return symbol(error)
            if not blocks:
                number = self._wait(sock)
                return errno.errorcode[number] if number else "connected"
        return "connected"

    def _wait(self, sock: socket.socket) -> int:
        """What SO_ERROR says once there is an answer."""
        connection = self.connections.find(sock.fileno())
        assert connection is not None
        connection.wait(SECONDS)
        return self.connector.so_error(sock)


@contextmanager
def shim(directory: Path, script: Script) -> Iterator[Shim]:
    with ScriptedStreams(directory / "streams.sock", script) as streams:
        yield Shim(streams.path)


def says(*packets: bytes) -> Script:
    """A script that answers with packets alone."""

    def script(connection: socket.socket) -> None:
        request_of(connection)
        for each in packets:
            send(connection, each)

    return script


def says_after_pending(*packets: bytes) -> Script:
    """The same, behind PENDING."""

    def script(connection: socket.socket) -> None:
        request_of(connection)
        with pending(connection):
            for each in packets:
                send(connection, each)

    return script


def silent(connection: socket.socket) -> None:
    """Takes the request, and says nothing until the program is gone."""
    request_of(connection)
    is_gone(connection)


def waits(connection: socket.socket) -> None:
    """Takes the stream, and says nothing more until the program is gone."""
    request_of(connection)
    with pending(connection):
        is_gone(connection)


BY_REASON = {
    "no_such_name": "EHOSTUNREACH",
    "lookup_failed": "EHOSTUNREACH",
    "dial_refused": "ECONNREFUSED",
    "dial_timeout": "ETIMEDOUT",
    "tls_failed": "EPROTO",
    "limit": "ENOBUFS",
    "parent_away": "ENETUNREACH",
}
"""Where it is not EACCES."""

WORKERS: dict[str, tuple[Script, str]] = {
    "opens": (opens, "connected"),
    **{
        f"refuses with {reason}": (refuses(reason), BY_REASON.get(reason, "EACCES"))
        for reason in Reason
        if reason != Reason.LISTED
    },
    "refuses with a reason of the future": (refuses("moon_phase"), "EACCES"),
    "has no room": (says(packet(REFUSED, {1: "limit"})), "ENOBUFS"),
    "ends before it has taken the request": (says(), "ECONNRESET"),
    "ends before its answer": (says_after_pending(), "ECONNRESET"),
    "answers another question": (says(packet(RESOLVED, {4: 0})), "EPROTO"),
    "opens without a stream": (says(packet(OPENED, {})), "EPROTO"),
    "gives no stream": (says(packet(PENDING)), "EPROTO"),
    "is pending for ever": (says_after_pending(packet(PENDING)), "EPROTO"),
    "talks nonsense": (says(b"\xff\xff"), "EPROTO"),
    "talks nonsense late": (says_after_pending(b"\xff\xff"), "EPROTO"),
    "says nothing": (silent, "ENETUNREACH"),
}
"""What a worker does, and what a program sees."""


@pytest.mark.parametrize("blocks", [True, False], ids=["blocking", "not blocking"])
@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker(tmp_path: Path, worker: str, blocks: bool) -> None:
    script, expected = WORKERS[worker]
    with shim(tmp_path, script) as made:
        assert made.outcome(blocks=blocks) == expected
        assert [f"{HOST}:{PORT}: " in line for line in made.said] == (
            [] if expected == "connected" else [True]
        )


def test_a_stream_socket_that_is_gone(tmp_path: Path) -> None:
    made = Shim(str(tmp_path / "nowhere"))
    for blocks in (True, False):
        assert made.outcome(blocks=blocks) == "ENETUNREACH"
    assert made.outcome(NAME) == "ENETUNREACH"  # the name has an address, so that connect tells
    assert [line.partition(": ")[0] for line in made.said] == [f"{HOST}:{PORT}", f"{NAME}:{PORT}"]


LOOKUPS: dict[str, tuple[Script, str]] = {
    "it exists": (says(packet(RESOLVED, {4: 0})), "found"),
    **{
        f"refused with {reason}": (
            says(packet(RESOLVED, {1: reason, 2: "because", 4: 0})),
            {
                "dial_refused": "found",
                "dial_timeout": "found",
                "tls_failed": "found",
                "limit": "found",
                "parent_away": "found",
                "lookup_failed": "EAI_AGAIN",
            }.get(reason, "EAI_NONAME"),
        )
        for reason in Reason
        if reason != Reason.LISTED
    },
    "no room": (says(packet(REFUSED, {1: "limit"})), "found"),
    "cut": (says(), "found"),
    "nonsense": (says(b"\xff"), "found"),
    "silence": (silent, "found"),
}
"""What is said of a name, and what a lookup comes to."""


@pytest.mark.parametrize("case", LOOKUPS)
def test_a_lookup(tmp_path: Path, case: str) -> None:
    script, expected = LOOKUPS[case]
    with shim(tmp_path, script) as made:
        if expected == "found":
            assert made.lookups.name_of(made.lookups.gethostbyname(NAME)) == NAME
            assert made.said == []
        else:
            with pytest.raises(socket.gaierror) as raised:
                made.lookups.gethostbyname(NAME)
            assert symbol(raised.value) == expected
            assert [f": {NAME}: because" in line for line in made.said] == [True]


def test_the_question_is_of_type_a_and_in_normal_form(tmp_path: Path) -> None:
    asked = []

    def script(connection: socket.socket) -> None:
        asked.append(request_of(connection))
        send(connection, packet(RESOLVED, {4: 0}))

    with shim(tmp_path, script) as made:
        made.lookups.gethostbyname("ORIGIN.Test.")
    assert asked == [(RESOLVE, {1: NAME, 2: 1})]


def test_a_name_that_was_looked_up_is_asked_for_by_its_name(tmp_path: Path) -> None:
    asked = []

    def script(connection: socket.socket) -> None:
        kind, fields = request_of(connection)
        asked.append((kind, fields))
        if kind == RESOLVE:
            send(connection, packet(RESOLVED, {4: 0}))
        else:
            send(connection, packet(REFUSED, {1: "limit"}))

    with shim(tmp_path, script) as made:
        address = made.lookups.gethostbyname(NAME)
        for host in (address, HOST, "10.1"):
            assert made.outcome(host) == "ENOBUFS"
    assert [fields[1] for _, fields in asked[1:]] == [NAME, HOST, "10.0.0.1"]


def test_this_machines_own_address_is_connected_to_without_a_worker(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.7.7.7 here.test\n{HOST} {socket.gethostname()}\n")
    made = Shim(str(tmp_path / "nowhere"), str(hosts))
    with socket.create_server(("127.7.7.7", 0)) as listener, socket.socket() as sock:
        made.connector.connect(sock, listener.getsockname())
        assert made.connector.getpeername(sock) == listener.getsockname()
    assert made.lookups.is_local(HOST)
    assert not made.lookups.is_local("203.0.113.6")
    assert made.said == []


def test_a_timeout_of_the_program_gives_the_opening_up(tmp_path: Path) -> None:
    gone = threading.Event()

    def script(connection: socket.socket) -> None:
        waits(connection)
        gone.set()

    with shim(tmp_path, script) as made, socket.socket() as sock:
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError, match=r"^timed out$") as raised:
            made.connector.connect(sock, (HOST, PORT))
        assert raised.value.errno is None
        assert gone.wait(SECONDS)
        assert made.connector.connect_ex(sock, (HOST, PORT)) == errno.EWOULDBLOCK
        assert made.said == []


def test_a_socket_that_another_thread_closed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    asked, answers = threading.Event(), threading.Event()

    def script(connection: socket.socket) -> None:
        request_of(connection)
        with pending(connection) as near:
            asked.set()
            answers.wait(SECONDS)
            send(connection, packet(OPENED, {}))
            is_gone(near)

    raised: list[OSError] = []
    with shim(tmp_path, script) as made:
        sock = socket.socket()

        def connect() -> None:
            try:
                made.connector.connect(sock, (HOST, PORT))
            except OSError as error:
                raised.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        assert asked.wait(SECONDS)
        with open(tmp_path / "file", "wb") as file:
            number = sock.detach()
            os.dup2(file.fileno(), number)  # it was closed, and is another thread's by now
        answers.set()
        thread.join(SECONDS)
        os.write(number, b"not a socket")
        os.close(number)
        assert (tmp_path / "file").read_bytes() == b"not a socket"
    assert [error.errno for error in raised] == [errno.EBADF]


def test_connections_that_are_closed_behind_our_back_are_forgotten(tmp_path: Path) -> None:
    with shim(tmp_path, opens) as made:
        for _ in range(150):
            sock = socket.socket()
            made.connector.connect(sock, (HOST, PORT))
            os.close(sock.detach())
        assert len(made.connections) <= 65


def test_a_socket_in_use_is_not_connected(tmp_path: Path) -> None:
    with (
        shim(tmp_path, opens) as made,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connected,
    ):
        for sock in (listener, connected):
            assert made.connector.connect_ex(sock, (HOST, PORT)) == errno.EISCONN
        closed = socket.socket()
        closed.close()
        assert made.connector.connect_ex(closed, (HOST, PORT)) == errno.EBADF


def test_a_descriptor_that_does_not_block_counts_more_than_the_object(tmp_path: Path) -> None:
    with shim(tmp_path, opens) as made, socket.socket() as sock:
        os.set_blocking(sock.fileno(), False)
        assert sock.gettimeout() is None
        assert made.connector.connect_ex(sock, (HOST, PORT)) == errno.EINPROGRESS
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        assert poll.poll(SECONDS * 1000)
        assert made.connector.so_error(sock) == 0
        assert not os.get_blocking(sock.fileno())
