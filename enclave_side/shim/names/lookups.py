"""What is answered to a question: by policy, the address table and, where one must ask, the parent.

In this order: what is local (localhost, the reverse zone of our block), what this side's policy
says of the name, whether the type has records at all, whether the parent knows the name and lets it
pass, and the name's address. Each step but the last two is answered at once. A name is only ever
refused for a reason; where the parent gave none (it is away, too slow, its servers failed), the
name's address is told all the same, and the connection to it then fails in its own terms.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from enclave_side.shim.names.expiring_cache import ExpiringCache
from enclave_side.shim.names.lookup_log import LookupLog
from enclave_side.shim.names.port_sets import LOCALHOST, PortSets
from enclave_side.shim.names.table import AddressTable
from vsockproxy.addresses import Host, IpAddress
from vsockproxy.dataplane import loop
from vsockproxy.errors import Refused, VsockproxyError
from vsockproxy.log import Log
from vsockproxy.policy import Policy, Reason
from vsockproxy.protocols.dns import (
    ANY_REFUSED,
    BAD_VERSION,
    NEGATIVE_TTL_SECONDS,
    NO_DATA,
    ErrorCode,
    ExtendedError,
    Query,
    RecordType,
    Reply,
    address_reply,
    name_reply,
    no_such_name,
    record_reply,
    reverse_address,
)
from vsockproxy.protocols.errors import RecordError
from vsockproxy.session import Resolved

__all__ = ("Answer", "LookupCounts", "Lookups", "Numberer", "Resolver")

ANSWER_SECONDS: Final = 2.0
"""How long the parent, and then the supervisor, may take; programs wait five."""

MOST_QUESTIONS: Final = 1024
"""Names that the parent is asked for at one time; four links take as many (W-091)."""
MOST_WAITING: Final = 4096
"""Queries that wait for the parent; one beyond is dropped, and its program asks again."""

MOST_KNOWN: Final = 4096
MOST_KNOWN_BYTES: Final = 4096
"""Records of one name that are kept; others are asked for each time."""

LEAST_KNOWN_SECONDS: Final = 1
MOST_KNOWN_SECONDS: Final = 300
"""How long it is believed that a name exists, whatever TTL the parent sends."""
FAILED_SECONDS: Final = 1
"""How long a question is not asked again that was not answered."""

_PARENT: Final = "parent"

_PASSED_ON: Final = frozenset({RecordType.MX, RecordType.SRV, RecordType.TXT})

_REFUSED_BY_POLICY: Final = frozenset(
    {
        Reason.NOT_LISTED,
        Reason.ATTESTATION_REQUIRED,
        Reason.PORT_NOT_LISTED,
        Reason.DENIED,
        Reason.ADDRESS_PRIVATE,
        Reason.ADDRESS_METADATA,
        Reason.ADDRESS_RESERVED,
    }
)

_LOOPBACK: Final[dict[int, IpAddress]] = {
    RecordType.A: IPv4Address("127.0.0.1"),
    RecordType.AAAA: IPv6Address("::1"),
}


class Resolver(Protocol):
    """Asks the parent."""

    async def resolve(self, name: str, record_type: int) -> Resolved:
        """What the parent knows of a name.

        Args:
            name: in normal form.
            record_type: A, also for whether the name exists at all; MX, SRV or TXT.

        Raises:
            Refused: the question could not be put: limit, parent_away.
            ConnectionResetError: the link ended before the answer.
        """


class Numberer(Protocol):
    """Asks the supervisor, whose table alone gives numbers and has those of all workers."""

    async def number(self, name: str) -> IPv4Address | None:
        """The address of a name under a wildcard; None when none is left for it.

        Raises:
            OSError, VsockproxyError: the supervisor cannot be asked.
        """

    async def name_of(self, address: IPv4Address) -> str | None:
        """The name that an address of the block was given to, if any.

        Raises:
            OSError, VsockproxyError: the supervisor cannot be asked.
        """


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer, and for how long whoever asks the same may be answered the same."""

    reply: Reply
    lifetime_seconds: float


Answered = Callable[[Answer | None], None]
"""Takes the answer, once; None where there is to be none."""


@dataclass(slots=True)
class LookupCounts:
    """How lookups ended, since the start of the worker."""

    answered: int = 0
    """Every answer but those to garbage. Those that repeat an answer to the very same question, for
    at most its lifetime, count here alone."""
    without_address: int = 0
    """NXDOMAIN because no address was left, or the supervisor gave none."""
    unverified: int = 0
    """Addresses told without an answer of the parent."""
    malformed: int = 0
    dropped: int = 0
    """Queries without an answer: too many at one time."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the parent said of a name, without the records themselves."""

    reason: str
    text: str
    lifetime_seconds: float
    records: Reply = NO_DATA
    """Those of other types than A, as they are answered."""

    @property
    def refuses(self) -> bool:
        """Whether there shall be no answer, for certain."""
        return self.reason == Reason.NO_SUCH_NAME or self.reason in _REFUSED_BY_POLICY


