"""What a supervisor and its workers say to each other, and the passing of descriptors.

The channel is an AF_UNIX SOCK_SEQPACKET socket pair; a worker is started with the number of its
end as its only argument. A message is one packet: a CBOR map whose `type` selects the row.

| type        | to         | other keys                              | descriptors                 |
|-------------|------------|-----------------------------------------|-----------------------------|
| configure   | worker     | worker: its index, of `workers`;        | the document                |
|             |            | instance: 16 bytes,                     | (`passed_memory`), and for  |
|             |            | one value for all workers; log_format:  | some services their memory  |
|             |            | text or json; log_level; listeners: a   |                             |
|             |            | list of {name, kind, endpoint};         |                             |
|             |            | listeners_follow: true in an enclave;   |                             |
|             |            | reports: true where somebody watches;   |                             |
|             |            | secret: bytes, for some services        |                             |
| listeners   | worker     |                                         | the next listeners of       |
|             |            |                                         | `configure`, in its order   |
| connection  | worker     | listener: name; cid, port: of the peer  | the accepted connection; in |
|             |            |                                         | an enclave (`streams`) one  |
|             |            |                                         | end of a pair of ours       |
| named       | worker     | request; name, address: null if there   |                             |
|             |            | is none                                 |                             |
| sockets     | worker     | ip_version: 4 or 6                      | TCP sockets of the          |
|             |            |                                         | command's network, unless   |
|             |            |                                         | none could be made          |
| list_streams | worker    | request; limit: rows                    |                             |
| reload      | worker     | request; log_level; listeners: as in    | the new document            |
|             |            | `configure`                             | (`passed_memory`)           |
| stop        | worker     | drain_seconds: for open streams to end  |                             |
| ready       | supervisor |                                         |                             |
| reloaded    | supervisor | request; error: why the old document    |                             |
|             |            | still holds, else null; ended_streams   |                             |
| number_name | supervisor | request: a number for the answer; name  |                             |
| name_of     | supervisor | request; address: IPv4, as a number     |                             |
| sockets_wanted | supervisor | ip_version; count                    |                             |
| offer       | both       | cid; worker: which has its links;       |                             |
|             |            | services, none if it is gone; streams:  |                             |
|             |            | of ingress; rests: until when services  |                             |
|             |            | are put aside                           |                             |
| routed      | both       | cid: for which; what is known of it     | a connection of ingress     |
| heartbeat   | supervisor | enclaves, streams: what it serves       |                             |
| stopped     | supervisor |                                         |                             |
| statistics  | supervisor |                                         | a report (`worker_reports`) |
| streams_listed | both    | request; worker, on the way back        | a page of streams           |
| supervision | services   |                                         | what the supervisor knows   |
| region_known | supervisor | region: for the command's environment  |                             |
| region_missing | supervisor | text: why; is_refusal: the parent said no |                       |
| worker_statistics | services | worker; incarnation                 | a report, passed on         |
| certificate | both       | service; public_key: DER; origin:       | the key and the chain, PEM  |
|             |            | generated or image                      | (`passed_memory`)           |
| certificate_wanted | supervisor | service                          |                             |
| no_certificate | services | service                                |                             |

The order: `configure` comes first and once, then as many `listeners` as it takes where they follow.
The worker answers `ready`, once, when it serves; only then does it get connections. `number_name`
asks for the address of a name in the command's network, `name_of` for the name of one; both are
answered by `named`, in any order, and `sockets_wanted` by `sockets`. Each second it says
`heartbeat`: its loop is running.

`reload` comes on the parent only. The worker makes everything of the new document that can fail,
then changes over at once, and answers `reloaded`; or it keeps the old one and says why, and is
replaced by a worker that starts with the new one. `connection` names listeners of the document that
was sent last.

After `stop` it takes nothing new, lets open streams end for `drain_seconds`, cuts the rest, may say
`stopped`, and exits with 0. Another `stop` with less time shortens that. A worker whose channel
ends exits at once: its supervisor is gone. All sockets that are passed are non-blocking. A
listener's name is its path in the configuration file: `forwards[0].listen`.

Where several workers of the parent serve ingress, each says `offer` when something about one of its
enclaves has changed, and hears the others'. The supervisor tells one that has just begun all that
it knows, and the others of enclaves that went with a worker. A connection whose enclave is another
worker's goes there as `routed`.

A process of services (`control.service_process`) is kept as a worker is, over the same kind of
channel, and gets no connections. Where it watches the workers, each of them says `statistics`
every second, which is passed on as `worker_statistics`: with its number, and how many processes it
has had before. `list_streams` goes from the services to every worker, each `streams_listed` back.

The enclave's services say `certificate` for each service of ingress with `tls`, and again when it
is renewed. The supervisor keeps the latest and tells each worker; a process of services that has
begun asks for it with `certificate_wanted` before it makes one.

`worker_messages.cddl` says the same to a machine.
"""

