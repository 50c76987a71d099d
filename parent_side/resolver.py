"""Names to addresses and records for all enclaves: fixed names, cache, shares, the DNS.

Nothing that one enclave does is felt by another: each has its own turns at the DNS, its own room
in the cache, and its lookups join only each other. (To join another enclave's lookup would mean to
wait for that enclave's turn.)

Answers are hostile: they are bounded and deduplicated here; what may be dialled is for policy's
address guard to say.
"""

from collections.abc import Callable, Hashable
from ipaddress import ip_address
from typing import Final

from parent_side.lookup_cache import (
    LONGEST_ANSWER_SECONDS,
    Answer,
    Failure,
    LookupCache,
    Outcome,
    Question,
    Records,
    RecordType,
)
from parent_side.name_query import ask
from parent_side.record_query import ask_records
from vsockproxy.addresses import (
    AddressError,
    IpAddress,
    TcpAddress,
    normalise_host,
    parse_tcp_address,
)
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop
from vsockproxy.errors import VsockproxyError

__all__ = ("LookupFailed", "NoSuchName", "ResolutionError", "Resolver", "parse_server")

LOOKUPS_AT_ONCE: Final = 64
"""Questions to the DNS at one time for one enclave; further ones wait for their turn."""

DNS_PORT: Final = 53


class ResolutionError(VsockproxyError):
    """A name has no addresses or records that could be used.

    Args:
        host: the name.
        text: one line that says why, and who was asked.
    """

    def __init__(self, host: str, text: str) -> None:
        super().__init__(text)
        self.host = host
        self.text = text


class NoSuchName(ResolutionError):
    """The name does not exist, or addresses were asked for and it has none of either family."""


class LookupFailed(ResolutionError):
    """No server gave a usable answer in time."""


