"""A worker's conversation with its supervisor, with a side that the test drives."""

import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from vsockproxy.addresses import VsockAddress
from vsockproxy.config.document import Document
from vsockproxy.config.model import ParentConfig
from vsockproxy.dataplane import loop
from vsockproxy.dataplane.worker import Load, Worker
from vsockproxy.errors import Refused
from vsockproxy.passed_memory import (
    document_descriptor,
    empty_document_descriptor,
    memory_descriptor,
)
from vsockproxy.worker_messages import (
    Certificate,
    Configure,
    Connection,
    FromWorker,
    Heartbeat,
    ListStreams,
    Offer,
    Ready,
    Reload,
    Reloaded,
    Routed,
    Sockets,
    Statistics,
    Stop,
    Stopped,
    StreamsListed,
    ToWorker,
    receive,
    send,
)
from vsockproxy.worker_reports import Report, StreamPage, read_report

SECONDS = 30.0


class ScriptedSide:
    """A side with as many streams as the test says."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.connections = 0
        self.certificates: list[Certificate] = []
        self.is_draining = False
        self.load = Load(2, 600)
        self.cuts: list[int] = []
        self.error: Exception | None = None

    def connection(self, message: Connection, sock: socket.socket) -> None:
        self.connections += 1
        sock.close()

    def certificate(self, message: Certificate, descriptor: int) -> None:
        assert os.fstat(descriptor).st_size
        self.certificates.append(message)

    def connection_failed(self, text: str) -> None:
        raise AssertionError(text)

    def offered(self, message: Offer) -> None:
        raise AssertionError(message)

    def routed(self, message: Routed, sock: socket.socket) -> None:
        raise AssertionError(message)

    def sockets(self, message: Sockets, sockets: list[socket.socket]) -> None:
        raise AssertionError(message)

    async def report(self) -> Report:
        return Report([], [], 0, [], self.load.streams)

    async def list_streams(self, limit: int) -> StreamPage:
        return StreamPage([], limit)

    def drain(self) -> None:
        self.is_draining = True

    @property
    def is_drained(self) -> bool:
        return self.load.streams == 0

    def cut(self, most: int) -> bool:
        number = min(most, self.load.streams)
        self.load = Load(2, self.load.streams - number)
        if number:
            self.cuts.append(number)
        return number > 0

    def reload(self, message: Reload, document: Document) -> int:
        if self.error is not None:
            raise self.error
        self.files.append(document.file)
        return 7


class Conversation:
    """The supervisor's end of the channel of a worker in a thread."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.channel.settimeout(SECONDS)
        self.side = ScriptedSide()

        async def live() -> None:
            with theirs:
                await Worker(theirs, lambda *_: self.side).live()
                loop.remove_reader(theirs.fileno())

        self.thread = threading.Thread(target=lambda: loop.run(live()))
        self.thread.start()

    def say(self, message: ToWorker, descriptor: int | None = None) -> None:
        send(self.channel, message, [] if descriptor is None else [descriptor])
        if descriptor is not None:
            os.close(descriptor)

    def hear(self, wanted: Callable[[FromWorker], bool]) -> FromWorker:
        while True:
            message, _ = receive(self.channel)
            assert isinstance(message, FromWorker)
            if wanted(message):
                return message

    def hear_report(self, kind: type[FromWorker]) -> tuple[FromWorker, int]:
        """The next message of a kind, and its descriptor."""
        while True:
            message, descriptors = receive(self.channel)
            assert isinstance(message, FromWorker)
            if isinstance(message, kind):
                return message, descriptors[0]

    def answer(self) -> FromWorker:
        """The next word that is no heartbeat."""
        return self.hear(lambda message: not isinstance(message, Heartbeat))


@pytest.fixture
def worker() -> Iterator[Conversation]:
    conversation = Conversation()
    conversation.say(Configure(0, bytes(16), "json", "info", []), document("first"))
    assert conversation.answer() == Ready()
    yield conversation
    conversation.channel.close()
    conversation.thread.join(SECONDS)
    assert not conversation.thread.is_alive()


