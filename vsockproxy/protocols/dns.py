"""DNS as programs in the enclave speak it: one question in, one answer out. Pure.

Messages of RFC 1035, EDNS of RFC 6891, extended errors of RFC 8914, on dnspython's names and
messages. A query is read strictly and within bounds: one question, without compression, of class
IN, with at most an OPT record behind it. What is no query is dropped, or answered by a header
alone, which is never longer than what it answers.

REFUSED and SERVFAIL are never said: musl waits 5 s for another answer, others ask again. A name
that must not be is NXDOMAIN, which ends a lookup at once everywhere; an empty answer (NODATA) makes
a program go on without that type. Both carry an SOA record of five seconds (RFC 2308), so that no
cache keeps them for long.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.SRV
import dns.rrset
import dns.wire

from vsockproxy.addresses import AddressError, Host, IpAddress, normalise_host
from vsockproxy.protocols.errors import QueryError, RecordError

__all__ = (
    "ADDRESS_TTL_SECONDS",
    "ANY_REFUSED",
    "BAD_VERSION",
    "MOST_QUERY_BYTES",
    "MOST_TCP_BYTES",
    "NEGATIVE_TTL_SECONDS",
    "NO_DATA",
    "Edns",
    "ErrorCode",
    "ExtendedError",
    "MessageReader",
    "Query",
    "RecordType",
    "Reply",
    "address_reply",
    "encode",
    "frame",
    "name_reply",
    "no_such_name",
    "read_query",
    "record_reply",
    "reverse_address",
)

MOST_QUERY_BYTES: Final = 1232
"""What a query may have, over UDP and TCP; real ones have at most some 300, or 512 with padding."""

PLAIN_UDP_BYTES: Final = 512
"""An answer over UDP to a client without EDNS (RFC 1035, section 4.2.1)."""
MOST_UDP_BYTES: Final = 1232
"""An answer over UDP, whatever the client would take; the rest comes over TCP."""
MOST_TCP_BYTES: Final = 65_535

ADDRESS_TTL_SECONDS: Final = 30
"""How long programs may keep what they were told of a name that exists.

An address stays that name's for as long as the machine is up, so a kept answer never leads astray.
What ages is whether the name still exists; a program learns that within half a minute."""

NEGATIVE_TTL_SECONDS: Final = 5
"""How long programs may keep that a name does not exist, or has no such records."""

MOST_RECORD_TTL_SECONDS: Final = 300
MOST_ERROR_TEXT_BYTES: Final = 256
"""Of an extended error; less where the answer has no room for it."""

MOST_RECORDS_BYTES: Final = 60_000
"""Data of all records of one answer; with their headers they fit into one message over TCP."""

_HEADER: Final = struct.Struct("!6H")
_OPT_FIXED: Final = struct.Struct("!HBBHH")
"""Class, upper bits of the response code, version, flags, length (RFC 6891, section 6.1.3)."""

_OPCODE_SHIFT: Final = 11
_OPCODE_MASK: Final = 0xF
_KEPT_OF_GARBAGE: Final = int(dns.flags.RD) | _OPCODE_MASK << _OPCODE_SHIFT
_KEPT_FLAGS: Final = dns.flags.RD | dns.flags.CD
"""Of a query, in its answer; CD by RFC 4035, section 3.2.2."""

_IPV4_REVERSE: Final = ".in-addr.arpa"
_IPV6_REVERSE: Final = ".ip6.arpa"
_IPV6_NIBBLES: Final = 32


class RecordType(IntEnum):
    """Types of records that are answered in a way of their own (IANA, "DNS parameters")."""

    A = 1
    PTR = 12
    HINFO = 13
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    ANY = 255


class ErrorCode(IntEnum):
    """Info codes of extended errors (RFC 8914, section 4)."""

    OTHER = 0
    PROHIBITED = 18


@dataclass(frozen=True, slots=True)
class Edns:
    """The OPT record of a query (RFC 6891), but for its options: none of them is acted on."""

    payload_bytes: int
    version: int
    wants_dnssec: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One question of class IN.

    Args:
        id: chosen by the client.
        flags: the header's second word.
        name: as it was sent, with its case.
        record_type: any number, of a known type or not.
        edns: None for a client without EDNS.
    """

    id: int
    flags: int
    name: dns.name.Name
    record_type: int
    edns: Edns | None

    @property
    def host(self) -> Host | None:
        """The name in normal form, or None if it can be no host's."""
        return _read_host(self.name)

    @property
    def is_root(self) -> bool:
        """Whether the question is about `.`, which exists for everybody."""
        return len(self.name.labels) == 1

    @property
    def text(self) -> str:
        """The name for people: printable, whatever bytes it has."""
        return self.name.to_text(omit_final_dot=True)

    @property
    def most_udp_bytes(self) -> int:
        """What an answer over UDP may have."""
        if self.edns is None:
            return PLAIN_UDP_BYTES
        return min(max(self.edns.payload_bytes, PLAIN_UDP_BYTES), MOST_UDP_BYTES)


