"""One question to the DNS: a name's addresses, by c-ares on our own loop.

Each question has a c-ares channel of its own, for 60 µs more. A channel that many questions share
lets them harm each other: it demotes a server after another name's SERVFAIL or timeout, closes the
socket under all questions when one answer is malformed, cannot cancel a single question, sends all
from one source port (RFC 5452 wants many), keeps every answer for its TTL without a bound, and
goes on with the resolv.conf it has read. A channel for each has none of that: nothing is shared,
cancelling is closing, and resolv.conf and hosts are those of now.

aiodns is not used for it: its channels each run a thread that needs the interpreter lock to
deliver an answer, and it cannot be told to stay on the loop.
"""

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import islice
from math import ceil, log2
from typing import Final

import pycares

from parent_side.lookup_cache import Answer, Failure, Outcome
from vsockproxy.addresses import IpAddress
from vsockproxy.dataplane import loop

__all__ = (
    "LOOKUP_FAILED",
    "MOST_ADDRESSES",
    "NO_SUCH_NAME",
    "ask",
    "first_wait_seconds",
    "system_servers",
)

MOST_ADDRESSES: Final = 64
"""Addresses of an answer that are used; a hostile server can send thousands."""

_LEAST_FIRST_WAIT_SECONDS: Final = 0.25
"""A silent server is not asked again, nor the next server, sooner than this."""
_MOST_FIRST_WAIT_SECONDS: Final = 0.5

_LEAST_TIMER_SECONDS: Final = 0.001

_AI_NOSORT: Final = 1 << 7
"""ARES_AI_NOSORT of ares.h, which pycares does not export. c-ares would open a socket for each
address to sort them; dialling alternates families anyway, and an unreachable one fails at once."""

_FLAGS: Final = (
    pycares.ARES_FLAG_EDNS
    | pycares.ARES_FLAG_NOSEARCH  # names are absolute: no search list, no ndots
    | pycares.ARES_FLAG_NOALIASES  # HOSTALIASES is the environment's, not the policy's
)

NO_SUCH_NAME: Final = {
    pycares.errno.ARES_ENOTFOUND: "there is no such name",
    pycares.errno.ARES_ENODATA: "the name has no address",
    pycares.errno.ARES_EBADNAME: "the name cannot be asked for",
}
"""What it means that there is nothing, by c-ares's errors."""

LOOKUP_FAILED: Final = {
    pycares.errno.ARES_EBADRESP: "malformed answers",
    pycares.errno.ARES_ECONNREFUSED: "no DNS server can be reached",
    pycares.errno.ARES_EREFUSED: "the DNS servers refuse to answer (REFUSED)",
    pycares.errno.ARES_ESERVFAIL: "the DNS servers failed (SERVFAIL)",
    pycares.errno.ARES_ETIMEOUT: "no DNS server answered",
}
"""Why nothing could be found out, by c-ares's errors."""


async def ask(host: str, *, servers: Sequence[str] = (), timeout_seconds: float) -> Outcome:
    """Ask for the IPv6 and IPv4 addresses of `host`: the hosts file first, then the DNS.

    Args:
        host: a name in normal form.
        servers: `ADDRESS:PORT` of each server to ask; without, those of resolv.conf.
        timeout_seconds: how long the caller waits. Retries are spread over it; the caller ends
            the wait by cancelling, which frees everything.
    """
    try:
        exchange = _Exchange(host, servers, timeout_seconds)
    except pycares.AresError as error:
        return Failure("lookup_failed", f"{host}: the resolver cannot be set up: {error}")
    try:
        result, status = await exchange.raw
        if result is not None and result.nodes:
            return _answer(result)
        code = pycares.errno.ARES_ENODATA if status is None else status
        if code in NO_SUCH_NAME:
            return Failure("no_such_name", f"{host}: {NO_SUCH_NAME[code]}")
        text = LOOKUP_FAILED.get(code) or pycares.errno.errorcode.get(code, str(code))
        return Failure("lookup_failed", f"{host}: {text} ({exchange.servers})")
    finally:
        exchange.close()


