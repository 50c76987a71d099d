"""A DNS server on loopback that answers by script: UDP and TCP on one port, in its own thread.

    with DnsServer() as server:
        server.set("a.test", Addresses("192.0.2.1", "2001:db8::1", ttl_seconds=60))
        ... ask server.address ...

Names that have no script do not exist (NXDOMAIN). `*.x.test` is a script for every name below
`x.test`. Answers too large for the client's UDP payload are truncated, so that it comes by TCP.
"""

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

__all__ = (
    "Addresses",
    "Alias",
    "ByTransport",
    "ByType",
    "DnsServer",
    "Held",
    "HungUp",
    "InTurn",
    "Late",
    "Question",
    "Raw",
    "Records",
    "Reply",
    "Silent",
    "Status",
    "Truncated",
)

_START_SECONDS = 10.0
_PLAIN_UDP_BYTES = 512
_MOST_UDP_BYTES = 65_535
_MOST_TCP_BYTES = 65_535
_MOST_BIND_ATTEMPTS = 50
_LONGEST_ALIAS_CHAIN = 8


@dataclass(frozen=True)
class Addresses:
    """A and AAAA records; a question for the absent family is answered without data."""

    texts: tuple[str, ...]
    ttl_seconds: int

    def __init__(self, *texts: str, ttl_seconds: int = 60) -> None:
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "ttl_seconds", ttl_seconds)


@dataclass(frozen=True)
class Records:
    """Records of one type, as a zone file has them; other questions are answered without data."""

    type: str
    texts: tuple[str, ...]
    ttl_seconds: int

    def __init__(self, type_: str, *texts: str, ttl_seconds: int = 60) -> None:
        object.__setattr__(self, "type", type_)
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "ttl_seconds", ttl_seconds)


@dataclass(frozen=True)
class Alias:
    """A CNAME record, followed by what the script of its target says."""

    target: str
    ttl_seconds: int = 60


@dataclass(frozen=True)
class Status:
    """An answer without records: NXDOMAIN, SERVFAIL, REFUSED..."""

    rcode: dns.rcode.Rcode


@dataclass(frozen=True)
class Silent:
    """No answer at all."""


@dataclass(frozen=True)
class Truncated:
    """An answer without records that says that it has been cut, over TCP too."""


@dataclass(frozen=True)
class HungUp:
    """Over TCP the beginning of an answer, then the end of the connection; no answer over UDP."""


@dataclass(frozen=True)
class Raw:
    """These bytes, after the two of the question's id."""

    payload: bytes


@dataclass(frozen=True)
class Held:
    """`reply`, once the test calls `DnsServer.release`."""

    reply: "Reply"


@dataclass(frozen=True)
class Late:
    """`reply`, `seconds` later."""

    reply: "Reply"
    seconds: float


@dataclass(frozen=True)
class InTurn:
    """Another reply at each question of one type; the last one from then on."""

    replies: tuple["Reply", ...]

    def __init__(self, *replies: "Reply") -> None:
        object.__setattr__(self, "replies", replies)


@dataclass(frozen=True)
class ByType:
    """One reply to questions for A, another to all others."""

    a: "Reply"
    others: "Reply"


@dataclass(frozen=True)
class ByTransport:
    """One reply over UDP, another over TCP."""

    udp: "Reply"
    tcp: "Reply"


Data = Addresses | Records | Alias
Reply = (
    Data | Status | Silent | Truncated | HungUp | Raw | Held | Late | InTurn | ByType | ByTransport
)
Send = Callable[[bytes | None], None]
"""Sends a message; with None it hangs up."""
Client = tuple[str, int] | tuple[str, int, int, int]


@dataclass(frozen=True)
class Question:
    """One question as it arrived."""

    name: str
    type: str
    transport: str
    """`udp` or `tcp`."""
    client_port: int


