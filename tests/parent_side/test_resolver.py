"""The resolver against a DNS server on loopback: answers, failures, TTLs, fixed names, servers."""

import contextlib
import os
from collections.abc import Callable
from ipaddress import ip_address

import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parent_side.name_query import MOST_ADDRESSES, ask
from parent_side.resolver import (
    LookupFailed,
    NoSuchName,
    ResolutionError,
    Resolver,
    parse_server,
)
from tests.parent_side.resolving import LONG, run
from tests.support.dns_server import (
    Addresses,
    Alias,
    ByType,
    DnsServer,
    InTurn,
    Raw,
    Reply,
    Silent,
    Status,
)
from vsockproxy.addresses import AddressError
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop


class Clock:
    """The time that cached answers age by."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def resolver(
    *servers: DnsServer,
    hosts: dict[str, list[str]] | None = None,
    timeout: float = LONG,
    now: Callable[[], float] = loop.now,
) -> Resolver:
    addresses = [server.address for server in servers]
    return Resolver(
        ResolverSettings(servers=addresses, hosts=hosts or {}, timeout=timeout), now=now
    )


async def texts(names: Resolver, host: str, enclave: int = 16) -> list[str]:
    return [str(address) for address in await names.resolve(host, enclave=enclave)]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(Addresses("192.0.2.1"), ["192.0.2.1"], id="IPv4 only"),
        pytest.param(Addresses("2001:db8::1"), ["2001:db8::1"], id="IPv6 only"),
        pytest.param(
            Addresses("192.0.2.1", "192.0.2.2", "2001:db8::1"),
            ["2001:db8::1", "192.0.2.1", "192.0.2.2"],
            id="both families, IPv6 first",
        ),
        pytest.param(
            Addresses("192.0.2.1", "192.0.2.1"), ["192.0.2.1"], id="a repeated address counts once"
        ),
        pytest.param(
            Addresses("::ffff:192.0.2.1"),
            [str(ip_address("::ffff:192.0.2.1"))],
            id="a mapped address is left as it is, for the address guard",
        ),
        pytest.param(Alias("target.test"), ["2001:db8::9", "192.0.2.9"], id="through a CNAME"),
        pytest.param(
            ByType(Addresses("192.0.2.1"), Status(dns.rcode.SERVFAIL)),
            ["192.0.2.1"],
            id="IPv4 though the server fails for IPv6",
        ),
        pytest.param(
            ByType(Addresses("192.0.2.1"), Raw(b"\xff" * 20)),
            ["192.0.2.1"],
            id="IPv4 though the answer for IPv6 is garbage",
        ),
    ],
)
def test_answers(server: DnsServer, reply: Reply, expected: list[str]) -> None:
    server.set("a.test", reply)
    server.set("target.test", Addresses("192.0.2.9", "2001:db8::9"))
    found = run(lambda: texts(resolver(server), "a.test"))
    assert sorted(found) == sorted(expected)
    assert [":" in text for text in found] == [":" in text for text in expected]


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        pytest.param(
            Status(dns.rcode.NXDOMAIN), NoSuchName, "there is no such name", id="NXDOMAIN"
        ),
        pytest.param(Addresses(), NoSuchName, "the name has no address", id="no data"),
        pytest.param(
            Alias("absent.test"), NoSuchName, "the name has no address", id="CNAME to nowhere"
        ),
        pytest.param(Alias("a.test"), NoSuchName, "the name has no address", id="CNAME to itself"),
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
        pytest.param(Raw(b""), LookupFailed, "malformed answers ({server})", id="two bytes"),
        pytest.param(
            Raw(b"\xff" * 500), LookupFailed, "malformed answers ({server})", id="garbage"
        ),
    ],
)
def test_failures(server: DnsServer, reply: Reply, kind: type[ResolutionError], text: str) -> None:
    server.set("a.test", reply)
    with pytest.raises(ResolutionError) as caught:
        run(lambda: texts(resolver(server), "a.test"))
    assert type(caught.value) is kind
    assert caught.value.host == "a.test"
    assert caught.value.text == "a.test: " + text.format(server=server.address)


def test_silence_ends_with_the_timeout(server: DnsServer) -> None:
    server.set("a.test", Silent())
    with pytest.raises(LookupFailed) as caught:
        run(lambda: texts(resolver(server, timeout=0.05), "a.test"))
    assert caught.value.text == f"a.test: no answer in 0.05 s ({server.address})"


def test_a_question_that_was_lost_is_asked_again(server: DnsServer) -> None:
    server.set("a.test", InTurn(Silent(), Addresses("192.0.2.1")))
    assert run(lambda: texts(resolver(server, timeout=4.0), "a.test")) == ["192.0.2.1"]
    assert server.count("a.test", "A") == 2


def test_a_server_that_nobody_runs_fails_at_once() -> None:
    with DnsServer() as server:
        pass
    with pytest.raises(LookupFailed) as caught:
        run(lambda: texts(resolver(server), "a.test"))
    assert caught.value.text == f"a.test: no DNS server can be reached ({server.address})"


@pytest.mark.parametrize(
    "first_reply",
    [
        pytest.param(Silent(), id="silent"),
        pytest.param(Status(dns.rcode.SERVFAIL), id="failing"),
        pytest.param(Raw(b"\x00" * 40), id="sending garbage"),
    ],
)
def test_the_second_server_is_asked_when_the_first_is(
    server: DnsServer, first_reply: Reply
) -> None:
    server.set("a.test", Addresses("192.0.2.1"))
    with DnsServer() as first:
        first.set("*.test", first_reply)
        found = run(lambda: texts(resolver(first, server, timeout=2.0), "a.test"))
    assert found == ["192.0.2.1"]


def test_a_truncated_answer_is_fetched_over_tcp(server: DnsServer) -> None:
    many = [f"192.0.2.{last}" for last in range(1, 255)]
    server.set("many.test", Addresses(*many))
    found = run(lambda: texts(resolver(server), "many.test"))
    assert len(found) == len(set(found)) == MOST_ADDRESSES
    assert set(found) < set(many)
    transports = {q.transport for q in server.questions if q.type == "A"}
    assert transports == {"udp", "tcp"}


def test_thousands_of_addresses_are_cut_to_a_few(server: DnsServer) -> None:
    server.set("huge.test", Addresses(*(f"10.0.{n // 250}.{n % 250}" for n in range(4000))))
    assert len(run(lambda: texts(resolver(server), "huge.test"))) == MOST_ADDRESSES


def test_names_are_absolute(server: DnsServer) -> None:
    server.set("*.test", Addresses("192.0.2.1"))
    with pytest.raises(NoSuchName):
        run(lambda: texts(resolver(server), "single-label"))
    assert {question.name for question in server.questions} == {"single-label"}


def test_each_lookup_has_its_own_source_port(server: DnsServer) -> None:
    server.set("*.test", Addresses("192.0.2.1"))

    async def main() -> None:
        names = resolver(server)
        for number in range(8):
            await names.resolve(f"n{number}.test", enclave=16)

    run(main)
    assert len({question.client_port for question in server.questions}) > 1


def test_an_answer_is_used_for_its_ttl_and_no_longer(server: DnsServer) -> None:
    server.set(
        "a.test",
        InTurn(Addresses("192.0.2.1", ttl_seconds=60), Addresses("192.0.2.2", ttl_seconds=60)),
    )
    clock = Clock()

    async def main() -> list[list[str]]:
        names = resolver(server, now=clock)
        found = []
        for seconds in (0.0, 59.9, 0.1):
            clock.seconds += seconds
            found.append(await texts(names, "a.test"))
        return found

    assert run(main) == [["192.0.2.1"], ["192.0.2.1"], ["192.0.2.2"]]
    assert server.count("a.test", "A") == 2


@pytest.mark.parametrize(
    ("replies", "seconds"),
    [
        pytest.param(
            {"a.test": Alias("b.test", ttl_seconds=7), "b.test": Addresses("192.0.2.1")},
            7,
            id="the TTL of a CNAME on the way counts",
        ),
        pytest.param(
            {"a.test": ByType(Addresses("192.0.2.1"), Addresses("2001:db8::1", ttl_seconds=9))},
            9,
            id="the lesser TTL of the two families counts",
        ),
        pytest.param(
            {"a.test": Addresses("192.0.2.1", ttl_seconds=86_400)}, 300, id="at most five minutes"
        ),
        pytest.param({"a.test": Status(dns.rcode.NXDOMAIN)}, 5, id="no such name: 5 s"),
        pytest.param({"a.test": Addresses()}, 5, id="no address: 5 s"),
        pytest.param({"a.test": Status(dns.rcode.SERVFAIL)}, 1, id="a failure: 1 s"),
    ],
)
def test_how_long_an_outcome_is_used(
    server: DnsServer, replies: dict[str, Reply], seconds: int
) -> None:
    clock = Clock()
    for name, reply in replies.items():
        server.set(name, reply)

    async def main() -> list[int]:
        names = resolver(server, now=clock)
        asked = []
        for pause in (0.0, seconds - 0.1, 0.1):
            clock.seconds += pause
            with contextlib.suppress(ResolutionError):
                await names.resolve("a.test", enclave=16)
            asked.append(server.count("a.test"))
        return asked

    first, within, after = run(main)
    assert first == within
    assert after == 2 * first


def test_an_answer_with_ttl_0_is_asked_for_again(server: DnsServer) -> None:
    server.set("a.test", Addresses("192.0.2.1", ttl_seconds=0))

    async def main() -> None:
        names = resolver(server)
        await names.resolve("a.test", enclave=16)
        await names.resolve("a.test", enclave=16)

    run(main)
    assert server.count("a.test", "A") == 2


def test_fixed_names_come_before_any_server(server: DnsServer) -> None:
    server.set("a.test", Addresses("192.0.2.1"))
    fixed = {"A.Test.": ["10.0.0.1", "2001:db8::1"], "nowhere.test": []}

    async def main() -> list[str]:
        names = resolver(server, hosts=fixed)
        with pytest.raises(NoSuchName, match=r"nowhere\.test: the configuration gives it no"):
            await names.resolve("nowhere.test", enclave=16)
        return await texts(names, "a.test")

    assert run(main) == ["10.0.0.1", "2001:db8::1"]
    assert server.questions == []


def test_the_hosts_file_comes_before_any_server(server: DnsServer) -> None:
    found = run(lambda: texts(resolver(server), "localhost"))
    assert "127.0.0.1" in found
    assert server.questions == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "127.0.0.1:53"),
        ("127.0.0.1:5353", "127.0.0.1:5353"),
        ("fd00:ec2::253", "[fd00:ec2::253]:53"),
        ("[FD00:EC2::253]:5353", "[fd00:ec2::253]:5353"),
    ],
)
def test_servers_may_be_written_with_and_without_port(text: str, address: str) -> None:
    assert parse_server(text) == address


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(ResolverSettings(servers=["example.com:53"]), id="a server by name"),
        pytest.param(ResolverSettings(servers=["localhost:53"]), id="a server called localhost"),
        pytest.param(ResolverSettings(servers=["127.0.0.1:x"]), id="a port that is no number"),
        pytest.param(ResolverSettings(servers=[""]), id="no server"),
        pytest.param(ResolverSettings(hosts={"a.test": ["10.0.0.256"]}), id="a wrong address"),
        pytest.param(ResolverSettings(hosts={"a.test": ["b.test"]}), id="a name for an address"),
        pytest.param(ResolverSettings(hosts={"a..test": ["10.0.0.1"]}), id="a wrong name"),
    ],
)
def test_settings_that_are_no_addresses(wrong: ResolverSettings) -> None:
    with pytest.raises(AddressError):
        Resolver(wrong)


def test_an_ipv6_server() -> None:
    try:
        server = DnsServer("::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    with server:
        server.set("a.test", Addresses("192.0.2.1"))
        assert run(lambda: texts(resolver(server), "a.test")) == ["192.0.2.1"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=80), header=st.booleans())
def test_whatever_a_server_sends_is_an_outcome(
    server: DnsServer, payload: bytes, header: bool
) -> None:
    question = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x04fuzz\x04test\x00\x00\x01\x00\x01"
    server.set("fuzz.test", Raw(question + payload if header else payload))

    async def main() -> None:
        async with loop.timeout(LONG):
            outcome = None
            try:
                async with loop.timeout(0.05):
                    outcome = await ask("fuzz.test", servers=[server.address], timeout_seconds=0.05)
            except TimeoutError:
                assert outcome is None
            else:
                assert outcome is not None

    loop.run(main())


def test_nothing_stays_open(server: DnsServer) -> None:
    server.set("a.test", Addresses("192.0.2.1"))
    server.set("many.test", Addresses(*(f"192.0.2.{last}" for last in range(1, 255))))
    server.set("silent.test", Silent())

    async def main() -> list[str]:
        before = os.listdir("/proc/self/fd")
        names, hasty_names = resolver(server), resolver(server, timeout=0.02)
        await names.resolve("a.test", enclave=16)
        await names.resolve("many.test", enclave=16)
        with pytest.raises(NoSuchName):
            await names.resolve("absent.test", enclave=16)
        with pytest.raises(LookupFailed):
            await hasty_names.resolve("silent.test", enclave=16)
        return [fd for fd in os.listdir("/proc/self/fd") if fd not in before]

    assert run(main) == []
