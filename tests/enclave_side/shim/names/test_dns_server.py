"""The DNS server on real sockets: datagrams, connections, and real resolvers as its clients."""

import contextlib
import os
import random
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from statistics import quantiles

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from enclave_side.shim.names import dns_connection
from enclave_side.shim.names.dns_server import MOST_CONNECTIONS
from parent_side.lookup_cache import Answer, Failure
from parent_side.name_query import ask
from tests.benchmarks.names import Client, known_name, names_server, paced
from tests.fuzz.mutator import Mutator
from tests.support.names_server import NamesServer, policy_for
from tests.support.observation import descriptors
from tests.support.pair import is_reset
from tests.vsockproxy.protocols.dns_messages import (
    ID,
    extended_error,
    header,
    opt,
    query_message,
    question,
    record_data,
    texts,
)
from vsockproxy.dataplane import loop
from vsockproxy.dataplane.closing import reset_socket
from vsockproxy.protocols.dns import MOST_QUERY_BYTES, frame, read_query
from vsockproxy.protocols.errors import QueryError
from vsockproxy.session import Resolved

LONG = 30.0
"""Seconds that no test waits for when all is well."""

PATTERNS = ("kms.test", "**.w.test")
TRIES = 3


@pytest.fixture
def served() -> Iterator[NamesServer]:
    with NamesServer(policy_for(*PATTERNS)) as served:
        yield served


def over_udp(served: NamesServer, message: bytes) -> bytes:
    with udp_client(served) as client:
        client.send(message)
        return client.recv(65_535)


def udp_client(served: NamesServer) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(LONG)
    client.connect((served.host, served.port))
    return client


def tcp_client(served: NamesServer) -> socket.socket:
    return socket.create_connection((served.host, served.port), timeout=LONG)


def receive_message(client: socket.socket) -> bytes:
    length = int.from_bytes(receive_exactly(client, 2))
    return receive_exactly(client, length)


def receive_exactly(client: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        piece = client.recv(size_bytes - len(data))
        assert piece, "the server ended the connection"
        data += piece
    return data


def with_id(message: bytes, query_id: int) -> bytes:
    return query_id.to_bytes(2) + message[2:]


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.001)


# ------------------------------------------------------------- UDP


def test_a_datagram_is_answered(served: NamesServer) -> None:
    answer = dns.message.from_wire(over_udp(served, query_message("kms.test", "A")))
    assert (answer.id, texts(answer)) == (ID, ["kms.test. 30 IN A 198.18.0.3"])


def test_the_same_question_is_answered_from_before(served: NamesServer) -> None:
    first = over_udp(served, with_id(query_message("kms.test", "A"), 1))
    second = over_udp(served, with_id(query_message("kms.test", "A"), 0xFFFF))
    assert (first[2:], second[:2]) == (second[2:], b"\xff\xff")
    assert served.parent.asked == [("kms.test", 1)]
    assert served.counts.answered == 2


def test_another_case_is_another_question_and_the_same_name(served: NamesServer) -> None:
    for name in ("kms.test", "KMS.test", "kms.TEST"):
        answer = dns.message.from_wire(over_udp(served, query_message(name, "A")))
        assert texts(answer) == [f"{name}. 30 IN A 198.18.0.3"]
    assert served.parent.asked == [("kms.test", 1)]


def test_a_client_without_edns_gets_an_answer_without(served: NamesServer) -> None:
    plain = dns.message.from_wire(over_udp(served, query_message("evil.test")))
    told = dns.message.from_wire(over_udp(served, query_message("evil.test", edns_payload=1232)))
    assert (plain.edns, told.edns) == (-1, 0)
    assert plain.rcode() == told.rcode() == dns.rcode.NXDOMAIN
    error = extended_error(told)
    assert error is not None
    assert error[0] == 18


def test_a_and_aaaa_from_one_port_are_answered_apart(served: NamesServer) -> None:
    def hold() -> loop.Event:
        return served.parent.hold("x.w.test")

    held = served.call(hold)
    with udp_client(served) as client:
        client.send(with_id(query_message("x.w.test", "A"), 1))
        client.send(with_id(query_message("x.w.test", "AAAA"), 2))
        # AAAA asks nobody, so it is there at once.
        aaaa = dns.message.from_wire(client.recv(65_535))
        assert (aaaa.id, aaaa.rcode(), aaaa.answer) == (2, dns.rcode.NOERROR, [])
        served.call(held.set)
        a = dns.message.from_wire(client.recv(65_535))
        assert (a.id, texts(a)) == (1, ["x.w.test. 30 IN A 198.18.0.4"])


