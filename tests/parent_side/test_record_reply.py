"""DNS messages with SRV, TXT and MX records: what is asked, and what is made of a reply."""

import struct
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parent_side.lookup_cache import Question, RecordType
from parent_side.record_reply import (
    MOST_ALIASES,
    MOST_UDP_BYTES,
    MalformedReply,
    Reply,
    ReplyError,
    ReplyTooLong,
    make_query,
    read_reply,
)
from vsockproxy.session import Resolved
from vsockproxy.session.messages import MAX_RECORD_BYTES, MAX_RECORDS
from vsockproxy.session.resolves import MAX_ANSWER_BYTES

NAME = "_sip._tcp.a.test"
ID = 0x1234
TYPES = [pytest.param(kind, id=kind.name) for kind in RecordType]

SRV_QUERY = make_query(Question(NAME, RecordType.SRV), ID)
TXT_QUERY = make_query(Question(NAME, RecordType.TXT), ID)
MX_QUERY = make_query(Question(NAME, RecordType.MX), ID)
QUERIES = {RecordType.SRV: SRV_QUERY, RecordType.TXT: TXT_QUERY, RecordType.MX: MX_QUERY}

POINTER_TO_QUESTION = b"\xc0\x0c"
NAME_ON_WIRE = b"\4_sip\4_tcp\1a\4test\0"


def reply_to(
    query: bytes,
    *sets: dns.rrset.RRset,
    flags: int = 0,
    code: dns.rcode.Rcode = dns.rcode.NOERROR,
) -> bytes:
    """A reply as a server writes it, with compressed names."""
    message = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    message.answer.extend(sets)
    message.flags |= flags
    message.set_rcode(code)
    return message.to_wire(max_size=65_535)


def by_hand(query: bytes, *records: bytes, count: int | None = None) -> bytes:
    """A reply whose answer section is these bytes."""
    header = struct.pack(">HHHHHH", ID, 0x8180, 1, len(records) if count is None else count, 0, 0)
    return header + query[12:-11] + b"".join(records)


def record(kind: int, data: bytes, *, owner: bytes = POINTER_TO_QUESTION, **more: Any) -> bytes:
    """One record."""
    fields = {"ttl": 60, "class_": 1, "length": len(data), **more}
    head = struct.pack(">HHIH", kind, fields["class_"], fields["ttl"], fields["length"])
    return owner + head + data


def rrset(kind: str, *texts: str, owner: str = NAME, ttl: int = 60) -> dns.rrset.RRset:
    return dns.rrset.from_text(f"{owner}.", ttl, "IN", kind, *texts)


@pytest.mark.parametrize("kind", TYPES)
def test_a_query_is_what_others_understand(kind: RecordType) -> None:
    query = dns.message.from_wire(make_query(Question(NAME, kind), ID))
    assert query.id == ID
    assert query.flags == dns.flags.RD
    assert query.edns == 0
    assert query.payload == MOST_UDP_BYTES
    (question,) = query.question
    assert question.name.to_text() == f"{NAME}."
    assert question.rdtype == dns.rdatatype.RdataType(kind)


@pytest.mark.parametrize(
    ("kind", "text", "data"),
    [
        pytest.param(
            RecordType.SRV,
            "10 5 5060 b.a.test.",
            b"\0\x0a\0\5\x13\xc4\1b\1a\4test\0",
            id="SRV",
        ),
        pytest.param(RecordType.SRV, "0 0 0 .", b"\0\0\0\0\0\0\0", id="SRV of no service"),
        pytest.param(
            RecordType.MX, "10 Mail.Example.", b"\0\x0a\4Mail\7Example\0", id="MX, case kept"
        ),
        pytest.param(RecordType.TXT, '"one" "two"', b"\3one\3two", id="TXT of two strings"),
        pytest.param(RecordType.TXT, '""', b"\0", id="TXT of an empty string"),
        pytest.param(RecordType.TXT, r'"\000\255\""', b"\3\0\xff\x22", id="TXT of any bytes"),
    ],
)
def test_record_data_comes_out_as_it_went_in(kind: RecordType, text: str, data: bytes) -> None:
    wire = reply_to(QUERIES[kind], rrset(kind.name, text))
    assert read_reply(wire, QUERIES[kind]) == Reply(0, records=(data,), ttl_seconds=60)


def test_records_keep_their_order_and_come_once() -> None:
    texts = ["20 0 443 b.test.", "10 0 443 a.test.", "20 0 443 b.test."]
    wire = reply_to(SRV_QUERY, *(rrset("SRV", text) for text in texts))
    reply = read_reply(wire, SRV_QUERY)
    assert reply is not None
    assert [data[1] for data in reply.records] == [20, 10]


