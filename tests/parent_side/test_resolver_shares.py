"""Many lookups at once: joined, in turns, and no enclave felt by another."""

import asyncio
import os
from ipaddress import ip_address

import dns.rcode
import pytest

from parent_side.resolver import LOOKUPS_AT_ONCE, LookupFailed, NoSuchName, Resolver
from tests.parent_side.resolving import LONG, run
from tests.support.dns_server import Addresses, DnsServer, Held, Raw, Silent, Status
from vsockproxy.addresses import IpAddress
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop

Lookup = asyncio.Task[tuple[IpAddress, ...]]


def resolver(
    server: DnsServer, *, timeout: float = 2 * LONG, lookups_at_once: int = LOOKUPS_AT_ONCE
) -> Resolver:
    settings = ResolverSettings(servers=[server.address], timeout=timeout)
    return Resolver(settings, lookups_at_once=lookups_at_once)


def start(names: Resolver, host: str, enclave: int = 16) -> Lookup:
    return asyncio.create_task(names.resolve(host, enclave=enclave))


async def until_asked(server: DnsServer, count: int, *, below: str = "") -> None:
    await asyncio.to_thread(server.wait_for_questions, count, below=below)


async def cancel(*lookups: Lookup) -> None:
    for lookup in lookups:
        lookup.cancel()
    for lookup in lookups:
        with pytest.raises(loop.CancelledError):
            await lookup


@pytest.mark.parametrize("ttl_seconds", [0, 60])
def test_equal_lookups_of_one_enclave_are_one(server: DnsServer, ttl_seconds: int) -> None:
    server.set("a.test", Held(Addresses("192.0.2.1", ttl_seconds=ttl_seconds)))

    async def main() -> list[str]:
        names = resolver(server)
        lookups = [start(names, "a.test") for _ in range(20)]
        await until_asked(server, 2)
        server.release("a.test")
        return [str(address) for lookup in lookups for address in await lookup]

    assert run(main) == 20 * ["192.0.2.1"]
    assert server.count("a.test", "A") == 1
    assert server.count("a.test", "AAAA") == 1


def test_a_joined_failure_is_raised_in_each_caller(server: DnsServer) -> None:
    server.set("a.test", Held(Status(dns.rcode.NXDOMAIN)))

    async def main() -> list[NoSuchName]:
        names = resolver(server)
        lookups = [start(names, "a.test") for _ in range(3)]
        await until_asked(server, 2)
        server.release("a.test")
        errors = []
        for lookup in lookups:
            with pytest.raises(NoSuchName) as caught:
                await lookup
            errors.append(caught.value)
        return errors

    errors = run(main)
    assert len({id(error) for error in errors}) == 3
    assert {error.text for error in errors} == {"a.test: there is no such name"}


def test_enclaves_share_neither_lookups_nor_answers(server: DnsServer) -> None:
    server.set("a.test", Held(Addresses("192.0.2.1")))

    async def main() -> None:
        names = resolver(server)
        lookups = [start(names, "a.test", enclave) for enclave in (16, 17)]
        await until_asked(server, 4)
        server.release("a.test")
        for lookup in lookups:
            await lookup
        server.set("a.test", Addresses("192.0.2.2"))
        assert await names.resolve("a.test", enclave=18) == (ip_address("192.0.2.2"),)
        assert await names.resolve("a.test", enclave=17) == (ip_address("192.0.2.1"),)

    run(main)
    assert server.count("a.test", "A") == 3


def test_a_caller_that_goes_leaves_the_lookup_to_the_others(server: DnsServer) -> None:
    server.set("a.test", Held(Addresses("192.0.2.1")))

    async def main() -> None:
        names = resolver(server)
        first, second, third = (start(names, "a.test") for _ in range(3))
        await until_asked(server, 2)
        await cancel(first, third)
        server.release("a.test")
        assert await second == (ip_address("192.0.2.1"),)

    run(main)
    assert server.count("a.test", "A") == 1


