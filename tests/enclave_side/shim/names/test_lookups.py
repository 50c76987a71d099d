"""What is answered to which question: policy, parent, table; without sockets."""

import json
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import astuple
from ipaddress import IPv4Address, IPv4Network
from typing import Any, TypeVar

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from enclave_side.shim.names import lookups as module
from enclave_side.shim.names.lookups import Answer, Lookups
from enclave_side.shim.names.port_sets import PortSets
from enclave_side.shim.names.table import AddressTable
from tests.enclave_side.shim.names.files import BLOCK, enclave_policy
from tests.support.scripted_parent import EXISTS, Said, ScriptedParent, ScriptedSupervisor
from tests.vsockproxy.protocols.dns_messages import (
    a_query,
    extended_error,
    header,
    query_message,
    question,
    record_data,
    texts,
)
from vsockproxy.dataplane import loop
from vsockproxy.errors import Refused
from vsockproxy.log import Log
from vsockproxy.protocols.dns import RecordType, encode, read_query
from vsockproxy.session import Resolved

T = TypeVar("T")

LONG = 30.0
"""Seconds that no test waits for when all is well."""

ALLOWED = (
    "address: kms.test, port: 443",
    "address: '**.w.test', port: 443",
    "address: db.test, port: 5432",
    "address: proxied.test, port: 443, names: false",
)
DENIED = ("address: denied.w.test",)
EDNS_PAYLOAD = 1232


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def bounded() -> T:
        async with loop.timeout(LONG):
            return await main()

    return loop.run(bounded())


