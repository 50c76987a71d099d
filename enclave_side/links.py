"""The links to the parent: several, dialled from here, and dialled again for ever."""

import random
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet

from enclave_side.attester import Attester
from vsockproxy.addresses import Endpoint
from vsockproxy.config.model import FIRST_WINDOW_BYTES, Limits
from vsockproxy.dataplane.carriers import Carrier
from vsockproxy.dataplane.cutting import cut_streams
from vsockproxy.dataplane.dialling import DialError, connect
from vsockproxy.dataplane.greeting import carrier_of, greet, make_hello
from vsockproxy.dataplane.link import Link, code_name
from vsockproxy.dataplane.loop import Event, now, sleep, spawn, timeout
from vsockproxy.dataplane.sockets import send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.time_limits import look_seconds
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Admission
from vsockproxy.session import (
    DedicatedPreface,
    PeerProtocolError,
    ReceiveBudget,
    Session,
    SessionRefused,
)
from vsockproxy.session.messages import Open, Resolve, Resolved

FIRST_PAUSE_SECONDS = 0.05
MOST_PAUSE_SECONDS = 1.0
DIAL_SECONDS = 1.0
"""One attempt; the kernel's own limit for vsock is 2 s."""

MOST_REFUSED_PAUSE_SECONDS = 10.0
"""Between documents that the parent refuses: each keeps the module and the parent busy."""

STOPPING_TEXT = "the enclave is shutting down"
MAKING_TEXT = "it demands attestation, and the document is being made"


class Services(Protocol):
    """What the parent may open streams to."""

    @property
    def names(self) -> Collection[str]:
        """What they are called."""

    def serve(self, end: StreamEnd, request: Open) -> None:
        """Serve one stream; returns at once."""


@dataclass(slots=True)
class _Slot:
    number: int
    told: str = ""
    """What the log has said last of why this slot is not up: the kind of failure."""


