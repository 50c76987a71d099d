"""The enclaves that are connected to this worker: their links, budget, policy and tokens."""

import secrets
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from weakref import WeakSet

from parent_side.egress import Egress
from parent_side.enclave import Enclave
from parent_side.resolves import NameAnswers
from vsockproxy import metrics
from vsockproxy.config.document import Document
from vsockproxy.config.model import (
    FIRST_ENCLAVE_CID,
    FIRST_WINDOW_BYTES,
    EnclaveEntry,
    Limits,
    ParentConfig,
)
from vsockproxy.dataplane.carriers import Carrier
from vsockproxy.dataplane.cutting import cut_streams
from vsockproxy.dataplane.dedicated import DedicatedRelay
from vsockproxy.dataplane.greeting import READ_BYTES, carrier_of, make_hello, read_preface
from vsockproxy.dataplane.link import Link, code_name
from vsockproxy.dataplane.loop import now, sleep, spawn, timeout
from vsockproxy.dataplane.reporting import Linked, counted_code
from vsockproxy.dataplane.sockets import receive, send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.time_limits import look_seconds
from vsockproxy.log import Log
from vsockproxy.policy import Admission, Policy, may_connect
from vsockproxy.session import (
    DedicatedPreface,
    ErrorCode,
    Hello,
    PeerProtocolError,
    ReceiveBudget,
    Session,
    agree_on_version,
)
from vsockproxy.session.messages import Open, Resolve

GREETINGS_AT_ONCE = 256
"""Connections of one CID whose first bytes are awaited; more are closed, with one log line."""

LINKS_AT_ONCE = 1024
"""Links of one enclave: each has buffers of its own, which no budget counts."""

ADMISSIONS_KEPT = 1024
"""CIDs whose use of limits is remembered; beyond that, those that used nothing are forgotten."""
ANY_ENCLAVE = -1
NO_ENCLAVE = -2
"""Stand for the CIDs of enclaves without an entry, and for those that may not connect."""

STOPPING_TEXT = "the parent is shutting down"

ServiceHandler = Callable[[Enclave, StreamEnd, Open], None]
"""Serves a stream that an enclave opened to a service of the parent; returns at once. It owns the
stream: accepts or refuses it, and logs what became of it."""


