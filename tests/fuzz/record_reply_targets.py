"""Target: what a name server answers when it is asked for SRV, TXT or MX records."""

import dns.flags
import dns.message
import dns.rrset

from parent_side.lookup_cache import Question, RecordType
from parent_side.record_reply import Reply, ReplyError, make_query, read_reply
from tests.fuzz.target import Target
from vsockproxy.session.messages import MAX_RECORD_BYTES, MAX_RECORDS

_NAME = "_sip._tcp.a.test"
_ID = 0x1234
_QUERIES = {
    kind: make_query(Question(_NAME, kind), _ID)
    for kind in (RecordType.SRV, RecordType.TXT, RecordType.MX)
}
_RECORDS = {
    RecordType.SRV: ["1 2 5060 host.a.test.", "1 3 5060 other.a.test."],
    RecordType.TXT: ['"one" "two"', '"' + "x" * 255 + '"'],
    RecordType.MX: ["10 mail.a.test."],
}


def _reply(kind: RecordType) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(_QUERIES[kind]))
    message.flags |= dns.flags.RA
    message.answer.append(
        dns.rrset.from_text_list(f"{_NAME}.", 60, "IN", kind.name, _RECORDS[kind])
    )
    return message.to_wire()


def _execute(data: bytes) -> str:
    """The first byte chooses the type that was asked for, the rest is the reply."""
    kind = tuple(_QUERIES)[data[0] % len(_QUERIES)] if data else RecordType.SRV
    try:
        reply = read_reply(data[1:], _QUERIES[kind])
    except ReplyError as error:
        return f"{type(error).__name__}: {error}"
    if reply is None:
        return "none of this question"
    assert isinstance(reply, Reply)
    assert len(reply.records) <= MAX_RECORDS
    assert all(len(record) <= MAX_RECORD_BYTES for record in reply.records)
    return f"{len(reply.records)} records"


RECORD_REPLY = Target(
    "record_reply",
    _execute,
    corpus=tuple(bytes([number]) + _reply(kind) for number, kind in enumerate(_QUERIES)),
    dictionary=(b"\xc0\x0c", b"\x00\x21\x00\x01", b"\x00\x10\x00\x01", b"\x00\x0f\x00\x01"),
)
