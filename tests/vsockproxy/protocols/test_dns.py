"""DNS messages: what is read, what is refused and how, and what every answer holds."""

from ipaddress import IPv4Address, IPv6Address

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.vsockproxy.protocols.dns_messages import (
    ID,
    a_query,
    extended_error,
    header,
    opt,
    query_message,
    question,
    record_data,
    texts,
)
from vsockproxy.addresses import IpAddress, normalise_host
from vsockproxy.protocols.dns import (
    ANY_REFUSED,
    BAD_VERSION,
    MOST_QUERY_BYTES,
    MOST_RECORDS_BYTES,
    MOST_TCP_BYTES,
    MOST_UDP_BYTES,
    NO_DATA,
    Edns,
    ErrorCode,
    ExtendedError,
    MessageReader,
    RecordType,
    Reply,
    address_reply,
    encode,
    frame,
    name_reply,
    no_such_name,
    read_query,
    record_reply,
    reverse_address,
)
from vsockproxy.protocols.errors import QueryError, RecordError

LONGEST_NAME = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))
FORMERR, NOTIMP = 1, 4
GARBAGE_FACTOR = 1.5


def refused(message: bytes) -> QueryError:
    with pytest.raises(QueryError) as caught:
        read_query(message)
    return caught.value


def answered(name: str, record_type: str, reply: Reply, **client: int) -> dns.message.Message:
    query = a_query(name, record_type, **client)
    return dns.message.from_wire(encode(query, reply, query.most_udp_bytes))


# ------------------------------------------------------------- reading


def test_a_query_is_read() -> None:
    query = read_query(query_message("KMS.Test", "AAAA"))
    assert (query.id, query.record_type, query.edns) == (ID, RecordType.AAAA, None)
    assert query.host == normalise_host("kms.test")
    assert query.text == "KMS.Test"
    assert not query.is_root


def test_edns_is_read() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"8 bytes.")
    message = query_message(edns_payload=1400, wants_dnssec=True, options=(cookie,))
    assert read_query(message).edns == Edns(1400, 0, wants_dnssec=True)


UDP_LIMITS = {
    "without EDNS": (None, 512),
    "a payload below the least": (100, 512),
    "a payload between": (1000, 1000),
    "a payload above ours": (65_535, MOST_UDP_BYTES),
}


@pytest.mark.parametrize(("payload", "most_bytes"), UDP_LIMITS.values(), ids=UDP_LIMITS)
def test_an_answer_over_udp_is_as_long_as_the_client_takes(
    payload: int | None, most_bytes: int
) -> None:
    assert a_query(edns_payload=payload).most_udp_bytes == most_bytes


HOSTS = {
    "a name": (b"\x03kms\x04test\x00", "kms.test"),
    "another case": (b"\x03KmS\x04tEsT\x00", "kms.test"),
    "an underscore": (b"\x05_ldap\x04test\x00", "_ldap.test"),
    "the root": (b"\x00", None),
    "a dot in a label": (b"\x08kms.test\x00", None),
    "a byte beyond ASCII": (b"\x03k\xfcs\x00", None),
    "a space": (b"\x03k s\x00", None),
    "a NUL": (b"\x03k\x00s\x00", None),
    "an IPv4 address": (b"\x0210\x010\x010\x011\x00", None),
    "an IPv6 address": (b"\x03::1\x00", None),
    "a hyphen at an end": (b"\x04kms-\x00", None),
}


@pytest.mark.parametrize(("wire", "host"), HOSTS.values(), ids=HOSTS)
def test_only_names_of_hosts_are_hosts(wire: bytes, host: str | None) -> None:
    query = read_query(header() + question(wire))
    assert query.host == (None if host is None else normalise_host(host))
    assert query.text.isprintable()
    assert query.is_root is (wire == b"\x00")


DROPPED = {
    "nothing": b"",
    "less than a header": header()[:11],
    "an answer": header(flags=0x8180) + question(),
}


@pytest.mark.parametrize("message", DROPPED.values(), ids=DROPPED)
def test_what_cannot_be_a_query_is_dropped(message: bytes) -> None:
    assert refused(message).answer is None


