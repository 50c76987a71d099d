"""The enclaves that are connected to this worker: their links, budget, policy and tokens."""

import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from weakref import WeakSet

from parent_side.attesting import Attesting
from parent_side.egress import Egress
from parent_side.enclave import Enclave
from parent_side.enclave_link import EnclaveLink
from parent_side.entries import Entries
from parent_side.resolves import NameAnswers
from parent_side.trust import Attested
from vsockproxy import metrics
from vsockproxy.config.document import Document
from vsockproxy.config.model import FIRST_WINDOW_BYTES, Limits
from vsockproxy.dataplane.carriers import Carrier
from vsockproxy.dataplane.cutting import cut_streams
from vsockproxy.dataplane.dedicated import DedicatedRelay
from vsockproxy.dataplane.greeting import (
    READ_BYTES,
    Received,
    carrier_of,
    make_hello,
    read_preface,
)
from vsockproxy.dataplane.link import Link, code_name
from vsockproxy.dataplane.loop import Timeout, now, sleep, spawn, timeout
from vsockproxy.dataplane.reporting import Linked, counted_code
from vsockproxy.dataplane.sockets import receive, send_all
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.dataplane.time_limits import look_seconds
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.policy import Admission, Policy
from vsockproxy.session import (
    DedicatedPreface,
    ErrorCode,
    Hello,
    PeerProtocolError,
    ReceiveBudget,
    Session,
    SessionRefused,
    agree_on_version,
)
from vsockproxy.session.attesting import ATTESTATION_REQUIRED, session_nonce
from vsockproxy.session.messages import Open, Resolve
from vsockproxy.session.opening import FEATURE_ATTESTATION

GREETINGS_AT_ONCE = 256
"""Connections of one CID whose first bytes are awaited; more are closed, with one log line."""

LINKS_AT_ONCE = 1024
"""Links of one enclave: each has buffers of its own, which no budget counts."""

ADMISSIONS_KEPT = 1024
"""CIDs whose use of limits is remembered; beyond that, those that used nothing are forgotten."""

CANNOT_ATTEST_TEXT = (
    "this parent demands attestation documents, and the enclave has none to show: is there a "
    "/dev/nsm in it, and is its version not too old for them?"
)
DEBUG_TEXT = "it runs in debug mode, which hides nothing: for development, and nothing else"

