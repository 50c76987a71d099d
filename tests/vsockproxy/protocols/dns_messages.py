"""Messages as DNS clients send them, and what stands in the answers, by dnspython's own reader."""

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from vsockproxy.protocols.dns import Query, read_query

ID = 0x1234


def query_message(
    name: str = "kms.test",
    record_type: str = "A",
    *,
    edns_payload: int | None = None,
    edns_version: int = 0,
    wants_dnssec: bool = False,
    options: tuple[dns.edns.Option, ...] = (),
    recursion: bool = True,
) -> bytes:
    """One query; with EDNS if `edns_payload` is given."""
    message = dns.message.make_query(name, record_type, id=ID)
    message.flags = dns.flags.RD if recursion else dns.flags.Flag(0)
    if edns_payload is not None:
        message.use_edns(
            edns_version,
            dns.flags.DO if wants_dnssec else 0,
            payload=edns_payload,
            options=list(options),
        )
    return message.to_wire()


def a_query(
    name: str = "kms.test", record_type: str = "A", *, edns_payload: int | None = None
) -> Query:
    return read_query(query_message(name, record_type, edns_payload=edns_payload))


def header(
    flags: int = 0x0100,
    questions: int = 1,
    answers: int = 0,
    authorities: int = 0,
    additional: int = 0,
) -> bytes:
    words = (ID, flags, questions, answers, authorities, additional)
    return b"".join(word.to_bytes(2) for word in words)


def question(name: bytes = b"\x03kms\x04test\x00", record_type: int = 1, of: int = 1) -> bytes:
    return name + record_type.to_bytes(2) + of.to_bytes(2)


def opt(
    options: bytes = b"", payload: int = 1232, version: int = 0, owner: bytes = b"\x00"
) -> bytes:
    head = owner + (41).to_bytes(2) + payload.to_bytes(2) + bytes((0, version, 0, 0))
    return head + len(options).to_bytes(2) + options


def texts(message: dns.message.Message) -> list[str]:
    """The records of the answer section, as a zone file has them."""
    return [text for rrset in message.answer for text in rrset.to_text().splitlines()]


def extended_error(message: dns.message.Message) -> tuple[int, str | None] | None:
    """The extended error of an answer, if it has one."""
    errors = message.extended_errors()
    return (int(errors[0].code), errors[0].text) if errors else None


def record_data(record_type: str, text: str) -> bytes:
    """One record's data in wire format, uncompressed."""
    return dns.rdata.from_text(dns.rdataclass.IN, record_type, text).to_wire() or b""
