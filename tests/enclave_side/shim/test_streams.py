"""The stream socket of an enclave without a parent: packets, and what its own policy says."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from enclave_side.links import Links
from enclave_side.listening_programs import ListeningPrograms
from enclave_side.opener import Opener
from enclave_side.shim.streams import Streams
from tests.support.observation import descriptors, plain_lines
from tests.support.pair import Line, Pair, Side, is_reset
from tests.support.scripted_streams import OPEN, RESOLVE, packet
from tests.support.stream_refusals import refusal
from vsockproxy.addresses import UnixAddress
from vsockproxy.client.errors import StreamRefused
from vsockproxy.client.messages import MAX_REQUEST_BYTES
from vsockproxy.client.opening import Opening, connect, resolve
from vsockproxy.config.model import Limits
from vsockproxy.config.patterns import parse_pattern
from vsockproxy.dataplane import loop
from vsockproxy.log import Log
from vsockproxy.policy import Lists, Policy, Rule

SECONDS = 30.0
HANDSHAKE_SECONDS = 0.5
STRANGERS = 100
ADDRESS_TYPE = 1

LISTED = packet(OPEN, {1: "listed.test", 2: 443})


def wait_for_end(sock: socket.socket) -> bool:
    """Read until the worker has closed; a reset, for what it had not read, comes first."""
    try:
        while sock.recv(100):
            pass
    except ConnectionResetError:
        return wait_for_end(sock)
    return True


class Served:
    """The stream socket of a running enclave."""

    def __init__(self, enclave: Side, path: Path) -> None:
        self.enclave = enclave
        self.path = str(path)

    def dial(self, *packets: bytes) -> socket.socket:
        """A connection that has sent packets."""
        sock = connect(self.path, SECONDS)
        sock.settimeout(SECONDS)
        for each in packets:
            sock.send(each)
        return sock

    def complaints(self, after: int) -> list[Line]:
        """The lines about packets, from index `after` on."""
        return [line for line in self.enclave.lines[after:] if line["event"] == "bad_request"]

    def refusal(self, host: str, port: int = 443) -> StreamRefused:
        """See `stream_refusals`."""
        return refusal(self.path, host, port)

    @property
    def descriptors(self) -> int:
        """How many the worker has open."""
        (worker,) = self.enclave.workers
        return descriptors(worker)

    def wait_for_descriptors(self, wanted: int) -> None:
        """Wait until the worker has no more than so many open, since what an earlier test left may
        have gone meanwhile; each question that it answers gives it time."""
        for number in range(1000):
            if self.descriptors <= wanted:
                return
            self.refusal(f"{number}.unlisted.test")
        raise AssertionError(f"{self.descriptors} descriptors, not {wanted}")


@contextmanager
def served_with(**limits: float) -> Iterator[Served]:
    pair = Pair(
        "unix",
        [
            {"address": "listed.test", "port": 443},
            {"address": "169.254.169.254", "port": 80},
            {"address": "fd00::1", "port": 443},
        ],
        enclave={"denylist": [{"address": "denied.test"}], "limits": limits},
    )
    try:
        enclave = pair.start_enclave(links=False)
        served = Served(enclave, pair.streams)
        served.refusal("first.unlisted.test")  # so that what it makes once is made
        yield served
        assert plain_lines(enclave) == []
    finally:
        pair.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with served_with(link_wait=0.2, handshake=HANDSHAKE_SECONDS) as served:
        yield served


BROKEN = {
    "an unknown kind": (b"\xff", "a packet of kind 255, which is no request"),
    "an answer": (packet(2, {}), "a packet of kind 2, which is no request"),
    "no CBOR": (bytes([OPEN]) + b"\xff\xff", "OPEN is no CBOR"),
    "no port": (packet(OPEN, {1: "listed.test"}), "field 2 of OPEN must be an integer"),
    "a service of an enclave": (packet(OPEN, {4: "web"}), "OPEN names a service"),
    "a byte too many": (bytes(MAX_REQUEST_BYTES + 1), "a packet of more than 1025 bytes"),
    "far too many bytes": (bytes(100_000), "a packet of more than 1025 bytes"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "a packet of kind 71, which is no request"),
}


@pytest.mark.parametrize(("data", "text"), BROKEN.values(), ids=BROKEN)
def test_a_packet_that_is_no_request_is_one_line_and_the_end(
    served: Served, data: bytes, text: str
) -> None:
    after = len(served.enclave.lines)
    before = served.descriptors
    with served.dial(data) as sock:
        assert sock.recv(1) == b""
    line = served.enclave.wait_for_event("bad_request", after=after)
    assert (line["way"], line["level"]) == ("streams", "warning")
    assert text in line["text"]
    assert served.refusal("unlisted.test").reason == "not_listed"  # others are served
    assert len(served.complaints(after)) == 1
    served.wait_for_descriptors(before)


def test_who_connects_and_leaves_is_no_event(served: Served) -> None:
    after = len(served.enclave.lines)
    before = served.descriptors
    for _ in range(10):
        served.dial().close()
        served.dial(b"").close()
    served.wait_for_descriptors(before)
    assert served.complaints(after) == []


def test_who_never_asks_is_closed_after_the_handshake_limit(served: Served) -> None:
    after = len(served.enclave.lines)
    before = served.descriptors
    with ExitStack() as stack:
        silent = [stack.enter_context(served.dial()) for _ in range(STRANGERS)]
        assert served.refusal("unlisted.test").reason == "not_listed"
        for sock in silent:
            assert sock.recv(1) == b""
    served.enclave.wait_for_event("bad_request", after=after, text="no request in 0.5 s")
    served.wait_for_descriptors(before)


def test_a_second_packet_ends_the_request(served: Served) -> None:
    after = len(served.enclave.lines)
    with served.dial(LISTED, LISTED) as sock:
        assert wait_for_end(sock)
    served.enclave.wait_for_event(
        "bad_request", after=after, text="another packet before the answer"
    )


REFUSED: dict[str, tuple[str, int, str]] = {
    "a host that is not listed": ("unlisted.test", 443, "not_listed"),
    "a literal that is not listed": ("192.0.2.1", 443, "not_listed"),
    "what is no host": ("a..b", 443, "not_listed"),
    "a port that is not listed": ("listed.test", 444, "port_not_listed"),
    "a host that the denylist names": ("denied.test", 443, "denied"),
    "instance metadata": ("169.254.169.254", 80, "address_metadata"),
    "a private IPv6 address": ("fd00::1", 443, "address_private"),
}


@pytest.mark.parametrize(("host", "port", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_policy_refuses_is_one_decision_and_the_programs_error(
    served: Served, host: str, port: int, reason: str
) -> None:
    after = len(served.enclave.lines)
    error = served.refusal(host, port)
    assert error.reason == reason
    line = served.enclave.wait_for_event("decision", after=after, host=host, port=port)
    assert (line["allowed"], line["reason"], line["way"]) == (False, reason, "streams")
    assert line["text"] == error.text


def test_while_the_parent_is_away_a_program_waits_link_wait(served: Served) -> None:
    error = served.refusal("listed.test")
    assert error.reason == "parent_away"
    answer = resolve("listed.test", ADDRESS_TYPE, path=served.path, timeout=SECONDS)
    assert answer.reason == "parent_away"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("unlisted.test", "not_listed"), ("denied.test", "denied"), ("a..b", "not_listed")],
)
def test_a_name_that_policy_refuses_is_not_asked_for(
    served: Served, name: str, reason: str
) -> None:
    after = len(served.enclave.lines)
    answer = resolve(name, ADDRESS_TYPE, path=served.path, timeout=SECONDS)
    assert answer.reason == reason
    line = served.enclave.wait_for_event("decision", after=after, host=name)
    assert (line["reason"], line["way"], line["text"]) == (reason, "streams", answer.text)


def test_a_question_with_another_packet_is_given_up(served: Served) -> None:
    after = len(served.enclave.lines)
    question = packet(RESOLVE, {1: "listed.test", 2: ADDRESS_TYPE})
    with served.dial(question, question) as sock:
        assert wait_for_end(sock)
    served.enclave.wait_for_event(
        "bad_request", after=after, text="another packet before the answer"
    )


def test_a_program_that_gives_up_leaves_nothing() -> None:
    with served_with(link_wait=60.0) as served:
        before = served.descriptors
        openings = [
            Opening.begin("listed.test", 443, path=served.path, timeout=SECONDS) for _ in range(20)
        ]
        assert served.descriptors == before + 3 * len(openings)
        streams = [opening.detach() for opening in openings]  # the connections close, not these
        for stream in streams:
            assert is_reset(stream)
            stream.close()
        served.wait_for_descriptors(before)
        assert served.enclave.events("decision")[-1]["host"] != "listed.test"


def test_what_waits_costs_little() -> None:
    count = 500
    with served_with(link_wait=60.0) as served, ExitStack() as stack:
        (worker,) = served.enclave.workers
        before = _resident_kibibytes(worker)
        for _ in range(count):
            opening = Opening.begin("listed.test", 443, path=served.path, timeout=SECONDS)
            stack.callback(opening.close)
        assert (_resident_kibibytes(worker) - before) / count < 16


def _resident_kibibytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])


# ---------------------------------------------------------------- how many at once


def test_more_than_may_wait_are_refused_and_there_is_room_again(tmp_path: Path) -> None:
    most = 3
    outcomes: list[object] = []

    def program(path: str, stop: Callable[[], None]) -> None:
        try:
            waiting = [connect(path, SECONDS) for _ in range(most)]
            outcomes.extend(_refusal(path) for _ in range(3))
            outcomes.append(resolve("unlisted.test", 1, path=path, timeout=SECONDS).reason)
            for sock in waiting:
                sock.close()
            # The worker sees the ends of file at its own time.
            while (refusal := _refusal(path))[0] == "limit":
                pass
            outcomes.append(refusal[0])
        finally:
            stop()

    log = _serve_alone(tmp_path, program, most)
    text = f"{most} requests wait on the stream socket"
    assert outcomes == [("limit", text)] * 3 + ["limit", "not_listed"]
    assert log.count('"event": "stream_refused"') == 1  # until there was room again


def _refusal(path: str) -> tuple[str, str]:
    """Ask, and be refused, before the stream's socket has come or after: reason and text."""
    opening = Opening(connect(path), "unlisted.test", 443)
    with closing(opening), pytest.raises(StreamRefused) as caught:
        opening.wait(SECONDS)
    return caught.value.reason, caught.value.text


