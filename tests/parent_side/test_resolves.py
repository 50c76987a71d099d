"""Questions for names over a real link: policy, guard, lookups, one answer and one line each."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import dns.rcode
import pytest

from parent_side.enclave import Enclave
from parent_side.resolver import Resolver
from parent_side.resolves import NameAnswers
from tests.support.dns_server import (
    Addresses,
    Alias,
    DnsServer,
    Held,
    Records,
    Status,
)
from tests.support.session_pair import make_budget, make_hello
from tests.vsockproxy.policy.files import policy_of
from vsockproxy.config.model import Resolver as ResolverSettings
from vsockproxy.dataplane import loop
from vsockproxy.dataplane.greeting import carrier_of
from vsockproxy.dataplane.link import Link
from vsockproxy.dataplane.stream_end import StreamEnd
from vsockproxy.log import Log
from vsockproxy.policy import Policy
from vsockproxy.session import ErrorCode, Open, Resolve, Resolved, Session

LONG = 30.0
"""Seconds that no test waits for when all is well."""

A, MX, TXT, AAAA, SRV, HTTPS = 1, 15, 16, 28, 33, 65

PARENT = """\
listen: vsock://any:5000
allowlist:
  - {address: "**.open.test", port: 443, private: true}
  - {address: "*.public.test", port: 443}
  - {address: moved.test, port: 443, dial: "elsewhere.test:443"}
  - {address: literal.test, port: 443, dial: "10.0.0.1:443", private: true}
  - {address: shut.test, port: 443, dial: "10.0.0.1:443"}
  - {address: 10.1.0.0/16, port: 443, private: true}
denylist:
  - {address: secret.open.test}
  - {address: 10.66.0.0/16}
"""

REPORTING = PARENT + "mode: report\n"


class Owner:
    """The enclave's end: it only asks."""

    def stream_opened(self, link: Link, end: StreamEnd, request: Open) -> None:
        raise AssertionError("the parent opened a stream")

    def resolve_received(self, link: Link, request_id: int, question: Resolve) -> None:
        raise AssertionError("the parent asked a question")

    def link_going_away(self, link: Link, text: str) -> None:
        pass

    def link_ended(self, link: Link, code: int, text: str, is_clean: bool) -> None:
        pass


class ParentOwner(Owner):
    """The parent's end, as far as questions go."""

    def __init__(self, answers: NameAnswers, enclave: Enclave) -> None:
        self._answers = answers
        self._enclave = enclave

    def resolve_received(self, link: Link, request_id: int, question: Resolve) -> None:
        self._answers.serve(self._enclave, link, request_id, question)

    def link_ended(self, link: Link, code: int, text: str, is_clean: bool) -> None:
        self._answers.link_ended(link)


class Rig:
    """A parent's answers, and links to it from any number of enclaves."""

    def __init__(
        self, dns: DnsServer, text: str = PARENT, *, timeout: float = LONG, at_once: int = 1024
    ) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        self._log = Log("parent", "json", descriptor=write)
        self._write = write
        settings = ResolverSettings(
            servers=[dns.address], hosts={"fixed.open.test": ["10.9.9.9"]}, timeout=timeout
        )
        self._answers = NameAnswers(Resolver(settings), self._log, at_once=at_once)
        self._text = text
        self._enclaves: dict[int, Enclave] = {}
        self.ends: list[tuple[Link, Link]] = []

    def link(self, cid: int = 16) -> Link:
        """The enclave's end of a new link."""
        if cid not in self._enclaves:
            policy: Policy = policy_of(self._text, cid=cid)
            self._enclaves[cid] = Enclave(cid, bytes(16), f"e{cid}", policy, make_budget())
        local, remote = make_hello(is_initiator=True), make_hello(is_initiator=False)
        socks = socket.socketpair()
        owners = (Owner(), ParentOwner(self._answers, self._enclaves[cid]))
        ends = []
        for sock, is_initiator, owner in zip(socks, (True, False), owners, strict=True):
            sock.setblocking(False)
            carrier = carrier_of(sock)
            session = Session(
                is_initiator=is_initiator,
                local=local if is_initiator else remote,
                remote=remote if is_initiator else local,
                budget=make_budget(),
                now=loop.now(),
                max_payload_bytes=carrier.max_payload_bytes,
            )
            link = Link(sock, session, carrier, owner)
            link.begin(b"")
            ends.append(link)
        self.ends.append((ends[0], ends[1]))
        return ends[0]

    def lines(self) -> list[dict[str, Any]]:
        """What was logged since the last call."""
        try:
            data = os.read(self._read, 1 << 20)
        except BlockingIOError:
            return []
        return [json.loads(line) for line in data.splitlines()]

    def close(self) -> None:
        """Close all links and the log."""
        for ends in self.ends:
            for link in ends:
                if not link.is_closed:
                    link.abort(ErrorCode.NONE, "the test is over")
        os.close(self._read)
        os.close(self._write)