import os
import socket
from array import array
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, Final, Literal

import cbor2
import msgspec

from vsockproxy.certificate_messages import Certificate, CertificateWanted, NoCertificate
from vsockproxy.errors import VsockproxyError
from vsockproxy.ingress_messages import Offer, Routed, Sockets, SocketsWanted
from vsockproxy.log_lines import Level, LineFormat

__all__ = (
    "DRAIN_SECONDS",
    "MAX_DESCRIPTORS",
    "MAX_MESSAGE_BYTES",
    "MAX_TROUBLE_CHARACTERS",
    "Certificate",
    "CertificateWanted",
    "ChannelClosed",
    "Configure",
    "Connection",
    "ForwardKind",
    "FromWorker",
    "Heartbeat",
    "ListStreams",
    "ListenerKind",
    "ListenerSummary",
    "Listeners",
    "Message",
    "MessageError",
    "NameOf",
    "Named",
    "NamesKind",
    "NoCertificate",
    "NumberName",
    "Offer",
    "Ready",
    "Record",
    "RegionKnown",
    "RegionMissing",
    "Reload",
    "Reloaded",
    "Routed",
    "Sockets",
    "SocketsWanted",
    "Statistics",
    "Stop",
    "Stopped",
    "StreamsListed",
    "SupervisionChanged",
    "ToWorker",
    "WorkerStatistics",
    "receive",
    "send",
)

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""What is large (a document) travels in a descriptor."""

MAX_TROUBLE_CHARACTERS: Final = 500
"""Of a text that says why something is missing."""

MAX_DESCRIPTORS: Final = 64
"""Descriptors of one message; the kernel's own limit is 253 (SCM_MAX_FD, include/net/scm.h)."""

_ANCILLARY_BYTES: Final = socket.CMSG_LEN(MAX_DESCRIPTORS * array("i").itemsize)

DRAIN_SECONDS: Final = 3.0
"""How long open streams may take to end where nothing else is said."""

INSTANCE_BYTES: Final = 16
"""128 random bits that tell one start of a supervisor from every other (WIRE_FORMAT.md)."""

ForwardKind = Literal["forward", "forward_ipv4", "forward_ipv6"]
"""A raw port; the last two dial addresses of that version only."""

NamesKind = Literal["names", "dns_udp", "dns_tcp"]
"""What the command's lookups and the addresses it gets from them lead to."""

ListenerKind = Literal[
    "link",
    "http_proxy",
    "socks5",
    "streams",
    "admin",
    "credentials",
    "imds",
    "acme",
    "kms",
    "nsm",
    "ingress",
    NamesKind,
    ForwardKind,
]

_Index = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Unsigned32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
_HostText = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
_Instance = Annotated[bytes, msgspec.Meta(min_length=INSTANCE_BYTES, max_length=INSTANCE_BYTES)]


class MessageError(VsockproxyError):
    """A message that breaks the table: a fault of ours, never of a peer."""


class ChannelClosed(VsockproxyError):
    """The other process has closed its end of the channel, or is gone."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything in a message: immutable, unknown keys are errors."""


