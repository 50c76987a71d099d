"""SRV, TXT and MX records against a DNS server on loopback: answers, failures, shares, servers."""

import asyncio
import os
from collections.abc import Callable

import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parent_side.lookup_cache import Question, Records, RecordType
from parent_side.record_query import ask_records
from parent_side.resolver import (
    LOOKUPS_AT_ONCE,
    LookupFailed,
    NoSuchName,
    ResolutionError,
    Resolver,
)
from tests.parent_side.resolving import LONG, run
from tests.support.dns_server import (
    Addresses,
    Alias,
    ByTransport,
    DnsServer,
    Held,
    HungUp,
    InTurn,
    Raw,
    Reply,
    Silent,
    Status,
    Truncated,
)
from tests.support.dns_server import Records as Scripted
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop

SRV = RecordType.SRV
TXT = RecordType.TXT
MX = RecordType.MX
ONE_STRING = Scripted("TXT", '"x"')
MANY_STRINGS = Scripted("TXT", *(f'"{number:0100d}"' for number in range(100)))


def resolver(
    *servers: DnsServer,
    timeout: float = LONG,
    hosts: dict[str, list[str]] | None = None,
    lookups_at_once: int = LOOKUPS_AT_ONCE,
    now: Callable[[], float] = loop.now,
) -> Resolver:
    addresses = [server.address for server in servers]
    return Resolver(
        ResolverSettings(servers=addresses, hosts=hosts or {}, timeout=timeout),
        lookups_at_once=lookups_at_once,
        now=now,
    )


def look_up(names: Resolver, kind: RecordType = TXT, name: str = "a.test") -> Records:
    return run(lambda: names.look_up_records(name, kind, enclave=16))


@pytest.mark.parametrize(
    ("kind", "reply", "records"),
    [
        pytest.param(
            SRV,
            Scripted("SRV", "1 2 443 b.a.test.", "2 2 443 c.a.test."),
            (
                b"\0\1\0\2\1\xbb\1b\1a\4test\0",
                b"\0\2\0\2\1\xbb\1c\1a\4test\0",
            ),
            id="SRV",
        ),
        pytest.param(MX, Scripted("MX", "10 mail.a.test."), (b"\0\x0a\4mail\1a\4test\0",), id="MX"),
        pytest.param(TXT, Scripted("TXT", '"a" "b"'), (b"\1a\1b",), id="TXT"),
        pytest.param(TXT, Scripted("TXT", '"a"', '"a"'), (b"\1a",), id="a repeated record once"),
        pytest.param(TXT, Alias("b.test"), (b"\1b",), id="through an alias"),
        pytest.param(TXT, Alias("absent.test"), (), id="an alias to nowhere"),
        pytest.param(TXT, Scripted("MX", "10 mail.a.test."), (), id="records of another type"),
        pytest.param(TXT, Addresses("192.0.2.1"), (), id="only addresses"),
    ],
)
def test_answers(
    server: DnsServer, kind: RecordType, reply: Reply, records: tuple[bytes, ...]
) -> None:
    server.set("a.test", reply)
    server.set("b.test", Scripted("TXT", '"b"'))
    assert look_up(resolver(server), kind).records == records
    assert server.count("a.test", kind.name) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        pytest.param(
            Status(dns.rcode.NXDOMAIN), NoSuchName, "there is no such name", id="NXDOMAIN"
        ),
        pytest.param(
            Status(dns.rcode.SERVFAIL),
            LookupFailed,
            "the DNS servers failed (SERVFAIL) ({server})",
            id="SERVFAIL",
        ),
        pytest.param(
            Status(dns.rcode.REFUSED),
            LookupFailed,
            "the DNS servers refuse to answer (REFUSED) ({server})",
            id="REFUSED",
        ),
        pytest.param(
            Status(dns.rcode.NOTIMP),
            LookupFailed,
            "the DNS servers answered with error 4 ({server})",
            id="another error",
        ),
        pytest.param(
            Scripted("TXT", *(f'"{number}"' for number in range(300))),
            LookupFailed,
            "the answer is too long: 300 records, and at most 256 can be told",
            id="too many records",
        ),
        pytest.param(
            Scripted("TXT", " ".join(5 * [f'"{"x" * 250}"'])),
            LookupFailed,
            "the answer is too long: a record has over 1024 bytes",
            id="a record that is too long",
        ),
        pytest.param(
            Scripted("TXT", *(f'"{number:0200d}"' for number in range(200))),
            LookupFailed,
            "the answer is too long: the records have over 16384 bytes",
            id="records that are too long together",
        ),
        pytest.param(Truncated(), LookupFailed, "malformed answers ({server})", id="never whole"),
        pytest.param(
            ByTransport(Truncated(), Raw(b"\xff" * 60_000)),
            LookupFailed,
            "malformed answers ({server})",
            id="a huge reply of garbage over TCP",
        ),
        pytest.param(
            ByTransport(Truncated(), HungUp()),
            LookupFailed,
            "malformed answers ({server})",
            id="a reply over TCP that ends too soon",
        ),
        pytest.param(
            ByTransport(Truncated(), Status(dns.rcode.SERVFAIL)),
            LookupFailed,
            "the DNS servers failed (SERVFAIL) ({server})",
            id="a failure over TCP",
        ),
    ],
)
def test_failures(server: DnsServer, reply: Reply, kind: type[ResolutionError], text: str) -> None:
    server.set("a.test", reply)
    with pytest.raises(ResolutionError) as caught:
        look_up(resolver(server))
    assert type(caught.value) is kind
    assert caught.value.host == "a.test"
    assert caught.value.text == "a.test: " + text.format(server=server.address)