class Enclaves:
    """Greets connections from enclaves; gives their streams and questions to who serves them.

    Args:
        document: the parent's file.
        egress: serves the streams.
        name_answers: serves the questions for names.
        log: for links that come and go.
        services: what the parent itself offers, by name; all begin with `vsockproxy.`.
    """

    def __init__(
        self,
        document: Document,
        egress: Egress,
        name_answers: NameAnswers,
        log: Log,
        services: Mapping[str, ServiceHandler],
    ) -> None:
        config = document.config
        assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
        self.limits: Limits = config.limits
        self._config = config
        self._document = document
        self._entries: dict[int, EnclaveEntry] = {entry.cid: entry for entry in config.enclaves}
        self._egress = egress
        self._name_answers = name_answers
        self._log = log
        self._services = services
        self._counters = log.activity.counters
        self._enclaves: dict[int, Enclave] = {}
        self._known: WeakSet[Link] = WeakSet()
        """Links that are up, or gone while bytes that came over them still wait to be taken."""
        self._policies: dict[int, Policy] = {}
        self._admissions: dict[int, Admission] = {}
        """By CID, and for longer than a link is up: to come back makes nobody faster."""
        self._greetings: dict[int, int] = {}
        self._crowded: set[int] = set()
        """CIDs with too many greetings, of which the log knows."""
        self._instance = secrets.token_bytes(16)
        self._is_draining = False
        self._changed: Callable[[int, Enclave | None], None] = lambda cid, enclave: None
        spawn(self._watch_times(), "time limits")

    def watch(self, changed: Callable[[int, Enclave | None], None]) -> None:
        """Call `changed` when links of an enclave come, drain or go; with None when it is gone."""
        self._changed = changed

    def policy_for(self, cid: int) -> Policy:
        """The lists of one enclave."""
        key = _policy_key(cid, self._entries)
        policy = self._policies.get(key)
        if policy is None:
            policy = self._policies[key] = Policy.compile(self._document, cid=cid)
        return policy

    def limits_of(self, cid: int) -> Limits:
        """The limits of one enclave."""
        return self._config.limits_of(cid)

    def admission_of(self, cid: int) -> Admission:
        """What one enclave has open and how fast it opens, over all its links and raw ports."""
        admission = self._admissions.get(cid)
        if admission is None:
            if len(self._admissions) >= ADMISSIONS_KEPT:
                self._forget_idle_admissions()
            admission = self._admissions[cid] = Admission(self.limits_of(cid).rate)
        return admission

    def _forget_idle_admissions(self) -> None:
        time = now()
        for cid, admission in list(self._admissions.items()):
            if cid not in self._enclaves and admission.is_idle(time):
                del self._admissions[cid]

    def name_of(self, cid: int) -> str | None:
        """The configured name of an enclave."""
        entry = self._entries.get(cid)
        return entry.name if entry is not None else None

    def compile(self, document: Document) -> dict[int, Policy]:
        """The policies by which a document decides about the enclaves that are connected."""
        config = document.config
        assert isinstance(config, ParentConfig)  # the supervisor loaded a parent's file
        entries = {entry.cid for entry in config.enclaves}
        by_key = {_policy_key(cid, entries): cid for cid in self._enclaves}
        return {key: Policy.compile(document, cid=cid) for key, cid in by_key.items()}

    def reload(self, document: Document, policies: dict[int, Policy]) -> None:
        """Decide by another document from now on; what is open stays.

        Args:
            document: the parent's file.
            policies: what `compile` made of it.
        """
        config = document.config
        assert isinstance(config, ParentConfig)  # as for `compile`
        self.limits = config.limits
        self._config = config
        self._document = document
        self._entries = {entry.cid: entry for entry in config.enclaves}
        self._policies = policies
        for cid, admission in self._admissions.items():
            admission.rate = self.limits_of(cid).rate
        for enclave in self._enclaves.values():
            enclave.policy = self.policy_for(enclave.cid)
            enclave.name = self.name_of(enclave.cid)
            # What a session has been told of `streams` holds for it; less is refused by the budget.
            limits = self.limits_of(enclave.cid)
            enclave.budget.total_bytes = limits.receive_budget
            enclave.budget.max_streams = limits.streams
            if not may_connect(document, enclave.cid):
                for link in list(enclave.links):
                    link.go_away("this CID may not connect any more")

    def cut(self, most: int) -> int:
        """Reset up to `most` streams; how many it were."""
        return cut_streams(self._known, most)

    @property
    def connected_enclaves(self) -> int:
        """How many enclaves have a link."""
        return len(self._enclaves)

    @property
    def linked(self) -> list[Linked]:
        """The enclaves that have links, for the report."""
        return [Linked(each.cid, each.name, each.links) for each in self._enclaves.values()]

    @property
    def is_empty(self) -> bool:
        """Whether no link is up, and all that came over those that were has been taken."""
        return not any(link.ends or not link.is_closed for link in self._known)

    def drain(self) -> None:
        """Take no new streams; links close when theirs have ended."""
        self._is_draining = True
        for enclave in self._enclaves.values():
            for link in list(enclave.links):
                link.go_away(STOPPING_TEXT)

    def connected(self, sock: socket.socket, cid: int) -> None:
        """A new connection on a link listener."""
        greetings = self._greetings.get(cid, 0)
        if greetings >= GREETINGS_AT_ONCE:
            sock.close()
            self._counters.add(metrics.LIMIT_REFUSALS, ("greetings",))
            if cid not in self._crowded:
                self._crowded.add(cid)
                text = f"{greetings} connections have yet to say hello"
                self._log.warning("link_refused", cid=cid, reason="limit", text=text)
            return
        self._greetings[cid] = greetings + 1
        spawn(self._greet(sock, cid), "greeting")

    async def _greet(self, sock: socket.socket, cid: int) -> None:
        try:
            async with timeout(self.limits.handshake):
                preface, rest = await read_preface(sock, may_be_dedicated=True)
                if isinstance(preface, DedicatedPreface):
                    await self._attach(sock, cid, preface, rest)
                elif self._is_draining:
                    sock.close()
                else:
                    await self._begin(sock, cid, preface, rest)
        except (PeerProtocolError, TimeoutError) as error:
            text = str(error) or f"no hello for {self.limits.handshake:g} s"
            self._log.warning("link_refused", cid=cid, enclave=self.name_of(cid), text=text)
            sock.close()
        except OSError as error:
            # Who connects may also leave: an enclave that stops, a probe of a load balancer.
            text = str(error)
            self._log.info("link_given_up", cid=cid, enclave=self.name_of(cid), text=text)
            sock.close()
        except BaseException:
            sock.close()
            raise
        finally:
            self._greetings[cid] -= 1
            self._crowded.discard(cid)
            if not self._greetings[cid]:
                del self._greetings[cid]

    async def _begin(self, sock: socket.socket, cid: int, remote: Hello, rest: bytes) -> None:
        streams = self.limits_of(cid).streams
        hello = make_hello(
            self._instance, first_window_bytes=FIRST_WINDOW_BYTES, max_streams=streams
        )
        try:
            agree_on_version(hello, remote)
        except PeerProtocolError:
            await send_all(sock, hello.encode())  # so that the other side can say it as well
            raise
        known = self._enclaves.get(cid)
        is_again = known is not None and known.instance == remote.instance
        if known is not None and is_again and len(known.links) >= LINKS_AT_ONCE:
            self._counters.add(metrics.LIMIT_REFUSALS, ("links",))
            text = f"{LINKS_AT_ONCE} links are up"
            await send_all(sock, replace(hello, refusal=text).encode())
            raise PeerProtocolError(ErrorCode.NONE, text)
        await send_all(sock, hello.encode())
        # Looked up after the last wait: until it has a link, an enclave may be forgotten.
        enclave = self._enclave(cid, remote.instance)
        carrier = carrier_of(sock)
        session = Session(
            is_initiator=False,
            local=hello,
            remote=remote,
            budget=enclave.budget,
            now=now(),
            max_payload_bytes=carrier.max_payload_bytes,
        )
        link = Link(sock, session, carrier, EnclaveLink(self, enclave))
        enclave.links.add(link)
        enclave.services = remote.services
        self._known.add(link)
        self._log.info("link_up", cid=cid, enclave=enclave.name, links=len(enclave.links))
        if self._is_draining:
            link.go_away(STOPPING_TEXT)
        link.begin(rest)
        self._changed(cid, self._enclaves.get(cid))

    def _enclave(self, cid: int, instance: bytes) -> Enclave:
        """The enclave of a hello; a new instance on a CID ends the old one's sessions."""
        known = self._enclaves.get(cid)
        if known is not None and known.instance == instance:
            return known
        if known is not None:
            self._log.info("enclave_replaced", cid=cid, enclave=known.name)
            for link in list(known.links):
                link.abort(ErrorCode.NONE, "a new instance of the enclave has connected")
        enclave = self._enclaves[cid] = Enclave(
            cid,
            instance,
            self.name_of(cid),
            self.policy_for(cid),
            ReceiveBudget(self.limits.receive_budget, self.limits_of(cid).streams),
            self.admission_of(cid),
        )
        return enclave

    async def _attach(
        self, sock: socket.socket, cid: int, preface: DedicatedPreface, rest: bytes
    ) -> None:
        enclave = self._enclaves.get(cid)
        expected = enclave.expected.pop(preface.token, None) if enclave is not None else None
        if expected is None:
            raise PeerProtocolError(ErrorCode.PROTOCOL, "a token that no stream expects")
        if expected.check is not None:
            try:
                rest = await expected.check(partial(receive, sock, READ_BYTES), rest)
            except BaseException:
                expected.end.reset(ErrorCode.NOT_TLS)  # closes the local socket, too
                raise
            if expected.end.is_closed:
                raise ConnectionResetError("the stream ended before its connection was read")
        carrier: Carrier = carrier_of(sock)
        DedicatedRelay(expected.end, expected.local, sock, carrier, to_local=rest).start()

    async def _watch_times(self) -> None:
        while True:
            await sleep(look_seconds(self.limits))
            limits = self.limits
            if limits.half_closed or limits.idle:
                for link in list(self._known):
                    link.check_times(limits.half_closed, limits.idle)

    def stream_opened(self, enclave: Enclave, end: StreamEnd, request: Open) -> None:
        """An enclave opened a stream."""
        if request.service:
            self._serve_service(enclave, end, request)
            return
        if request.dedicated:
            if enclave.dedicated_streams >= self.limits.dedicated:
                self._counters.add(metrics.LIMIT_REFUSALS, ("dedicated",))
                text = f"{self.limits.dedicated} dedicated streams are open"
                self._egress.refuse(enclave, end, request, "limit", text)
                return
            enclave.dedicated_streams += 1
        self._egress.serve(enclave, end, request)

    def _serve_service(self, enclave: Enclave, end: StreamEnd, request: Open) -> None:
        serve = self._services.get(request.service)
        if serve is None:
            text = f"the parent offers no service of the name {request.service}"
            self._egress.refuse(enclave, end, request, "not_listed", text)
        elif request.dedicated:
            text = "a service of the parent has no connection of its own"
            self._egress.refuse(enclave, end, request, "limit", text)
        else:
            serve(enclave, end, request)

    def resolve_received(
        self, enclave: Enclave, link: Link, request_id: int, question: Resolve
    ) -> None:
        """An enclave asks for a name."""
        self._name_answers.serve(enclave, link, request_id, question)

    def link_going_away(self, enclave: Enclave) -> None:
        """A link takes no new streams any more, and ends with those that it has."""
        self._changed(enclave.cid, self._enclaves.get(enclave.cid))

    def link_ended(
        self, enclave: Enclave, link: Link, code: int, text: str, is_clean: bool
    ) -> None:
        """A link is gone, and its streams and questions with it."""
        self._name_answers.link_ended(link)
        enclave.links.discard(link)
        self._counters.add(metrics.LINKS_ENDED, (counted_code(code),))
        if not enclave.links and self._enclaves.get(enclave.cid) is enclave:
            del self._enclaves[enclave.cid]
        self._changed(enclave.cid, self._enclaves.get(enclave.cid))
        self._log.write(
            "info" if is_clean else "warning",
            "link_down",
            {
                "cid": enclave.cid,
                "enclave": enclave.name,
                "code": code_name(code),
                "text": text,
            },
        )


