"""What the workers of both sides have in common: the channel to the supervisor, and their life."""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from vsockproxy.config.document import Document
from vsockproxy.dataplane.loop import Event, add_reader, now, remove_reader, run, sleep, spawn
from vsockproxy.dataplane.questions import Questions
from vsockproxy.passed_memory import read_document
from vsockproxy.worker_messages import (
    Certificate,
    ChannelClosed,
    Configure,
    Connection,
    FromWorker,
    Heartbeat,
    Listeners,
    ListStreams,
    MessageError,
    Named,
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
    receive,
    send,
)
from vsockproxy.worker_reports import Report, StreamPage, report_descriptor

REPORT_SECONDS = 1.0
"""How often a worker says what it has done, where somebody watches."""

HEARTBEAT_SECONDS = 1.0

DRAIN_STEP_SECONDS = 0.02

MAX_ERROR_CHARACTERS = 1000

CUT_AT_ONCE = 256
CUT_PAUSE_SECONDS = 0.01
"""Streams that are cut at the end of a drain, and the pause before the next: each writes a line,
and the pipe that takes them is emptied meanwhile."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much a side serves: enclaves that are connected (0 inside one), and open streams."""

    enclaves: int
    streams: int


class Side(Protocol):
    """What makes a worker one of the enclave's or of the parent's."""

    def connection(self, message: Connection, sock: socket.socket) -> None:
        """A connection that the supervisor accepted."""

    def offered(self, message: Offer) -> None:
        """What an enclave of another worker offers for ingress."""

    def routed(self, message: Routed, sock: socket.socket) -> None:
        """A connection of ingress that another worker has for one of this one's enclaves."""

    def sockets(self, message: Sockets, sockets: list[socket.socket]) -> None:
        """Sockets that it had asked the supervisor for."""

    def certificate(self, message: Certificate, descriptor: int) -> None:
        """What a service presents from now on; the descriptor stays the caller's."""

    def connection_failed(self, text: str) -> None:
        """One could not be taken, and is closed; called once until one has been taken again."""

    async def report(self) -> Report:
        """What has been done since the start, and what is open."""

    async def list_streams(self, limit: int) -> StreamPage:
        """The newest open streams, at most `limit`."""

    def drain(self) -> None:
        """Take nothing new; `is_drained` tells when the open streams have ended.

        Connections may come even then: those of open streams, and others, which are closed.
        """

    @property
    def is_drained(self) -> bool:
        """Whether nothing is open."""

    def cut(self, most: int) -> bool:
        """Reset up to `most` streams that are open; whether there were any."""

    def reload(self, message: Reload, document: Document) -> int:
        """Serve another document; how many open streams it forbids, and were ended for that.

        Whatever it raises, everything has to be as before.
        """

    @property
    def load(self) -> Load:
        """How much there is to do."""


MakeSide = Callable[[Configure, Document, list[socket.socket], Questions], Side]
"""Builds a side from its configuration, its listeners, and whom it may ask."""