def _serve_alone(
    tmp_path: Path, program: Callable[[str, Callable[[], None]], None], most_requests: int
) -> str:
    """Serve a program in a thread, from this process; what was logged."""
    path = str(tmp_path / "streams.sock")
    read_end, write_end = os.pipe()

    async def main() -> None:
        log = Log("enclave", "json", "info", write_end)
        rule = Rule(parse_pattern("listed.test"), ((443, 443),), "enclave.yaml:1")
        policy = Policy(Lists((rule,), (), "allowlist in enclave.yaml"))
        links = Links(UnixAddress(str(tmp_path / "nowhere")), 1, bytes(16), Limits(), log)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        listener.bind(path)
        listener.listen()
        opener = Opener(policy, links, log)
        streams = Streams(
            opener, policy, links, log, ListeningPrograms(()), most_requests=most_requests
        )
        streams.listen(listener, print)
        done = loop.Event()
        stop_read, stop_write = os.pipe()
        loop.add_reader(stop_read, done.set)
        thread = threading.Thread(target=program, args=(path, lambda: os.close(stop_write)))
        thread.start()
        await done.wait()
        loop.remove_reader(stop_read)
        os.close(stop_read)
        streams.close()
        thread.join(SECONDS)

    loop.run(main())
    os.close(write_end)
    with open(read_end) as lines:
        return lines.read()
