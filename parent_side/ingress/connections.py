"""Serves connections from outside: whose they are, which service, which enclave; then the relay.

Nothing of a connection is sent to an enclave before its service has accepted, so until then any
other enclave that offers the service can have it.
"""

import re
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from parent_side.enclave import Enclave
from parent_side.enclaves import STOPPING_TEXT, Enclaves
from parent_side.ingress.beginning import read_beginning
from parent_side.ingress.offers import Offers
from parent_side.ingress.routes import Routes, Target, routes_of
from vsockproxy.config.document import Document
from vsockproxy.config.model import Limits, ParentConfig
from vsockproxy.dataplane.audit import StreamRecord
from vsockproxy.dataplane.closing import arm_reset, reset_socket
from vsockproxy.dataplane.dialling import tune_tcp
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.loop import now, spawn, timeout
from vsockproxy.dataplane.questions import Say, SupervisorBusy
from vsockproxy.dataplane.stream_end import ENDED_POLICY, StreamEnd
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.protocols.proxy_v2 import ProxyHeader, SocketAddress
from vsockproxy.session import ErrorCode, Open
from vsockproxy.worker_messages import MessageError, Routed

__all__ = ("INGRESS_NAME", "WAY", "Ingress", "Listener", "listeners_of")

WAY: Final = "ingress"

INGRESS_NAME: Final = re.compile(r"ingress\[(\d+)\]")
"""How the names of its listeners begin."""

MOST_WAITING: Final = 4096
"""Connections of a worker that have no stream yet; one beyond is refused. Each is a descriptor."""

MOST_TRIES: Final = 8
"""Enclaves that one connection is offered to."""

ANSWER_MARGIN_SECONDS: Final = 2.0
"""What an enclave may take beyond the connect to its service: the wire."""

_KEPT_FOR_EGRESS: Final = 8
"""One in so many streams of an enclave is kept for those that it opens: whoever floods a listener
must not keep it from its own work."""


@dataclass(frozen=True, slots=True)
class Listener:
    """What is to be done with the connections of a listener."""

    routes: Routes
    reads_header: bool


def listeners_of(document: Document) -> list[Listener]:
    """The listeners for ingress of a parent's file, in its order."""
    config = document.config
    assert isinstance(config, ParentConfig)  # the caller has a parent's file
    return [
        Listener(routes_of(document, index), listener.proxy_protocol == "v2")
        for index, listener in enumerate(config.ingress)
    ]


@dataclass(slots=True)
class Arrival:
    """A connection that waits for its stream."""

    sock: socket.socket
    target: Target
    header: ProxyHeader
    """Whose it is."""
    first_bytes: bytes
    """What was read of it already."""
    record: StreamRecord
    tried: set[int] = field(default_factory=set)
    """Enclaves that did not take it."""
    chosen: int | None = None
    """The enclave that another worker has chosen."""


