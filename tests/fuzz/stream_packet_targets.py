"""Targets: the packets of the stream socket, as a worker and as a program receives them."""

from collections.abc import Callable

from tests.fuzz.target import Target
from vsockproxy.client.messages import (
    Incoming,
    Listen,
    Listening,
    Message,
    PacketError,
    Pending,
    pack,
    unpack_answer,
    unpack_request,
)
from vsockproxy.session.messages import Open, Opened, Refusal, Resolve, Resolved


def _ending_of(text: str) -> str:
    """How a refusal begins; what it quotes may be anything."""
    assert text.isprintable()
    return text[:24]


def _execute(unpack: Callable[[bytes], Message], packet: bytes) -> str:
    try:
        message = unpack(packet)
    except PacketError as error:
        return _ending_of(str(error))
    # What is packed again means the same: nothing that was ignored comes back.
    assert unpack(pack(message)) == message
    return type(message).__name__


_DICTIONARY = (
    b"\x01",
    b"\x02",
    b"\x03",
    b"\x0a",
    b"\x0b",
    b"\x40",
    b"\x41",
    b"\x43",
    b"\xa0",
    b"\xa1\x01",
)

STREAM_REQUEST = Target(
    "stream_request",
    lambda packet: _execute(unpack_request, packet),
    (
        pack(Open("kms.test", 443)),
        pack(Open("2001:db8::1", 1, dedicated=True)),
        pack(Resolve("kms.test", 28)),
        pack(Listen("web")),
        pack(Open(service="vsockproxy.log")),
    ),
    _DICTIONARY,
)
STREAM_ANSWER = Target(
    "stream_answer",
    lambda packet: _execute(unpack_answer, packet),
    (
        pack(Pending()),
        pack(Listening()),
        pack(Incoming("192.0.2.1:2", "[2001:db8::1]:3")),
        pack(Opened("192.0.2.1")),
        pack(Refusal("not_listed", "add it")),
        pack(Resolved(records=(bytes(4), bytes(4)), ttl_seconds=60)),
        pack(Resolved("no_such_name", "there is none")),
    ),
    _DICTIONARY,
)