class ListenerSummary(Record, frozen=True):
    """A listening socket of the supervisor: where it stands in the file, what for, and where."""

    name: str
    kind: ListenerKind
    endpoint: str


class Configure(Record, frozen=True, tag="configure", tag_field="type"):
    """The first message to a worker."""

    worker: _Index
    instance: _Instance
    log_format: LineFormat
    log_level: Level
    listeners: list[ListenerSummary]
    listeners_follow: bool = False
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    """How many there are."""
    reports: bool = False
    """Whether to say `statistics`."""
    secret: Annotated[bytes, msgspec.Meta(max_length=256)] = b""
    """For a process of services: what requests have to show."""


class Listeners(Record, frozen=True, tag="listeners", tag_field="type"):
    """The next listening sockets that `configure` has announced."""


class Connection(Record, frozen=True, tag="connection", tag_field="type"):
    """A connection that the supervisor has accepted, or made, for this worker."""

    listener: str
    cid: _Unsigned32
    port: _Unsigned32
    """The peer's vsock port; 0 on listeners that are not vsock."""


class Named(Record, frozen=True, tag="named", tag_field="type"):
    """The answer to `number_name` and `name_of`."""

    request: _Unsigned32
    name: str | None
    address: _Unsigned32 | None


class ListStreams(Record, frozen=True, tag="list_streams", tag_field="type"):
    """Somebody wants to see the open streams; also on its way from the services."""

    request: _Unsigned32
    limit: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    """Rows, of each worker."""


class Reload(Record, frozen=True, tag="reload", tag_field="type"):
    """Serve another document from now on."""

    request: _Unsigned32
    log_level: Level
    listeners: list[ListenerSummary]


class Stop(Record, frozen=True, tag="stop", tag_field="type"):
    """Take nothing new, let what is open end, cut the rest, exit."""

    drain_seconds: _Seconds = DRAIN_SECONDS


class Ready(Record, frozen=True, tag="ready", tag_field="type"):
    """The worker serves."""


class Reloaded(Record, frozen=True, tag="reloaded", tag_field="type"):
    """The answer to `reload`."""

    request: _Unsigned32
    error: str | None = None
    ended_streams: _Unsigned32 = 0
    """Open streams that the new document forbids, and that were ended for it."""


class NumberName(Record, frozen=True, tag="number_name", tag_field="type"):
    """The worker needs an address for a name that the parent knows."""

    request: _Unsigned32
    name: _HostText


class NameOf(Record, frozen=True, tag="name_of", tag_field="type"):
    """The worker was connected to an address whose name it does not know."""

    request: _Unsigned32
    address: _Unsigned32


class Heartbeat(Record, frozen=True, tag="heartbeat", tag_field="type"):
    """The worker's loop is running."""

    enclaves: _Unsigned32 = 0
    streams: _Unsigned32 = 0


class Stopped(Record, frozen=True, tag="stopped", tag_field="type"):
    """The worker has ended its work and is about to exit."""


class RegionKnown(Record, frozen=True, tag="region_known", tag_field="type"):
    """The enclave's service for credentials has learnt the region."""

    region: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]


class RegionMissing(Record, frozen=True, tag="region_missing", tag_field="type"):
    """The enclave's service for credentials could not learn the region, and goes on asking."""

    text: Annotated[str, msgspec.Meta(max_length=MAX_TROUBLE_CHARACTERS)]
    is_refusal: bool
    """Whether the parent said no, so that waiting is of no use."""


class Statistics(Record, frozen=True, tag="statistics", tag_field="type"):
    """What the worker has done; with a `worker_reports.Report`."""


class StreamsListed(Record, frozen=True, tag="streams_listed", tag_field="type"):
    """The answer to `list_streams`, with a `worker_reports.StreamPage`."""

    request: _Unsigned32
    worker: _Index = 0
    """Which worker's; the supervisor fills it in."""


class SupervisionChanged(Record, frozen=True, tag="supervision", tag_field="type"):
    """The state of the supervisor, with a `worker_reports.Supervision`."""