STOPPING_TEXT = "the parent is shutting down"
NOT_ADMITTED_TEXT = "this enclave may not connect any more, or has to attest itself again"

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
        self.entries = Entries(document)
        self._egress = egress
        self._name_answers = name_answers
        self._log = log
        self._services = services
        self._counters = log.activity.counters
        self._enclaves: dict[int, Enclave] = {}
        self._known: WeakSet[Link] = WeakSet()
        """Links that are up, or gone while bytes that came over them still wait to be taken."""
        self._admissions: dict[int, Admission] = {}
        """By CID, and for longer than a link is up: to come back makes nobody faster."""
        self._greetings: dict[int, int] = {}
        self._crowded: set[int] = set()
        """CIDs with too many greetings, of which the log knows."""
        self._rushing: set[int] = set()
        """CIDs with too many attestations, of which the log knows, until one of them is good."""
        self._attesting = Attesting(log.activity.counters)
        self._instance = secrets.token_bytes(16)
        self._is_draining = False
        self._changed: Callable[[int, Enclave | None], None] = lambda cid, enclave: None
        spawn(self._watch_times(), "time limits")

    def watch(self, changed: Callable[[int, Enclave | None], None]) -> None:
        """Call `changed` when links of an enclave come, drain or go; with None when it is gone."""
        self._changed = changed

    @property
    def limits(self) -> Limits:
        """The limits of the file."""
        return self.entries.config.limits

    def policy_for(self, cid: int) -> Policy:
        """The lists of an enclave that attests nothing, as on a raw port."""
        return self.entries.policy_for(cid)

    def limits_of(self, cid: int) -> Limits:
        """Its limits."""
        return self.entries.limits_of(cid)

    def name_of(self, cid: int) -> str | None:
        """Its configured name."""
        return self.entries.name_of(cid)

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

    def is_admitted(self, cid: int) -> bool:
        """Whether the enclave with a CID may have a session, by what it has attested."""
        enclave = self._enclaves.get(cid)
        return self.entries.admit(cid, enclave.attested if enclave is not None else None)

    def compile(self, document: Document) -> Entries:
        """What a document says, with the policies of the enclaves that are connected.

        Raises:
            RootsNotUsable: a file that it names cannot be read.
        """
        return Entries(document, [(each.cid, each.attested) for each in self._enclaves.values()])

    def reload(self, entries: Entries) -> None:
        """Decide by another document from now on; what is open stays.

        Args:
            entries: what `compile` made of it.
        """
        self.entries = entries
        for cid, admission in self._admissions.items():
            admission.rate = self.limits_of(cid).rate
        for enclave in list(self._enclaves.values()):
            self._use_entry(enclave)
            if not entries.admit(enclave.cid, enclave.attested):
                for link in list(enclave.links):
                    link.go_away(NOT_ADMITTED_TEXT)
            self._changed(enclave.cid, enclave)

    def _use_entry(self, enclave: Enclave) -> None:
        """Have an enclave treated as its entry says, by what it has attested last."""
        cid, attested = enclave.cid, enclave.attested
        enclave.policy = self.entries.policy_for(cid, attested)
        enclave.name = self.entries.name_of(cid, attested)
        # What a session has been told of `streams` holds for it; less is refused by the budget.
        limits = self.entries.limits_of(cid, attested)
        enclave.budget.total_bytes = limits.receive_budget
        enclave.budget.max_streams = limits.streams
        enclave.admission.rate = limits.rate

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
            async with timeout(self.limits.handshake) as time_limit:
                received = await read_preface(sock, may_be_dedicated=True)
                if isinstance(received.preface, DedicatedPreface):
                    await self._attach(sock, cid, received.preface, received.rest)
                elif self._is_draining:
                    sock.close()
                else:
                    await self._begin(sock, cid, received.preface, received, time_limit)
        except (PeerProtocolError, TimeoutError) as error:
            text = str(error) or f"no hello for {self.limits.handshake:g} s"
            reason = error.reason if isinstance(error, SessionRefused) else None
            if not (reason == "limit" and cid in self._rushing):  # which has its line
                enclave = self.name_of(cid)
                self._log.warning(
                    "link_refused", cid=cid, enclave=enclave, reason=reason or None, text=text
                )
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

    async def _begin(
        self, sock: socket.socket, cid: int, remote: Hello, received: Received, time_limit: Timeout
    ) -> None:
        can_attest = FEATURE_ATTESTATION in remote.features
        is_challenge = can_attest and self.entries.demand_attestation(cid)
        hello = make_hello(
            self._instance,
            first_window_bytes=FIRST_WINDOW_BYTES,
            max_streams=self.entries.most_streams(cid),
            is_challenge=is_challenge,
        )
        try:
            agree_on_version(hello, remote)
        except PeerProtocolError:
            await send_all(sock, hello.encode())  # so that the other side can say it as well
            raise
        refused = self._refuse(cid, remote, is_challenge)
        if refused is not None:
            await send_all(sock, replace(hello, refusal=str(refused)).encode())
            raise SessionRefused(refused.text, reason=refused.reason)
        ours = hello.encode()
        await send_all(sock, ours)
        attested, rest = None, received.rest
        if is_challenge:
            settings, trust = self.entries.config.attestation, self.entries.trust
            assert trust is not None  # nobody is challenged without
            time_limit.reschedule(None)
            attested, rest = await self._attesting.judge(
                sock,
                cid,
                session_nonce(received.message, ours),
                trust,
                lambda attested: self._admit(cid, remote.instance, attested),
                seconds=settings.timeout,
                received=rest,
            )
            self._rushing.discard(cid)
        if not self._admit(cid, remote.instance, attested):
            raise ConnectionResetError("another file was read meanwhile")
        # Looked up after the last wait: until it has a link, an enclave may be forgotten.
        enclave = self._enclave(cid, remote.instance, attested)
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

    def _refuse(self, cid: int, remote: Hello, is_challenge: bool) -> Refused | None:
        """Why an enclave gets no session, as its hello alone shows; None if it may get one."""
        known = self._enclaves.get(cid)
        if (
            known is not None
            and known.instance == remote.instance
            and len(known.links) >= LINKS_AT_ONCE
        ):
            self._counters.add(metrics.LIMIT_REFUSALS, ("links",))
            return Refused("limit", f"{LINKS_AT_ONCE} links are up")
        if is_challenge:
            try:
                self.admission_of(cid).admit_attestation(now())
            except Refused as refused:
                self._counters.add(metrics.LIMIT_REFUSALS, ("attestations",))
                if cid not in self._rushing:
                    self._rushing.add(cid)
                    reason, text = refused.reason, refused.text
                    self._log.warning("link_refused", cid=cid, reason=reason, text=text)
                return refused
        elif not self._admit(cid, remote.instance, None):
            self._attesting.refused_unasked()
            return Refused(ATTESTATION_REQUIRED, CANNOT_ATTEST_TEXT)
        return None

    def _admit(self, cid: int, instance: bytes, attested: Attested | None) -> bool:
        """Whether a link may be: one of an enclave whose others have attested has to, too."""
        known = self._enclaves.get(cid)
        is_one_of_them = known is not None and known.instance == instance and known.attested
        if attested is None and is_one_of_them and self.entries.demand_attestation(cid):
            return False
        return self.entries.admit(cid, attested)

    def _enclave(self, cid: int, instance: bytes, attested: Attested | None) -> Enclave:
        """The enclave of a link; a new instance on a CID ends the old one's sessions."""
        known = self._enclaves.get(cid)
        if known is not None and known.instance == instance and _is_same(known, attested):
            if attested is not None and known.attested is not attested:
                known.attested = attested
                self._use_entry(known)
            return known
        if known is not None:
            self._log.info("enclave_replaced", cid=cid, enclave=known.name)
            for link in list(known.links):
                link.abort(ErrorCode.NONE, "a new instance of the enclave has connected")
        limits = self.entries.limits_of(cid, attested)
        enclave = self._enclaves[cid] = Enclave(
            cid,
            instance,
            self.entries.name_of(cid, attested),
            self.entries.policy_for(cid, attested),
            ReceiveBudget(limits.receive_budget, limits.streams),
            self.admission_of(cid),
            attested,
        )
        self._use_entry(enclave)
        if attested is not None:
            self._log.write(
                "warning" if attested.is_debug else "info",
                "enclave_attested",
                {
                    "cid": cid,
                    "enclave": enclave.name,
                    "module": attested.module_id,
                    "text": DEBUG_TEXT if attested.is_debug else None,
                },
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


def _is_same(enclave: Enclave, attested: Attested | None) -> bool:
    """Whether a link that has attested so is of a known enclave; its instance is the same."""
    if attested is None:
        return True
    if enclave.attested is None:
        return not enclave.links
    return enclave.attested.is_extended_by(attested)