GARBAGE = {
    "a header alone": header(),
    "two questions": header(questions=2) + question() * 2,
    "an update": header(flags=0x2900) + question(),
    "a datagram longer than any query": header(additional=1)
    + question()
    + opt(b"\x00\x0c\x20\x00" + bytes(0x2000)),
}


@pytest.mark.parametrize("message", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_answered_by_a_header(served: NamesServer, message: bytes) -> None:
    answer = over_udp(served, message)
    assert len(answer) == 12
    assert answer[:2] == message[:2]
    assert served.counts.malformed == 1


def test_what_is_dropped_leaves_no_trace(served: NamesServer) -> None:
    with udp_client(served) as client:
        for message in (b"", b"x", header()[:11], header(flags=0x8000) + question()):
            client.send(message)
        client.send(query_message("kms.test"))
        assert client.recv(65_535)[:2] == ID.to_bytes(2)
    assert served.counts.malformed == 4


def test_a_client_that_has_gone_harms_nobody(served: NamesServer) -> None:
    held = served.call(lambda: served.parent.hold("x.w.test"))
    with udp_client(served) as client:
        client.send(query_message("x.w.test"))
        wait_until(lambda: served.parent.asked == [("x.w.test", 1)])
    served.call(held.set)
    for _ in range(3):
        over_udp(served, query_message("kms.test"))


def test_a_storm_of_mutants_harms_nobody(served: NamesServer) -> None:
    mutator = Mutator(random.Random(7), (b"\xc0\x0c", b"\x00\x29", b"\xff\xff", b"\x03kms"))
    pool = (
        query_message("kms.test"),
        query_message("x.w.test", "SRV", edns_payload=1232),
        query_message("evil.test", edns_payload=512),
        query_message("3.0.18.198.in-addr.arpa", "PTR"),
        *GARBAGE.values(),
    )
    # Their ids are not that of the last question of each round, by which its end is known.
    mutants = [b"\x01" + mutator.mutate(pool)[1:2000] for _ in range(3000)]
    answers = garbage = 0
    with udp_client(served) as client:
        for number, mutant in enumerate(mutants):
            client.send(mutant)
            garbage += is_garbage(mutant)
            if number % 20 == 19:  # no more at a time than the socket's buffer takes
                client.send(with_id(query_message("kms.test"), 0xFFFF))
                while client.recv(65_535)[:2] != b"\xff\xff":
                    answers += 1
    assert answers > 500
    assert served.counts.malformed == garbage > 500


def is_garbage(message: bytes) -> bool:
    try:
        read_query(message[: MOST_QUERY_BYTES + 1])
    except QueryError:
        return True
    return False


# ------------------------------------------------------------- TCP


def test_several_questions_on_a_connection(served: NamesServer) -> None:
    with tcp_client(served) as client:
        for name in ("kms.test", "evil.test", "x.w.test", "kms.test"):
            client.sendall(frame(query_message(name)))
            answer = dns.message.from_wire(receive_message(client))
            assert answer.question[0].name.to_text(omit_final_dot=True) == name


def test_answers_overtake_those_that_wait(served: NamesServer) -> None:
    held = served.call(lambda: served.parent.hold("x.w.test"))
    with tcp_client(served) as client:
        both = with_id(query_message("x.w.test"), 1), with_id(query_message("kms.test"), 2)
        client.sendall(b"".join(map(frame, both)))
        assert receive_message(client)[:2] == b"\x00\x02"
        served.call(held.set)
        assert receive_message(client)[:2] == b"\x00\x01"


def test_a_question_may_come_byte_by_byte(served: NamesServer) -> None:
    with tcp_client(served) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame(query_message("kms.test")):
            client.sendall(bytes((byte,)))
        assert texts(dns.message.from_wire(receive_message(client))) != []


def test_a_client_may_finish_before_its_answer(served: NamesServer) -> None:
    held = served.call(lambda: served.parent.hold("x.w.test"))
    with tcp_client(served) as client:
        client.sendall(frame(query_message("x.w.test")) * 3)
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: bool(served.parent.asked))
        served.call(held.set)
        for _ in range(3):
            assert receive_message(client)[:2] == ID.to_bytes(2)
        assert client.recv(1) == b""


