"""A KMS over TLS on loopback, as AWS's is: signatures, attestation documents, policies, envelopes.

In a test:

    server = KmsServer("eu-west-1", credentials={"AKIA…": KnownKey("secret", "token")}, roots=[…])
    key = server.store.create(pcrs={0: "00…"})
    with serving_kms(server, authority.context("kms.eu-west-1.amazonaws.com")):
        …  # server.port, server.plan(Fault.THROTTLED), server.count.handshakes

By itself, for benchmarks and for trying things out, until SIGTERM or SIGINT:

    python -m tests.support.kms_server --directory DIR [--help]

The first line on stdout says, as JSON, where it is and whom it takes; the last one what it counted.
`GET /statistics` says that meanwhile.
"""

import argparse
import asyncio
import base64
import json
import signal
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from tests.support.aws_http import Request
from tests.support.aws_signatures import AwsError, FindKey, KnownKey, check_signature
from tests.support.certificates import Authority
from tests.support.kms_connections import Connection
from tests.support.kms_faults import (
    Envelopes,
    Fault,
    change_fields,
    change_key_id,
    error_of,
    write_body,
)
from tests.support.kms_keys import KeyStore
from tests.support.kms_messages import Reply, message
from tests.support.kms_operations import ATTESTED, Documents, Kms
from vsockproxy.attestation.documents import read_roots

WAIT_SECONDS = 30.0
TARGET = "TrentService."
CONTENT_TYPE = "application/x-amz-json-1.1"


@dataclass(slots=True)
class Count:
    """What a server has seen."""

    handshakes: int = 0
    """TLS handshakes that were completed."""
    open: int = 0
    """Connections at the moment."""
    most_open: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    """By operation."""
    attested: Counter[str] = field(default_factory=Counter)
    """Those that had a Recipient whose document was good."""
    errors: Counter[str] = field(default_factory=Counter)
    """Answers that were errors, by their type."""
    bad_requests: int = 0
    """Connections on which came what is no request."""
    access_keys: Counter[str] = field(default_factory=Counter)
    """Whose signatures were good."""
    names: Counter[str] = field(default_factory=Counter)
    """The server names that clients asked for in handshakes."""

    def summary(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True)
class _Plan:
    fault: Fault
    times: int | None
    operation: str | None


