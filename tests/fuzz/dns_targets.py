"""Targets: what programs send to the DNS server, and what the parent sends it for records.

For a million packets: `python -m tests.fuzz.run --target dns --runs 1000000`.
"""

import functools
import os

import dns.message
import dns.rcode
import dns.rdatatype
import uvloop

from enclave_side.shim.names.lookups import Answer, Lookups
from enclave_side.shim.names.port_sets import PortSets
from enclave_side.shim.names.table import AddressTable
from tests.fuzz.target import Target
from tests.support.names_server import BLOCK, policy_for
from tests.support.scripted_parent import ScriptedParent, ScriptedSupervisor
from tests.vsockproxy.protocols.dns_messages import (
    a_query,
    header,
    opt,
    query_message,
    question,
    record_data,
)
from vsockproxy.dataplane.loop import Future
from vsockproxy.log import Log
from vsockproxy.protocols.dns import (
    MOST_TCP_BYTES,
    Query,
    RecordType,
    encode,
    read_query,
    record_reply,
)
from vsockproxy.protocols.errors import QueryError, RecordError
from vsockproxy.session import Resolved

_MOST_AMPLIFICATION = 1.5
_SAID = {dns.rcode.NOERROR, dns.rcode.NXDOMAIN, dns.rcode.BADVERS}


class _Enclave:
    """The lookups of an enclave whose parent answers by script, on a loop of their own."""

    def __init__(self) -> None:
        policy = policy_for("kms.test", "**.w.test")
        port_sets = PortSets.compile(policy, BLOCK)
        parent = ScriptedParent(is_recording=False)
        parent.set("gone.w.test", Resolved("no_such_name", "there is no such name"))
        parent.set("shut.w.test", Resolved("address_private", "add private: true"))
        parent.set("slow.w.test", ConnectionResetError("the link ended"))
        parent.set("mail.w.test", Resolved(records=(record_data("MX", "10 a.w.test."),)))
        parent.set("junk.w.test", Resolved(records=(b"\xc0\x0c", b"\xff" * 300)))
        supervisor = ScriptedSupervisor(
            port_sets, AddressTable(port_sets, BLOCK), is_recording=False
        )
        self._loop = uvloop.new_event_loop()
        self._lookups = Lookups(
            policy,
            port_sets,
            AddressTable(port_sets, BLOCK),
            parent,
            supervisor,
            Log("enclave", "json", "error", os.open(os.devnull, os.O_WRONLY)),
            now=self._loop.time,
        )

    def answer(self, query: Query) -> Answer | None:
        return self._loop.run_until_complete(self._ask(query))

    async def _ask(self, query: Query) -> Answer | None:
        done: Future[Answer | None] = self._loop.create_future()
        self._lookups.ask(query, done.set_result)
        return await done


_enclave = functools.cache(_Enclave)


def _execute_query(data: bytes) -> str:
    try:
        query = read_query(data)
    except QueryError as error:
        refused = error
    else:
        return _answer(query)
    assert len(refused.answer or b"") <= _MOST_AMPLIFICATION * len(data)
    assert refused.text.isprintable()
    return refused.text


def _answer(query: Query) -> str:
    answered = _enclave().answer(query)
    assert answered is not None
    for most_bytes in (query.most_udp_bytes, MOST_TCP_BYTES):
        wire = encode(query, answered.reply, most_bytes)
        assert len(wire) <= most_bytes
        message = dns.message.from_wire(wire)
        assert message.id == query.id
        assert message.question[0].name.labels == query.name.labels, "the case is another"
        assert int(message.question[0].rdtype) == query.record_type
        assert message.rcode() in _SAID
        assert (message.edns >= 0) == (query.edns is not None)
    kinds = {dns.rdatatype.to_text(rrset.rdtype) for rrset in message.answer}
    told = "told why" if message.extended_errors() else ""
    return f"{dns.rcode.to_text(message.rcode())} {' '.join(sorted(kinds))} {told}"


