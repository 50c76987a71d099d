"""Questions for SRV, TXT and MX records and the replies to them (RFC 1035, section 4). Pure.

A reply is hostile, and its records have to come out as they went in. So it is read here: pycares 5
joins the strings of a TXT record and makes objects of all records of 64 KiB first (0.2 s of the
loop), dnspython takes 1.8 s for 6.5 KB of long names. Here the number of records is seen before the
first one is read, and reading ends where RESOLVED could not carry more.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from parent_side.lookup_cache import Question, RecordType
from vsockproxy.errors import VsockproxyError
from vsockproxy.session.messages import MAX_RECORD_BYTES, MAX_RECORDS
from vsockproxy.session.resolves import MAX_ANSWER_BYTES

__all__ = (
    "MOST_UDP_BYTES",
    "MalformedReply",
    "Reply",
    "ReplyError",
    "ReplyTooLong",
    "make_query",
    "read_reply",
)

MOST_UDP_BYTES: Final = 1232
"""What a reply over UDP may have: the least packet that every IPv6 link takes carries it whole."""

MOST_ALIASES: Final = 16
"""CNAME records on the way to a name."""

_HEADER: Final = Struct(">HHHHHH")
_QUESTION: Final = Struct(">HH")
_RECORD: Final = Struct(">HHIH")

_CLASS_IN: Final = 1
_TYPE_CNAME: Final = 5
_TYPE_OPT: Final = 41

_IS_REPLY: Final = 0x8000
_OPCODE: Final = 0x7800
_IS_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_CODE: Final = 0x000F

_IS_POINTER: Final = 0xC0
_MOST_NAME_BYTES: Final = 255
_MOST_POINTERS: Final = 16
"""Pointers in one name. Each follows a label in messages of good will; a chain of bare ones is
there to keep its reader busy."""

_NEGATIVE_TTL: Final = 1 << 31
"""A TTL with its highest bit set counts as 0 (RFC 2181, section 8)."""

_FIXED_BYTES: Final = {RecordType.SRV: 6, RecordType.MX: 2}
"""Bytes in front of the name: priority, weight, port (RFC 2782); preference (RFC 1035, 3.3.9)."""

_CBOR_RECORD_BYTES: Final = 3
_CBOR_OTHER_BYTES: Final = 16
"""What RESOLVED holds besides record data: for each record its length, and all else."""


class ReplyError(VsockproxyError):
    """A reply that cannot be used."""


class MalformedReply(ReplyError):
    """A reply that does not follow RFC 1035."""


class ReplyTooLong(ReplyError):
    """More records, or longer ones, than RESOLVED can carry. A part of them would mislead."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said.

    Args:
        code: RCODE; 0 is no error, also where there are no records.
        is_truncated: the rest is to be fetched over TCP, and `records` is empty.
        records: the data of each record that answers the question, none twice; names in it are
            uncompressed.
        ttl_seconds: the least TTL of these records and of the CNAME records that lead to them.
    """

    code: int
    is_truncated: bool = False
    records: tuple[bytes, ...] = ()
    ttl_seconds: int = 0


def make_query(question: Question, message_id: int) -> bytes:
    """The message that asks `question`, which has a record type; recursion is left to the server.

    Args:
        question: its name is plain ASCII, in labels of 1 to 63 bytes.
        message_id: 16 random bits, against replies from strangers (RFC 5452).
    """
    assert question.record_type is not None  # addresses are looked up by c-ares
    labels = [label.encode("ascii") for label in question.name.split(".")]
    name = b"".join(len(label).to_bytes() + label for label in labels) + b"\0"
    header = _HEADER.pack(message_id, _RECURSION_DESIRED, 1, 0, 0, 1)
    # EDNS (RFC 6891): the class of this record is the size of UDP replies that we take.
    edns = b"\0" + _RECORD.pack(_TYPE_OPT, MOST_UDP_BYTES, 0, 0)
    return header + name + _QUESTION.pack(question.record_type, _CLASS_IN) + edns


def read_reply(message: bytes, query: bytes) -> Reply | None:
    """Read what may be a reply to `query`; None if it is not, and the reply is yet to come.

    Raises:
        MalformedReply: it is one, and breaks the format.
        ReplyTooLong: it is one, and RESOLVED cannot carry it.
    """
    if len(message) < _HEADER.size or message[:2] != query[:2]:
        return None
    _, flags, questions, records, _, _ = _HEADER.unpack_from(message)
    if not flags & _IS_REPLY or flags & _OPCODE:
        return None
    code = flags & _CODE
    name, start = _read_name(query, _HEADER.size)
    start += _QUESTION.size
    if not questions and code:
        return Reply(code)  # a server that could not, or would not, read the question
    # The first name of a message cannot be compressed, so the bytes are the same but for case.
    asked = query[_HEADER.size : start].lower()
    if questions != 1 or message[_HEADER.size : start].lower() != asked:
        return None
    if flags & _IS_TRUNCATED:
        return Reply(code, is_truncated=True)
    if code:
        return Reply(code)
    if records > MAX_RECORDS + MOST_ALIASES:
        raise ReplyTooLong(f"{records} records, and at most {MAX_RECORDS} can be told")
    record_type = RecordType(_QUESTION.unpack_from(query, start - _QUESTION.size)[0])
    return _Section(message, start, records, record_type).answer_to(name)


class _Section:
    """The answer section of a message: its aliases, and its records of one type, by owner.

    Raises:
        MalformedReply, ReplyTooLong: as `read_reply`.
    """

    def __init__(self, message: bytes, start: int, count: int, record_type: RecordType) -> None:
        self._aliases: dict[bytes, tuple[bytes, int]] = {}
        self._found: list[tuple[bytes, bytes, int]] = []
        position = start
        data_bytes = _CBOR_OTHER_BYTES
        for _ in range(count):
            owner, position = _read_name(message, position)
            fields, position = _take(message, position, _RECORD.size)
            kind, record_class, ttl_seconds, length = _RECORD.unpack(fields)
            data_start = position
            _, position = _take(message, position, length)
            if record_class != _CLASS_IN:
                continue
            ttl_seconds = 0 if ttl_seconds & _NEGATIVE_TTL else ttl_seconds
            if kind == _TYPE_CNAME:
                target = _last_name(message, data_start, position)
                self._aliases.setdefault(owner.lower(), (target.lower(), ttl_seconds))
                if len(self._aliases) > MOST_ALIASES:
                    raise ReplyTooLong(f"over {MOST_ALIASES} CNAME records")
            elif kind == record_type:
                data = _record_data(record_type, message, data_start, position)
                data_bytes += len(data) + _CBOR_RECORD_BYTES
                if len(data) > MAX_RECORD_BYTES:
                    raise ReplyTooLong(f"a record has over {MAX_RECORD_BYTES} bytes")
                if data_bytes > MAX_ANSWER_BYTES:
                    raise ReplyTooLong(f"the records have over {MAX_ANSWER_BYTES} bytes")
                self._found.append((owner.lower(), data, ttl_seconds))

    def answer_to(self, name: bytes) -> Reply:
        """What belongs to `name`, or to the name that it is an alias of."""
        owner = name.lower()
        ttls = []
        for _ in range(MOST_ALIASES):
            alias = self._aliases.get(owner)
            if alias is None:
                break
            owner, ttl_seconds = alias
            ttls.append(ttl_seconds)
        found = [(data, ttl) for record_owner, data, ttl in self._found if record_owner == owner]
        if len(found) > MAX_RECORDS:
            raise ReplyTooLong(f"{len(found)} records, and at most {MAX_RECORDS} can be told")
        if not found:
            return Reply(0)
        ttls += [ttl for _, ttl in found]
        records = tuple(dict.fromkeys(data for data, _ in found))
        return Reply(0, records=records, ttl_seconds=min(ttls))


def _record_data(record_type: RecordType, message: bytes, start: int, end: int) -> bytes:
    """The data of a record, with its name uncompressed."""
    if record_type is not RecordType.TXT:
        fixed, position = _take(message, start, _FIXED_BYTES[record_type])
        return fixed + _last_name(message, position, end)
    position = start
    while position < end:
        position += 1 + message[position]
    if position != end or start == end:
        raise MalformedReply("a TXT record whose strings do not fill it")
    return message[start:end]


def _last_name(message: bytes, start: int, end: int) -> bytes:
    name, position = _read_name(message, start)
    if position != end:
        raise MalformedReply("a name that does not end with its record")
    return name


def _read_name(message: bytes, start: int) -> tuple[bytes, int]:
    """A name, uncompressed, and the position behind it where it stands."""
    name = bytearray()
    position = least = start
    behind = None
    pointers = 0
    while True:
        length = _take(message, position, 1)[0][0]
        if length & _IS_POINTER == _IS_POINTER:
            field, after = _take(message, position, 2)
            behind = after if behind is None else behind
            position = int.from_bytes(field) & ~(_IS_POINTER << 8)
            pointers += 1
            if position >= least or pointers > _MOST_POINTERS:
                raise MalformedReply("a name that points to no earlier one")
            least = position
            continue
        if length & _IS_POINTER:
            raise MalformedReply("a label of a kind that there is not")
        label, position = _take(message, position, 1 + length)
        name += label
        if len(name) > _MOST_NAME_BYTES:
            raise MalformedReply(f"a name of over {_MOST_NAME_BYTES} bytes")
        if not length:
            return bytes(name), position if behind is None else behind


def _take(message: bytes, start: int, length: int) -> tuple[bytes, int]:
    end = start + length
    if end > len(message):
        raise MalformedReply("a message that ends too soon")
    return message[start:end], end
