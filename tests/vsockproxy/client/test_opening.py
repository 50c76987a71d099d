import errno
import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.scripted_streams import (
    OPEN,
    OPENED,
    PENDING,
    REFUSED,
    RESOLVE,
    RESOLVED,
    SECONDS,
    Script,
    ScriptedStreams,
    opens,
    packet,
    pending,
    refuses,
    request_of,
    send,
    tcp_pair,
)
from vsockproxy.client.errors import NotAllowed, OpeningCut, StreamRefused, StreamSocketMissing
from vsockproxy.client.messages import PacketError
from vsockproxy.client.opening import Opening, connect, resolve, try_to_connect
from vsockproxy.session.messages import Resolved

SOON = 0.05
"""Seconds to wait for what never comes."""


@contextmanager
def streams(tmp_path: Path, script: Script) -> Iterator[str]:
    with ScriptedStreams(tmp_path / "streams.sock", script) as running:
        yield running.path


def silent(connection: socket.socket) -> None:
    """A script: nothing is said for as long as the program is there."""
    while connection.recv(1 << 16):
        pass


def test_a_stream_is_an_ordinary_blocking_socket(tmp_path: Path) -> None:
    with streams(tmp_path, opens) as path:
        opening = Opening.begin("kms.test", 443, path=path, timeout=SECONDS)
        opening.wait(SECONDS)
        assert opening.address == "192.0.2.1"
        assert opening.is_open
        with opening.detach() as stream:
            assert (stream.family, stream.type) == (socket.AF_INET, socket.SOCK_STREAM)
            assert os.get_blocking(stream.fileno())
            assert not os.get_inheritable(stream.fileno())
            stream.sendall(b"hello")
            assert stream.recv(100) == b"hello"