class Links:
    """Keeps `count` links to the parent up, and picks one for each stream.

    Args:
        parent: where the parent listens.
        count: how many links.
        instance: 128 random bits, the same for all workers of this enclave.
        limits: streams, budget and times.
        log: for links that come and go.
        services: what the parent may open streams to.
        workers: how many of them share what limits allow by the second and by rule.
        attester: gets the documents that a parent may demand.
    """

    def __init__(
        self,
        parent: Endpoint,
        count: int,
        instance: bytes,
        limits: Limits,
        log: Log,
        services: Services | None = None,
        *,
        workers: int = 1,
        attester: Attester | None = None,
    ) -> None:
        self.parent = parent
        self.limits = limits
        self.admission = Admission(limits.rate, share=workers)
        self.budget = ReceiveBudget(limits.receive_budget, limits.streams)
        self._count = count
        self._instance = instance
        self._log = log
        self._services = services
        self._attester = attester
        self._hindrance = ""
        """Why there is no link, where that is not that nobody answers."""
        self._links: dict[Link, Event] = {}
        self._known: WeakSet[Link] = WeakSet()
        """Links that are up, or gone while bytes that came over them still wait for a program."""
        self._came = Event()
        self._is_stopping = False

    def start(self) -> None:
        """Begin to dial."""
        for number in range(self._count):
            spawn(self._keep(_Slot(number)), f"link {number}")
        spawn(self._watch_times(), "time limits")

    @property
    def links(self) -> list[Link]:
        """The links that are up."""
        return list(self._links)

    @property
    def is_empty(self) -> bool:
        """Whether no link is up and programs have taken all that came over those that were."""
        return not self._links and not any(link.ends for link in self._known)

    def go_away(self) -> None:
        """Open no more streams; links close when theirs have ended."""
        self._is_stopping = True
        for link in self.links:
            link.go_away(STOPPING_TEXT)

    def cut(self, most: int) -> int:
        """Reset up to `most` streams; how many it were."""
        return cut_streams(self._known, most)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return sum(len(link.ends) for link in self._known)

    async def pick(self) -> Link:
        """The link with the fewest streams; waits `link_wait` for one.

        Raises:
            Refused: with limit, when links are up and the parent allows no more streams on any;
                with parent_away, when no link came up in time.
        """
        link = self._best()
        if link is None:
            if any(not link.session.is_going_away for link in self._links):
                raise Refused("limit", "the parent allows no more streams on any link")
            try:
                async with timeout(self.limits.link_wait):
                    while link is None:
                        self._came.clear()
                        await self._came.wait()
                        link = self._best()
            except TimeoutError:
                text = f"no link to the parent at {self.parent} for {self.limits.link_wait:g} s"
                if self._hindrance:
                    text += f": {self._hindrance}"
                raise Refused("parent_away", text) from None
        return link

    async def resolve(self, name: str, record_type: int) -> Resolved:
        """Ask the parent about a name; waits `link_wait` for a link.

        Args:
            name: in normal form.
            record_type: a DNS type number.

        Raises:
            Refused: with parent_away, or with limit when too many questions are open or come.
            ConnectionResetError: the link ended before the answer.
        """
        self.admission.admit_lookup(now())
        up = [link for link in self._links if not link.is_closed]
        link = random.choice(up) if up else await self.pick()
        return await link.resolve(Resolve(name, record_type))

    async def connect_dedicated(self, token: bytes) -> tuple[socket.socket, Carrier]:
        """A connection of its own for a stream that was opened with `dedicated`.

        Raises:
            Refused: with parent_away, when the parent does not take it.
        """
        try:
            # The parent expects it for as long; it is not dialled again, as a link is.
            sock = await connect(self.parent, timeout_seconds=self.limits.handshake)
        except DialError as error:
            raise Refused("parent_away", error.text) from error
        try:
            await send_all(sock, DedicatedPreface(token).encode())
        except OSError as error:
            sock.close()
            raise Refused("parent_away", f"{self.parent}: {error}") from error
        return sock, carrier_of(sock)

    def _best(self) -> Link | None:
        by_load = sorted(self._links, key=lambda link: len(link.session.streams))
        return next((link for link in by_load if link.may_open), None)

    async def _keep(self, slot: _Slot) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._is_stopping:
            most_pause = MOST_PAUSE_SECONDS
            try:
                link, left = await self._dial(slot)
            except (DialError, PeerProtocolError, OSError) as error:
                self._hindrance = ""
                kind = "failed"
                if isinstance(error, SessionRefused):
                    self._hindrance, kind = error.text, "refused"
                    most_pause = MOST_REFUSED_PAUSE_SECONDS if error.has_cost else most_pause
                if slot.told != kind:
                    slot.told = kind
                    text = str(error) or f"no hello for {self.limits.handshake:g} s"
                    self._log.warning(
                        "link_failed", link=slot.number, parent=str(self.parent), text=text
                    )
            else:
                began = now()
                await left.wait()
                # A parent that greets and then ends every session is not dialled in a rush either.
                if link.streams_opened or now() - began > MOST_PAUSE_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
            if not self._is_stopping:
                await sleep(pause * random.uniform(0.8, 1.2))
                pause = min(2 * pause, most_pause)

    async def _dial(self, slot: _Slot) -> tuple[Link, Event]:
        attester = self._attester
        hello = make_hello(
            self._instance,
            first_window_bytes=FIRST_WINDOW_BYTES,
            max_streams=self.limits.streams,
            services=frozenset(self._services.names if self._services else ()),
            can_attest=attester is not None and attester.can_attest,
        )
        async with timeout(DIAL_SECONDS + self.limits.handshake):
            sock = await connect(self.parent, timeout_seconds=DIAL_SECONDS)
            try:
                greeted = await greet(sock, hello)
            except BaseException:
                sock.close()
                raise
        rest = greeted.rest
        if greeted.nonce is not None:
            assert attester is not None  # only who says that it can attest is challenged
            # What it said of the last one is more to the point.
            self._hindrance = self._hindrance or MAKING_TEXT
            try:
                rest = await attester.attest(sock, greeted, self.limits.handshake)
            except BaseException:
                sock.close()
                raise
        carrier = carrier_of(sock)
        session = Session(
            is_initiator=True,
            local=hello,
            remote=greeted.remote,
            budget=self.budget,
            now=now(),
            max_payload_bytes=carrier.max_payload_bytes,
        )
        left = Event()
        link = Link(sock, session, carrier, self)
        self._links[link] = left
        self._known.add(link)
        slot.told = self._hindrance = ""
        self._log.info("link_up", link=slot.number, parent=str(self.parent))
        link.begin(rest)
        if self._is_stopping:
            link.go_away(STOPPING_TEXT)
        self._came.set()
        return link, left

    async def _watch_times(self) -> None:
        limits = self.limits
        if not (limits.half_closed or limits.idle):
            return
        while True:
            await sleep(look_seconds(limits))
            for link in list(self._known):
                link.check_times(limits.half_closed, limits.idle)

    # ------------------------------------------------------------- events of a link

    def stream_opened(self, link: Link, end: StreamEnd, request: Open) -> None:
        """The parent opened a stream: services are all that it may reach."""
        del link
        if not request.service or self._services is None:
            end.refuse("not_listed", "this enclave offers no such service")
            return
        self._services.serve(end, request)

    def resolve_received(self, link: Link, request_id: int, question: Resolve) -> None:
        """The parent asked for a name: enclaves resolve nothing."""
        link.answer_resolve(
            request_id, Resolved("not_listed", f"an enclave resolves no names: {question.name}")
        )

    def link_going_away(self, link: Link, text: str) -> None:
        """The parent drains; a new link is dialled at once, for another worker or a restart."""
        self._log.info("link_draining", parent=str(self.parent), text=text)
        self._links[link].set()

    def link_ended(self, link: Link, code: int, text: str, is_clean: bool) -> None:
        """The link is gone, and its streams with it."""
        left = self._links.pop(link, None)
        if left is not None:
            left.set()
        self._log.write(
            "info" if is_clean else "warning",
            "link_down",
            {"parent": str(self.parent), "code": code_name(code), "text": text},
        )