@contextmanager
def rigged(dns: DnsServer, text: str = PARENT, **more: Any) -> Iterator[Rig]:
    rig = Rig(dns, text, **more)
    try:
        yield rig
    finally:
        rig.close()


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with loop.timeout(LONG):
            await main()

    loop.run(bounded())


def ask_one(
    server: DnsServer, name: str, kind: int, text: str = PARENT, **more: Any
) -> tuple[Resolved, dict[str, Any]]:
    """One question: its answer, and its line."""
    answers: list[Resolved] = []
    lines: list[dict[str, Any]] = []

    async def main() -> None:
        with rigged(server, text, **more) as rig:
            answers.append(await rig.link().resolve(Resolve(name, kind)))
            lines.extend(rig.lines())

    run(main)
    (line,) = lines
    (answer,) = answers
    return answer, line


def packed(*texts: str) -> tuple[bytes, ...]:
    return tuple(ip_address(text).packed for text in texts)


@pytest.mark.parametrize(
    ("name", "kind", "records"),
    [
        pytest.param("a.open.test", A, packed("192.168.0.1", "8.8.8.8"), id="A"),
        pytest.param("a.open.test", AAAA, packed("fc00::1"), id="AAAA"),
        pytest.param("A.Open.Test.", A, packed("192.168.0.1", "8.8.8.8"), id="another form"),
        pytest.param("four.open.test", AAAA, (), id="AAAA of a name with A alone"),
        pytest.param("fixed.open.test", A, packed("10.9.9.9"), id="a fixed name"),
        pytest.param("b.public.test", A, packed("8.8.8.8"), id="through an alias"),
        pytest.param("_x._tcp.open.test", SRV, (b"\0\1\0\2\1\xbb\1n\4open\4test\0",), id="SRV"),
        pytest.param("txt.open.test", TXT, (b"\3one\3two",), id="TXT"),
        pytest.param("mx.open.test", MX, (b"\0\x0a\1m\4open\4test\0",), id="MX"),
        pytest.param("four.open.test", TXT, (), id="TXT of a name without any"),
    ],
)
def test_answers(server: DnsServer, name: str, kind: int, records: tuple[bytes, ...]) -> None:
    server.set("a.open.test", Addresses("192.168.0.1", "8.8.8.8", "fc00::1", ttl_seconds=60))
    server.set("four.open.test", Addresses("8.8.8.8", ttl_seconds=5))
    server.set("b.public.test", Alias("c.public.test"))
    server.set("c.public.test", Addresses("8.8.8.8"))
    server.set("_x._tcp.open.test", Records("SRV", "1 2 443 n.open.test."))
    server.set("txt.open.test", Records("TXT", '"one" "two"'))
    server.set("mx.open.test", Records("MX", "10 m.open.test."))
    answer, line = ask_one(server, name, kind)
    assert (answer.reason, answer.text, answer.records) == ("", "", records)
    assert answer.ttl_seconds in (5, 60, 300)
    assert {key: line[key] for key in line if key != "time"} == {
        "level": "info",
        "event": "resolve",
        "side": "parent",
        "cid": 16,
        "enclave": "e16",
        "host": name.lower().rstrip("."),
        "type": {A: "A", AAAA: "AAAA", SRV: "SRV", TXT: "TXT", MX: "MX"}[kind],
        "rule": "parent.yaml:4" if "public" in name else "parent.yaml:3",
        "records": len(records),
        "allowed": True,
        "reason": "listed",
    }