def test_a_lookup_that_all_have_left_is_dropped_and_begun_anew(server: DnsServer) -> None:
    server.set("a.test", Held(Addresses("192.0.2.1")))

    async def main() -> None:
        before = os.listdir("/proc/self/fd")
        names = resolver(server)
        await cancel_both(names)
        assert os.listdir("/proc/self/fd") == before
        server.set("a.test", Addresses("192.0.2.2"))
        assert await names.resolve("a.test", enclave=16) == (ip_address("192.0.2.2"),)

    async def cancel_both(names: Resolver) -> None:
        lookups = [start(names, "a.test") for _ in range(2)]
        await until_asked(server, 2)
        await cancel(*lookups)
        await loop.sleep(0)  # the lookup itself ends in its own turn

    run(main)
    assert server.count("a.test", "A") == 2


def test_lookups_beyond_the_share_wait_for_their_turn(server: DnsServer) -> None:
    server.set("*.held.test", Held(Addresses("192.0.2.1")))

    async def main() -> None:
        names = resolver(server, lookups_at_once=2)
        hosts = [f"n{number}.held.test" for number in range(6)]
        lookups = [start(names, host) for host in hosts]
        left = start(names, "left.held.test")
        for turn in range(0, 6, 2):
            await until_asked(server, 2 * (turn + 2))
            assert {q.name for q in server.questions} == set(hosts[: turn + 2])
            if turn == 0:
                await cancel(left)  # gives up its place in the queue
            for host in hosts[turn : turn + 2]:
                server.release(host)
        for lookup in lookups:
            assert await lookup == (ip_address("192.0.2.1"),)

    run(main)


def test_the_timeout_covers_the_wait_for_a_turn(server: DnsServer) -> None:
    names = resolver(server, lookups_at_once=0, timeout=0.02)
    with pytest.raises(LookupFailed) as caught:
        run(lambda: names.resolve("a.test", enclave=16))
    assert caught.value.text == (
        "a.test: no turn in 0.02 s behind other lookups of the same enclave"
    )
    assert server.questions == []


def test_200_dead_names_of_one_enclave_hold_up_no_other(server: DnsServer) -> None:
    """By structure, not by the clock: all of the other's lookups end while no dead one does."""
    server.set("*.dead.test", Silent())
    server.set("*.alive.test", Addresses("192.0.2.1"))

    async def main() -> None:
        names = resolver(server)
        dead = [start(names, f"n{number}.dead.test", 16) for number in range(200)]
        await until_asked(server, 2 * LOOKUPS_AT_ONCE, below=".dead.test")
        for number in range(100):
            found = await names.resolve(f"n{number}.alive.test", enclave=17)
            assert found == (ip_address("192.0.2.1"),)
        assert not any(lookup.done() for lookup in dead)
        await cancel(*dead)

    run(main)
    asked = {q.name for q in server.questions if q.name.endswith(".dead.test")}
    assert len(asked) == LOOKUPS_AT_ONCE


def test_failing_names_of_one_enclave_make_no_others_fail(server: DnsServer) -> None:
    """SERVFAIL and garbage count against a server, and close sockets: not those of others."""
    server.set("*.failing.test", Status(dns.rcode.SERVFAIL))
    server.set("*.garbage.test", Raw(b"\xff" * 40))
    server.set("*.alive.test", Addresses("192.0.2.1"))

    async def main() -> None:
        names = resolver(server)
        failing = [
            start(names, f"n{number}.{kind}.test", 16)
            for number in range(50)
            for kind in ("failing", "garbage")
        ]
        alive = [start(names, f"n{number}.alive.test", 17) for number in range(50)]
        for lookup in alive:
            assert await lookup == (ip_address("192.0.2.1"),)
        for lookup in failing:
            with pytest.raises(LookupFailed):
                await lookup

    run(main)
    assert server.count("n0.alive.test", "A") == 1