@dataclass(frozen=True, slots=True)
class ExtendedError:
    """Why, in words, for clients that sent EDNS (RFC 8914)."""

    code: ErrorCode
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered to a question, whoever asked it; `encode` makes a message of it.

    Args:
        rcode: the response code.
        record_type: of the records.
        records: their data in wire format, uncompressed; without any, an SOA record says for how
            long that may be kept.
        ttl_seconds: of the records.
        error: an extended error.
    """

    rcode: int = int(dns.rcode.NOERROR)
    record_type: int = 0
    records: tuple[bytes, ...] = ()
    ttl_seconds: int = 0
    error: ExtendedError | None = None


NO_DATA: Final = Reply()
"""The name exists, and has no records of that type."""

BAD_VERSION: Final = Reply(rcode=int(dns.rcode.BADVERS))
"""The client speaks another version of EDNS than 0 (RFC 6891, section 6.1.3)."""

ANY_REFUSED: Final = Reply(
    record_type=RecordType.HINFO,
    records=(b"\x07RFC8482\x00",),
    ttl_seconds=ADDRESS_TTL_SECONDS,
)
"""Nobody is told all records of a name (RFC 8482, section 4.2)."""

_SOA: Final = dns.rrset.from_text(
    ".",
    NEGATIVE_TTL_SECONDS,
    dns.rdataclass.IN,
    dns.rdatatype.SOA,
    f". . 1 3600 600 86400 {NEGATIVE_TTL_SECONDS}",
)
"""Of the root zone, which is above every name; the shortest there is."""


def no_such_name(error: ExtendedError | None = None) -> Reply:
    """The name does not exist, or shall not exist for the program."""
    return Reply(rcode=int(dns.rcode.NXDOMAIN), error=error)


def address_reply(address: IpAddress) -> Reply:
    """The name has this address: an A or AAAA record."""
    record_type = RecordType.A if isinstance(address, IPv4Address) else RecordType.AAAA
    return Reply(
        record_type=record_type, records=(address.packed,), ttl_seconds=ADDRESS_TTL_SECONDS
    )


def name_reply(name: str) -> Reply:
    """The address that was asked about is this name's: a PTR record."""
    data = dns.name.from_text(name).to_wire()
    assert data is not None  # it is without a file to write to
    return Reply(record_type=RecordType.PTR, records=(data,), ttl_seconds=ADDRESS_TTL_SECONDS)


def record_reply(record_type: int, records: Sequence[bytes], ttl_seconds: int) -> Reply:
    """Records as the parent sent them: hostile bytes.

    Args:
        record_type: MX, SRV or TXT.
        records: the data of each in wire format, uncompressed.
        ttl_seconds: how long they may be kept; at most five minutes are passed on.

    Raises:
        RecordError: one of them is no data of that type, or holds a name that no host has; or
            they are too many for one answer.
    """
    if sum(map(len, records)) > MOST_RECORDS_BYTES:
        raise RecordError(f"records of more than {MOST_RECORDS_BYTES} bytes")
    for data in records:
        _check_record(record_type, data)
    if not records:
        return NO_DATA
    return Reply(
        record_type=record_type,
        records=tuple(dict.fromkeys(records)),
        ttl_seconds=max(0, min(ttl_seconds, MOST_RECORD_TTL_SECONDS)),
    )