REFUSED = {
    "a header alone": (header(), FORMERR),
    "no question": (header(questions=0) + question(), FORMERR),
    "two questions": (header(questions=2) + question() + question(), FORMERR),
    "an answer in a query": (header(answers=1) + question() + opt(), FORMERR),
    "an authority in a query": (header(authorities=1) + question() + opt(), FORMERR),
    "two additional records": (header(additional=2) + question() + opt() + opt(), FORMERR),
    "an additional record too few": (header(additional=1) + question(), FORMERR),
    "an additional record that is not OPT": (
        header(additional=1) + question() + b"\x00\x00\x01\x00\x01" + bytes(6),
        FORMERR,
    ),
    "an OPT record with an owner": (
        header(additional=1) + question() + opt(owner=b"\x01a\x00"),
        FORMERR,
    ),
    "an OPT record cut short": (header(additional=1) + question() + opt()[:-1], FORMERR),
    "an option cut short": (header(additional=1) + question() + opt(b"\x00\x0a\x00"), FORMERR),
    "an option longer than its record": (
        header(additional=1) + question() + opt(b"\x00\x0a\x00\x09cookie"),
        FORMERR,
    ),
    "bytes behind the question": (header() + question() + b"\x00", FORMERR),
    "bytes behind OPT": (header(additional=1) + question() + opt() + b"\x00", FORMERR),
    "a name cut short": (header() + b"\x03km", FORMERR),
    "a type cut short": (header() + question()[:-3], FORMERR),
    "a compressed name": (header() + question(b"\xc0\x0c"), FORMERR),
    "a label of another kind": (header() + question(b"\x43kms\x00"), FORMERR),
    "a name of 256 bytes": (header() + question(b"\x3f" * 256 + b"\x00"), FORMERR),
    "a query that is too long": (
        header(additional=1) + question() + opt(b"\x00\x0c\x05\x00" + bytes(0x500)),
        FORMERR,
    ),
    "an inverse query": (header(flags=0x0900) + question(), NOTIMP),
    "a status query": (header(flags=0x1100), NOTIMP),
    "an update": (header(flags=0x2900) + question(), NOTIMP),
    "the class of Chaosnet": (header() + question(of=3), NOTIMP),
    "any class": (header() + question(of=255), NOTIMP),
}


@pytest.mark.parametrize(("message", "rcode"), REFUSED.values(), ids=REFUSED)
def test_garbage_gets_a_header_alone(message: bytes, rcode: int) -> None:
    error = refused(message)
    assert error.answer is not None
    assert len(error.answer) == 12
    answer = dns.message.from_wire(error.answer, question_only=True)
    assert (answer.id, int(answer.rcode())) == (ID, rcode)
    assert answer.flags & dns.flags.QR
    assert answer.opcode() == int.from_bytes(message[2:4]) >> 11 & 0xF
    assert error.text.isprintable()


def test_a_query_as_long_as_may_be_is_read() -> None:
    empty = header(additional=1) + question() + opt(b"\x00\x0c\x00\x00")
    padding = MOST_QUERY_BYTES - len(empty)
    option = b"\x00\x0c" + padding.to_bytes(2) + bytes(padding)
    message = header(additional=1) + question() + opt(option)
    assert len(message) == MOST_QUERY_BYTES
    assert read_query(message).host == normalise_host("kms.test")


@given(st.binary(max_size=1500))
@example(header() + question())
@example(header(additional=1) + question() + opt())
def test_any_bytes_are_a_query_or_refused_in_few(message: bytes) -> None:
    try:
        query = read_query(message)
    except QueryError as error:
        answer = error.answer or b""
        assert len(answer) <= GARBAGE_FACTOR * len(message)
        assert len(answer) in (0, 12)
    else:
        theirs = dns.message.from_wire(message, question_only=True).question[0]
        assert (theirs.name, int(theirs.rdtype)) == (query.name, query.record_type)


# ------------------------------------------------------------- answers


def test_an_address_is_answered() -> None:
    answer = answered("kms.test", "A", address_reply(IPv4Address("198.18.0.3")))
    assert texts(answer) == ["kms.test. 30 IN A 198.18.0.3"]
    assert answer.rcode() == dns.rcode.NOERROR
    assert answer.authority == []
    assert answer.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA


def test_an_ipv6_address_is_answered() -> None:
    answer = answered("localhost", "AAAA", address_reply(IPv6Address("::1")))
    assert texts(answer) == ["localhost. 30 IN AAAA ::1"]


