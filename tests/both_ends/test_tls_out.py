"""Forwards with `tls`: a plain program, the enclave's own TLS, and a server that speaks it."""

import base64
import hashlib
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Queue
from threading import Event
from typing import IO, Any, Literal, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import Authority
from tests.support.pair import Pair, free_port, is_reset, serving
from tests.support.postgres_like import PASSWORD, USER, postgres_like
from tests.support.tls_servers import tls_echo, tls_serving
from tests.support.traffic import GIBIBYTE, MEBIBYTE, Pattern, receive_all, start

SECONDS = 60.0
HANDSHAKE_SECONDS = 4.0

Carrier = Literal["shared", "dedicated"]
CARRIERS: tuple[Carrier, ...] = ("shared", "dedicated")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def server_context(authority: Authority, *names: str, **how: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue(*names, **how))
    return context


def pin_of(pem: Path) -> str:
    """What `pin_spki` has to say for a certificate, worked out by another library."""
    key = x509.load_pem_x509_certificate(pem.read_bytes()).public_key()
    info = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(hashlib.sha256(info).digest()).decode()


class Out:
    """A pair with one forward for each destination.

    Args:
        destinations: a name, the port that stands for it, what `tls` says, and further keys of the
            forward.
        limits: of the enclave.
        more: for the pair.
    """

    def __init__(
        self,
        destinations: Sequence[tuple[str, int, object, dict[str, Any]]],
        limits: dict[str, float] | None = None,
        **more: Any,
    ) -> None:
        self.ports = [free_port() for _ in destinations]
        rules = {
            name: {"address": name, "port": 443, "private": True, "dial": f"127.0.0.1:{port}"}
            for name, port, _, _ in destinations
        }
        own = [{key: rule[key] for key in ("address", "port")} for rule in rules.values()]
        self.pair = Pair(
            "unix",
            own,
            parent_rules=list(rules.values()),
            enclave={
                "forwards": [
                    {
                        "listen": f"tcp://127.0.0.1:{port}",
                        "to": f"{name}:443",
                        "tls": tls,
                        **keys,
                    }
                    for port, (name, _, tls, keys) in zip(self.ports, destinations, strict=True)
                ],
                "limits": {"handshake": SECONDS, **(limits or {})},
            },
            **more,
        )

    def __enter__(self) -> Self:
        self.pair.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.pair.__exit__(*exception)

    def connect(self, index: int = 0) -> socket.socket:
        """A plain connection to a forward."""
        sock = socket.create_connection(("127.0.0.1", self.ports[index]), SECONDS)
        sock.settimeout(SECONDS)
        return sock

    def wait_for(self, event: str, **fields: str) -> dict[str, Any]:
        """A line of the enclave's log."""
        assert self.pair.enclave is not None
        return self.pair.enclave.wait_for_event(event, after=0, **fields)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_plain_program_talks_to_a_tls_server(authority: Authority, carrier: Carrier) -> None:
    context = server_context(authority, "origin.test")
    with (
        tls_serving(context, tls_echo) as port,
        Out([("origin.test", port, {"ca": str(authority.file)}, {"carrier": carrier})]) as out,
    ):
        pattern = Pattern(1)
        with out.connect() as sock:
            sent = start(lambda: pattern.send(sock, 32 * MEBIBYTE))
            assert receive_all(sock) == (32 * MEBIBYTE, sent.result(SECONDS))
        line = out.wait_for("decision", host="origin.test")
        assert (line["allowed"], line["reason"], line["way"]) == (True, "listed", "forward")
        assert out.wait_for("close", host="origin.test")["ended"] == "finished"


# ------------------------------------------------------------- what is refused


class Failure:
    """A destination that is not who it has to be, and what is said of it."""

    def __init__(
        self,
        text: str,
        server: Callable[[Authority], ssl.SSLContext | None],
        tls: Callable[[Authority], dict[str, object]] = lambda authority: {
            "ca": str(authority.file)
        },
    ) -> None:
        self.text = text
        self.server = server
        self.tls = tls


def demanding(authority: Authority) -> ssl.SSLContext:
    """A server that wants a client certificate."""
    context = server_context(authority, "demanding.test")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


def stranger(authority: Authority) -> Authority:
    """An authority of the same name that nobody trusts."""
    directory = authority.file.parent / "stranger"
    directory.mkdir(exist_ok=True)
    return Authority(directory)