class KmsServer:
    """A KMS and what is known of its clients.

    Args:
        region: what signatures have to be for.
        credentials: whom it takes, by the access key's id, or a function of that.
        roots: the certificates under which attestation documents have to be, DER; None to
            believe every document.
        hosts: what the Host header may name, the port aside; its usual name by default.
    """

    def __init__(
        self,
        region: str = "eu-west-1",
        *,
        credentials: Mapping[str, KnownKey] | FindKey,
        roots: Sequence[bytes] | None,
        hosts: Sequence[str] = (),
    ) -> None:
        self.region = region
        self.store = KeyStore(region)
        self.documents = Documents(roots)
        self.kms = Kms(self.store, self.documents)
        self.count = Count()
        self.requests: deque[Request] = deque(maxlen=1000)
        """The latest ones."""
        self.slow_seconds = 1.0
        self.port = 0
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._find_key: FindKey = credentials if callable(credentials) else credentials.get
        self._names = tuple(hosts) or (f"kms.{region}.amazonaws.com",)
        self._envelopes = Envelopes.new()
        self._plans: deque[_Plan] = deque()
        self.changed = threading.Condition()
        self._released = 0
        self._held: list[Callable[[], object]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failures: list[Exception] = []
        """Mistakes of this server."""

    @property
    def hosts(self) -> frozenset[str]:
        """What the Host header may be."""
        return frozenset((*self._names, *(f"{name}:{self.port}" for name in self._names)))

    def plan(self, fault: Fault, times: int | None = 1, operation: str | None = None) -> None:
        """Do something wrong with the next requests, `times` or for good (None).

        Args:
            fault: what.
            times: how often; plans for the same request come one after another.
            operation: with requests of this operation only.
        """
        with self.changed:
            self._plans.append(_Plan(fault, times, operation))

    def mend(self) -> None:
        """Forget all plans, and let go what is held."""
        with self.changed:
            self._plans.clear()
        self.release()

    def release(self) -> None:
        """Answer the requests that are held."""
        with self.changed:
            held, self._held = self._held, []
        if self._loop is not None:
            for answer in held:
                self._loop.call_soon_threadsafe(answer)

    def wait_for(self, condition: Callable[[Count], bool]) -> bool:
        """Wait until the counts are as wanted; False if that takes too long."""
        with self.changed:
            return self.changed.wait_for(lambda: condition(self.count), WAIT_SECONDS)

    @property
    def held(self) -> int:
        """How many requests are held."""
        return len(self._held)

    def wait_for_held(self, number: int) -> bool:
        """Wait until so many requests are held; False if that takes too long."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self._held) >= number, WAIT_SECONDS)

    def reply(self, request: Request) -> Reply:
        """What is sent for a request."""
        if (request.method, request.target) == ("GET", "/statistics"):
            return message(200, json.dumps(self.count.summary()).encode(), "application/json")
        operation = (request.value("x-amz-target") or "").removeprefix(TARGET)
        with self.changed:
            fault = self._next_fault(operation)
            self.count.requests[operation] += 1
            self.requests.append(request)
            self.changed.notify_all()
        if fault is Fault.UNAVAILABLE_PAGE:
            page = b"<html><body><h1>503 Service Unavailable</h1></body></html>"
            return message(503, page, "text/html")
        try:
            body = self._answer(request, operation, fault)
        except AwsError as error:
            with self.changed:
                self.count.errors[error.kind] += 1
                self.changed.notify_all()
            content = {"__type": error.kind}
            if error.text:
                # KMS itself writes it in both ways.
                name = "Message" if error.kind == "AccessDeniedException" else "message"
                content[name] = error.text
            return message(error.status, json.dumps(content).encode(), CONTENT_TYPE)
        return message(200, body, CONTENT_TYPE, fault)

    def hold(self, answer: Callable[[], object]) -> None:
        """Keep an answer until `release`."""
        with self.changed:
            self._held.append(answer)
            self.changed.notify_all()

    def _next_fault(self, operation: str) -> Fault | None:
        for plan in self._plans:
            if plan.operation in (None, operation):
                if plan.times is not None:
                    plan.times -= 1
                    if plan.times == 0:
                        self._plans.remove(plan)
                return plan.fault
        return None

    def _answer(self, request: Request, operation: str, fault: Fault | None) -> bytes:
        at = self.clock()
        if request.method != "POST" or request.target != "/":
            raise AwsError("UnknownOperationException", status=404)
        access_key = check_signature(
            request, self._find_key, hosts=self.hosts, region=self.region, service="kms", at=at
        )
        self.count.access_keys[access_key] += 1
        if request.value("content-type") != CONTENT_TYPE:
            raise AwsError("UnknownOperationException", status=404)
        if not (request.value("x-amz-target") or "").startswith(TARGET):
            raise AwsError("UnknownOperationException")
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise AwsError("SerializationException")
        if (error := error_of(fault)) is not None:
            raise error
        answer, recipient = self.kms.answer(operation, body, at)
        if operation in ATTESTED:
            name = ATTESTED[operation]
            plaintext = answer[name]
            if recipient is None:
                answer[name] = base64.b64encode(plaintext).decode()
            else:
                self.count.attested[operation] += 1
                del answer[name]
                envelope = self._envelopes.write(operation, plaintext, recipient.public_key, fault)
                answer["CiphertextForRecipient"] = base64.b64encode(envelope).decode()
                if fault is not None:
                    change_fields(answer, name, plaintext, fault)
        if fault is not None:
            change_key_id(answer, fault)
        return write_body(answer, fault)

    def note_bad_request(self) -> None:
        """Count a connection on which something else came."""
        with self.changed:
            self.count.bad_requests += 1
            self.changed.notify_all()

    def count_connection(self, change: int) -> None:
        """Count one more, or one less."""
        with self.changed:
            self.count.open += change
            self.count.handshakes += change > 0
            self.count.most_open = max(self.count.most_open, self.count.open)
            self.changed.notify_all()

    async def serve(
        self, context: ssl.SSLContext, ready: Callable[[], object], stop: asyncio.Event
    ) -> None:
        """Serve on a port of loopback until `stop` is set; `ready` is called when it listens."""
        self._loop = loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: self._note_failure(told.get("exception")))
        connections: set[Connection] = set()

        def note_name(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
            self.count.names[name or ""] += 1

        context.sni_callback = note_name
        server = await loop.create_server(
            lambda: Connection(self, connections),
            "127.0.0.1",
            self.port,
            ssl=context,
            backlog=1024,
            ssl_shutdown_timeout=1.0,
        )
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await stop.wait()
        server.close()
        for connection in list(connections):
            await connection.end()
        await server.wait_closed()

    def _note_failure(self, error: object) -> None:
        """Clients may break off a handshake, or anything else; faults of our own are raised."""
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.failures.append(error)


@contextmanager
def serving_kms(server: KmsServer, context: ssl.SSLContext) -> Iterator[KmsServer]:
    """Serve in a thread on a port of loopback, which is put into `server`."""
    ready = threading.Event()
    stopping: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stopping.append(lambda: loop.call_soon_threadsafe(stop.set))
        await server.serve(context, ready.set, stop)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="kms")
    thread.start()
    assert ready.wait(WAIT_SECONDS)
    try:
        yield server
    finally:
        server.mend()
        stopping[0]()
        thread.join()
    if server.failures:
        raise ExceptionGroup("the KMS made mistakes", server.failures)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _parser().parse_args(arguments)
    names = options.name or [f"kms.{options.region}.amazonaws.com"]
    authority = Authority(options.directory)
    server = KmsServer(
        options.region,
        credentials={
            options.access_key: KnownKey(options.secret_key, options.session_token or None)
        },
        roots=read_roots(options.root.read_bytes()) if options.root else None,
        hosts=names,
    )
    server.port = options.port
    pcrs = dict(options.pcr)
    symmetric = server.store.create(alias="symmetric", pcrs=pcrs)
    agreement = server.store.create(alias="agreement", pcrs=pcrs, curve="ECC_NIST_P256")

    def say() -> None:
        line = {
            "port": server.port,
            "names": names,
            "ca": str(authority.file),
            "region": options.region,
            "symmetric_key": symmetric.arn,
            "agreement_key": agreement.arn,
        }
        print(json.dumps(line), flush=True)

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await server.serve(authority.context(*names), say, stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    print(json.dumps(server.count.summary()), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.kms_server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--directory", type=Path, required=True, help="for certificates")
    parser.add_argument("--region", default="eu-west-1")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: any)")
    parser.add_argument(
        "--name", action="append", help="for certificate and Host (default: KMS's in the region)"
    )
    parser.add_argument("--access-key", default="AKIDEXAMPLE")
    parser.add_argument("--secret-key", default="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    parser.add_argument("--session-token", default="")
    parser.add_argument(
        "--root",
        type=Path,
        help="PEM under which documents have to be; without it every document is believed",
    )
    parser.add_argument(
        "--pcr",
        type=_read_pcr,
        action="append",
        default=[],
        metavar="N=HEX",
        help="what the policy of the keys demands; without it everybody may use them",
    )
    return parser


def _read_pcr(text: str) -> tuple[int, str]:
    number, _, value = text.partition("=")
    return int(number), bytes.fromhex(value).hex()


if __name__ == "__main__":
    main()
