"""One question to the DNS for SRV, TXT or MX records: over UDP, over TCP where that is too small.

Servers are asked in turn, as c-ares does for addresses: one that cannot be reached, fails or talks
nonsense is asked no more, one that is silent is asked again with twice the time. Each question has
sockets of its own, so that its source port is random too (RFC 5452), and strangers' datagrams stay
in the kernel. Why c-ares is not asked: see `record_reply`.
"""

import secrets
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

import pycares

from parent_side.lookup_cache import ABSENT_SECONDS, Failure, Outcome, Question, Records
from parent_side.name_query import (
    LOOKUP_FAILED,
    NO_SUCH_NAME,
    first_wait_seconds,
    system_servers,
)
from parent_side.record_reply import (
    MalformedReply,
    Reply,
    ReplyTooLong,
    make_query,
    read_reply,
)
from vsockproxy.addresses import IpAddress
from vsockproxy.dataplane import loop
from vsockproxy.dataplane.dialling import DialError, dial
from vsockproxy.dataplane.sockets import receive, send_all

__all__ = ("ask_records",)

_MOST_DATAGRAM_BYTES: Final = 4096
"""More than the reply that was asked for; what is cut here is malformed."""

_TCP_SECONDS: Final = 2.0
"""Least time for a reply over TCP, which takes two round trips."""

_NO_ERROR: Final = 0
_SERVER_FAILURE: Final = 2
_NAME_ERROR: Final = 3
_REFUSED: Final = 5

_FAILURES: Final = {
    _SERVER_FAILURE: LOOKUP_FAILED[pycares.errno.ARES_ESERVFAIL],
    _REFUSED: LOOKUP_FAILED[pycares.errno.ARES_EREFUSED],
}

_Server = tuple[IpAddress, int]
"""Address and port."""


async def ask_records(
    question: Question, *, servers: Sequence[str] = (), timeout_seconds: float
) -> Outcome:
    """Ask for the records of one type that a name has.

    Args:
        question: with a record type.
        servers: `ADDRESS:PORT` of each server to ask; without, those of resolv.conf.
        timeout_seconds: how long the caller waits. The questions go on for longer; the caller
            ends them by cancelling, which frees everything.
    """
    name = question.name
    try:
        asked = servers or system_servers()
    except pycares.AresError as error:
        return Failure("lookup_failed", f"{name}: the resolver cannot be set up: {error}")
    left = {text: server for text in asked if (server := _parse_server(text)) is not None}
    trouble = LOOKUP_FAILED[pycares.errno.ARES_ECONNREFUSED]
    wait_seconds = first_wait_seconds(timeout_seconds)
    while left:
        for text, server in list(left.items()):
            try:
                reply = await _ask_server(server, question, wait_seconds)
            except TimeoutError:
                trouble = LOOKUP_FAILED[pycares.errno.ARES_ETIMEOUT]
                continue
            except ReplyTooLong as error:
                return Failure("lookup_failed", f"{name}: the answer is too long: {error}")
            except MalformedReply:
                trouble = LOOKUP_FAILED[pycares.errno.ARES_EBADRESP]
            except (OSError, DialError):
                trouble = LOOKUP_FAILED[pycares.errno.ARES_ECONNREFUSED]
            else:
                if reply.code == _NO_ERROR:
                    ttl_seconds = reply.ttl_seconds if reply.records else ABSENT_SECONDS
                    return Records(reply.records, ttl_seconds)
                if reply.code == _NAME_ERROR:
                    text = NO_SUCH_NAME[pycares.errno.ARES_ENOTFOUND]
                    return Failure("no_such_name", f"{name}: {text}")
                trouble = _FAILURES.get(
                    reply.code, f"the DNS servers answered with error {reply.code}"
                )
            del left[text]
        wait_seconds *= 2
    return Failure("lookup_failed", f"{name}: {trouble} ({', '.join(asked)})")


async def _ask_server(server: _Server, question: Question, wait_seconds: float) -> Reply:
    """The reply of one server.

    Raises:
        TimeoutError: it has not come within `wait_seconds`.
        ReplyError: it cannot be used.
        OSError, DialError: the server cannot be reached.
    """
    query = make_query(question, secrets.randbelow(1 << 16))
    async with loop.timeout(wait_seconds):
        reply = await _ask_by_udp(server, query)
    if not reply.is_truncated:
        return reply
    async with loop.timeout(max(wait_seconds, _TCP_SECONDS)):
        return await _ask_by_tcp(server, query, max(wait_seconds, _TCP_SECONDS))


async def _ask_by_udp(server: _Server, query: bytes) -> Reply:
    address, port = server
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((str(address), port))
        sock.send(query)
        while True:
            reply = read_reply(await receive(sock, _MOST_DATAGRAM_BYTES), query)
            if reply is not None:
                return reply


async def _ask_by_tcp(server: _Server, query: bytes, timeout_seconds: float) -> Reply:
    address, port = server
    result = await dial([address], port, timeout_seconds=timeout_seconds)
    with result.socket as sock:
        await send_all(sock, len(query).to_bytes(2) + query)
        length = int.from_bytes(await _receive_exactly(sock, 2))
        reply = read_reply(await _receive_exactly(sock, length), query)
    if reply is None or reply.is_truncated:
        raise MalformedReply("no whole reply over TCP")
    return reply


async def _receive_exactly(sock: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = await receive(sock, count - len(received))
        if not piece:
            raise MalformedReply("an end within a reply")
        received += piece
    return bytes(received)


def _parse_server(text: str) -> _Server | None:
    """Read one of `servers`; None for a form that only c-ares knows."""
    server, _, interface = text.partition("%")
    host, _, port = server.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        return ip_address(f"{host}%{interface}" if interface else host), int(port)
    except ValueError:
        return None