@pytest.mark.parametrize("kind", [A, AAAA, SRV, TXT, MX])
@pytest.mark.parametrize("name", ["moved.test", "literal.test"])
def test_a_name_that_is_dialled_elsewhere_exists_without_a_lookup(
    server: DnsServer, name: str, kind: int
) -> None:
    answer, line = ask_one(server, name, kind)
    assert answer == Resolved(ttl_seconds=300)
    assert line["allowed"]
    assert server.questions == []


@pytest.mark.parametrize(
    ("name", "kind", "reason", "text"),
    [
        pytest.param(
            "other.test",
            A,
            "not_listed",
            'other.test is not listed: add {address: "other.test", port: PORT} '
            "to allowlist in parent.yaml",
            id="not listed",
        ),
        pytest.param(
            "other.test",
            HTTPS,
            "not_listed",
            'other.test is not listed: add {address: "other.test", port: PORT} '
            "to allowlist in parent.yaml",
            id="not listed, and of another type",
        ),
        pytest.param("a..test", A, "not_listed", "not a host: ", id="no name"),
        pytest.param(
            "secret.open.test",
            TXT,
            "denied",
            "secret.open.test is denied at parent.yaml:10",
            id="denied",
        ),
        pytest.param(
            "shut.test",
            A,
            "address_private",
            "shut.test is dialled as 10.0.0.1, private: add private: true at parent.yaml:7",
            id="dialled at a private address",
        ),
        pytest.param(
            "private.public.test",
            A,
            "address_private",
            "private.public.test resolved to 10.0.0.1, private (a VPC endpoint?): "
            "add private: true at parent.yaml:4",
            id="a private address",
        ),
        pytest.param(
            "private.public.test",
            AAAA,
            "address_private",
            "private.public.test resolved to 10.0.0.1, private (a VPC endpoint?): "
            "add private: true at parent.yaml:4",
            id="a private address of the other version",
        ),
        pytest.param(
            "metadata.open.test",
            A,
            "address_metadata",
            "metadata.open.test resolved to 169.254.169.254, instance metadata (link-local): "
            "only a rule that is that literal, with metadata: true, opens it",
            id="a metadata address",
        ),
        pytest.param(
            "range.open.test",
            A,
            "denied",
            "range.open.test resolved to 10.66.0.1, denied at parent.yaml:11",
            id="an address in a denied range",
        ),
        pytest.param(
            "absent.open.test",
            A,
            "no_such_name",
            "absent.open.test: there is no such name",
            id="no such name, A",
        ),
        pytest.param(
            "absent.open.test",
            MX,
            "no_such_name",
            "absent.open.test: there is no such name",
            id="no such name, MX",
        ),
        pytest.param(
            "10.1.2.3", A, "no_such_name", "10.1.2.3 is an address, not a name", id="an address"
        ),
        pytest.param(
            "failing.open.test",
            SRV,
            "lookup_failed",
            "failing.open.test: the DNS servers failed (SERVFAIL) ({server})",
            id="a server that fails",
        ),
        pytest.param(
            "long.open.test",
            TXT,
            "lookup_failed",
            "long.open.test: the answer is too long: 300 records, and at most 256 can be told",
            id="more than can be told",
        ),
        pytest.param(
            "a.open.test",
            HTTPS,
            "lookup_failed",
            "a.open.test: type 65 is not offered, only A, AAAA, MX, TXT, SRV",
            id="another type",
        ),
    ],
)
def test_refusals(server: DnsServer, name: str, kind: int, reason: str, text: str) -> None:
    server.set("private.public.test", Addresses("8.8.8.8", "2600::1", "10.0.0.1"))
    server.set("metadata.open.test", Addresses("169.254.169.254"))
    server.set("range.open.test", Addresses("10.66.0.1"))
    server.set("failing.open.test", Status(dns.rcode.SERVFAIL))
    server.set("long.open.test", Records("TXT", *(f'"{number}"' for number in range(300))))
    answer, line = ask_one(server, name, kind)
    assert answer.reason == reason
    assert answer.text.startswith(text.replace("{server}", server.address))
    assert answer.records == ()
    assert answer.ttl_seconds == (1 if "failing" in name or "long" in name else 5)
    assert (line["event"], line["level"]) == ("resolve", "warning")
    assert (line["allowed"], line["reason"], line["text"]) == (False, reason, answer.text)
    assert line["host"] == name
    assert line["type"] == {HTTPS: "TYPE65", A: "A"}.get(kind, line["type"])