FAILURES = {
    "unknown": Failure(
        "unknown authority: ",
        lambda authority: server_context(stranger(authority), "unknown.test"),
    ),
    "roots": Failure(  # the system's authorities know nothing of the test's
        "unknown authority: ",
        lambda authority: server_context(authority, "roots.test"),
        lambda authority: {},
    ),
    "another": Failure(
        "name mismatch: its certificate is for another name",
        lambda authority: server_context(authority, "origin.test"),
    ),
    "expired": Failure(
        "its certificate has expired, or the clock is wrong",
        lambda authority: server_context(authority, "expired.test", is_expired=True),
    ),
    "client-only": Failure(
        "its certificate is not for this purpose",
        lambda authority: server_context(
            authority, "client-only.test", usage=ExtendedKeyUsageOID.CLIENT_AUTH
        ),
    ),
    "pinned": Failure(
        "pin mismatch: the key has ",
        lambda authority: server_context(authority, "pinned.test"),
        lambda authority: {"ca": str(authority.file), "pin_spki": [f"{'A' * 43}="]},
    ),
    "demanding": Failure(
        "it agrees to no version, cipher or curve of ours, or wants a client certificate", demanding
    ),
    "plain": Failure("what it sent is not TLS", lambda authority: None),
    "silent": Failure(
        f"the handshake was not complete in {HANDSHAKE_SECONDS:g} s", lambda authority: None
    ),
    "leaving": Failure("it closed before the handshake was complete", lambda authority: None),
}


def answer_plainly(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"220 this is a server that speaks first\r\n")
    connection.recv(65_536)


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def leave(connection: socket.socket) -> None:
    connection.recv(65_536)


PLAIN_SERVERS = {"plain": answer_plainly, "silent": say_nothing, "leaving": leave}


@pytest.fixture(scope="module")
def refusing(authority: Authority) -> Iterator[Out]:
    with ExitStack() as stack:
        destinations: list[tuple[str, int, object, dict[str, Any]]] = []
        for name, failure in FAILURES.items():
            context = failure.server(authority)
            if context is None:
                port = stack.enter_context(serving(PLAIN_SERVERS[name]))
            else:
                port = stack.enter_context(tls_serving(context, tls_echo))
            destinations.append((f"{name}.test", port, failure.tls(authority) or True, {}))
        limits = {"handshake": HANDSHAKE_SECONDS}  # one of them says nothing
        yield stack.enter_context(Out(destinations, limits))


@pytest.mark.parametrize("name", FAILURES)
def test_a_destination_that_is_not_who_it_has_to_be_is_refused(refusing: Out, name: str) -> None:
    with refusing.connect(list(FAILURES).index(name)) as sock:
        assert is_reset(sock)
    line = refusing.wait_for("decision", host=f"{name}.test")
    assert (line["allowed"], line["reason"], line["side"]) == (False, "tls_failed", "enclave")
    assert line["text"].startswith(f"{name}.test: {FAILURES[name].text}")


# ------------------------------------------------------- who is asked, and how