def read_query(message: bytes) -> Query:
    """Read one query.

    Raises:
        QueryError: it is none; what to answer, if anything, is in the error.
    """
    if len(message) < _HEADER.size:
        raise QueryError(None, f"a message of {len(message)} bytes")
    query_id, flags, questions, answers, authorities, additional = _HEADER.unpack_from(message)
    if flags & dns.flags.QR:
        raise QueryError(None, "an answer, not a query")  # two servers could go on for ever
    opcode = flags >> _OPCODE_SHIFT & _OPCODE_MASK
    if opcode:
        raise _refusal(query_id, flags, dns.rcode.NOTIMP, f"opcode {opcode}")
    if len(message) > MOST_QUERY_BYTES:
        raise _refusal(query_id, flags, dns.rcode.FORMERR, f"a query of {len(message)} bytes")
    if questions != 1 or answers or authorities or additional > 1:
        counts = f"{questions} questions and {answers + authorities + additional} records"
        raise _refusal(query_id, flags, dns.rcode.FORMERR, f"a query with {counts}")
    parser = dns.wire.Parser(message, _HEADER.size)
    try:
        name = parser.get_name(decompress=False)
        record_type = parser.get_uint16()
        record_class = parser.get_uint16()
        edns = _read_edns(parser) if additional else None
    except dns.exception.DNSException as error:
        raise _refusal(
            query_id,
            flags,
            dns.rcode.FORMERR,
            f"a query cut short, or malformed: {type(error).__name__}",
        ) from None
    if parser.remaining():
        raise _refusal(query_id, flags, dns.rcode.FORMERR, "bytes follow the query")
    if record_class != dns.rdataclass.IN:
        raise _refusal(query_id, flags, dns.rcode.NOTIMP, f"a query of class {record_class}")
    return Query(query_id, flags, name, record_type, edns)


def encode(query: Query, reply: Reply, most_bytes: int) -> bytes:
    """The message that answers `query`; with TC where it does not fit (RFC 2181, section 9).

    Args:
        query: it gives id, question (in its own case: clients compare), and EDNS.
        reply: what to answer.
        most_bytes: `query.most_udp_bytes` or `MOST_TCP_BYTES`.
    """
    message = dns.message.QueryMessage(query.id)
    message.flags = dns.flags.QR | dns.flags.RA | dns.flags.Flag(query.flags) & _KEPT_FLAGS
    question = dns.rrset.RRset(
        query.name, dns.rdataclass.IN, dns.rdatatype.RdataType.make(query.record_type)
    )
    message.question = [question]
    if reply.records:
        message.answer = [_record_set(query.name, reply)]
    elif reply.rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        message.authority = [_SOA]
    if query.edns is not None:
        room = most_bytes - _HEADER.size - len(query.name) - sum(map(len, query.name.labels))
        message.use_edns(
            0,
            dns.flags.DO if query.edns.wants_dnssec else 0,
            payload=MOST_QUERY_BYTES,
            options=_options(reply.error, room - _BESIDE_AN_ERROR_TEXT),
        )
    message.set_rcode(dns.rcode.Rcode.make(reply.rcode))
    return message.to_wire(max_size=most_bytes, prefer_truncation=True, want_shuffle=False)


def frame(message: bytes) -> bytes:
    """A message as it goes over TCP: behind its length (RFC 1035, section 4.2.2)."""
    return len(message).to_bytes(2) + message


class MessageReader:
    """Cuts what came over TCP into messages."""

    __slots__ = ("_received",)

    def __init__(self) -> None:
        self._received = bytearray()

    def receive(self, data: bytes) -> None:
        """Take the next bytes; `next_message` is to be asked before there are more."""
        self._received += data

    def next_message(self) -> bytes | None:
        """The next whole message, or None.

        Raises:
            QueryError: its length is none of a query; nothing behind it can be read.
        """
        received = self._received
        if len(received) < 2:
            return None
        length = int.from_bytes(received[:2])
        if not _HEADER.size <= length <= MOST_QUERY_BYTES:
            raise QueryError(None, f"a message of {length} bytes over TCP")
        if len(received) < 2 + length:
            return None
        message = bytes(received[2 : 2 + length])
        del received[: 2 + length]
        return message