def test_an_address_has_a_name() -> None:
    answer = answered("3.0.18.198.in-addr.arpa", "PTR", name_reply("kms.test"))
    assert texts(answer) == ["3.0.18.198.in-addr.arpa. 30 IN PTR kms.test."]


@pytest.mark.parametrize("reply", [NO_DATA, no_such_name()], ids=["no data", "no such name"])
def test_an_answer_without_records_says_for_how_long(reply: Reply) -> None:
    answer = answered("kms.test", "AAAA", reply)
    (soa,) = answer.authority
    assert (int(answer.rcode()), answer.answer) == (reply.rcode, [])
    assert (soa.rdtype, soa.ttl) == (dns.rdatatype.SOA, 5)
    assert soa[0].minimum == 5
    assert answer.question[0].name.is_subdomain(soa.name)


def test_any_is_refused_politely() -> None:
    answer = answered("kms.test", "ANY", ANY_REFUSED)
    assert texts(answer) == ['kms.test. 30 IN HINFO "RFC8482" ""']


def test_the_reason_is_told_to_clients_with_edns() -> None:
    reply = no_such_name(ExtendedError(ErrorCode.PROHIBITED, "not_listed: add it"))
    answer = answered("kms.test", "A", reply, edns_payload=1232)
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert extended_error(answer) == (18, "not_listed: add it")
    assert (answer.edns, answer.payload) == (0, MOST_QUERY_BYTES)
    without = answered("kms.test", "A", reply)
    assert (without.edns, without.rcode()) == (-1, dns.rcode.NXDOMAIN)


def test_another_version_of_edns_is_told_ours() -> None:
    query = read_query(query_message(edns_payload=1232, edns_version=1))
    answer = dns.message.from_wire(encode(query, BAD_VERSION, query.most_udp_bytes))
    assert (answer.rcode(), answer.edns) == (dns.rcode.BADVERS, 0)
    assert answer.answer == answer.authority == []


KEPT = {
    "recursion": dns.flags.RD,
    "no validation": dns.flags.CD,
    "both": dns.flags.RD | dns.flags.CD,
    "neither": dns.flags.Flag(0),
    "flags that are no client's": dns.flags.AA | dns.flags.TC | dns.flags.AD | dns.flags.RA,
}


@pytest.mark.parametrize("flags", KEPT.values(), ids=KEPT)
def test_flags_of_the_query_are_kept_that_are_kept(flags: dns.flags.Flag) -> None:
    query = read_query(header(flags=int(flags)) + question())
    answer = dns.message.from_wire(encode(query, NO_DATA, 512))
    kept = flags & (dns.flags.RD | dns.flags.CD)
    assert answer.flags == dns.flags.QR | dns.flags.RA | kept


def test_the_dnssec_bit_comes_back() -> None:
    query = read_query(query_message(edns_payload=1232, wants_dnssec=True))
    answer = dns.message.from_wire(encode(query, NO_DATA, 1232))
    assert answer.ednsflags == dns.flags.DO


def test_the_case_of_the_question_comes_back() -> None:
    message = query_message("kMs.TeSt", "A")
    query = read_query(message)
    answer = encode(query, address_reply(IPv4Address("198.18.0.3")), 512)
    assert answer[12 : len(message)] == message[12:]
    assert texts(dns.message.from_wire(answer)) == ["kMs.TeSt. 30 IN A 198.18.0.3"]


@pytest.mark.parametrize("payload", [None, 512, 1232])
@pytest.mark.parametrize("name", ["a.test", LONGEST_NAME], ids=["short", "longest"])
def test_a_long_reason_is_cut_not_the_answer(name: str, payload: int | None) -> None:
    words = "ä" * 500
    query = a_query(name, edns_payload=payload)
    reply = no_such_name(ExtendedError(ErrorCode.PROHIBITED, words))
    wire = encode(query, reply, query.most_udp_bytes)
    answer = dns.message.from_wire(wire)
    assert len(wire) <= query.most_udp_bytes
    assert not answer.flags & dns.flags.TC
    assert len(answer.authority) == 1
    if payload is not None:
        error = extended_error(answer)
        assert error is not None
        assert error[1]
        assert words.startswith(error[1])