def document(file: str) -> int:
    return document_descriptor(Document(ParentConfig(listen=[VsockAddress(3, 1)]), file, {}))


def test_its_loop_shows_that_it_runs(worker: Conversation) -> None:
    for _ in range(2):
        assert worker.hear(lambda message: isinstance(message, Heartbeat)) == Heartbeat(2, 600)


def test_it_lists_its_streams_when_asked(worker: Conversation) -> None:
    worker.say(ListStreams(7, 100))
    message, descriptor = worker.hear_report(StreamsListed)
    assert message == StreamsListed(7)
    assert read_report(descriptor, StreamPage) == StreamPage([], 100)
    os.close(descriptor)


def test_it_reports_again_and_again_where_somebody_watches() -> None:
    watched = Conversation()
    watched.say(Configure(0, bytes(16), "json", "info", [], reports=True), document("first"))
    for _ in range(2):
        _, descriptor = watched.hear_report(Statistics)
        assert read_report(descriptor, Report).refusals_left_out == 600
        os.close(descriptor)
    watched.channel.close()
    watched.thread.join(SECONDS)
    assert not watched.thread.is_alive()


def test_it_changes_over_and_says_what_that_ended(worker: Conversation) -> None:
    worker.say(Reload(1, "info", []), document("second"))
    assert worker.answer() == Reloaded(1, ended_streams=7)
    assert worker.side.files == ["second"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(Refused("limit", "too much"), "Refused: ", id="one of ours"),
        pytest.param(MemoryError(), "MemoryError: ", id="one of Python's"),
        pytest.param(ValueError("x" * 100_000), f"ValueError: {'x' * 988}", id="a long one"),
    ],
)
def test_it_goes_on_where_it_cannot_change_over(
    error: Exception, text: str, worker: Conversation
) -> None:
    worker.side.error = error
    worker.say(Reload(1, "info", []), document("second"))
    answer = worker.answer()
    assert isinstance(answer, Reloaded)
    assert answer.error is not None
    assert answer.error.startswith(text)
    assert len(answer.error) <= 1000
    worker.side.error = None
    worker.say(Reload(2, "info", []), document("third"))
    assert worker.answer() == Reloaded(2, ended_streams=7)


def test_a_document_that_cannot_be_read_is_said(worker: Conversation) -> None:
    worker.say(Reload(1, "info", []), empty_document_descriptor())
    answer = worker.answer()
    assert isinstance(answer, Reloaded)
    assert "a document that cannot be read" in str(answer.error)
    assert worker.side.files == []


def test_a_drain_without_streams_ends_at_once(worker: Conversation) -> None:
    worker.side.load = Load(0, 0)
    worker.say(Stop(60))
    assert worker.answer() == Stopped()
    assert worker.side.is_draining
    assert worker.side.cuts == []


def test_what_outlasts_a_drain_is_cut_in_portions(worker: Conversation) -> None:
    worker.say(Stop(0.1))
    assert worker.answer() == Stopped()
    assert worker.side.cuts == [256, 256, 88]


def test_a_second_word_shortens_the_drain(worker: Conversation) -> None:
    worker.say(Stop(60))
    worker.hear(lambda message: isinstance(message, Heartbeat) and worker.side.is_draining)
    assert worker.side.cuts == []
    worker.say(Stop(0))
    assert worker.answer() == Stopped()
    assert sum(worker.side.cuts) == 600


def test_connections_of_open_streams_come_while_it_drains(worker: Conversation) -> None:
    worker.say(Stop(60))
    ours, theirs = socket.socketpair()
    worker.say(Connection("listen[0]", 16, 0), theirs.detach())
    with ours:
        assert ours.recv(1) == b""
    assert worker.side.connections == 1


def test_a_certificate_comes(worker: Conversation) -> None:
    message = Certificate("web", b"key", "generated")
    worker.say(message, memory_descriptor("test", b"pem"))
    worker.hear(lambda _: worker.side.certificates == [message])


def test_it_ends_with_its_supervisor(worker: Conversation) -> None:
    worker.channel.shutdown(socket.SHUT_RDWR)
    worker.thread.join(SECONDS)
    assert not worker.thread.is_alive()