def test_a_connection_without_a_question_ends_cleanly(served: NamesServer) -> None:
    with tcp_client(served) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_garbage_over_tcp_is_answered_and_the_connection_goes_on(served: NamesServer) -> None:
    with tcp_client(served) as client:
        client.sendall(frame(header(questions=2) + question()) + frame(query_message("kms.test")))
        assert len(receive_message(client)) == 12
        assert texts(dns.message.from_wire(receive_message(client))) != []


BROKEN = {
    "a length of 0": b"\x00\x00",
    "a length that no query has": b"\xff\xff",
    "a message too short for a header": frame(header()[:11]),
    "an answer": frame(header(flags=0x8180) + question()),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_client_that_speaks_no_dns_is_cut(served: NamesServer, data: bytes) -> None:
    with tcp_client(served) as client:
        client.sendall(data)
        assert is_reset(client)
    over_udp(served, query_message("kms.test"))


def test_many_questions_at_once_are_all_answered(served: NamesServer) -> None:
    count = 2000
    with tcp_client(served) as client:
        messages = [
            frame(with_id(query_message(f"n{number % 50}.w.test"), number))
            for number in range(count)
        ]
        client.sendall(b"".join(messages))
        found = {int.from_bytes(receive_message(client)[:2]) for _ in range(count)}
    assert found == set(range(count))


def test_a_client_that_does_not_read_is_not_read_from(served: NamesServer) -> None:
    records = tuple(record_data("TXT", f'"{number:0250}"') for number in range(200))
    served.parent.set("big.w.test", Resolved(records=records, ttl_seconds=60))
    count = 400
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(LONG)
        client.connect((served.host, served.port))
        client.sendall(frame(query_message("big.w.test", "TXT")) * count)
        seen = -1
        while served.counts.answered != seen:  # until nothing is answered but ourselves
            seen = served.counts.answered + 1
            over_udp(served, query_message("kms.test"))
        assert 0 < served.call(lambda: served.counts.answered) < count
        sizes = {len(receive_message(client)) for _ in range(count)}
    assert min(sizes) == max(sizes) > 200 * 250


def test_the_most_silent_connection_makes_room(served: NamesServer) -> None:
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(MOST_CONNECTIONS):
            client = stack.enter_context(tcp_client(served))
            client.sendall(frame(query_message("kms.test")))
            receive_message(client)
            clients.append(client)
        clients[0].sendall(frame(query_message("kms.test")))
        receive_message(clients[0])
        newest = stack.enter_context(tcp_client(served))
        newest.sendall(frame(query_message("kms.test")))
        receive_message(newest)
        assert is_reset(clients[1])
        for client in (clients[0], *clients[2:], newest):
            client.sendall(frame(query_message("kms.test")))
            receive_message(client)


def test_an_idle_connection_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_connection, "IDLE_SECONDS", 0.05)
    with NamesServer(policy_for(*PATTERNS)) as served, tcp_client(served) as client:
        client.sendall(frame(query_message("kms.test"))[:-1])
        assert client.recv(1) == b""


def test_an_idle_connection_with_answers_unread_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_connection, "IDLE_SECONDS", 0.05)
    records = tuple(record_data("TXT", f'"{number:0250}"') for number in range(200))
    with NamesServer(policy_for(*PATTERNS)) as served, socket.socket() as client:
        served.parent.set("big.w.test", Resolved(records=records, ttl_seconds=60))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(LONG)
        client.connect((served.host, served.port))
        client.sendall(frame(query_message("big.w.test", "TXT")) * 400)
        with select.epoll() as poll:
            poll.register(client, 0)  # hangups and errors alone
            assert poll.poll(LONG) != []
        assert is_reset(client)


@pytest.mark.parametrize("is_waiting", [True, False], ids=["before its answer", "while idle"])
def test_a_client_that_resets_harms_nobody(served: NamesServer, is_waiting: bool) -> None:
    held = served.call(lambda: served.parent.hold("x.w.test"))
    with tcp_client(served) as client:
        client.sendall(frame(query_message("x.w.test" if is_waiting else "kms.test")))
        if is_waiting:
            wait_until(lambda: bool(served.parent.asked))
        else:
            receive_message(client)
        reset_socket(client)
    served.call(held.set)
    with tcp_client(served) as client:
        client.sendall(frame(query_message("x.w.test")))
        assert texts(dns.message.from_wire(receive_message(client))) != []