def test_what_does_not_fit_into_a_datagram_is_to_be_asked_for_over_tcp() -> None:
    records = [record_data("TXT", f'"{number:0250}"') for number in range(20)]
    reply = record_reply(RecordType.TXT, records, 60)
    query = a_query("kms.test", "TXT", edns_payload=1232)
    over_udp = encode(query, reply, query.most_udp_bytes)
    assert len(over_udp) <= 1232
    assert dns.message.from_wire(over_udp).flags & dns.flags.TC
    over_tcp = dns.message.from_wire(encode(query, reply, MOST_TCP_BYTES))
    assert not over_tcp.flags & dns.flags.TC
    assert len(texts(over_tcp)) == 20


UNKNOWN_TYPES = [0, 65, 64, 251, 252, 250, 41, 65_280, 65_535]


@pytest.mark.parametrize("record_type", UNKNOWN_TYPES)
def test_any_type_is_answered(record_type: int) -> None:
    query = read_query(header() + question(record_type=record_type))
    answer = encode(query, NO_DATA, 512)
    assert answer[12:26] == question(record_type=record_type)


names = st.lists(st.from_regex(rb"[\x01-\x7f]{1,20}", fullmatch=True), min_size=0, max_size=6).map(
    lambda labels: b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"
)
replies = st.one_of(
    st.just(NO_DATA),
    st.just(ANY_REFUSED),
    st.text(max_size=300).map(lambda text: no_such_name(ExtendedError(ErrorCode.PROHIBITED, text))),
    st.ip_addresses(v=4).map(address_reply),
    st.ip_addresses(v=6).map(address_reply),
)


@given(names, st.integers(0, 65_535), st.none() | st.integers(0, 65_535), replies)
def test_every_answer_can_be_read_and_fits(
    name: bytes, record_type: int, payload: int | None, reply: Reply
) -> None:
    message = header() + question(name, record_type)
    if payload is not None:
        message = header(additional=1) + question(name, record_type) + opt(payload=payload)
    query = read_query(message)
    wire = encode(query, reply, query.most_udp_bytes)
    assert len(wire) <= query.most_udp_bytes
    assert wire[12 : 12 + len(question(name))] == question(name, record_type)
    answer = dns.message.from_wire(wire)
    assert answer.rcode() == reply.rcode
    assert (answer.edns >= 0) == (payload is not None)


# ------------------------------------------------------------- the parent's records

RECORDS = {
    "MX": ("10 mail.kms.test.", "20 mail.other.test."),
    "SRV": ("0 5 5061 sip.kms.test.", "0 0 0 ."),
    "TXT": ('"v=spf1 -all"', '"a" "b"', '""'),
}


@pytest.mark.parametrize("record_type", RECORDS)
def test_records_of_the_parent_are_passed_on(record_type: str) -> None:
    data = [record_data(record_type, text) for text in RECORDS[record_type]]
    answer = answered("kms.test", record_type, record_reply(RecordType[record_type], data, 60))
    expected = [f"kms.test. 60 IN {record_type} {text}" for text in RECORDS[record_type]]
    assert texts(answer) == expected


def test_no_records_are_no_data() -> None:
    assert record_reply(RecordType.MX, [], 60) == NO_DATA


def test_a_record_twice_is_one() -> None:
    data = record_data("TXT", '"a"')
    assert record_reply(RecordType.TXT, [data, data], 60).records == (data,)


def test_a_long_ttl_is_cut() -> None:
    assert record_reply(RecordType.TXT, [record_data("TXT", '"a"')], 2**31 - 1).ttl_seconds == 300


MALFORMED_RECORDS = {
    "an empty MX": (RecordType.MX, b""),
    "an MX cut short": (RecordType.MX, b"\x00\x0a\x04mai"),
    "bytes behind an MX": (RecordType.MX, b"\x00\x0a\x04mail\x00\x00"),
    "a compressed MX": (RecordType.MX, b"\x00\x0a\x04mail\x00"[:7] + b"\xc0\x02"),
    "a pointer before the record": (RecordType.MX, b"\x00\x0a\xc0\x00"),
    "an MX to no host": (RecordType.MX, b"\x00\x0a\x05ma;ls\x00"),
    "an MX to an address": (RecordType.MX, b"\x00\x0a\x0210\x010\x010\x011\x00"),
    "a dot in a label of an MX": (RecordType.MX, b"\x00\x0a\x06ma.ils\x00"),
    "an SRV to no host": (RecordType.SRV, b"\x00\x00\x00\x00\x13\xc5\x05ma ls\x00"),
    "an SRV cut short": (RecordType.SRV, b"\x00\x00\x00\x00\x13"),
    "an empty TXT": (RecordType.TXT, b""),
    "a TXT cut short": (RecordType.TXT, b"\x05text"),
    "a type that is not passed on": (RecordType.A, b"\x0a\x00\x00\x01"),
}