class Worker:
    """One worker process, from `configure` to its end.

    Args:
        channel: the worker's end of the channel to its supervisor.
        make_side: builds the side from its configuration.
    """

    def __init__(self, channel: socket.socket, make_side: MakeSide) -> None:
        self._channel = channel
        self._make_side = make_side
        self._side: Side | None = None
        self._configure: Configure | None = None
        self._document: Document | None = None
        self._listeners: list[socket.socket] = []
        self._questions = Questions(partial(send, channel))
        self._stop = Event()
        self._drains_until = float("inf")
        """When what is still open is cut, on the loop's clock."""
        self._is_orphan = False
        self._is_failing = False
        """The last connection could not be taken."""

    async def live(self) -> None:
        """Serve until the supervisor says stop or is gone."""
        add_reader(self._channel.fileno(), self._on_readable)
        spawn(self._beat(), "heartbeat")
        await self._stop.wait()
        if self._is_orphan or self._side is None:
            return
        self._side.drain()
        while now() < self._drains_until and not (self._side.is_drained or self._is_orphan):
            await sleep(DRAIN_STEP_SECONDS)
        while self._side.cut(CUT_AT_ONCE):  # an orphan too: it is quicker than its sockets' ends
            await sleep(CUT_PAUSE_SECONDS)
        self._say(Stopped())

    async def _beat(self) -> None:
        while not self._is_orphan:
            if self._side is not None:
                load = self._side.load
                try:
                    send(self._channel, Heartbeat(load.enclaves, load.streams))
                except BlockingIOError:
                    pass  # what lies in the channel already says the same
                except ChannelClosed:
                    self._leave()
            await sleep(HEARTBEAT_SECONDS)

    def _say(self, message: FromWorker) -> None:
        try:
            send(self._channel, message)
        except (ChannelClosed, BlockingIOError):
            self._leave()

    def _leave(self) -> None:
        """The supervisor is gone: its replacement starts workers of its own."""
        remove_reader(self._channel.fileno())
        self._is_orphan = True
        self._stop.set()

    def _begin_when_complete(self) -> None:
        configure = self._configure
        assert configure is not None  # `configure` comes first
        assert self._document is not None
        wanted = len(configure.listeners) if configure.listeners_follow else 0
        if self._side is None and len(self._listeners) == wanted:
            self._side = self._make_side(
                configure, self._document, self._listeners, self._questions
            )
            # What is there now stays: not to be looked through for garbage, again and again.
            gc.freeze()
            self._say(Ready())
            if configure.reports:
                spawn(self._report_on(self._side), "reports")

    async def _report_on(self, side: Side) -> None:
        while not self._is_orphan:
            self._say_with(Statistics(), await side.report())
            await sleep(REPORT_SECONDS)

    async def _list_streams(self, side: Side, question: ListStreams) -> None:
        page = await side.list_streams(question.limit)
        if not self._is_orphan:
            self._say_with(StreamsListed(question.request), page)

    def _say_with(self, message: Statistics | StreamsListed, report: Report | StreamPage) -> None:
        """Send a report, unless the supervisor takes none now: the next one has it all again."""
        descriptor = report_descriptor(report)
        try:
            send(self._channel, message, [descriptor])
        except BlockingIOError:
            pass
        except ChannelClosed:
            self._leave()
        finally:
            os.close(descriptor)

    def _reload(self, message: Reload, descriptor: int) -> None:
        try:
            try:
                document = read_document(descriptor)
            finally:
                os.close(descriptor)
            if self._side is None:
                raise MessageError("reload before configure")
            ended_streams = self._side.reload(message, document)
        except Exception as error:  # whatever it is, the old document still holds
            text = f"{type(error).__name__}: {error}"
            self._say(Reloaded(message.request, text[:MAX_ERROR_CHARACTERS]))
        else:
            self._say(Reloaded(message.request, ended_streams=ended_streams))

    def _on_readable(self) -> None:
        while not self._is_orphan:
            try:
                message, descriptors = receive(self._channel)
            except BlockingIOError:
                return
            except ChannelClosed:
                self._leave()
                return
            except MessageError as error:
                if self._side is None:
                    raise
                if not self._is_failing:
                    self._is_failing = True
                    self._side.connection_failed(f"are descriptors used up (LimitNOFILE)? {error}")
                continue
            if isinstance(message, Configure):
                try:
                    self._document = read_document(descriptors[0])
                finally:
                    os.close(descriptors[0])
                self._configure = message
                self._begin_when_complete()
            elif isinstance(message, Listeners):
                self._listeners += [socket.socket(fileno=number) for number in descriptors]
                self._begin_when_complete()
            elif isinstance(message, Named):
                self._questions.answered(message)
            elif isinstance(message, Sockets):
                sockets = [socket.socket(fileno=number) for number in descriptors]
                assert self._side is not None  # who asked is there
                self._side.sockets(message, sockets)
            elif isinstance(message, Offer):
                if self._side is not None:
                    self._side.offered(message)
            elif isinstance(message, Routed):
                routed = socket.socket(fileno=descriptors[0])
                if self._side is None or self._stop.is_set():
                    routed.close()
                else:
                    self._side.routed(message, routed)
            elif isinstance(message, Certificate):
                try:
                    if self._side is not None:
                        self._side.certificate(message, descriptors[0])
                finally:
                    os.close(descriptors[0])
            elif isinstance(message, Connection):
                sock = socket.socket(fileno=descriptors[0])
                self._is_failing = False
                if self._side is None:
                    sock.close()
                else:
                    self._side.connection(message, sock)
            elif isinstance(message, ListStreams):
                if self._side is not None:
                    spawn(self._list_streams(self._side, message), "list of streams")
            elif isinstance(message, Reload):
                self._reload(message, descriptors[0])
            elif isinstance(message, Stop):
                self._drains_until = min(self._drains_until, now() + message.drain_seconds)
                self._stop.set()
            else:
                raise MessageError(f"a {type(message).__name__} message, which is not for workers")


def run_worker(make_side: MakeSide) -> None:
    """The main function of a worker process; its only argument is the channel's descriptor."""
    # Ctrl-C and a group's SIGTERM are the supervisor's to interpret.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.set_blocking(2, False)  # a pipe of this process alone; what it does not take is dropped
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.setblocking(False)

    async def main() -> None:
        await Worker(channel, make_side).live()

    run(main())