class Ingress:
    """The connections of a worker.

    Args:
        document: the parent's file.
        enclaves: says which may have connections.
        log: for the audit lines, and for services that fail.
        offers: the enclaves that offer services.
        tell: sends messages for the other workers to the supervisor; SupervisorBusy if that cannot
            be now.
    """

    def __init__(
        self, document: Document, enclaves: Enclaves, log: Log, offers: Offers, tell: Say
    ) -> None:
        config = document.config
        assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
        self._enclaves = enclaves
        self._log = log
        self._offers = offers
        self._balance = offers.balance
        self._tell = tell
        self._limits: Limits = config.limits
        self._listeners = listeners_of(document)
        self._open_streams: dict[StreamEnd, tuple[Enclave, str]] = {}
        """Streams that serve a connection: the enclave, and the service."""
        self._waiting = 0
        self._is_crowded = False
        self._is_draining = False

    @property
    def is_empty(self) -> bool:
        """Whether no connection waits for its stream; those that have one are the links'."""
        return not self._waiting

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._open_streams)

    def reload(self, limits: Limits, listeners: list[Listener]) -> None:
        """Serve new connections as another file says; one that waits is the old one's."""
        self._limits = limits
        self._listeners = listeners

    def end_forbidden(self) -> int:
        """Reset the streams that are not to be any more; how many it were.

        No listener leads to them, or their enclave may have no session.
        """
        targets = [target for each in self._listeners for target in each.routes.targets]
        forbidden = [
            end
            for end, (enclave, service) in self._open_streams.items()
            if not self._enclaves.entries.admit(enclave.cid, enclave.attested)
            or not any(target.allows(enclave.cid, enclave.name, service) for target in targets)
        ]
        for end in forbidden:
            end.reset(ErrorCode.CUT, ENDED_POLICY)
        return len(forbidden)

    def drain(self) -> None:
        """Take no new connections."""
        self._is_draining = True
        self._offers.came.set()

    def connected(self, sock: socket.socket, listener: str) -> None:
        """A new connection, on the listener with a name."""
        found = INGRESS_NAME.match(listener)
        assert found is not None  # whoever calls has looked
        arm_reset(sock)
        server = SocketAddress.of(sock.getsockname())
        try:
            tune_tcp(sock)
            client = SocketAddress.of(sock.getpeername())
        except OSError:
            client = None  # it is gone already, which the first read will say
        record = StreamRecord(
            host=listener,
            port=0 if server is None else server.port,
            way=WAY,
            opened_at=now(),
            client=None if client is None else str(client),
        )
        if self._is_draining:
            sock.close()
            return
        if self._waiting >= MOST_WAITING:
            self._refuse_one(sock, record)
            return
        header = ProxyHeader(client, server)
        self._begin(self._serve(sock, self._listeners[int(found[1])], header, record))

    def routed(self, message: Routed, sock: socket.socket) -> None:
        """A connection that another worker has read, for an enclave of this one."""
        arm_reset(sock)
        header = ProxyHeader(
            SocketAddress.parse(message.client), SocketAddress.parse(message.server)
        )
        record = StreamRecord(
            host=message.service,
            port=message.port,
            way=WAY,
            opened_at=now(),
            client=message.client or None,
            rule=message.source,
        )
        cids = None if message.cids is None else frozenset(message.cids)
        target = Target(message.service, cids, message.source, message.name)
        arrival = Arrival(sock, target, header, message.first_bytes, record, set(message.tried))
        self._offers.changed(message.cid)  # who handed it over has counted it, and is put right
        self._begin(self._serve_routed(arrival, message.cid))

    def _begin(self, serving: Coroutine[Any, Any, None]) -> None:
        self._is_crowded = False
        self._waiting += 1
        # Not in the task itself: one that is cancelled before its first step runs no `finally`.
        spawn(serving, "ingress").add_done_callback(self._served)

    def _served(self, task: object) -> None:
        del task
        self._waiting -= 1

    def _refuse_one(self, sock: socket.socket, record: StreamRecord) -> None:
        if not self._is_crowded:
            self._is_crowded = True  # one line until there has been room again
            text = f"{self._waiting} connections wait for their stream"
            record.decide(self._log, allowed=False, reason="limit", text=text)
        reset_socket(sock)

    async def _serve(
        self, sock: socket.socket, listener: Listener, header: ProxyHeader, record: StreamRecord
    ) -> None:
        with self._refusing(sock, record):
            beginning = await read_beginning(
                sock,
                header,
                reads_header=listener.reads_header,
                reads_hello=listener.routes.need_server_name,
                hello_is_required=listener.routes.default is None,
                seconds=self._limits.handshake,
            )
            if beginning.header.client is not None:
                record.client = str(beginning.header.client)
            target = listener.routes.find(beginning.hello)
            record.host, record.rule = target.service, target.source
            await self._place(
                Arrival(sock, target, beginning.header, beginning.first_bytes, record)
            )

    async def _serve_routed(self, arrival: Arrival, cid: int) -> None:
        with self._refusing(arrival.sock, arrival.record):
            if cid in self._offers.own:
                arrival.chosen = cid
            else:
                arrival.tried.add(cid)  # or it would come back from where it came
            await self._place(arrival)

    @contextmanager
    def _refusing(self, sock: socket.socket, record: StreamRecord) -> Iterator[None]:
        """Say why a connection is not to be, and reset it."""
        try:
            yield
        except Refused as refused:
            record.decide(self._log, allowed=False, reason=refused.reason, text=refused.text)
            reset_socket(sock)
        except ConnectionError as error:
            # Who connects may also leave: a probe of a balancer.
            self._log.info("ingress_given_up", client=record.client, text=str(error))
            reset_socket(sock)
        except BaseException:
            reset_socket(sock)
            raise

    # ------------------------------------------------------------- finding an enclave

    async def _place(self, arrival: Arrival) -> None:
        """Offer a connection to enclaves until one takes it.

        Raises:
            Refused: none does.
        """
        refused = Refused("dial_refused", f"{MOST_TRIES} enclaves did not take it")
        has_tried = False
        while len(arrival.tried) < MOST_TRIES:
            cid = self._choose(arrival)
            if cid is None:
                if has_tried:
                    break
                cid = await self._wait_for_enclave(arrival)
            worker = self._balance[cid].worker
            if worker != self._offers.worker:
                self._hand_over(cid, worker, arrival)
                return
            arrival.tried.add(cid)
            try:
                await self._open(cid, arrival)
            except Refused as error:
                refused, has_tried = error, True
            else:
                return
        raise refused

    def _choose(self, arrival: Arrival) -> int | None:
        chosen, arrival.chosen = arrival.chosen, None
        if chosen is not None:
            return chosen
        target = arrival.target
        return self._balance.choose(
            target.service, now(), cids=target.cids, name=target.name, tried=arrival.tried
        )

    async def _wait_for_enclave(self, arrival: Arrival) -> int:
        try:
            async with timeout(self._limits.link_wait):
                while not self._is_draining:
                    self._offers.came.clear()
                    await self._offers.came.wait()
                    if (cid := self._choose(arrival)) is not None:
                        return cid
        except TimeoutError:
            pass
        if self._is_draining:
            raise Refused("limit", STOPPING_TEXT)
        target = arrival.target
        which = ""
        if target.cids is not None:
            which = f" with CID {', '.join(map(str, sorted(target.cids)))}"
        elif target.name is not None:
            which = f" of the name {target.name}"
        text = f"no enclave{which} that is connected offers the service {target.service}"
        raise Refused("not_listed", f"{text}: is it in ingress of its file?")

    def _hand_over(self, cid: int, worker: int, arrival: Arrival) -> None:
        """Give a connection to the worker that has the links of an enclave.

        Raises:
            Refused: with `limit`, the supervisor takes none now.
        """
        header, target = arrival.header, arrival.target
        message = Routed(
            cid=cid,
            worker=worker,
            service=target.service,
            cids=None if target.cids is None else sorted(target.cids),
            name=target.name,
            source=target.source,
            port=arrival.record.port,
            client="" if header.client is None else str(header.client),
            server="" if header.server is None else str(header.server),
            first_bytes=arrival.first_bytes,
            tried=sorted(arrival.tried),
        )
        try:
            self._tell(message, [arrival.sock.fileno()])
        except (SupervisorBusy, MessageError) as error:
            raise Refused("limit", str(error)) from error
        self._balance.opening(cid)  # until its worker says how many there are
        arrival.sock.close()

    async def _open(self, cid: int, arrival: Arrival) -> None:
        """Open a stream of an enclave for a connection, and relay.

        Raises:
            Refused: the enclave does not take it.
        """
        record, service = arrival.record, arrival.target.service
        enclave = self._offers.own[cid]
        record.cid, record.enclave, record.stream = cid, enclave.name, None
        record.decided_by = None
        try:
            end = self._open_stream(cid, arrival)
            address = await self._answered(end, record)
        except Refused as refused:
            if refused.reason != "limit":
                self._failed(enclave, service, refused)
            raise
        if self._balance.succeeded(cid, service):
            self._offers.changed(cid)
            self._log.info("service_back", cid=cid, enclave=record.enclave, service=service)
        record.address = address or None
        record.follow(end, is_in_enclave=False)
        record.decide(self._log, allowed=True, reason="listed")
        self._open_streams[end] = enclave, service
        end.attach(arrival.sock, to_stream=arrival.first_bytes)

    def _open_stream(self, cid: int, arrival: Arrival) -> StreamEnd:
        most = max(1, self._limits.streams - self._limits.streams // _KEPT_FOR_EGRESS)
        if self._balance[cid].streams >= most:
            raise Refused("limit", f"{most} streams of ingress are open")
        link = _best_link(self._offers.own[cid])
        if link is None:
            raise Refused("limit", "the enclave allows no more streams on any link")
        header = arrival.header
        request = Open(
            service=arrival.target.service,
            client="" if header.client is None else str(header.client),
            server="" if header.server is None else str(header.server),
        )
        end = link.open(request, self._closed(cid, arrival.record))
        self._balance.opening(cid)
        self._offers.changed(cid)
        arrival.record.stream = end.stream.id
        link.flush()
        return end

    async def _answered(self, end: StreamEnd, record: StreamRecord) -> str:
        """Wait for the enclave's answer; the address of the service, as it calls it.

        Raises:
            Refused: it does not take the stream.
        """
        seconds = self._limits.connect + ANSWER_MARGIN_SECONDS
        try:
            return (await end.opened(seconds)).address
        except Refused:
            record.decided_by = "enclave"
            raise
        except ConnectionResetError as error:
            raise Refused("dial_refused", f"the enclave did not answer: {error}") from error
        except TimeoutError as error:
            end.reset(ErrorCode.TIMED_OUT)
            text = f"the enclave did not answer for {seconds:g} s"
            raise Refused("dial_timeout", text) from error
        except BaseException:
            end.reset(ErrorCode.CANCELLED)
            raise

    def _failed(self, enclave: Enclave, service: str, refused: Refused) -> None:
        rest = self._balance.failed(enclave.cid, service, now())
        if rest:
            self._offers.changed(enclave.cid)
            self._log.warning(
                "service_put_aside",
                cid=enclave.cid,
                enclave=enclave.name,
                service=service,
                seconds=rest,
                reason=refused.reason,
                text=refused.text,
            )

    def _closed(self, cid: int, record: StreamRecord) -> Callable[[StreamEnd], None]:
        enclave = self._offers.own[cid]

        def closed(end: StreamEnd) -> None:
            self._open_streams.pop(end, None)
            if self._offers.own.get(cid) is enclave:
                self._balance.closed(cid)
                self._offers.changed(cid)
            record.close(self._log, ended=end.ended, now=now())

        return closed


def _best_link(enclave: Enclave) -> Link | None:
    candidates = [link for link in enclave.links if link.may_open]
    return min(candidates, key=lambda link: len(link.session.streams), default=None)