def test_only_names_that_may_be_asked_for_reach_the_dns(server: DnsServer) -> None:
    for name, kind in (("other.test", A), ("secret.open.test", A), ("a.open.test", HTTPS)):
        ask_one(server, name, kind)
    assert server.questions == []


def test_report_lets_an_unlisted_name_pass_and_says_so(server: DnsServer) -> None:
    server.set("other.test", Addresses("8.8.8.8"))
    answer, line = ask_one(server, "other.test", A, REPORTING)
    assert (answer.reason, answer.records) == ("", packed("8.8.8.8"))
    assert (line["level"], line["allowed"], line["reason"]) == ("warning", True, "not_listed")
    assert line["text"].startswith("other.test is not listed: add ")


@pytest.mark.parametrize("name", ["secret.open.test", "private.test"])
def test_report_leaves_denylist_and_guard(server: DnsServer, name: str) -> None:
    server.set("private.test", Addresses("10.0.0.1"))
    answer, line = ask_one(server, name, A, REPORTING)
    assert answer.reason in ("denied", "address_private")
    assert not line["allowed"]


@pytest.mark.parametrize(
    ("ttl_seconds", "told"),
    [
        pytest.param(7, 7, id="as it came"),
        pytest.param(86_400, 300, id="at most five minutes"),
        pytest.param(0, 0, id="nothing"),
    ],
)
@pytest.mark.parametrize("kind", [A, TXT])
def test_the_ttl(server: DnsServer, kind: int, ttl_seconds: int, told: int) -> None:
    reply = Addresses("8.8.8.8", ttl_seconds=ttl_seconds)
    records = Records("TXT", '"x"', ttl_seconds=ttl_seconds)
    server.set("a.open.test", reply if kind == A else records)
    assert ask_one(server, "a.open.test", kind)[0].ttl_seconds == told


def test_a_guarded_name_is_refused_no_longer_than_its_addresses_last(server: DnsServer) -> None:
    server.set("private.public.test", Addresses("10.0.0.1", ttl_seconds=2))
    answer, _ = ask_one(server, "private.public.test", A)
    assert (answer.reason, answer.ttl_seconds) == ("address_private", 2)


def test_silence_is_an_answer(server: DnsServer) -> None:
    server.set("a.open.test", Held(Addresses("8.8.8.8")))
    answer, line = ask_one(server, "a.open.test", A, timeout=0.05)
    assert answer.reason == line["reason"] == "lookup_failed"
    assert answer.text == f"a.open.test: no answer in 0.05 s ({server.address})"


def test_addresses_of_both_types_are_one_lookup(server: DnsServer) -> None:
    server.set("a.open.test", Addresses("8.8.8.8", "2600::1"))

    async def main() -> None:
        with rigged(server) as rig:
            link = rig.link()
            both = await asyncio.gather(
                *(link.resolve(Resolve("a.open.test", kind)) for kind in (A, AAAA))
            )
            assert [answer.records for answer in both] == [packed("8.8.8.8"), packed("2600::1")]
            assert len(rig.lines()) == 2

    run(main)
    assert server.count("a.open.test", "A") == 1
    assert server.count("a.open.test", "AAAA") == 1


