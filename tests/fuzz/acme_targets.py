"""Targets: what an ACME server says, message by message, and through a whole order."""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from tests.fuzz.target import Target
from tests.support.acme_server import BASE, AcmeServer
from vsockproxy.certificates.acme_messages import (
    AcmeError,
    Authorization,
    Directory,
    Order,
    Reply,
    host_and_port,
    parse_message,
    refusal_of,
)
from vsockproxy.certificates.acme_order import AcmeClient, Answer, Ask, Wait
from vsockproxy.certificates.signing_request import make_signing_request

_KEY = ec.derive_private_key(7, ec.SECP256R1())
_NAMES = ("a.test", "192.0.2.1")
_REQUEST = make_signing_request(_KEY, _NAMES)

_SEPARATOR = b"\x00"
_HEADERS = ("replay-nonce", "location", "retry-after")


def _execute_message(data: bytes) -> str:
    reply = Reply(200, {"retry-after": data[:12].decode("latin-1")}, data)
    outcomes = [str(refusal_of(reply, "it").trouble), str(reply.retry_after_seconds)]
    readers: tuple[Callable[[], object], ...] = (
        lambda: parse_message(reply, Directory, "directory"),
        lambda: parse_message(reply, Authorization, "authorization").http_01(),
        lambda: parse_message(reply, Order, "order"),
    )
    for read in readers:
        try:
            read()
        except AcmeError as error:
            outcomes.append(str(error))
    try:
        host, port, target = host_and_port(data.decode("latin-1"))
        assert host
        assert 0 < port < 65_536
        assert target.startswith("/")
    except AcmeError:
        outcomes.append("no URL")
    outcome = ", ".join(outcomes)
    assert outcome.isprintable()
    return outcome


def _reply(part: bytes) -> Reply:
    """`STATUS NONCE LOCATION RETRY-AFTER`, a new line, and the body."""
    head, _, body = part.partition(b"\n")
    status, *values = head.decode("latin-1").split(" ")
    headers = dict(zip(_HEADERS, values, strict=False))
    return Reply(int(status) if status in _STATUSES else 200, headers, body)


_STATUSES = {"200", "201", "400", "403", "404", "429", "500"}


def _execute_order(data: bytes) -> str:
    outcome = _order(data)
    assert outcome.isprintable()
    return outcome


def _order(data: bytes) -> str:
    parts = data.split(_SEPARATOR)
    conversation = AcmeClient(f"{BASE}/dir", _KEY, None).order(_NAMES, _REQUEST)
    reply: Reply | None = None
    waited = 0.0
    steps = 0
    try:
        while True:
            step = conversation.send(reply)
            reply = None
            steps += 1
            match step:
                case Ask(url=url):
                    assert url.startswith("https://")
                    if not parts:
                        return f"more after {steps}"
                    reply = _reply(parts.pop(0))
                case Wait(seconds=seconds):
                    assert 1 <= seconds <= 10
                    waited += seconds
                case Answer(by_token=by_token):
                    assert all("/" not in token for token in by_token)
                case _:
                    pass
    except StopIteration:
        return f"a chain after {steps}"
    except AcmeError as error:
        return str(error)
    finally:
        conversation.close()


def _recorded(server: AcmeServer) -> bytes:
    """What `server` says in the course of an order, as `_execute_order` reads it."""
    said: list[bytes] = []
    conversation = AcmeClient(f"{BASE}/dir", _KEY, None).order(_NAMES, _REQUEST)
    reply: Reply | None = None
    try:
        while True:
            step = conversation.send(reply)
            reply = None
            if isinstance(step, Ask):
                reply = server.answer(step)
                head = " ".join([str(reply.status), *(reply.headers.get(h, "") for h in _HEADERS)])
                said.append(head.encode("latin-1") + b"\n" + reply.body)
            elif isinstance(step, Answer):
                server.answers = step.by_token
    except (StopIteration, AcmeError):
        return _SEPARATOR.join(said)


_GOOD = _recorded(AcmeServer())
_PARTS = _GOOD.split(_SEPARATOR)

_WORDS = (
    *(b"pending", b"ready", b"processing", b"valid", b"invalid", b"http-01", b"https://"),
    *(b'"error":{"type":"x:y","detail":"z"}', b'"subproblems":[', b"badNonce", b"rateLimited"),
    *(b"\n", b"\x00", b"400 ", b"429 ", b'"token"', b'"certificate"'),
)

_FORGOTTEN = b'{"type":"urn:ietf:params:acme:error:accountDoesNotExist"}'
_DONE = {"status": "valid", "authorizations": [], "certificate": f"{BASE}/certificate/0"}
_OF_ANOTHER = {"identifier": {"type": "dns", "value": "another.test"}}
_URLS = [f"{BASE}/authorization/0"] * 3

ACME_MESSAGE = Target(
    "acme_message",
    _execute_message,
    corpus=(
        *(part.partition(b"\n")[2] for part in _PARTS),
        b'{"type":"urn:ietf:params:acme:error:rateLimited","detail":"x","subproblems":[{"type":"a"}]}',
        b'{"status":"pending","identifier":{"type":"dns","value":"a"},"challenges":'
        b'[{"type":"http-01","url":"https://a.test/","token":"short"}]}',
        b"120",
        b"https://a.test:14000/dir?x=y",
        b"https://u@[::1]:0/",
        b"https://\xff.test/",
    ),
    dictionary=_WORDS,
)

ACME_ORDER = Target(
    "acme_order",
    _execute_order,
    corpus=(
        _GOOD,
        _recorded(AcmeServer(polls=3, retry_after="2")),
        _recorded(AcmeServer(bad_nonces=3)),
        _recorded(AcmeServer(bad_nonces=99)),
        _recorded(AcmeServer(outcome="invalid")),
        _recorded(AcmeServer(valid=set(_NAMES))),
        _recorded(AcmeServer(polls=99)),
        _recorded(AcmeServer(replies={"dir": Reply(500)})),
        _recorded(
            AcmeServer(
                changes={"new-Order": lambda x: x.update(_DONE)},
                replies={"certificate": Reply(200, {}, b"PEM")},
            )
        ),
        _recorded(AcmeServer(changes={"authorization": lambda x: x.update(_OF_ANOTHER)})),
        _recorded(AcmeServer(replies={"new-Order": Reply(429, {"retry-after": "7"})})),
        _recorded(AcmeServer(replies={"new-Account": Reply(400, {}, b"{}")})),
        _recorded(AcmeServer(replies={"new-Nonce": Reply(200)})),
        _recorded(AcmeServer(replies={"new-Nonce": Reply(200, {"replay-nonce": "="})})),
        _recorded(AcmeServer(replies={"new-Order": Reply(400, {}, _FORGOTTEN)})),
        _recorded(AcmeServer(changes={"new-Order": lambda x: x.update(authorizations=_URLS)})),
        _recorded(AcmeServer(changes={"new-Order": lambda x: x.update(authorizations=[])})),
        _recorded(AcmeServer(changes={"authorization": lambda x: x.update(status="revoked")})),
        _recorded(AcmeServer(changes={"finalize": lambda x: x.update(status="invalid")})),
        _recorded(
            AcmeServer(
                valid=set(_NAMES),
                changes={"new-Order": lambda x: x.update(status="pending")},
            )
        ),
        _recorded(
            AcmeServer(
                changes={
                    "new-Order": lambda x: x.update(status="pending", authorizations=[]),
                    "order": lambda x: x.update(status="pending"),
                }
            )
        ),
    ),
    dictionary=_WORDS,
    most_memory_bytes=2 * 1024 * 1024,
)