def test_a_client_certificate_is_presented_and_a_pin_is_met(authority: Authority) -> None:
    seen: Queue[object] = Queue()
    pem = authority.issue("mutual.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)

    def serve(connection: ssl.SSLSocket) -> None:
        certificate = connection.getpeercert() or {}
        seen.put(certificate["subjectAltName"])
        tls_echo(connection)

    client = authority.issue("enclave.test", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    tls = {"ca": str(authority.file), "client_cert": str(client), "pin_spki": pin_of(pem)}
    with (
        tls_serving(context, serve) as port,
        Out([("mutual.test", port, tls, {})]) as out,
        out.connect() as sock,
    ):
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        assert seen.get(timeout=SECONDS) == (("DNS", "enclave.test"),)


def test_a_server_that_wants_a_certificate_late_cuts_the_program(authority: Authority) -> None:
    context = demanding(authority)
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED  # of TLS 1.3: after our handshake
    with (
        tls_serving(context, tls_echo) as port,
        Out([("demanding.test", port, {"ca": str(authority.file)}, {})]) as out,
        out.connect() as sock,
    ):
        assert is_reset(sock)
        line = out.wait_for("tls_failed", host="demanding.test")
        assert line["text"] == "it wants a client certificate, and got none"
        assert out.wait_for("close", host="demanding.test")["ended"] == "tls_failed"


def test_another_name_may_be_asked_for(authority: Authority) -> None:
    asked: Queue[str | None] = Queue()
    context = server_context(authority, "real.test")
    context.sni_callback = lambda sock, name, context: asked.put(name)
    tls = {"ca": str(authority.file), "server_name": "real.test"}
    with (
        tls_serving(context, tls_echo) as port,
        Out([("endpoint.test", port, tls, {})]) as out,
        out.connect() as sock,
    ):
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        assert asked.get(timeout=SECONDS) == "real.test"


def test_the_protocol_that_the_program_speaks_is_agreed_on(authority: Authority) -> None:
    agreed: Queue[str | None] = Queue()
    context = server_context(authority, "endpoint.test")
    context.set_alpn_protocols(["http/1.1", "h2"])

    def serve(connection: ssl.SSLSocket) -> None:
        agreed.put(connection.selected_alpn_protocol())
        tls_echo(connection)

    trust = {"ca": str(authority.file)}
    with (
        tls_serving(context, serve) as port,
        Out(
            [
                ("endpoint.test", port, {**trust, "alpn": ["h2"]}, {}),
                ("endpoint.test", port, trust, {}),
            ]
        ) as out,
    ):
        for index, wanted in enumerate(("h2", None)):
            with out.connect(index) as sock:
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
                assert agreed.get(timeout=SECONDS) == wanted


# --------------------------------------------------------------------- ends


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_server_that_ends_without_close_notify_is_cut_off(
    authority: Authority, carrier: Carrier
) -> None:
    def truncate(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"half an answer")
        connection.recv(100)
        connection.shutdown(socket.SHUT_RDWR)  # the socket's: TLS says nothing

    context = server_context(authority, "origin.test")
    with (
        tls_serving(context, truncate) as port,
        Out([("origin.test", port, {"ca": str(authority.file)}, {"carrier": carrier})]) as out,
        out.connect() as sock,
    ):
        assert sock.recv(100) == b"half an answer"
        sock.sendall(b"go on")
        assert is_reset(sock)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_program_that_ends_its_half_still_gets_the_answer(
    authority: Authority, carrier: Carrier
) -> None:
    def answer_at_the_end(connection: ssl.SSLSocket) -> None:
        request = b""
        while data := connection.recv(65_536):
            request += data
        connection.sendall(b"got " + request + bytes(MEBIBYTE))
        connection.unwrap()

    context = server_context(authority, "origin.test")
    with (
        tls_serving(context, answer_at_the_end) as port,
        Out([("origin.test", port, {"ca": str(authority.file)}, {"carrier": carrier})]) as out,
        out.connect() as sock,
    ):
        sock.sendall(b"request")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock)[0] == len(b"got request") + MEBIBYTE


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_server_that_has_said_its_end_and_stays_is_half_closed(
    authority: Authority, carrier: Carrier
) -> None:
    is_over = Event()

    def stay(connection: ssl.SSLSocket) -> None:
        connection.settimeout(0)
        with suppress(ssl.SSLWantReadError):
            connection.unwrap()  # its close_notify is sent
        is_over.wait(SECONDS)

    keys = {"carrier": carrier}
    with (
        tls_serving(server_context(authority, "stays.test"), stay) as port,
        Out(
            [("stays.test", port, {"ca": str(authority.file)}, keys)],
            limits={"half_closed": 1.0, "idle": 2 * SECONDS},
        ) as out,
        out.connect() as sock,
    ):
        assert sock.recv(100) == b""
        assert out.wait_for("close", host="stays.test")["ended"] == "timed_out"
        is_over.set()


# ------------------------------------------------------------ real counterparts


def test_a_gibibyte_arrives_whole_at_openssl(authority: Authority) -> None:
    pem = authority.issue("origin.test")
    port = free_port()
    pattern = Pattern(2)
    server = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(pem)),
            *("-key", str(pem), "-quiet"),
        ],
        stdin=subprocess.PIPE,  # it ends the connection when nobody can type any more
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with server, killed(server):
        wait_for_listener(port)
        with Out([("origin.test", port, {"ca": str(authority.file)}, {})]) as out:
            assert server.stdout is not None
            output = server.stdout
            digest = start(lambda: digest_of(output, GIBIBYTE))
            with out.connect() as sock:
                sent = pattern.send(sock, GIBIBYTE)
                assert digest.result(SECONDS) == sent


@contextmanager
def killed(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process with the body, whatever becomes of that."""
    try:
        yield
    finally:
        process.kill()


def wait_for_listener(port: int) -> None:
    """Connect until somebody takes it: the program says nothing when it is ready."""
    limit = time.monotonic() + SECONDS
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < limit
        time.sleep(0.01)


def digest_of(stream: IO[bytes], total_bytes: int) -> str:
    """Read so many bytes; their hash."""
    digest = hashlib.sha256()
    while total_bytes and (data := stream.read(min(total_bytes, MEBIBYTE))):
        digest.update(data)
        total_bytes -= len(data)
    return digest.hexdigest()


def test_psql_without_tls_reaches_a_server_with_tls(authority: Authority) -> None:
    context = server_context(authority, "db.test")
    with (
        postgres_like(context, begins_with_tls=True) as port,
        Out([("db.test", port, {"ca": str(authority.file)}, {})]) as out,
    ):
        done = subprocess.run(
            ["psql", "-X", "-A", "-t", "-c", "SELECT 'from the enclave'"],
            env={
                **os.environ,
                "PGHOST": "127.0.0.1",
                "PGPORT": str(out.ports[0]),
                "PGUSER": USER,
                "PGPASSWORD": PASSWORD,
                "PGSSLMODE": "disable",
                "PGGSSENCMODE": "disable",
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    assert (done.stdout, done.returncode) == ("from the enclave\n", 0), done.stderr