def test_256_questions_of_a_link_each_have_an_answer_and_a_line(server: DnsServer) -> None:
    server.set("*.open.test", Records("TXT", '"x"'))

    async def main() -> None:
        with rigged(server) as rig:
            link = rig.link()
            answers = await asyncio.gather(
                *(link.resolve(Resolve(f"n{n}.open.test", TXT)) for n in range(256))
            )
            assert {answer.records for answer in answers} == {(b"\1x",)}
            assert len({line["host"] for line in rig.lines()}) == 256

    run(main)


def test_more_than_may_be_open_are_refused_at_once(server: DnsServer) -> None:
    server.set("*.held.open.test", Held(Records("TXT", '"x"')))
    server.set("a.open.test", Records("TXT", '"x"'))

    async def main() -> None:
        with rigged(server, at_once=3) as rig:
            links = [rig.link(), rig.link()]
            held = [
                asyncio.create_task(
                    links[number % 2].resolve(Resolve(f"n{number}.held.open.test", TXT))
                )
                for number in range(3)
            ]
            await asyncio.to_thread(server.wait_for_questions, 3)
            refused = await links[0].resolve(Resolve("a.open.test", TXT))
            assert refused.reason == "limit"
            assert refused.text == "a.open.test: 3 names are being looked up"
            other = await rig.link(17).resolve(Resolve("a.open.test", TXT))
            assert other.records == (b"\1x",)
            server.release("n0.held.open.test")
            assert (await held[0]).records == (b"\1x",)
            again = await links[0].resolve(Resolve("a.open.test", TXT))
            assert again.records == (b"\1x",)
            for task in held[1:]:
                task.cancel()

    run(main)


def test_a_link_that_ends_takes_its_questions_with_it_and_no_others(server: DnsServer) -> None:
    server.set("a.open.test", Held(Records("TXT", '"x"')))
    server.set("b.open.test", Held(Records("TXT", '"x"')))

    async def main() -> None:
        with rigged(server, at_once=3) as rig:
            first, second = rig.link(), rig.link()
            gone = [
                asyncio.create_task(first.resolve(Resolve(f"{name}.open.test", TXT)))
                for name in "ab"
            ]
            stays = asyncio.create_task(second.resolve(Resolve("a.open.test", TXT)))
            await asyncio.to_thread(server.wait_for_questions, 2)
            first.abort(ErrorCode.NONE, "gone")
            for task in gone:
                with pytest.raises(ConnectionResetError):
                    await task
            while len(lines := rig.lines()) < 2:
                await loop.sleep(0.001)
            assert {line["host"] for line in lines} == {"a.open.test", "b.open.test"}
            for line in lines:
                assert (line["allowed"], line["reason"]) == (False, "lookup_failed")
                assert line["text"] == "given up: the link ended before the answer came"
            server.release("a.open.test")
            assert (await stays).records == (b"\1x",)
            # Their places are free again.
            held = [
                asyncio.create_task(second.resolve(Resolve(f"{name}.open.test", TXT)))
                for name in "bcd"
            ]
            await asyncio.to_thread(server.wait_for_questions, 5)
            assert rig.lines()[0]["host"] == "a.open.test"
            for task in held:
                task.cancel()

    run(main)
    assert server.count("a.open.test") == 1


def test_an_enclave_uses_up_its_own_turns_and_another_does_not_feel_it(server: DnsServer) -> None:
    server.set("*.held.open.test", Held(Records("TXT", '"x"')))
    server.set("*.alive.open.test", Addresses("8.8.8.8"))

    async def main() -> None:
        with rigged(server) as rig:
            link = rig.link()
            held = [
                asyncio.create_task(link.resolve(Resolve(f"n{number}.held.open.test", TXT)))
                for number in range(200)
            ]
            await asyncio.to_thread(server.wait_for_questions, 64, below=".held.open.test")
            other = rig.link(17)
            for number in range(50):
                answer = await other.resolve(Resolve(f"n{number}.alive.open.test", A))
                assert answer.records == packed("8.8.8.8")
            assert not any(task.done() for task in held)
            # Where the machine is slow, c-ares asks again for a name.
            asked = {question.name for question in server.questions}
            assert sum(name.endswith(".held.open.test") for name in asked) == 64
            for task in held:
                task.cancel()

    run(main)