class WorkerStatistics(Record, frozen=True, tag="worker_statistics", tag_field="type"):
    """What one worker reported, with its `worker_reports.Report`."""

    worker: _Index
    incarnation: _Unsigned32
    """How many processes this worker has had before."""


ToWorker = (
    Configure
    | Listeners
    | Connection
    | Named
    | Sockets
    | Offer
    | Routed
    | Reload
    | ListStreams
    | Stop
    | Certificate
    | StreamsListed
    | SupervisionChanged
    | WorkerStatistics
    | NoCertificate
)
"""The last four are for services only."""

FromWorker = (
    Ready
    | Reloaded
    | NumberName
    | NameOf
    | SocketsWanted
    | Offer
    | Routed
    | Heartbeat
    | Stopped
    | Statistics
    | StreamsListed
    | ListStreams
    | RegionKnown
    | RegionMissing
    | Certificate
    | CertificateWanted
)
"""The last five are of services only."""

Message = ToWorker | FromWorker


def send(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message. The descriptors are duplicated on the way: the caller still owns its own.

    Raises:
        BlockingIOError: the channel is full; try again when it is writable.
        ChannelClosed: the other process is gone.
        MessageError: `message` or `descriptors` are more than a packet may hold.
    """
    data = cbor2.dumps(msgspec.to_builtins(message, builtin_types=(bytes,)))
    if len(data) > MAX_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    _check_descriptors(message, len(descriptors))
    try:
        channel.sendmsg([data], _ancillary(descriptors), socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ChannelClosed("the worker channel is closed") from error


def receive(channel: socket.socket) -> tuple[Message, tuple[int, ...]]:
    """Receive one message. The caller owns the descriptors, which are closed at exec.

    Raises:
        BlockingIOError: none has arrived; try again when the channel is readable.
        ChannelClosed: the other process is gone.
        MessageError: the packet is no message of the table; its descriptors have been closed.
    """
    try:
        data, ancillary, flags, _ = channel.recvmsg(
            MAX_MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError as error:
        raise ChannelClosed("the worker channel is closed") from error
    descriptors = _descriptors(ancillary)
    with ExitStack() as undo:
        for descriptor in descriptors:
            undo.callback(os.close, descriptor)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise MessageError(
                f"a message of more than {MAX_MESSAGE_BYTES} bytes or {MAX_DESCRIPTORS} descriptors"
            )
        if not data:
            raise ChannelClosed("the worker channel is closed")
        message = _parse(data)
        _check_descriptors(message, len(descriptors))
        undo.pop_all()
    return message, descriptors


# socket.send_fds and socket.recv_fds of Python 3.11 drop their flags, without which descriptors
# would stay open at exec.


def _ancillary(descriptors: Sequence[int]) -> list[tuple[int, int, bytes]]:
    if not descriptors:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors).tobytes())]


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return tuple(found)


def _parse(data: bytes) -> Message:
    try:
        content: Any = cbor2.loads(data)
    except (cbor2.CBORError, UnicodeError, ValueError) as error:
        raise MessageError(f"a message that is no CBOR: {error}") from error
    try:
        # The union is spelled out: mypy takes no alias of one for a type argument.
        parsed: Message = msgspec.convert(content, Message, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise MessageError(f"a message that is not of the table: {error}") from error
    return parsed


def _check_descriptors(message: Message, count: int) -> None:
    match message:
        case Configure():
            allowed = range(1, 3)
        case Connection() | Routed() | Reload() | Statistics() | StreamsListed():
            allowed = range(1, 2)
        case SupervisionChanged() | WorkerStatistics() | Certificate():
            allowed = range(1, 2)
        case Listeners():
            allowed = range(1, MAX_DESCRIPTORS + 1)
        case Sockets():
            allowed = range(MAX_DESCRIPTORS + 1)
        case _:
            allowed = range(1)
    if count not in allowed:
        raise MessageError(f"a {type(message).__name__} message with {count} descriptors")