class DnsServer:
    """The server; listens between `__enter__` and `__exit__`.

    Attributes:
        address: `HOST:PORT` to put into a resolver's list of servers.
        questions: all that arrived, in order.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.questions: list[Question] = []
        self._zone: dict[str, Reply] = {}
        self._held: list[tuple[str, Callable[[], None]]] = []
        self._released: set[str] = set()
        self._udp, self._tcp = _bind_both(host)
        port = self._udp.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._loop = asyncio.new_event_loop()
        self._changed = threading.Condition()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="dns server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(_START_SECONDS):
            raise TimeoutError("the DNS server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def set(self, name: str, reply: Reply) -> None:
        """Script `name`, or every name below it if it starts with `*.`."""
        self._zone[name] = reply

    def release(self, name: str) -> None:
        """Send the answers that were held back for `name`, and hold back no more for it.

        A resolver may ask again at this very moment, and forget its earlier question.
        """
        self._loop.call_soon_threadsafe(self._release, name)

    def count(self, name: str, type_: str | None = None) -> int:
        """How many questions for `name` have arrived, of one type or of all."""
        with self._changed:
            return sum(
                question.name == name and type_ in (None, question.type)
                for question in self.questions
            )

    def wait_for_questions(self, count: int, *, below: str = "", seconds: float = 30.0) -> None:
        """Block until `count` questions for names that end in `below` have arrived."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: sum(q.name.endswith(below) for q in self.questions) >= count, seconds
            )
        if not arrived:
            raise TimeoutError(f"fewer than {count} questions for {below!r}")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop.add_reader(self._udp, self._serve_udp)
        server = await asyncio.start_server(self._serve_tcp, sock=self._tcp)
        self._started.set()
        await self._stop.wait()
        self._loop.remove_reader(self._udp)
        server.close()
        self._udp.close()

    def _serve_udp(self) -> None:
        wire, client = self._udp.recvfrom(_MOST_UDP_BYTES)
        self._answer(wire, "udp", client[1], lambda message: self._send_udp(message, client))

    def _send_udp(self, message: bytes | None, client: Client) -> None:
        if message is None:
            return
        # A client that has gone leaves "port unreachable" behind, a full buffer loses the answer;
        # both are what UDP does.
        with contextlib.suppress(OSError):
            self._udp.sendto(message, client)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(message: bytes | None) -> None:
            if message is None:
                writer.write(b"\x10\x00the beginning")
                writer.close()
            else:
                writer.write(len(message).to_bytes(2, "big") + message)

        port = writer.get_extra_info("peername")[1]
        try:
            while True:
                size_bytes = int.from_bytes(await reader.readexactly(2), "big")
                self._answer(await reader.readexactly(size_bytes), "tcp", port, send)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, wire: bytes, transport: str, client_port: int, send: Send) -> None:
        query = dns.message.from_wire(wire)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        type_ = dns.rdatatype.to_text(query.question[0].rdtype)
        question = Question(name, type_, transport, client_port)
        with self._changed:
            self.questions.append(question)
            self._changed.notify_all()
        self._reply(self._script(name), question, query, send)

    def _script(self, name: str) -> Reply:
        if name in self._zone:
            return self._zone[name]
        labels = name.split(".")
        for start in range(1, len(labels)):
            wildcard = ".".join(("*", *labels[start:]))
            if wildcard in self._zone:
                return self._zone[wildcard]
        return Status(dns.rcode.NXDOMAIN)

    def _reply(
        self, reply: Reply, question: Question, query: dns.message.Message, send: Send
    ) -> None:
        match reply:
            case Silent():
                pass
            case Raw(payload):
                send(query.id.to_bytes(2, "big") + payload)
            case Held(later) if question.name in self._released:
                self._reply(later, question, query, send)
            case Held(later):
                self._held.append(
                    (question.name, lambda: self._reply(later, question, query, send))
                )
            case Late(later, seconds):
                self._loop.call_later(seconds, self._reply, later, question, query, send)
            case InTurn(replies):
                turn = min(self.count(question.name, question.type), len(replies))
                self._reply(replies[turn - 1], question, query, send)
            case ByType(a, others):
                self._reply(a if question.type == "A" else others, question, query, send)
            case ByTransport(udp, tcp):
                self._reply(udp if question.transport == "udp" else tcp, question, query, send)
            case HungUp():
                send(None)
            case Truncated():
                send(_truncated(query))
            case Status(rcode):
                response = dns.message.make_response(query, recursion_available=True)
                response.set_rcode(rcode)
                send(response.to_wire())
            case Addresses() | Records() | Alias():
                send(self._with_records(reply, question, query))

    def _with_records(self, reply: Data, question: Question, query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        name, script = f"{question.name}.", reply
        for _ in range(_LONGEST_ALIAS_CHAIN):
            if not isinstance(script, Alias):
                break
            target = f"{script.target}."
            response.answer.append(
                dns.rrset.from_text(name, script.ttl_seconds, "IN", "CNAME", target)
            )
            following = self._script(script.target)
            if not isinstance(following, Data):
                return response.to_wire()
            name, script = target, following
        if isinstance(script, Addresses):
            wanted = {"A": 4, "AAAA": 6}.get(question.type)
            for text in script.texts:  # one by one, so that a repeated address stays repeated
                if ipaddress.ip_address(text).version == wanted:
                    response.answer.append(
                        dns.rrset.from_text(name, script.ttl_seconds, "IN", question.type, text)
                    )
        if isinstance(script, Records) and script.type == question.type:
            for text in script.texts:
                response.answer.append(
                    dns.rrset.from_text(name, script.ttl_seconds, "IN", script.type, text)
                )
        if question.transport == "tcp":
            return response.to_wire(max_size=_MOST_TCP_BYTES)
        try:
            return response.to_wire(max_size=max(query.payload, _PLAIN_UDP_BYTES))
        except dns.exception.TooBig:
            return _truncated(query)

    def _release(self, name: str) -> None:
        self._released.add(name)
        released = [send for held, send in self._held if held == name]
        self._held = [entry for entry in self._held if entry[0] != name]
        for send in released:
            send()


def _truncated(query: dns.message.Message) -> bytes:
    truncated = dns.message.make_response(query, recursion_available=True)
    truncated.flags |= dns.flags.TC
    return truncated.to_wire()


def _bind_both(host: str) -> tuple[socket.socket, socket.socket]:
    """Bind a UDP and a listening TCP socket to the same free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(_MOST_BIND_ATTEMPTS):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.setblocking(False)
        udp.bind((host, 0))
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.bind(udp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
            continue
        tcp.listen()
        return udp, tcp
    raise OSError(f"no port of {host} is free for both UDP and TCP")