class Resolver:
    """The names of one worker's enclaves.

    Args:
        settings: the `resolver` section of parent.yaml.
        lookups_at_once: for one enclave.
        now: the clock that cached answers age by, in seconds.

    Raises:
        AddressError: an entry of the settings is no address.
    """

    def __init__(
        self,
        settings: ResolverSettings,
        *,
        lookups_at_once: int = LOOKUPS_AT_ONCE,
        now: Callable[[], float] = loop.now,
    ) -> None:
        self._fixed = {
            normalise_host(name).text: tuple(dict.fromkeys(map(_parse_address, texts)))
            for name, texts in settings.hosts.items()
        }
        self._servers = tuple(parse_server(text) for text in settings.servers or ())
        self._asked = ", ".join(self._servers) or "the servers of resolv.conf"
        self._timeout_seconds = settings.timeout
        self._lookups_at_once = lookups_at_once
        self._now = now
        self._cache = LookupCache()
        self._shares: dict[Hashable, _Share] = {}

    async def resolve(self, host: str, *, enclave: Hashable) -> tuple[IpAddress, ...]:
        """Give the addresses of `host`: at least one, none twice.

        An answer is used again for its TTL. Equal lookups of one enclave at one time are one, with
        the timeout of the first.

        Args:
            host: in the normal form of `vsockproxy.addresses.normalise_host`.
            enclave: whose share the lookup belongs to; whatever names an enclave, as its CID.

        Raises:
            NoSuchName: the name has no addresses.
            LookupFailed: that could not be found out within the timeout.
        """
        return (await self.look_up_addresses(host, enclave=enclave)).addresses

    async def look_up_addresses(self, host: str, *, enclave: Hashable) -> Answer:
        """Give the addresses of `host` as `resolve` does, and what is left of their TTL."""
        outcome = await self._look_up(Question(host), enclave)
        assert isinstance(outcome, Answer)  # as asked
        return outcome

    async def look_up_records(
        self, name: str, record_type: RecordType, *, enclave: Hashable
    ) -> Records:
        """Give the records of one type that `name` has; arguments and errors as for `resolve`.

        Fixed names and the hosts file have only addresses, so these come from the DNS.
        """
        outcome = await self._look_up(Question(name, record_type), enclave)
        assert isinstance(outcome, Records)  # as asked
        return outcome

    async def _look_up(self, question: Question, enclave: Hashable) -> Answer | Records:
        outcome = self._known(question, enclave)
        if outcome is None:
            outcome = await self._join(question, enclave)
        match outcome:
            case Failure("no_such_name", text):
                raise NoSuchName(question.name, text)
            case Failure(_, text):
                raise LookupFailed(question.name, text)
            case Answer() | Records():
                return outcome

    def _known(self, question: Question, enclave: Hashable) -> Outcome | None:
        name = question.name
        addresses = self._fixed.get(name) if question.record_type is None else None
        if addresses is None:
            return self._cache.get(enclave, question, self._now())
        if not addresses:
            return Failure("no_such_name", f"{name}: the configuration gives it no address")
        return Answer(addresses, LONGEST_ANSWER_SECONDS)

    async def _join(self, question: Question, enclave: Hashable) -> Outcome:
        share = self._shares.get(enclave)
        if share is None:
            share = self._shares[enclave] = _Share(self._lookups_at_once)
        lookup = share.lookups.get(question)
        if lookup is None:
            lookup = share.lookups[question] = _Lookup()
            lookup.task = loop.spawn(
                self._carry_out(lookup, share, question, enclave), f"lookup of {question.name}"
            )
        lookup.waiters += 1
        try:
            await lookup.done.wait()
        finally:
            lookup.waiters -= 1
            if not lookup.waiters and not lookup.done.is_set():
                # All who wanted it are gone; whoever asks next starts anew.
                lookup.task.cancel()
                self._forget(lookup, share, question, enclave)
        return lookup.outcome

    async def _carry_out(
        self, lookup: "_Lookup", share: "_Share", question: Question, enclave: Hashable
    ) -> None:
        try:
            lookup.outcome = await self._ask_in_turn(share, question)
            self._cache.put(enclave, question, lookup.outcome, self._now())
        finally:
            self._forget(lookup, share, question, enclave)
            lookup.done.set()

    async def _ask_in_turn(self, share: "_Share", question: Question) -> Outcome:
        seconds = self._timeout_seconds
        trouble = f"no turn in {seconds:g} s behind other lookups of the same enclave"
        try:
            async with loop.timeout(seconds), share.turns:
                trouble = f"no answer in {seconds:g} s ({self._asked})"
                if question.record_type is None:
                    return await ask(question.name, servers=self._servers, timeout_seconds=seconds)
                return await ask_records(question, servers=self._servers, timeout_seconds=seconds)
        except TimeoutError:
            return Failure("lookup_failed", f"{question.name}: {trouble}")

    def _forget(
        self, lookup: "_Lookup", share: "_Share", question: Question, enclave: Hashable
    ) -> None:
        if share.lookups.get(question) is lookup:
            del share.lookups[question]
        if not share.lookups and self._shares.get(enclave) is share:
            del self._shares[enclave]


class _Share:
    """One enclave's lookups under way, and its turns at the DNS; exists while there are any."""

    def __init__(self, lookups_at_once: int) -> None:
        self.turns = loop.Semaphore(lookups_at_once)
        self.lookups: dict[Question, _Lookup] = {}


class _Lookup:
    """One lookup that any number of callers wait for."""

    task: loop.Task[None]

    def __init__(self) -> None:
        self.done = loop.Event()
        self.waiters = 0
        self.outcome: Outcome = Failure("lookup_failed", "the lookup was given up")


def _parse_address(text: str) -> IpAddress:
    address = normalise_host(text).address
    if address is None:
        raise AddressError(f"{text!r} is no IP address", "write an IPv4 or IPv6 address")
    return address


def parse_server(text: str) -> str:
    """Bring `ADDRESS`, `ADDRESS:PORT` or `[V6]:PORT` into the form that c-ares reads.

    Raises:
        AddressError: it is none of them.
    """
    try:
        server = TcpAddress(str(ip_address(text)), DNS_PORT)
    except ValueError:
        server = parse_tcp_address(text)
        _parse_address(server.host)
    return str(server).removeprefix("tcp://")