MALFORMED = b"\x81\x80\0\1\0\1\0\0\0\0\1a\4test\0\0\x10\0\1\xff"
"""A reply to a TXT question for a.test, behind its id, that counts a record it has not got."""


def test_a_malformed_reply_fails_at_once(server: DnsServer) -> None:
    server.set("a.test", Raw(MALFORMED))
    with pytest.raises(LookupFailed, match="malformed answers"):
        look_up(resolver(server))


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Silent(), id="nothing"),
        pytest.param(Raw(b""), id="two bytes"),
        pytest.param(Raw(b"\xff" * 500), id="what is no reply"),
        pytest.param(ByTransport(Truncated(), Silent()), id="nothing over TCP"),
    ],
)
def test_silence_ends_with_the_timeout(server: DnsServer, reply: Reply) -> None:
    server.set("a.test", reply)
    with pytest.raises(LookupFailed) as caught:
        look_up(resolver(server, timeout=0.05))
    assert caught.value.text == f"a.test: no answer in 0.05 s ({server.address})"


def test_a_question_that_was_lost_is_asked_again(server: DnsServer) -> None:
    server.set("a.test", InTurn(Silent(), ONE_STRING))
    assert look_up(resolver(server, timeout=4.0)).records == (b"\1x",)
    assert server.count("a.test") == 2


def test_a_server_that_nobody_runs_fails_at_once() -> None:
    with DnsServer() as server:
        pass
    with pytest.raises(LookupFailed) as caught:
        look_up(resolver(server))
    assert caught.value.text == f"a.test: no DNS server can be reached ({server.address})"


@pytest.mark.parametrize(
    "first_reply",
    [
        pytest.param(Silent(), id="silent"),
        pytest.param(Status(dns.rcode.SERVFAIL), id="failing"),
        pytest.param(Raw(MALFORMED), id="sending garbage"),
        pytest.param(ByTransport(Truncated(), HungUp()), id="hanging up"),
    ],
)
def test_the_second_server_is_asked_when_the_first_is(
    server: DnsServer, first_reply: Reply
) -> None:
    server.set("a.test", ONE_STRING)
    with DnsServer() as first:
        first.set("a.test", first_reply)
        assert look_up(resolver(first, server)).records == (b"\1x",)


def test_a_truncated_answer_is_fetched_over_tcp(server: DnsServer) -> None:
    server.set("a.test", MANY_STRINGS)
    assert len(look_up(resolver(server)).records) == 100
    assert [question.transport for question in server.questions] == ["udp", "tcp"]


def test_an_answer_that_fits_is_not_truncated(server: DnsServer) -> None:
    server.set("a.test", Scripted("TXT", *(f'"{number:0100d}"' for number in range(8))))
    assert len(look_up(resolver(server)).records) == 8
    assert [question.transport for question in server.questions] == ["udp"]


def test_names_are_absolute(server: DnsServer) -> None:
    server.set("*.test", ONE_STRING)
    with pytest.raises(NoSuchName):
        look_up(resolver(server), name="single-label")
    assert {question.name for question in server.questions} == {"single-label"}


def test_each_question_has_its_own_source_port(server: DnsServer) -> None:
    server.set("*.test", ONE_STRING)

    async def main() -> None:
        names = resolver(server)
        for number in range(8):
            await names.look_up_records(f"n{number}.test", TXT, enclave=16)

    run(main)
    assert len({question.client_port for question in server.questions}) > 1


def test_fixed_names_have_only_addresses(server: DnsServer) -> None:
    server.set("a.test", ONE_STRING)
    names = resolver(server, hosts={"a.test": ["10.0.0.1"]})
    assert look_up(names).records == (b"\1x",)


def test_an_answer_is_used_for_its_ttl_and_says_what_is_left(server: DnsServer) -> None:
    server.set("a.test", Scripted("TXT", '"x"', ttl_seconds=60))
    seconds = 1000.0

    async def main() -> list[int]:
        nonlocal seconds
        names = resolver(server, now=lambda: seconds)
        left = []
        for pause in (0.0, 10.0, 49.5, 0.5):
            seconds += pause
            left.append((await names.look_up_records("a.test", TXT, enclave=16)).ttl_seconds)
        return left

    assert run(main) == [60, 50, 0, 60]
    assert server.count("a.test") == 2