@pytest.mark.parametrize(("record_type", "data"), MALFORMED_RECORDS.values(), ids=MALFORMED_RECORDS)
def test_a_malformed_record_is_refused(record_type: RecordType, data: bytes) -> None:
    with pytest.raises(RecordError):
        record_reply(record_type, [data], 60)


def test_too_many_records_are_refused() -> None:
    data = record_data("TXT", " ".join(f'"{"a" * 255}"' for _ in range(3)))
    enough = [data[:-4] + f"{number:04}".encode() for number in range(MOST_RECORDS_BYTES // 768)]
    reply = record_reply(RecordType.TXT, enough, 60)
    wire = encode(a_query(LONGEST_NAME, "TXT", edns_payload=1232), reply, MOST_TCP_BYTES)
    assert not dns.message.from_wire(wire).flags & dns.flags.TC
    with pytest.raises(RecordError, match="more than"):
        record_reply(RecordType.TXT, [*enough, data], 60)


@given(st.sampled_from([RecordType.MX, RecordType.SRV, RecordType.TXT]), st.binary(max_size=600))
def test_any_bytes_are_a_record_or_refused(record_type: RecordType, data: bytes) -> None:
    try:
        reply = record_reply(record_type, [data], 60)
    except RecordError as error:
        text = error.text
    else:
        wire = encode(a_query("kms.test", record_type.name), reply, MOST_TCP_BYTES)
        (answer,) = dns.message.from_wire(wire).answer
        text = "a record"
        assert answer[0].to_wire() == data
    assert text.isprintable()


# ------------------------------------------------------------- over TCP


def test_messages_are_framed_by_their_length() -> None:
    assert frame(b"abc") == b"\x00\x03abc"


@given(st.lists(st.binary(min_size=12, max_size=60), max_size=5), st.data())
def test_messages_are_the_same_however_they_come(
    messages: list[bytes], data: st.DataObject
) -> None:
    reader = MessageReader()
    left = b"".join(map(frame, messages))
    found = []
    while left:
        size = data.draw(st.integers(1, len(left)))
        reader.receive(left[:size])
        left = left[size:]
        while (message := reader.next_message()) is not None:
            found.append(message)
    assert found == messages


@pytest.mark.parametrize("length", [0, 11, MOST_QUERY_BYTES + 1, 65_535])
def test_a_length_that_no_query_has_ends_the_reading(length: int) -> None:
    reader = MessageReader()
    reader.receive(length.to_bytes(2))
    with pytest.raises(QueryError, match=str(length)):
        reader.next_message()


# ------------------------------------------------------------- reverse names


@given(st.ip_addresses())
def test_a_reverse_name_is_an_address(address: IpAddress) -> None:
    assert reverse_address(normalise_host(address.reverse_pointer)) == address


NO_REVERSE_NAMES = [
    "in-addr.arpa",
    "198.in-addr.arpa",
    "3.0.18.198.in-addr.arpa.test",
    "256.0.18.198.in-addr.arpa",
    "03.0.18.198.in-addr.arpa",
    "x.0.18.198.in-addr.arpa",
    "1.3.0.18.198.in-addr.arpa",
    "ip6.arpa",
    "1.ip6.arpa",
    "g" + ".0" * 31 + ".ip6.arpa",
    "00" + ".0" * 31 + ".ip6.arpa",
    "0" + ".0" * 32 + ".ip6.arpa",
    "0._" + ".0" * 30 + ".ip6.arpa",
    "kms.test",
]


@pytest.mark.parametrize("name", NO_REVERSE_NAMES)
def test_other_names_are_no_addresses(name: str) -> None:
    assert reverse_address(normalise_host(name)) is None