def reverse_address(host: Host) -> IpAddress | None:
    """The address that a name of the reverse zones stands for (RFC 1035, 3.5; RFC 3596, 2.5)."""
    text = host.text
    try:
        if text.endswith(_IPV4_REVERSE):
            labels = text.removesuffix(_IPV4_REVERSE).split(".")
            return IPv4Address(".".join(reversed(labels)))
        if text.endswith(_IPV6_REVERSE):
            nibbles = text.removesuffix(_IPV6_REVERSE).split(".")
            if len(nibbles) == _IPV6_NIBBLES and all(len(nibble) == 1 for nibble in nibbles):
                return IPv6Address(bytes.fromhex("".join(reversed(nibbles))))
    except ValueError:
        return None
    return None


_BESIDE_AN_ERROR_TEXT: Final = 4 + 33 + 11 + 6
"""Bytes of type and class of the question, the SOA record, the OPT record, the option's head."""


def _refusal(query_id: int, flags: int, rcode: dns.rcode.Rcode, text: str) -> QueryError:
    """Answer with the header alone."""
    answer = _HEADER.pack(query_id, dns.flags.QR | flags & _KEPT_OF_GARBAGE | rcode, 0, 0, 0, 0)
    return QueryError(answer, text)


def _read_edns(parser: dns.wire.Parser) -> Edns:
    owner, record_type = parser.get_struct("!BH")
    if owner or record_type != dns.rdatatype.OPT:
        raise dns.exception.FormError
    payload, _, version, flags, length = parser.get_struct(_OPT_FIXED.format)
    with parser.restrict_to(length):
        while parser.remaining():
            parser.get_uint16()
            parser.get_counted_bytes(2)
    return Edns(payload, version, bool(flags & dns.flags.DO))


def _read_host(name: dns.name.Name) -> Host | None:
    labels = name.labels[:-1]
    text = b".".join(labels)
    if text.count(b".") != len(labels) - 1:
        return None  # a dot inside a label, or the root
    try:
        host = normalise_host(text.decode("ascii"))
    except (AddressError, UnicodeDecodeError):
        return None
    return host if host.address is None else None


def _check_record(record_type: int, data: bytes) -> None:
    try:
        record = dns.rdata.from_wire(
            dns.rdataclass.IN, dns.rdatatype.RdataType.make(record_type), data, 0, len(data)
        )
        same = record.to_wire()
    except dns.exception.DNSException as error:
        text = f"a record of type {record_type} is malformed: {type(error).__name__}"
        raise RecordError(text) from None
    if same != data:
        raise RecordError(f"a record of type {record_type} is compressed")
    match record:
        case dns.rdtypes.ANY.MX.MX(exchange=name) | dns.rdtypes.IN.SRV.SRV(target=name):
            if name != dns.name.root and _read_host(name) is None:
                raise RecordError(f"a record of type {record_type} names no host")
        case dns.rdtypes.ANY.TXT.TXT():
            pass
        case _:
            raise RecordError(f"a record of type {record_type}")


def _record_set(name: dns.name.Name, reply: Reply) -> dns.rrset.RRset:
    record_type = dns.rdatatype.RdataType.make(reply.record_type)
    record_set = dns.rrset.RRset(name, dns.rdataclass.IN, record_type)
    for data in reply.records:
        record_set.add(
            dns.rdata.GenericRdata(dns.rdataclass.IN, record_type, data), reply.ttl_seconds
        )
    return record_set


def _options(error: ExtendedError | None, room_bytes: int) -> list[dns.edns.Option]:
    if error is None:
        return []
    text = error.text.encode(errors="replace")[: min(room_bytes, MOST_ERROR_TEXT_BYTES)]
    return [dns.edns.EDEOption(dns.edns.EDECode.make(error.code), text.decode(errors="ignore"))]