def alias(target: str, *, owner: str = NAME, ttl: int = 60) -> dns.rrset.RRset:
    return rrset("CNAME", f"{target}.", owner=owner, ttl=ttl)


@pytest.mark.parametrize(
    ("sets", "ttl_seconds"),
    [
        pytest.param([rrset("MX", "1 m.test.", ttl=7)], 7, id="of the record"),
        pytest.param(
            [rrset("MX", "1 m.test.", ttl=7), rrset("MX", "2 m.test.", ttl=6)],
            6,
            id="the least of several records",
        ),
        pytest.param(
            [alias("b.test", ttl=5), rrset("MX", "1 m.test.", owner="b.test")],
            5,
            id="that of an alias on the way",
        ),
        pytest.param(
            [
                rrset("MX", "1 m.test.", owner="c.test"),
                alias("c.test", owner="B.test", ttl=4),
                alias("b.TEST", ttl=5),
            ],
            4,
            id="of aliases in any order and case",
        ),
        pytest.param(
            [alias("elsewhere.test", owner="b.test", ttl=1), rrset("MX", "1 m.test.", ttl=7)],
            7,
            id="not that of an alias beside the way",
        ),
        pytest.param(
            [rrset("MX", "9 m.test.", owner="b.test", ttl=1), rrset("MX", "1 m.test.", ttl=7)],
            7,
            id="not that of another name's record",
        ),
    ],
)
def test_the_ttl(sets: list[dns.rrset.RRset], ttl_seconds: int) -> None:
    reply = read_reply(reply_to(MX_QUERY, *sets), MX_QUERY)
    assert reply is not None
    assert reply.ttl_seconds == ttl_seconds
    assert all(data.endswith(b"\1m\4test\0") for data in reply.records)
    assert all(data[1] in (1, 2) for data in reply.records)
    assert reply.records


def test_a_ttl_with_its_highest_bit_set_counts_as_0() -> None:
    wire = by_hand(TXT_QUERY, record(16, b"\1x", ttl=1 << 31))
    assert read_reply(wire, TXT_QUERY) == Reply(0, records=(b"\1x",), ttl_seconds=0)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(by_hand(TXT_QUERY), id="no record"),
        pytest.param(by_hand(TXT_QUERY, record(33, b"\0")), id="one of another type"),
        pytest.param(by_hand(TXT_QUERY, record(16, b"\1x", class_=3)), id="one of another class"),
        pytest.param(
            by_hand(TXT_QUERY, record(16, b"\1x", owner=b"\1b\0")), id="one of another name"
        ),
        pytest.param(by_hand(TXT_QUERY, record(5, b"\1b\0")), id="an alias to nowhere"),
        pytest.param(by_hand(TXT_QUERY, record(5, POINTER_TO_QUESTION)), id="an alias of itself"),
    ],
)
def test_a_name_without_records_of_the_type(wire: bytes) -> None:
    assert read_reply(wire, TXT_QUERY) == Reply(0)


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.NXDOMAIN, dns.rcode.REFUSED])
def test_a_code_comes_without_records(code: dns.rcode.Rcode) -> None:
    wire = reply_to(TXT_QUERY, rrset("TXT", "x"), code=code)
    assert read_reply(wire, TXT_QUERY) == Reply(code)


def test_a_failure_may_leave_out_the_question() -> None:
    wire = struct.pack(">HHHHHH", ID, 0x8182, 0, 0, 0, 0)
    assert read_reply(wire, TXT_QUERY) == Reply(2)


def test_a_truncated_reply_is_to_be_fetched_again_whatever_it_holds() -> None:
    wire = reply_to(TXT_QUERY, rrset("TXT", "x"), flags=dns.flags.TC)
    assert read_reply(wire, TXT_QUERY) == Reply(0, is_truncated=True)
    header = struct.pack(">HHHHHH", ID, 0x8380, 1, 5, 0, 0)
    assert read_reply(header + TXT_QUERY[12:-11] + b"\xff", TXT_QUERY) == Reply(
        0, is_truncated=True
    )


def test_what_stands_behind_the_answer_section_is_not_looked_at() -> None:
    wire = by_hand(TXT_QUERY, record(16, b"\1x")) + b"\xff" * 50
    counted = wire[:8] + b"\xff\xff\xff\xff" + wire[12:]
    assert read_reply(counted, TXT_QUERY) == Reply(0, records=(b"\1x",), ttl_seconds=60)