@dataclass(slots=True)
class _Question:
    """One question under way, and whoever waits for it."""

    task: loop.Task[None]
    waiting: list[Answered] = field(default_factory=list)


_Key = tuple[str, int]
"""A name and a record type."""


class Lookups:
    """Answers questions.

    Args:
        policy: this side's.
        port_sets: which names have addresses, and of which kind.
        table: this process's mirror of the supervisor's table; learns what the numberer says.
        resolver: asks the parent.
        numberer: asks the supervisor.
        log: for refusals.
        now: seconds, monotonic.
    """

    def __init__(
        self,
        policy: Policy,
        port_sets: PortSets,
        table: AddressTable,
        resolver: Resolver,
        numberer: Numberer,
        log: Log,
        *,
        now: Callable[[], float] = loop.now,
    ) -> None:
        self.counts = LookupCounts()
        self.log = LookupLog(log)
        self._policy = policy
        self._port_sets = port_sets
        self._table = table
        self._resolver = resolver
        self._numberer = numberer
        self._now = now
        self._known: ExpiringCache[_Key, tuple[_Found, float]] = ExpiringCache(MOST_KNOWN)
        """With the time at which each ends."""
        self._questions: dict[_Key, _Question] = {}
        self._waiting = 0

    def ask(self, query: Query, answered: Answered) -> None:
        """Answer `query`, at once or later; `answered` is called exactly once."""
        self.counts.answered += 1
        answer = self._at_once(query)
        if isinstance(answer, Answer):
            answered(answer)
        else:
            self._join(answer, answered)

    def close(self) -> None:
        """Stop asking; whoever waits gets no answer."""
        for question in self._questions.values():
            question.task.cancel()

    # ------------------------------------------------------------- without waiting

    def _at_once(self, query: Query) -> Answer | _Key:
        """The answer, or what has to be asked for."""
        if query.edns is not None and query.edns.version:
            return _brief(BAD_VERSION)
        if query.is_root:
            return _brief(NO_DATA)
        host = query.host
        if host is None:
            return self._refuse(query.text, Reason.NOT_LISTED, "it is no name of a host")
        local = self._local(host, query.record_type)
        if local is not None:
            return local if isinstance(local, tuple) else _brief(local)
        refusal = self._decide(host)
        if refusal is not None:
            return refusal
        if query.record_type == RecordType.ANY:
            return _brief(ANY_REFUSED)
        now = self._now()
        if query.record_type != RecordType.A and query.record_type not in _PASSED_ON:
            known = self._known.get((host.text, RecordType.A), now)
            is_gone = known is not None and known[0].reason == Reason.NO_SUCH_NAME
            return _brief(no_such_name() if is_gone else NO_DATA)
        key = (host.text, query.record_type)
        known = self._known.get(key, now)
        address = self._table.address_of(host.text)
        if known is None or (query.record_type == RecordType.A and address is None):
            return key
        found, ends = known
        return self._answer(key, found, address, ends - now)

    def _local(self, host: Host, record_type: int) -> Reply | _Key | None:
        """What is answered here about names that lead nowhere else; None for all other names."""
        if f".{host.text}".endswith(f".{LOCALHOST}"):
            if record_type == RecordType.ANY:
                return ANY_REFUSED
            loopback = _LOOPBACK.get(record_type)
            return NO_DATA if loopback is None else address_reply(loopback)
        address = reverse_address(host)
        if address is None:
            return None
        if address.is_loopback:
            name: str | None = LOCALHOST
        elif isinstance(address, IPv4Address) and address in self._table.block:
            name = self._table.name_of(address)
            if name is None and record_type == RecordType.PTR:
                return host.text, RecordType.PTR  # another worker's, perhaps
        else:
            return None
        return name_reply(name) if name and record_type == RecordType.PTR else NO_DATA

    def _decide(self, host: Host) -> Answer | None:
        """Refuse a name, or say nothing."""
        decision = self._policy.decide_name(host)
        rule = decision.rule.source if decision.rule is not None else None
        if not decision.allowed:
            return self._refuse(host.text, decision.reason, decision.text, rule)
        if self._port_sets.of_name(host) is None:
            text = f"{host} has no port that names listens on"
            if rule is not None:
                text = f"{text} (names: false at {rule}?)"
            return self._refuse(
                host.text, Reason.NOT_LISTED, f"{text}: use the HTTP proxy or a forward", rule
            )
        if decision.reported:
            self.log.decision(
                host.text, decision.reason, self._now(), allowed=True, text=decision.text
            )
        return None

    def _refuse(
        self, name: str, reason: str, text: str, rule: str | None = None, side: str | None = None
    ) -> Answer:
        self.log.decision(name, reason, self._now(), rule=rule, text=text, side=side)
        words = f"{reason}: {text}" if side is None else f"{reason}: {side}: {text}"
        return _brief(no_such_name(ExtendedError(ErrorCode.PROHIBITED, words)))

    # ------------------------------------------------------------- with the parent

    def _join(self, key: _Key, answered: Answered) -> None:
        question = self._questions.get(key)
        if self._waiting >= MOST_WAITING or (
            question is None and len(self._questions) >= MOST_QUESTIONS
        ):
            self.counts.answered -= 1
            self.counts.dropped += 1
            self.log.warning("lookups_dropped", "too many lookups wait for the parent", self._now())
            answered(None)
            return
        if question is None:
            task = loop.spawn(self._look_up(key), f"lookup of {key[0]}")
            question = self._questions[key] = _Question(task)
        question.waiting.append(answered)
        self._waiting += 1

    async def _look_up(self, key: _Key) -> None:
        answer: Answer | None = None
        try:
            answer = await self._find(key)
        finally:
            waiting = self._questions.pop(key).waiting
            self._waiting -= len(waiting)
            for answered in waiting:
                answered(answer)

    async def _find(self, key: _Key) -> Answer:
        name, record_type = key
        if record_type == RecordType.PTR:
            return await self._find_name_of(Host(name, None))
        known = self._known.get(key, self._now())
        if known is None:
            found = await self._ask_parent(key)
            known = (found, self._now() + found.lifetime_seconds)
            if sum(map(len, found.records.records)) <= MOST_KNOWN_BYTES:
                self._known.put(key, known, known[1])
        found, ends = known
        address = self._table.address_of(name)
        if record_type == RecordType.A and address is None and not found.refuses:
            try:
                address = await self._number(name)
            except (OSError, VsockproxyError, ValueError) as error:
                trouble = _described(error)
                return self._unnumbered(name, f"the supervisor gives no address: {trouble}")
            if address is None:
                text = f"no address is left in {self._table.block}: set shim.names_block wider"
                return self._unnumbered(name, text)
        return self._answer(key, found, address, ends - self._now())

    async def _ask_parent(self, key: _Key) -> _Found:
        name, record_type = key
        try:
            async with loop.timeout(ANSWER_SECONDS):
                resolved = await self._resolver.resolve(name, record_type)
        except Refused as refused:
            resolved = Resolved(refused.reason, refused.text)
        except OSError as error:  # TimeoutError is one too
            resolved = Resolved(Reason.PARENT_AWAY, str(error))
        reason, text = resolved.reason, resolved.text
        if not reason:
            lifetime = min(max(resolved.ttl_seconds, LEAST_KNOWN_SECONDS), MOST_KNOWN_SECONDS)
            return _Found("", "", lifetime, self._records(key, resolved))
        found = _Found(reason, text, NEGATIVE_TTL_SECONDS)
        return found if found.refuses else _Found(reason, text, FAILED_SECONDS)

    def _records(self, key: _Key, resolved: Resolved) -> Reply:
        name, record_type = key
        if record_type not in _PASSED_ON:
            return NO_DATA
        try:
            return record_reply(record_type, resolved.records, resolved.ttl_seconds)
        except RecordError as error:
            self.log.warning("records_refused", f"{name}: {error.text}", self._now())
            return NO_DATA

    async def _number(self, name: str) -> IPv4Address | None:
        async with loop.timeout(ANSWER_SECONDS):
            address = await self._numberer.number(name)
        if address is not None:
            self._table.learn(name, address)
        return address

    async def _find_name_of(self, host: Host) -> Answer:
        address = reverse_address(host)
        assert isinstance(address, IPv4Address)  # of our block, or it would not be asked for
        try:
            async with loop.timeout(ANSWER_SECONDS):
                name = await self._numberer.name_of(address)
            if name is not None:
                self._table.learn(name, address)
        except (OSError, VsockproxyError, ValueError) as error:
            text = f"the supervisor gives no name for {address}: {_described(error)}"
            self.log.warning("lookup_failed", text, self._now())
            name = None
        return Answer(no_such_name() if name is None else name_reply(name), FAILED_SECONDS)

    def _answer(
        self, key: _Key, found: _Found, address: IPv4Address | None, lifetime_seconds: float
    ) -> Answer:
        """What a found name is answered with, which has an `address` if it needs one."""
        name, record_type = key
        if found.reason == Reason.NO_SUCH_NAME:
            self.log.decision(name, found.reason, self._now(), text=found.text, side=_PARENT)
            return Answer(no_such_name(), lifetime_seconds)
        if found.refuses:
            return self._refuse(name, found.reason, found.text, side=_PARENT)
        if record_type != RecordType.A:
            return Answer(found.records, lifetime_seconds)
        assert address is not None  # `_find` has seen to it
        if found.reason:
            self.counts.unverified += 1
        return Answer(address_reply(address), lifetime_seconds)

    def _unnumbered(self, name: str, text: str) -> Answer:
        self.counts.without_address += 1
        self.log.decision(name, Reason.LIMIT, self._now(), text=text)
        error = ExtendedError(ErrorCode.OTHER, f"{Reason.LIMIT}: {text}")
        return Answer(no_such_name(error), FAILED_SECONDS)


def _described(error: Exception) -> str:
    return str(error) or f"no answer for {ANSWER_SECONDS:g} s"


def _brief(reply: Reply) -> Answer:
    """An answer that needs nobody: it is worked out again after a while, for the log's sake."""
    return Answer(reply, NEGATIVE_TTL_SECONDS)