_TYPES = (RecordType.MX, RecordType.SRV, RecordType.TXT)


def _execute_records(data: bytes) -> str:
    """The first byte says which type; then records stand, each behind a byte with its length."""
    record_type = _TYPES[data[0] % len(_TYPES)] if data else RecordType.TXT
    records = []
    rest = data[1:]
    while rest:
        records.append(rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    try:
        reply = record_reply(record_type, records, 60)
    except RecordError as error:
        return f"{record_type.name} {error.text}"
    wire = encode(a_query("x.w.test", record_type.name), reply, MOST_TCP_BYTES)
    answer = dns.message.from_wire(wire).answer
    found = {record.to_wire() for rrset in answer for record in rrset}
    # Records that differ in case alone are one to the reader.
    assert {item and item.lower() for item in found} == {item.lower() for item in records}
    return f"{record_type.name} {'records' if records else 'none'}"


def _behind_length(*records: bytes) -> bytes:
    return b"".join(bytes((len(record),)) + record for record in records)


DNS = Target(
    "dns",
    _execute_query,
    corpus=(
        query_message("kms.test"),
        query_message("KmS.tEsT", "A", edns_payload=1232),
        query_message("kms.test", "AAAA", edns_payload=512),
        query_message("kms.test", "ANY"),
        query_message("kms.test", "HTTPS"),
        query_message("x.w.test"),
        query_message("gone.w.test"),
        query_message("shut.w.test", edns_payload=1232),
        query_message("slow.w.test"),
        query_message("mail.w.test", "MX"),
        query_message("junk.w.test", "SRV"),
        query_message("evil.test", edns_payload=1232, wants_dnssec=True),
        query_message("localhost", "AAAA"),
        query_message(".", "NS"),
        query_message("3.0.18.198.in-addr.arpa", "PTR"),
        query_message("1.0.0.127.in-addr.arpa", "PTR"),
        query_message("kms.test", edns_payload=1232, edns_version=1),
        header(questions=2) + question() * 2,
        header(flags=0x8180) + question(),
        header(flags=0x2900) + question(),
        header(additional=1) + question() + opt(b"\x00\x0a\x00\x08a cookie"),
    ),
    dictionary=(
        b"\x00\x01\x00\x01",
        b"\x00\x1c\x00\x01",
        b"\x00\xff\x00\x01",
        b"\x00\x0c\x00\x01",
        b"\x00\x01\x00\xff",
        b"\xc0\x0c",
        b"\x03kms\x04test\x00",
        b"\x01w\x04test\x00",
        b"\x09localhost\x00",
        b"\x02\x31\x38\x03198\x07in-addr\x04arpa\x00",
        b"\x3f" + b"a" * 63,
        b"\x05a.b\x00c",
        b"\x04\xff\x00\\.",
        opt(),
        opt(version=1),
        opt(b"\x00\x08\x00\x07\x00\x01\x18\x00\x0a\x00\x00"),
        opt(b"\x00\x0f\x00\x04\x00\x12\xff\xff"),
    ),
)

DNS_RECORDS = Target(
    "dns_records",
    _execute_records,
    corpus=(
        b"\x00"
        + _behind_length(record_data("MX", "10 mail.w.test."), record_data("MX", "20 b.w.test.")),
        b"\x00" + _behind_length(record_data("MX", "0 .")),
        b"\x01" + _behind_length(record_data("SRV", "0 5 5061 sip.w.test.")),
        b"\x02" + _behind_length(record_data("TXT", '"v=spf1" "-all"')),
        b"\x02" + _behind_length(*(b"\x03%03d" % number for number in range(100))),
        b"\x00" + _behind_length(b"\x00\x0a\xc0\x02"),
        b"",
    ),
    dictionary=(
        b"\xc0\x00",
        b"\xc0\x02",
        b"\x04mail\x00",
        b"\x05a;b c\x00",
        b"\x00",
        b"\x3f" + b"a" * 63,
        b"\xff",
    ),
)