def system_servers() -> tuple[str, ...]:
    """The servers of resolv.conf as it is now: `ADDRESS:PORT`, or `[V6]:PORT%INTERFACE`.

    Raises:
        pycares.AresError: c-ares cannot be set up.
    """
    # A channel without this callback would run a thread.
    channel = pycares.Channel(sock_state_cb=lambda *_: None)
    try:
        return tuple(channel.servers)
    finally:
        channel.close()


class _Exchange:
    """A channel, its sockets on the loop, and the timer of its retries."""

    def __init__(self, host: str, servers: Sequence[str], timeout_seconds: float) -> None:
        self.raw: loop.Future[tuple[pycares.AddrInfoResult | None, int | None]] = loop.new_future()
        """c-ares's result, or its status when there is none."""
        self._watched: set[int] = set()
        self._timer: loop.TimerHandle | None = None
        self._closed = False
        first_wait_seconds, tries = _retries(timeout_seconds)
        # Not to be given here: `lookups` and `resolvconf_path`. pycares 5.2 frees these strings
        # before c-ares reads them.
        self._channel = pycares.Channel(
            flags=_FLAGS,
            timeout=first_wait_seconds,
            tries=tries,
            servers=servers,
            sock_state_cb=self._watch,
        )
        self._channel.getaddrinfo(
            host,
            None,
            family=socket.AF_UNSPEC,
            type=socket.SOCK_STREAM,
            flags=_AI_NOSORT,
            callback=self._answered,
        )
        self._set_timer()

    @property
    def servers(self) -> str:
        """The servers that are asked, as text."""
        return ", ".join(self._channel.servers)

    def close(self) -> None:
        """Stop asking and free the sockets; `raw` is not set any more."""
        self.raw.cancel()
        if self._timer is not None:
            self._timer.cancel()
        # On this thread, because it closes the sockets: pycares destroys channels on another one,
        # which must find nothing left that the loop watches.
        self._channel.cancel()
        self._closed = True
        for descriptor in self._watched:
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)
        self._channel.close()

    def _watch(self, descriptor: int, readable: bool, writable: bool) -> None:
        if self._closed:
            return
        if readable:
            loop.add_reader(descriptor, self._process, descriptor, pycares.ARES_SOCKET_BAD)
        else:
            loop.remove_reader(descriptor)
        if writable:
            loop.add_writer(descriptor, self._process, pycares.ARES_SOCKET_BAD, descriptor)
        else:
            loop.remove_writer(descriptor)
        if readable or writable:
            self._watched.add(descriptor)
        else:
            self._watched.discard(descriptor)

    def _process(self, readable: int, writable: int) -> None:
        self._channel.process_fd(readable, writable)
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.raw.done():
            wait = self._channel.timeout()  # type: ignore[no-untyped-call]  # pycares has no type
            self._timer = loop.call_later(
                max(wait, _LEAST_TIMER_SECONDS),
                self._process,
                pycares.ARES_SOCKET_BAD,
                pycares.ARES_SOCKET_BAD,
            )

    def _answered(self, result: pycares.AddrInfoResult | None, status: int | None) -> None:
        # Nothing but this: what is raised below a C callback is lost.
        if not self.raw.done():
            self.raw.set_result((result, status))


def _answer(result: pycares.AddrInfoResult) -> Answer:
    nodes = list(islice(result.nodes, MOST_ADDRESSES))
    addresses: dict[IpAddress, None] = dict.fromkeys(
        ip_address(node.addr[0].decode("ascii")) for node in nodes
    )
    ttls = [node.ttl for node in nodes] + [cname.ttl for cname in result.cnames]
    return Answer(tuple(sorted(addresses, key=lambda address: -address.version)), min(ttls))


def first_wait_seconds(timeout_seconds: float) -> float:
    """How long the first server has for its answer before the next one is asked."""
    first_wait = max(timeout_seconds / 16, _LEAST_FIRST_WAIT_SECONDS)
    return min(first_wait, _MOST_FIRST_WAIT_SECONDS)


def _retries(timeout_seconds: float) -> tuple[float, int]:
    """Seconds of the first wait, and the tries that outlast `timeout_seconds` for certain.

    c-ares doubles the wait for each round over its servers and shortens it by up to half, at
    random: n tries take at least 2 ** (n - 1) first waits.
    """
    first_wait = first_wait_seconds(timeout_seconds)
    return first_wait, 1 + max(1, ceil(log2(timeout_seconds / first_wait)))