def test_that_there_are_no_records_is_believed_for_5_seconds(server: DnsServer) -> None:
    server.set("a.test", Addresses("192.0.2.1"))
    seconds = 1000.0

    async def main() -> list[int]:
        nonlocal seconds
        names = resolver(server, now=lambda: seconds)
        asked = []
        for pause in (0.0, 4.9, 0.1):
            seconds += pause
            await names.look_up_records("a.test", TXT, enclave=16)
            asked.append(server.count("a.test"))
        return asked

    assert run(main) == [1, 1, 2]


def test_types_and_enclaves_share_nothing(server: DnsServer) -> None:
    server.set("a.test", Scripted("MX", "1 b.test."))

    async def main() -> None:
        names = resolver(server)
        for _ in range(2):
            for kind in RecordType:
                for enclave in (16, 17):
                    found = await names.look_up_records("a.test", kind, enclave=enclave)
                    assert len(found.records) == (kind is MX)

    run(main)
    assert {kind.name: server.count("a.test", kind.name) for kind in RecordType} == {
        "MX": 2,
        "TXT": 2,
        "SRV": 2,
    }


def test_equal_questions_of_one_enclave_are_one(server: DnsServer) -> None:
    server.set("a.test", Held(ONE_STRING))

    async def main() -> None:
        names = resolver(server)
        lookups = [
            asyncio.create_task(names.look_up_records("a.test", TXT, enclave=16)) for _ in range(20)
        ]
        await asyncio.to_thread(server.wait_for_questions, 1)
        server.release("a.test")
        for lookup in lookups:
            assert (await lookup).records == (b"\1x",)

    run(main)
    assert server.count("a.test") == 1


def test_records_and_addresses_take_turns_of_one_share(server: DnsServer) -> None:
    server.set("*.held.test", Held(Addresses("192.0.2.1")))
    server.set("*.alive.test", ONE_STRING)

    async def main() -> None:
        names = resolver(server, lookups_at_once=2)
        held = [
            asyncio.create_task(names.look_up_records("a.held.test", TXT, enclave=16)),
            asyncio.create_task(names.resolve("b.held.test", enclave=16)),
        ]
        await asyncio.to_thread(server.wait_for_questions, 3, below=".held.test")
        waiting = asyncio.create_task(names.look_up_records("c.alive.test", TXT, enclave=16))
        for number in range(20):  # another enclave does not feel it
            await names.look_up_records(f"n{number}.alive.test", TXT, enclave=17)
        assert server.count("c.alive.test") == 0
        server.release("a.held.test")
        assert (await waiting).records == (b"\1x",)
        server.release("b.held.test")
        for lookup in held:
            await lookup

    run(main)


def test_nothing_stays_open(server: DnsServer) -> None:
    server.set("a.test", ONE_STRING)
    server.set("many.test", MANY_STRINGS)
    server.set("cut.test", ByTransport(Truncated(), HungUp()))
    server.set("silent.test", Silent())
    server.set("held.test", ByTransport(Truncated(), Held(ONE_STRING)))

    async def main() -> None:
        before = os.listdir("/proc/self/fd")
        names, hasty_names = resolver(server), resolver(server, timeout=0.02)
        await names.look_up_records("a.test", TXT, enclave=16)
        await names.look_up_records("many.test", TXT, enclave=16)
        with pytest.raises(LookupFailed):
            await names.look_up_records("cut.test", TXT, enclave=16)
        with pytest.raises(LookupFailed):
            await hasty_names.look_up_records("silent.test", TXT, enclave=16)
        given_up = asyncio.create_task(names.look_up_records("held.test", TXT, enclave=16))
        await asyncio.to_thread(server.wait_for_questions, 2, below="held.test")
        given_up.cancel()
        with pytest.raises(loop.CancelledError):
            await given_up
        # The lookup ends in a turn of its own, and the server's ends of connections in its thread.
        while os.listdir("/proc/self/fd") != before:
            await loop.sleep(0.001)

    run(main)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=80), header=st.booleans(), over_tcp=st.booleans())
def test_whatever_a_server_sends_is_an_outcome(
    server: DnsServer, payload: bytes, header: bool, over_tcp: bool
) -> None:
    reply = Raw(MALFORMED[:-1] + payload if header else payload)
    server.set("a.test", ByTransport(Truncated(), reply) if over_tcp else reply)

    async def main() -> None:
        async with loop.timeout(LONG):
            outcome = None
            try:
                async with loop.timeout(0.05):
                    outcome = await ask_records(
                        Question("a.test", TXT), servers=[server.address], timeout_seconds=0.05
                    )
            except TimeoutError:
                assert outcome is None
            else:
                assert outcome is not None

    loop.run(main())


def test_servers_in_forms_that_cannot_be_read_are_left_out(server: DnsServer) -> None:
    server.set("a.test", ONE_STRING)
    question = Question("a.test", TXT)
    unreadable = ("dns://127.0.0.1", "127.0.0.1", "[::1]:x")
    outcome = run(
        lambda: ask_records(question, servers=[*unreadable, server.address], timeout_seconds=LONG)
    )
    assert outcome == Records((b"\1x",), 60)


def test_an_ipv6_server() -> None:
    try:
        server = DnsServer("::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    with server:
        server.set("a.test", MANY_STRINGS)
        assert len(look_up(resolver(server)).records) == 100