ANOTHER_QUESTION = make_query(Question("_sip._tcp.b.test", RecordType.TXT), ID)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(reply_to(TXT_QUERY)[:11], id="a part of a header"),
        pytest.param(b"\0\0" + reply_to(TXT_QUERY)[2:], id="another id"),
        pytest.param(TXT_QUERY, id="the question itself"),
        pytest.param(reply_to(ANOTHER_QUESTION), id="a reply for another name"),
        pytest.param(reply_to(SRV_QUERY), id="a reply for another type"),
        pytest.param(reply_to(TXT_QUERY)[:20], id="a part of the question"),
        pytest.param(
            reply_to(TXT_QUERY)[:2] + b"\xa0\0" + reply_to(TXT_QUERY)[4:], id="another opcode"
        ),
        pytest.param(
            reply_to(TXT_QUERY)[:4] + b"\0\2" + reply_to(TXT_QUERY)[6:], id="two questions"
        ),
        pytest.param(reply_to(TXT_QUERY)[:4] + b"\0\0" + reply_to(TXT_QUERY)[6:], id="none"),
    ],
)
def test_what_is_no_reply_to_the_query(wire: bytes) -> None:
    assert read_reply(wire, TXT_QUERY) is None


def test_the_question_may_come_back_in_another_case() -> None:
    wire = bytearray(by_hand(TXT_QUERY, record(16, b"\1x")))
    wire[12:17] = wire[12:17].upper()
    assert read_reply(bytes(wire), TXT_QUERY) == Reply(0, records=(b"\1x",), ttl_seconds=60)


def pointer(position: int) -> bytes:
    return struct.pack(">H", 0xC000 | position)


END = len(by_hand(TXT_QUERY))
"""Where the first record of a reply stands."""

CHAIN = b"".join(pointer(END - 2 + 2 * number) for number in range(40))


@pytest.mark.parametrize(
    ("query", "records"),
    [
        pytest.param(TXT_QUERY, [b""], id="no record although one is counted"),
        pytest.param(TXT_QUERY, [record(16, b"\1x")[:-1]], id="a record that is cut"),
        pytest.param(TXT_QUERY, [record(16, b"\1x", length=500)], id="a length beyond the end"),
        pytest.param(TXT_QUERY, [record(16, b"")], id="TXT without a string"),
        pytest.param(TXT_QUERY, [record(16, b"\2x")], id="a string beyond its record"),
        pytest.param(MX_QUERY, [record(15, b"\0")], id="MX without its numbers"),
        pytest.param(MX_QUERY, [record(15, b"\0\1")], id="MX without a name"),
        pytest.param(MX_QUERY, [record(15, b"\0\1\0x")], id="bytes behind the name"),
        pytest.param(
            MX_QUERY, [record(15, b"\0\1\1x", length=3), b"\0"], id="a name beyond its record"
        ),
        pytest.param(SRV_QUERY, [record(33, b"\0" * 5)], id="SRV without its numbers"),
        pytest.param(TXT_QUERY, [record(5, b"\1x")], id="an alias without an end"),
        pytest.param(TXT_QUERY, [record(16, b"\1x", owner=pointer(END))], id="a pointer to itself"),
        pytest.param(
            TXT_QUERY, [record(16, b"\1x", owner=pointer(END + 2))], id="a pointer forwards"
        ),
        pytest.param(
            TXT_QUERY,
            [record(16, b"\1x", owner=b"\1a" + pointer(END))],
            id="a pointer into its own name",
        ),
        pytest.param(TXT_QUERY, [record(16, b"\1x", owner=b"\xc0")], id="half a pointer"),
        pytest.param(TXT_QUERY, [record(16, b"\1x", owner=b"\x41a\0")], id="a label of type 01"),
        pytest.param(TXT_QUERY, [record(16, b"\1x", owner=b"\x80a\0")], id="a label of type 10"),
        pytest.param(
            TXT_QUERY,
            [record(16, b"\1x", owner=b"\1a" * 128 + b"\0")],
            id="a name of 257 bytes",
        ),
        pytest.param(
            TXT_QUERY,
            [
                record(99, b"\0" + CHAIN),
                record(16, b"\1x", owner=pointer(END + 12 + 40)),
            ],
            id="a long chain of bare pointers",
        ),
    ],
)
def test_malformed(query: bytes, records: list[bytes]) -> None:
    with pytest.raises(MalformedReply):
        read_reply(by_hand(query, *records), query)


def test_names_that_share_their_ends() -> None:
    first = record(15, b"\0\1\1m" + POINTER_TO_QUESTION)
    target = len(by_hand(MX_QUERY)) + len(first) - len(b"\1m" + POINTER_TO_QUESTION)
    second = record(15, b"\0\2\1n" + pointer(target))
    reply = read_reply(by_hand(MX_QUERY, first, second), MX_QUERY)
    assert reply is not None
    assert reply.records == (
        b"\0\1\1m" + NAME_ON_WIRE,
        b"\0\2\1n\1m" + NAME_ON_WIRE,
    )