class Clock:
    """The time that answers age by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Enclave:
    """An enclave's lookups, a parent, a supervisor, a clock and a log."""

    def __init__(
        self,
        allow: Sequence[str] = ALLOWED,
        deny: Sequence[str] = DENIED,
        more: str = "",
        block: IPv4Network = BLOCK,
    ) -> None:
        policy = enclave_policy(allow, deny, more)
        port_sets = PortSets.compile(policy, block)
        self.parent = ScriptedParent()
        self.supervisor = ScriptedSupervisor(port_sets, AddressTable(port_sets, block))
        self.table = AddressTable(port_sets, block)
        self.clock = Clock()
        self._read, self._write = os.pipe2(os.O_NONBLOCK)
        log = Log("enclave", "json", "info", self._write)
        self.lookups = Lookups(
            policy, port_sets, self.table, self.parent, self.supervisor, log, now=self.clock
        )

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines since the last look."""
        try:
            return [json.loads(line) for line in os.read(self._read, 1 << 20).splitlines()]
        except BlockingIOError:
            return []

    async def answer(self, name: str, record_type: str = "A") -> Answer | None:
        done: loop.Future[Answer | None] = loop.new_future()
        query = a_query(name, record_type, edns_payload=EDNS_PAYLOAD)
        self.lookups.ask(query, done.set_result)
        return await done

    async def ask(self, name: str, record_type: str = "A") -> dns.message.Message:
        """The answer to a question, as a client with EDNS reads it."""
        query = a_query(name, record_type, edns_payload=EDNS_PAYLOAD)
        answer = await self.answer(name, record_type)
        assert answer is not None
        return dns.message.from_wire(encode(query, answer.reply, EDNS_PAYLOAD))

    async def address(self, name: str) -> str | None:
        """The address that an A question is answered with; None for NXDOMAIN."""
        message = await self.ask(name)
        if message.rcode() == dns.rcode.NXDOMAIN:
            return None
        (text,) = texts(message)
        return text.split()[-1]

    def ask_at_once(self, name: str, record_type: str = "A") -> list[Answer | None]:
        """Ask, and give the list that the answer will be in."""
        answers: list[Answer | None] = []
        self.lookups.ask(a_query(name, record_type), answers.append)
        return answers


@pytest.fixture
def enclave() -> Iterator[Enclave]:
    enclave = Enclave()
    yield enclave
    enclave.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Enclave]]:
    made: list[Enclave] = []

    def make(**arguments: Any) -> Enclave:
        made.append(Enclave(**arguments))
        return made[-1]

    yield make
    for enclave in made:
        enclave.close()


# ------------------------------------------------------------- allowed names


def test_an_allowed_name_has_its_address(enclave: Enclave) -> None:
    async def main() -> None:
        answer = await enclave.ask("kms.test")
        assert texts(answer) == ["kms.test. 30 IN A 198.18.0.3"]
        assert extended_error(answer) is None

    run(main)
    assert enclave.parent.asked == [("kms.test", RecordType.A)]
    assert enclave.supervisor.asked == []
    assert enclave.lines() == []


def test_case_and_a_dot_at_the_end_change_nothing(enclave: Enclave) -> None:
    async def main() -> None:
        assert await enclave.address("KMS.Test.") == "198.18.0.3"

    run(main)
    assert enclave.parent.asked == [("kms.test", RecordType.A)]


def test_a_name_under_a_wildcard_is_asked_for_and_numbered(enclave: Enclave) -> None:
    async def main() -> None:
        assert await enclave.address("x.w.test") == "198.18.0.4"
        assert await enclave.address("y.x.w.test") == "198.18.0.5"
        assert await enclave.address("x.w.test") == "198.18.0.4"

    run(main)
    assert enclave.parent.asked == [("x.w.test", 1), ("y.x.w.test", 1)]
    assert enclave.supervisor.asked == ["x.w.test", "y.x.w.test"]
    assert str(enclave.table.address_of("y.x.w.test")) == "198.18.0.5"


EMPTY = ["AAAA", "HTTPS", "SVCB", "NS", "SOA", "CNAME", "PTR", "DNSKEY", "AXFR", "TYPE65280"]


@pytest.mark.parametrize("record_type", EMPTY)
@pytest.mark.parametrize("name", ["kms.test", "x.w.test"])
def test_other_types_are_empty_at_once(enclave: Enclave, name: str, record_type: str) -> None:
    async def main() -> None:
        assert len(enclave.ask_at_once(name, record_type)) == 1
        answer = await enclave.ask(name, record_type)
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        assert [soa.rdtype for soa in answer.authority] == [dns.rdatatype.SOA]

    run(main)
    assert enclave.parent.asked == []
    assert enclave.supervisor.asked == []


def test_any_is_refused_politely(enclave: Enclave) -> None:
    async def main() -> None:
        assert texts(await enclave.ask("kms.test", "ANY")) == ['kms.test. 30 IN HINFO "RFC8482" ""']
        assert (await enclave.ask("evil.test", "ANY")).rcode() == dns.rcode.NXDOMAIN

    run(main)


RECORDS = {
    "MX": ("10 mail.w.test.",),
    "SRV": ("0 5 5061 sip.w.test.", "1 5 5061 sip2.w.test."),
    "TXT": ('"v=spf1" "-all"',),
}


@pytest.mark.parametrize("record_type", RECORDS)
def test_records_come_from_the_parent(enclave: Enclave, record_type: str) -> None:
    records = tuple(record_data(record_type, text) for text in RECORDS[record_type])
    enclave.parent.set("_x.w.test", Resolved(records=records, ttl_seconds=90))

    async def main() -> None:
        for _ in range(2):
            answer = await enclave.ask("_x.w.test", record_type)
            assert texts(answer) == [
                f"_x.w.test. 90 IN {record_type} {text}" for text in RECORDS[record_type]
            ]

    run(main)
    assert enclave.parent.asked == [("_x.w.test", RecordType[record_type])]
    assert enclave.supervisor.asked == [], "records need no address"


def test_a_name_without_such_records_is_empty(enclave: Enclave) -> None:
    enclave.parent.set("x.w.test", Resolved(ttl_seconds=60))

    async def main() -> None:
        answer = await enclave.ask("x.w.test", "MX")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])

    run(main)


def test_a_name_without_an_ipv4_address_out_there_has_one_here(enclave: Enclave) -> None:
    enclave.parent.set("kms.test", Resolved(ttl_seconds=60))

    async def main() -> None:
        assert await enclave.address("kms.test") == "198.18.0.3"

    run(main)


HOSTILE_RECORDS = {
    "no record": (b"\xff\xff\xff",),
    "one good, one not": (record_data("MX", "10 mail.w.test."), b"\x00\x0a\xc0\x00"),
    "a name of no host": (b"\x00\x0a\x05ma;ls\x00",),
    "too many": tuple(b"\x00\x0a\x3f" + b"%063d" % number + b"\x00" for number in range(1000)),
}


@pytest.mark.parametrize("records", HOSTILE_RECORDS.values(), ids=HOSTILE_RECORDS)
def test_hostile_records_become_no_records(enclave: Enclave, records: tuple[bytes, ...]) -> None:
    enclave.parent.set("x.w.test", Resolved(records=records, ttl_seconds=60))

    async def main() -> None:
        answer = await enclave.ask("x.w.test", "MX")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])

    run(main)
    (line,) = enclave.lines()
    assert line["event"] == "records_refused"
    assert "x.w.test: " in line["text"]


# ------------------------------------------------------------- refused names


def test_a_name_that_is_not_listed_does_not_exist(enclave: Enclave) -> None:
    async def main() -> None:
        answer = await enclave.ask("evil.test")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NXDOMAIN, [])
        (soa,) = answer.authority
        assert (soa.rdtype, soa.ttl) == (dns.rdatatype.SOA, 5)
        error = extended_error(answer)
        assert error is not None
        code, text = error
        assert code == 18
        assert text is not None
        assert text.startswith("not_listed: evil.test")
        assert "enclave.yaml" in text

    run(main)
    assert enclave.parent.asked == []
    (line,) = enclave.lines()
    assert line["event"] == "decision"
    assert (line["host"], line["allowed"], line["reason"]) == ("evil.test", False, "not_listed")
    assert (line["side"], line["way"]) == ("enclave", "names")


REFUSED = {
    "a denied name under an allowed wildcard": ("denied.w.test", "denied"),
    "the bare name of a wildcard": ("w.test", "not_listed"),
    "a name whose rule says names: false": ("proxied.test", "not_listed"),
    "an address as a name": ("10.0.0.1", "not_listed"),
    "a name that no host has": ("a\\032b.w.test", "not_listed"),
    "a dot inside a label": ("x\\.w.test", "not_listed"),
    "a name of the reverse zone that is not ours": ("1.2.0.192.in-addr.arpa", "not_listed"),
}


@pytest.mark.parametrize(("name", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("record_type", ["A", "AAAA", "TXT", "PTR"])
def test_other_refusals(enclave: Enclave, name: str, reason: str, record_type: str) -> None:
    async def main() -> None:
        answer = await enclave.ask(name, record_type)
        assert answer.rcode() == dns.rcode.NXDOMAIN
        error = extended_error(answer)
        assert error is not None
        assert error[0] == 18
        assert (error[1] or "").startswith(f"{reason}: ")

    run(main)
    (line,) = enclave.lines()
    assert (line["event"], line["reason"]) == ("decision", reason)
    assert enclave.parent.asked == []


def test_names_false_says_where_and_what_to_do(enclave: Enclave) -> None:
    async def main() -> None:
        await enclave.ask("proxied.test")

    run(main)
    (line,) = enclave.lines()
    assert line["rule"] == "enclave.yaml:6"
    assert "names: false at enclave.yaml:6" in line["text"]
    assert "use the HTTP proxy" in line["text"]


SAID_BY_THE_PARENT = [
    "not_listed",
    "port_not_listed",
    "denied",
    "address_private",
    "address_metadata",
    "address_reserved",
]


@pytest.mark.parametrize("reason", SAID_BY_THE_PARENT)
@pytest.mark.parametrize("name", ["kms.test", "x.w.test"])
def test_a_refusal_of_the_parent_is_one_of_ours(enclave: Enclave, name: str, reason: str) -> None:
    enclave.parent.set(name, Resolved(reason, "add it in parent.yaml"))

    async def main() -> None:
        answer = await enclave.ask(name)
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert extended_error(answer) == (18, f"{reason}: parent: add it in parent.yaml")

    run(main)
    (line,) = enclave.lines()
    assert (line["event"], line["side"], line["reason"]) == ("decision", "parent", reason)
    assert enclave.supervisor.asked == []


def test_a_name_that_does_not_exist_does_not_exist(enclave: Enclave) -> None:
    enclave.parent.set("x.w.test", Resolved("no_such_name", "there is no such name"))

    async def main() -> None:
        answer = await enclave.ask("x.w.test")
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert extended_error(answer) is None
        assert len(answer.authority) == 1
        # From now on the other types say so too.
        assert (await enclave.ask("x.w.test", "AAAA")).rcode() == dns.rcode.NXDOMAIN
        enclave.clock.now += 5
        assert (await enclave.ask("x.w.test", "AAAA")).rcode() == dns.rcode.NOERROR

    run(main)
    assert enclave.supervisor.asked == []
    (line,) = enclave.lines()
    assert (line["reason"], line["side"]) == ("no_such_name", "parent")


# ------------------------------------------------------------- without the parent's answer

WITHOUT_ANSWER: dict[str, Said] = {
    "the lookup failed": Resolved("lookup_failed", "no DNS server answered"),
    "a limit of the parent": Resolved("limit", "too many lookups"),
    "a word of a later version": Resolved("new_word", "?"),
    "too many questions on the link": Refused("limit", "256 name lookups are open on this link"),
    "no link": Refused("parent_away", "no link to the parent"),
    "the link ended": ConnectionResetError("the link ended"),
    "another error of a socket": OSError("?"),
}


@pytest.mark.parametrize("said", WITHOUT_ANSWER.values(), ids=WITHOUT_ANSWER)
def test_without_an_answer_the_address_is_told_all_the_same(enclave: Enclave, said: Said) -> None:
    for name in ("kms.test", "x.w.test"):
        enclave.parent.set(name, said)

    async def main() -> None:
        assert await enclave.address("kms.test") == "198.18.0.3"
        assert await enclave.address("x.w.test") == "198.18.0.4"

    run(main)
    assert enclave.lookups.counts.unverified == 2


@pytest.mark.parametrize("said", WITHOUT_ANSWER.values(), ids=WITHOUT_ANSWER)
def test_without_an_answer_there_are_no_records(enclave: Enclave, said: Said) -> None:
    enclave.parent.set("x.w.test", said)

    async def main() -> None:
        answer = await enclave.ask("x.w.test", "SRV")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])

    run(main)


def test_a_parent_that_is_silent_is_not_waited_for(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.02)
    enclave.parent.hold("kms.test")

    async def main() -> None:
        assert await enclave.address("kms.test") == "198.18.0.3"
        # For a second nobody waits again.
        assert len(enclave.ask_at_once("kms.test")) == 1

    run(main)
    assert enclave.parent.asked == [("kms.test", 1)]


def test_programs_wait_longer_than_the_parent_may_take() -> None:
    assert 2 * module.ANSWER_SECONDS < 5


# ------------------------------------------------------------- what is remembered


def test_that_a_name_exists_is_believed_for_its_ttl(enclave: Enclave) -> None:
    async def main() -> None:
        first = await enclave.answer("kms.test")
        enclave.clock.now += 59
        second = await enclave.answer("kms.test")
        assert first is not None
        assert second is not None
        assert (first.lifetime_seconds, second.lifetime_seconds) == (60, 1)
        assert len(enclave.parent.asked) == 1
        enclave.clock.now += 1
        await enclave.answer("kms.test")
        assert len(enclave.parent.asked) == 2

    run(main)


TTLS = {
    "none": (0, 1),
    "short": (7, 7),
    "long": (86_400, 300),
    "the longest": (2**31 - 1, 300),
}


@pytest.mark.parametrize(("ttl", "seconds"), TTLS.values(), ids=TTLS)
def test_a_ttl_is_believed_within_bounds(enclave: Enclave, ttl: int, seconds: int) -> None:
    enclave.parent.set("kms.test", Resolved(ttl_seconds=ttl))

    async def main() -> None:
        answer = await enclave.answer("kms.test")
        assert answer is not None
        assert answer.lifetime_seconds == seconds

    run(main)


def test_an_address_is_the_same_after_an_hour(enclave: Enclave) -> None:
    async def main() -> None:
        before = [await enclave.address(name) for name in ("kms.test", "x.w.test")]
        for number in range(60):
            enclave.clock.now += 60
            assert await enclave.address(f"n{number}.w.test")
        assert [await enclave.address(name) for name in ("kms.test", "x.w.test")] == before

    run(main)


def test_a_name_that_came_into_being_is_found_in_five_seconds(enclave: Enclave) -> None:
    enclave.parent.set("x.w.test", Resolved("no_such_name"))

    async def main() -> None:
        assert await enclave.address("x.w.test") is None
        enclave.parent.set("x.w.test", EXISTS)
        enclave.clock.now += 4.9
        assert await enclave.address("x.w.test") is None
        enclave.clock.now += 0.1
        assert await enclave.address("x.w.test") == "198.18.0.4"

    run(main)


def test_what_is_remembered_is_bounded(enclave: Enclave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KNOWN_BYTES", 100)
    enclave.parent.set("x.w.test", Resolved(records=(record_data("TXT", f'"{"a" * 200}"'),)))

    async def main() -> None:
        for _ in range(2):
            assert len(texts(await enclave.ask("x.w.test", "TXT"))) == 1

    run(main)
    assert len(enclave.parent.asked) == 2


# ------------------------------------------------------------- many at one time


def test_identical_questions_are_asked_once(enclave: Enclave) -> None:
    async def main() -> None:
        held = enclave.parent.hold("x.w.test")
        waiting = [enclave.ask_at_once("x.w.test") for _ in range(50)]
        other = enclave.ask_at_once("X.w.test", "MX")
        await loop.sleep(0)
        assert not any(waiting)
        held.set()
        await enclave.answer("x.w.test")
        await enclave.answer("x.w.test", "MX")
        assert {astuple(answers[0]) for answers in waiting if answers[0]} == {
            astuple(waiting[0][0] or pytest.fail("no answer"))
        }
        assert all(len(answers) == 1 for answers in (*waiting, other))

    run(main)
    assert sorted(enclave.parent.asked) == [("x.w.test", 1), ("x.w.test", 15)]
    assert enclave.supervisor.asked == ["x.w.test"]


def test_more_names_than_may_be_asked_for_are_dropped(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_QUESTIONS", 3)

    async def main() -> None:
        held = [enclave.parent.hold(f"n{number}.w.test") for number in range(3)]
        waiting = [enclave.ask_at_once(f"n{number}.w.test") for number in range(3)]
        assert enclave.ask_at_once("n3.w.test") == [None]
        assert len(enclave.ask_at_once("n3.w.test", "AAAA")) == 1
        joined = enclave.ask_at_once("n0.w.test")
        for event in held:
            event.set()
        for number in range(3):
            await enclave.answer(f"n{number}.w.test")
        assert all(answers != [None] and len(answers) == 1 for answers in (*waiting, joined))
        assert await enclave.address("n3.w.test") is not None

    run(main)
    assert enclave.lookups.counts.dropped == 1
    assert [line["event"] for line in enclave.lines()] == ["lookups_dropped"]


def test_more_queries_than_may_wait_are_dropped(
    enclave: Enclave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)

    async def main() -> None:
        held = enclave.parent.hold("x.w.test")
        waiting = [enclave.ask_at_once("x.w.test") for _ in range(8)]
        assert waiting == [*([[]] * 5), *([[None]] * 3)]
        held.set()
        await loop.sleep(0)
        while not waiting[0]:
            await loop.sleep(0)
        assert all(waiting)
        assert await enclave.address("x.w.test") == "198.18.0.4"

    run(main)
    assert enclave.lookups.counts.dropped == 3


def test_nobody_waits_for_ever_when_it_is_closed(enclave: Enclave) -> None:
    async def main() -> None:
        enclave.parent.hold("x.w.test")
        waiting = enclave.ask_at_once("x.w.test")
        await loop.sleep(0)
        enclave.lookups.close()
        while not waiting:
            await loop.sleep(0)
        assert waiting == [None]

    run(main)


# ------------------------------------------------------------- numbers


def test_no_address_left_is_no_such_name(make: Callable[..., Enclave]) -> None:
    enclave = make(block=IPv4Network("10.9.8.0/28"))

    async def main() -> None:
        for number in range(10):  # 12 addresses, and two exact names
            assert await enclave.address(f"n{number}.w.test") is not None
        answer = await enclave.ask("last.w.test")
        assert answer.rcode() == dns.rcode.NXDOMAIN
        error = extended_error(answer)
        assert error is not None
        assert error[0] == 0
        assert "set shim.names_block wider" in (error[1] or "")
        assert await enclave.address("kms.test") == "10.9.8.3"
        assert await enclave.address("n9.w.test") == "10.9.8.14"

    run(main)
    assert enclave.lookups.counts.without_address == 1
    (line,) = enclave.lines()
    assert (line["event"], line["reason"], line["host"]) == ("decision", "limit", "last.w.test")


def test_ten_thousand_names_are_numbered(enclave: Enclave) -> None:
    answers: list[Answer | None] = []

    async def main() -> None:
        for number in range(10_000):
            name = b"\x06n%05d\x01w\x04test\x00" % number
            enclave.lookups.ask(read_query(header() + question(name)), answers.append)
            while len(answers) <= number:
                await loop.sleep(0)

    run(main)
    assert len({answer.reply.records for answer in answers if answer is not None}) == 10_000
    assert enclave.table.name_of(IPv4Address("198.18.39.19")) == "n09999.w.test"


TROUBLE = {
    "it is gone": (ConnectionResetError("the supervisor is gone"), "the supervisor is gone"),
    "it does not take questions": (Refused("limit", "busy"), "limit: busy"),
    "it is silent": (TimeoutError(), "no answer for 2 s"),
}


@pytest.mark.parametrize(("trouble", "text"), TROUBLE.values(), ids=TROUBLE)
def test_without_the_supervisor_only_new_names_fail(
    enclave: Enclave, trouble: Exception, text: str
) -> None:
    async def main() -> None:
        assert await enclave.address("x.w.test") == "198.18.0.4"
        enclave.supervisor.trouble = trouble
        assert await enclave.address("y.w.test") is None
        assert await enclave.address("x.w.test") == "198.18.0.4"
        assert await enclave.address("kms.test") == "198.18.0.3"
        enclave.supervisor.trouble = None
        enclave.clock.now += 1
        assert await enclave.address("y.w.test") == "198.18.0.5"

    run(main)
    (line,) = enclave.lines()
    assert (line["reason"], line["host"]) == ("limit", "y.w.test")
    assert line["text"] == f"the supervisor gives no address: {text}"
    assert enclave.lookups.counts.without_address == 1


def test_a_supervisor_that_contradicts_the_table_is_not_believed(enclave: Enclave) -> None:
    async def main() -> None:
        first = await enclave.address("x.w.test")
        enclave.supervisor.table = AddressTable(
            PortSets.compile(enclave_policy(ALLOWED), BLOCK), BLOCK
        )
        assert await enclave.address("y.w.test") is None
        assert await enclave.address("x.w.test") == first

    run(main)
    assert "belongs to x.w.test" in enclave.lines()[0]["text"]


# ------------------------------------------------------------- reverse names, localhost, the rest


def test_an_address_of_the_block_has_its_name(enclave: Enclave) -> None:
    async def main() -> None:
        await enclave.address("x.w.test")
        for name, text in (("3.0.18.198", "kms.test."), ("4.0.18.198", "x.w.test.")):
            answer = await enclave.ask(f"{name}.in-addr.arpa", "PTR")
            assert texts(answer) == [f"{name}.in-addr.arpa. 30 IN PTR {text}"]
            assert (await enclave.ask(f"{name}.in-addr.arpa", "A")).rcode() == dns.rcode.NOERROR

    run(main)
    assert enclave.lines() == []


def test_another_workers_number_has_its_name_too(enclave: Enclave) -> None:
    async def main() -> None:
        enclave.supervisor.table.number("far.w.test", 0)
        answer = await enclave.ask("4.0.18.198.in-addr.arpa", "PTR")
        assert texts(answer) == ["4.0.18.198.in-addr.arpa. 30 IN PTR far.w.test."]
        assert str(enclave.table.address_of("far.w.test")) == "198.18.0.4"

    run(main)


@pytest.mark.parametrize("last", ["0", "1", "2", "200"])
def test_an_address_that_nobody_has_has_no_name(enclave: Enclave, last: str) -> None:
    async def main() -> None:
        answer = await enclave.ask(f"{last}.0.18.198.in-addr.arpa", "PTR")
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert extended_error(answer) is None

    run(main)


def test_without_the_supervisor_an_unknown_address_has_no_name(enclave: Enclave) -> None:
    enclave.supervisor.trouble = ConnectionResetError("the supervisor is gone")

    async def main() -> None:
        answer = await enclave.ask("9.0.18.198.in-addr.arpa", "PTR")
        assert answer.rcode() == dns.rcode.NXDOMAIN

    run(main)


LOCAL = {
    "localhost": ("localhost", "A", ["localhost. 30 IN A 127.0.0.1"]),
    "localhost, IPv6": ("localhost", "AAAA", ["localhost. 30 IN AAAA ::1"]),
    "another case": ("LocalHost", "A", ["LocalHost. 30 IN A 127.0.0.1"]),
    "a name below": ("app.localhost", "A", ["app.localhost. 30 IN A 127.0.0.1"]),
    "its mail": ("localhost", "MX", []),
    "all of it": ("localhost", "ANY", ['localhost. 30 IN HINFO "RFC8482" ""']),
    "its reverse name": (
        "1.0.0.127.in-addr.arpa",
        "PTR",
        ["1.0.0.127.in-addr.arpa. 30 IN PTR localhost."],
    ),
    "its reverse name, IPv6": (
        f"1{'.0' * 31}.ip6.arpa",
        "PTR",
        [f"1{'.0' * 31}.ip6.arpa. 30 IN PTR localhost."],
    ),
    "the root": (".", "NS", []),
}


@pytest.mark.parametrize(("name", "record_type", "expected"), LOCAL.values(), ids=LOCAL)
def test_what_is_local_asks_nobody(
    enclave: Enclave, name: str, record_type: str, expected: list[str]
) -> None:
    async def main() -> None:
        answer = await enclave.ask(name, record_type)
        assert (answer.rcode(), texts(answer)) == (dns.rcode.NOERROR, expected)

    run(main)
    assert enclave.parent.asked == []
    assert enclave.lines() == []


def test_localhost_is_local_whatever_is_listed(make: Callable[..., Enclave]) -> None:
    enclave = make(allow=["address: '**.localhost', port: 443"])

    async def main() -> None:
        assert await enclave.address("app.localhost") == "127.0.0.1"

    run(main)


def test_another_version_of_edns_is_refused_before_all_else(enclave: Enclave) -> None:
    answers: list[Answer | None] = []
    query = read_query(query_message("evil.test", edns_payload=1232, edns_version=1))
    enclave.lookups.ask(query, answers.append)
    (answer,) = answers
    assert answer is not None
    assert answer.reply.rcode == dns.rcode.BADVERS
    assert enclave.lines() == []


# ------------------------------------------------------------- mode: report


def test_reporting_gives_every_name_an_address_and_says_so(make: Callable[..., Enclave]) -> None:
    enclave = make(more="mode: report\n")

    async def main() -> None:
        assert await enclave.address("evil.test") == "198.18.0.5"
        assert await enclave.address("kms.test") == "198.18.0.3"
        assert await enclave.address("denied.w.test") is None

    run(main)
    reported, denied = enclave.lines()
    assert (reported["host"], reported["allowed"], reported["reason"]) == (
        "evil.test",
        True,
        "not_listed",
    )
    assert (denied["host"], denied["allowed"], denied["reason"]) == (
        "denied.w.test",
        False,
        "denied",
    )


def test_reporting_leaves_the_last_word_to_the_parent(make: Callable[..., Enclave]) -> None:
    enclave = make(more="mode: report\n")
    enclave.parent.set("evil.test", Resolved("not_listed", "add it in parent.yaml"))

    async def main() -> None:
        assert await enclave.address("evil.test") is None

    run(main)
    assert enclave.lines()[-1]["side"] == "parent"