def test_a_connection_that_waits_for_its_answer_is_not_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dns_connection, "IDLE_SECONDS", 0.01)
    with NamesServer(policy_for(*PATTERNS)) as served, tcp_client(served) as client:
        held = served.call(lambda: served.parent.hold("x.w.test"))
        client.sendall(frame(query_message("x.w.test")))
        wait_until(lambda: bool(served.parent.asked))
        begun = time.monotonic()
        while time.monotonic() - begun < 0.05:  # several times as long as a silent client has
            over_udp(served, query_message("kms.test"))
        served.call(held.set)
        assert texts(dns.message.from_wire(receive_message(client))) != []


def test_a_dropped_lookup_ends_the_connection(
    served: NamesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enclave_side.shim.names.lookups.MOST_QUESTIONS", 0)
    with tcp_client(served) as client:
        client.sendall(frame(query_message("x.w.test")))
        assert is_reset(client)


def test_nothing_is_left_behind() -> None:
    before = descriptors(os.getpid())
    with NamesServer(policy_for(*PATTERNS)) as served, contextlib.ExitStack() as stack:
        served.call(lambda: served.parent.hold("x.w.test"))
        for _ in range(5):
            client = stack.enter_context(tcp_client(served))
            client.sendall(frame(query_message("x.w.test")) + frame(query_message("kms.test")))
            receive_message(client)
    assert descriptors(os.getpid()) == before


# ------------------------------------------------------------- resolvers


def test_dnspythons_resolver(served: NamesServer) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [served.host]
    resolver.port = served.port
    resolver.lifetime = LONG
    (found,) = resolver.resolve("kms.test", "A")
    assert found.to_text() == "198.18.0.3"
    assert [name.to_text() for name in resolver.resolve_address("198.18.0.3")] == ["kms.test."]
    with pytest.raises(dns.resolver.NoAnswer):
        resolver.resolve("kms.test", "AAAA")
    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("evil.test", "A")


def test_dnspythons_resolver_goes_to_tcp_for_what_is_long(served: NamesServer) -> None:
    records = tuple(record_data("TXT", f'"{number:0250}"') for number in range(20))
    served.parent.set("big.w.test", Resolved(records=records, ttl_seconds=60))
    query = dns.message.make_query("big.w.test", "TXT", use_edns=0)
    answer, was_tcp = dns.query.udp_with_fallback(
        query, served.host, port=served.port, timeout=LONG
    )
    assert was_tcp
    assert len(texts(answer)) == 20
    assert not answer.flags & dns.flags.TC


def test_c_ares(served: NamesServer) -> None:
    async def main() -> None:
        servers = (f"{served.host}:{served.port}",)
        found = await ask("x.w.test", servers=servers, timeout_seconds=LONG)
        assert isinstance(found, Answer)
        assert [str(address) for address in found.addresses] == ["198.18.0.4"]
        refused = await ask("evil.test", servers=servers, timeout_seconds=LONG)
        assert isinstance(refused, Failure)
        assert refused.kind == "no_such_name"

    loop.run(main())


@pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig (Debian: bind9-dnsutils)")
def test_dig(served: NamesServer) -> None:
    def dig(*arguments: str) -> str:
        command = ["dig", f"@{served.host}", "-p", str(served.port), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True)
        return done.stdout

    assert dig("+short", "kms.test") == "198.18.0.3\n"
    assert dig("+short", "+tcp", "kms.test") == "198.18.0.3\n"
    assert dig("+short", "-x", "198.18.0.3") == "kms.test.\n"
    assert dig("+short", "kms.test", "AAAA") == ""
    forbidden = dig("evil.test")
    assert "status: NXDOMAIN" in forbidden
    assert "EDE: 18 (Prohibited)" in forbidden


@pytest.mark.alone
def test_a_forbidden_name_is_told_at_once(served: NamesServer) -> None:
    took = []
    for number in range(20):
        begun = time.perf_counter()
        over_udp(served, query_message(f"evil{number}.test", edns_payload=1232))
        took.append(time.perf_counter() - begun)
    assert sorted(took)[10] < 0.05


@pytest.mark.alone
def test_two_thousand_lookups_a_second_are_answered_in_time() -> None:
    with names_server() as port:
        found = []
        for _ in range(TRIES):
            client = Client(port)
            paced(client, known_name, 2000)
            client.close()
            assert client.lost == 0
            found.append(quantiles(client.seconds, n=100)[98])
    # The best of several: whatever else runs on the machine can only make it slower.
    assert min(found) < 0.005, f"p99 in seconds: {found}"