def _policy_key(cid: int, entries: Collection[int]) -> int:
    """Enclaves without an entry share a policy; low CIDs have none of their own, or nothing."""
    if cid in entries:
        return cid
    return ANY_ENCLAVE if cid >= FIRST_ENCLAVE_CID else NO_ENCLAVE


class EnclaveLink:
    """Binds the events of a link to its enclave."""

    __slots__ = ("_enclave", "_enclaves")

    def __init__(self, enclaves: Enclaves, enclave: Enclave) -> None:
        self._enclaves = enclaves
        self._enclave = enclave

    def stream_opened(self, link: Link, end: StreamEnd, request: Open) -> None:
        """The enclave opened a stream."""
        del link
        self._enclaves.stream_opened(self._enclave, end, request)

    def resolve_received(self, link: Link, request_id: int, question: Resolve) -> None:
        """The enclave asks for a name."""
        self._enclaves.resolve_received(self._enclave, link, request_id, question)

    def link_going_away(self, link: Link, text: str) -> None:
        """No more streams are opened here by either side; the link ends with its streams."""
        del link, text
        self._enclaves.link_going_away(self._enclave)

    def link_ended(self, link: Link, code: int, text: str, is_clean: bool) -> None:
        """The link is gone."""
        self._enclaves.link_ended(self._enclave, link, code, text, is_clean)