@pytest.mark.parametrize(
    ("records", "text"),
    [
        pytest.param(
            [record(16, struct.pack(">BH", 2, number)) for number in range(257)],
            "257 records, and at most 256 can be told",
            id="one record too many",
        ),
        pytest.param(
            [record(16, struct.pack(">BH", 2, number)) for number in range(5000)],
            "5000 records, and at most 256 can be told",
            id="thousands",
        ),
        pytest.param(
            [record(16, 4 * (b"\xff" + bytes(255)) + b"\0")],
            "a record has over 1024 bytes",
            id="a long record",
        ),
        pytest.param(
            [record(16, 4 * (b"\xff" + bytes([number] * 255))) for number in range(16)],
            "the records have over 16384 bytes",
            id="a long sum",
        ),
        pytest.param(
            [record(5, b"\1a\0", owner=b"\2" + bytes([97, 97 + n, 0])) for n in range(17)],
            "over 16 CNAME records",
            id="too many aliases",
        ),
    ],
)
def test_too_long(records: list[bytes], text: str) -> None:
    with pytest.raises(ReplyTooLong) as caught:
        read_reply(by_hand(TXT_QUERY, *records), TXT_QUERY)
    assert str(caught.value) == text


def test_no_record_is_read_of_a_reply_that_counts_too_many() -> None:
    wire = by_hand(TXT_QUERY, b"\xff" * 100, count=MAX_RECORDS + MOST_ALIASES + 1)
    with pytest.raises(ReplyTooLong):
        read_reply(wire, TXT_QUERY)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(
            [record(16, struct.pack(">BH", 2, number)) for number in range(MAX_RECORDS)],
            id="as many as can be",
        ),
        pytest.param([record(16, 4 * (b"\xff" + bytes(255)))], id="one as long as can be"),
        pytest.param(
            [record(16, 4 * (b"\xff" + bytes([number] * 255))) for number in range(15)],
            id="together as long as can be",
        ),
    ],
)
def test_what_can_just_be_told(records: list[bytes]) -> None:
    reply = read_reply(by_hand(TXT_QUERY, *records), TXT_QUERY)
    assert reply is not None
    assert len(reply.records) == len(records)
    assert all(len(data) <= MAX_RECORD_BYTES for data in reply.records)
    answer = Resolved(records=reply.records, ttl_seconds=reply.ttl_seconds)
    assert answer.has_bounded_records
    assert len(answer.encode()) <= MAX_ANSWER_BYTES


@given(
    st.sampled_from(list(RecordType)),
    st.binary(max_size=120),
    st.integers(0, 300),
    st.booleans(),
)
def test_whatever_comes_is_a_reply_an_error_or_neither(
    kind: RecordType, payload: bytes, count: int, is_record: bool
) -> None:
    query = QUERIES[kind]
    body = record(kind, payload) if is_record else payload
    for wire in (by_hand(query, body, count=count), query[:2] + payload):
        try:
            reply = read_reply(wire, query)
        except ReplyError:
            continue
        if reply is not None:
            assert len(reply.records) <= MAX_RECORDS
            assert all(0 < len(data) <= MAX_RECORD_BYTES for data in reply.records)


labels = st.binary(min_size=1, max_size=20).map(
    lambda octets: "".join(f"\\{octet:03d}" for octet in octets)
)
names = st.lists(labels, min_size=1, max_size=5).map(lambda parts: ".".join((*parts, "a.test.")))
numbers = st.integers(0, 0xFFFF)
data_texts = {
    RecordType.SRV: st.builds("{} {} {} {}".format, numbers, numbers, numbers, names),
    RecordType.MX: st.builds("{} {}".format, numbers, names),
    RecordType.TXT: st.lists(labels.map('"{}"'.format), min_size=1, max_size=4).map(" ".join),
}


@given(st.data(), st.sampled_from(list(RecordType)))
def test_an_oracle_writes_and_reads_the_same(draw: st.DataObject, kind: RecordType) -> None:
    texts = draw.draw(st.lists(data_texts[kind], min_size=1, max_size=6))
    written = rrset(kind.name, *texts)
    reply = read_reply(reply_to(QUERIES[kind], written), QUERIES[kind])
    assert reply is not None
    # Compression takes names of another case for the same.
    assert {data.lower() for data in reply.records} == {item.to_wire().lower() for item in written}