def test_what_is_asked_for_is_what_is_sent(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        assert request_of(connection) == (OPEN, {1: "kms.test", 2: 443, 3: True})
        send(connection, packet(REFUSED, {1: "denied"}))

    with streams(tmp_path, script) as path, pytest.raises(NotAllowed):
        Opening.begin("kms.test", 443, dedicated=True, path=path, timeout=SECONDS)


def test_a_refusal_after_the_socket_has_come(tmp_path: Path) -> None:
    with streams(tmp_path, refuses("denied", "no")) as path:
        opening = Opening.begin("kms.test", 443, path=path, timeout=SECONDS)
        with pytest.raises(NotAllowed) as caught:
            opening.wait(SECONDS)
        assert (caught.value.host, caught.value.port, caught.value.text) == ("kms.test", 443, "no")
        opening.close()


def test_a_refusal_in_place_of_the_socket(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        # Before the request was read, and closed behind it: that is told as a reset, once.
        send(connection, packet(REFUSED, {1: "limit", 2: "full"}))

    with streams(tmp_path, script) as path, pytest.raises(StreamRefused) as caught:
        Opening.begin("kms.test", 443, path=path, timeout=SECONDS)
    assert (caught.value.reason, caught.value.text) == ("limit", "full")


def _with_two(connection: socket.socket) -> None:
    near, far = tcp_pair()
    with near, far:
        send(connection, packet(PENDING), (far.fileno(), near.fileno()))


def _with_many(connection: socket.socket) -> None:
    near, far = tcp_pair()
    with near, far:
        send(connection, packet(PENDING), (far.fileno(),) * 100)


def _opened_with_one(connection: socket.socket) -> None:
    with pending(connection) as near:
        send(connection, packet(OPENED, {}), (near.fileno(),))


def _twice(connection: socket.socket) -> None:
    pending(connection).close()
    pending(connection).close()


def _not_a_socket(connection: socket.socket) -> None:
    with open(os.devnull) as file:
        send(connection, packet(PENDING), (file.fileno(),))


BROKEN: dict[str, tuple[Callable[[socket.socket], object], type[Exception], str]] = {
    "nothing": (lambda _: None, OpeningCut, "ended before it had answered"),
    "the socket, then nothing": (lambda c: pending(c).close(), OpeningCut, "ended before it"),
    "garbage": (lambda c: c.send(b"\xff"), PacketError, "kind 255 and 1 bytes"),
    "too much": (lambda c: c.send(bytes(20_000)), PacketError, "more than 16385 bytes"),
    "no socket": (lambda c: c.send(packet(PENDING)), PacketError, "Pending with 0 descriptors"),
    "two sockets": (_with_two, PacketError, "Pending with 2 descriptors"),
    "a hundred sockets": (_with_many, PacketError, "Pending with "),
    "a file": (_not_a_socket, OSError, "Socket operation on non-socket"),
    "the socket twice": (_twice, PacketError, "Pending is no answer to OPEN here"),
    "a socket with the answer": (_opened_with_one, PacketError, "Opened with 1 descriptors"),
    "the answer first": (lambda c: c.send(packet(OPENED, {})), PacketError, "Opened is no answer"),
    "an answer to another question": (
        lambda c: c.send(packet(RESOLVED, {4: 0})),
        PacketError,
        "Resolved is no answer to OPEN here",
    ),
}


@pytest.mark.parametrize(("answer", "error", "text"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_answer_is_one_error(
    answer: Callable[[socket.socket], object], error: type[Exception], text: str, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        request_of(connection)
        answer(connection)

    with streams(tmp_path, script) as path:
        opening = Opening(connect(path), "kms.test", 443)
        opening.setblocking(True)
        with pytest.raises(error, match=text):
            opening.wait(SECONDS)
        opening.close()


def test_a_wait_that_was_too_short_can_be_repeated(tmp_path: Path) -> None:
    may_answer = threading.Event()

    def script(connection: socket.socket) -> None:
        request_of(connection)
        with pending(connection):
            assert may_answer.wait(SECONDS)
            send(connection, packet(OPENED, {}))

    with streams(tmp_path, script) as path:
        opening = Opening.begin("kms.test", 443, path=path, timeout=SECONDS)
        for timeout in (SOON, 0.0):
            with pytest.raises(TimeoutError):
                opening.wait(timeout)
        assert opening.socket is not None
        may_answer.set()
        assert select.select([opening], [], [], SECONDS)[0]
        opening.wait(0)
        opening.detach().close()


def test_without_blocking_it_says_so(tmp_path: Path) -> None:
    with streams(tmp_path, silent) as path:
        opening = Opening(try_to_connect(path), "kms.test", 443)
        with pytest.raises(BlockingIOError):
            opening.receive()
        opening.close()


def test_a_worker_that_does_not_take_the_request_is_not_waited_for(tmp_path: Path) -> None:
    with streams(tmp_path, silent) as path:
        with pytest.raises(TimeoutError):
            Opening.begin("kms.test", 443, path=path, timeout=SOON)
        with pytest.raises(TimeoutError):
            resolve("kms.test", 1, path=path, timeout=SOON)


def test_a_listener_whose_backlog_is_full_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "streams.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(0)
        with try_to_connect(path):
            with pytest.raises(BlockingIOError):
                try_to_connect(path)
            with pytest.raises(TimeoutError, match="in time"):
                Opening.begin("kms.test", 443, path=path, timeout=SOON)


WRONG_REQUESTS = {
    "no host": ("", 443),
    "a host of 256 bytes": ("h" * 256, 443),
    "a line break": ("a\nb", 443),
    "port 0": ("kms.test", 0),
    "port 65536": ("kms.test", 65_536),
}


@pytest.mark.parametrize(("host", "port"), WRONG_REQUESTS.values(), ids=WRONG_REQUESTS)
def test_what_cannot_be_asked_for_is_a_value_error(host: str, port: int, tmp_path: Path) -> None:
    with streams(tmp_path, silent) as path, pytest.raises(ValueError, match="OPEN must be"):
        Opening.begin(host, port, path=path, timeout=SECONDS)


def test_no_variable_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VSOCKPROXY_STREAMS", raising=False)
    with pytest.raises(StreamSocketMissing, match="VSOCKPROXY_STREAMS is not set: run the program"):
        Opening.begin("kms.test", 443)


def test_the_variable_names_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with streams(tmp_path, refuses("denied")) as path:
        monkeypatch.setenv("VSOCKPROXY_STREAMS", path)
        Opening.begin("kms.test", 443, timeout=SECONDS).close()


def _left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))


def _of_bytes(path: Path) -> None:
    # Its name outlives it, so that nothing has to be closed.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


MISSING: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "there is none": (lambda _: None, errno.ENOENT, "there is no such socket: run the program"),
    "nobody listens": (_left_behind, errno.ECONNREFUSED, "nobody listens there any more"),
    "it is a file": (lambda path: path.touch(), errno.ECONNREFUSED, "nobody listens there"),
}


@pytest.mark.parametrize(("make", "number", "text"), MISSING.values(), ids=MISSING)
def test_a_stream_socket_that_is_none_is_said_plainly(
    make: Callable[[Path], object], number: int, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "streams.sock"
    make(path)
    with pytest.raises(StreamSocketMissing) as caught:
        connect(str(path))
    assert caught.value.errno == number
    assert str(caught.value).startswith(f"cannot connect to the stream socket {path}: {text}")


def test_another_kind_of_socket_is_said_plainly(tmp_path: Path) -> None:
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(StreamSocketMissing, match="another kind of socket"):
            connect(path)


@pytest.mark.parametrize("path", ["/\ud800", "/" + 200 * "l"], ids=["a surrogate", "too long"])
def test_a_path_that_cannot_be_one_is_said_plainly(path: str) -> None:
    with pytest.raises(StreamSocketMissing, match="Invalid argument"):
        connect(path)


def test_a_program_without_a_descriptor_left_is_told(tmp_path: Path) -> None:
    came = threading.Event()

    def script(connection: socket.socket) -> None:
        request_of(connection)
        pending(connection).close()
        came.set()

    with streams(tmp_path, script) as path:
        opening = Opening(connect(path), "kms.test", 443)
        assert came.wait(SECONDS)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.open(os.devnull, os.O_RDONLY)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            with pytest.raises(OSError, match="ulimit -n") as caught:
                opening.wait(SECONDS)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.errno == errno.EMFILE
        opening.close()


def test_names_are_asked_of_the_parent(tmp_path: Path) -> None:
    def script(connection: socket.socket) -> None:
        assert request_of(connection) == (RESOLVE, {1: "kms.test", 2: 28})
        connection.send(packet(RESOLVED, {3: [bytes(16)], 4: 60}))

    with streams(tmp_path, script) as path:
        answer = resolve("kms.test", 28, path=path, timeout=SECONDS)
    assert answer == Resolved(records=(bytes(16),), ttl_seconds=60)


UNANSWERED: dict[str, tuple[bytes, type[Exception] | Resolved]] = {
    "a refusal": (packet(REFUSED, {1: "limit", 2: "full"}), Resolved("limit", "full")),
    "nothing": (b"", OpeningCut),
    "an answer to OPEN": (packet(OPENED, {}), PacketError),
}


@pytest.mark.parametrize(("answer", "outcome"), UNANSWERED.values(), ids=UNANSWERED)
def test_a_question_that_gets_no_answer(
    answer: bytes, outcome: type[Exception] | Resolved, tmp_path: Path
) -> None:
    def script(connection: socket.socket) -> None:
        request_of(connection)
        connection.send(answer)

    with streams(tmp_path, script) as path:
        if isinstance(outcome, Resolved):
            assert resolve("kms.test", 1, path=path, timeout=SECONDS) == outcome
        else:
            with pytest.raises(outcome):
                resolve("kms.test", 1, path=path, timeout=SECONDS)


@pytest.mark.parametrize(("name", "kind"), [("", 1), ("a.test", 0)], ids=["no name", "type 0"])
def test_a_question_that_cannot_be_asked_is_a_value_error(
    name: str, kind: int, tmp_path: Path
) -> None:
    with streams(tmp_path, silent) as path, pytest.raises(ValueError, match="RESOLVE must be"):
        resolve(name, kind, path=path, timeout=SECONDS)
