"""TLS that ends in the enclave: whom it lets in, what the service gets, what it attests."""

import hashlib
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Queue

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.certificates import Authority
from tests.support.nsm_server import document_fields
from tests.support.pair import Line, Pair, echo, free_port, serving
from tests.support.tls_in import PCRS, SECONDS, ask, client_context, serving_tls_in
from tests.support.tls_intruder import intruding
from vsockproxy.attestation.tls_binding import bound_user_data
from vsockproxy.client.for_trio import listen
from vsockproxy.nsm_locations import DEVELOPMENT_HINT
from vsockproxy.protocols.proxy_v2 import ProxyHeaderReader, SocketAddress

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

ATTESTATION = b"GET /.well-known/attestation?nonce=00ff HTTP/1.1\r\nHost: localhost\r\n\r\n"


def key_of(certificate: bytes) -> bytes:
    key = x509.load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def receive_exactly(sock: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = sock.recv(length - len(data))
        assert piece, data
        data += piece
    return data


class Recorder:
    """A service that notes all bytes of each connection, and echoes them."""

    def __init__(self) -> None:
        self.seen: Queue[bytes] = Queue()

    def __call__(self, connection: socket.socket) -> None:
        data = b""
        with suppress(OSError):
            while piece := connection.recv(65_536):
                data += piece
                connection.sendall(piece)
        self.seen.put(data)


# ------------------------------------------------------------------------- verify-tls


def test_verify_tls_succeeds_against_our_ingress() -> None:
    with serving(echo) as origin, serving_tls_in(origin) as tls_in:
        done = tls_in.verify(*PCRS, "--max-age", "60")
        assert (done.exit_code, done.output.splitlines()[0]) == (0, "verified")
        digest = hashlib.sha256(key_of(tls_in.certificate)).hexdigest()
        assert f"server_key_sha256: {digest}" in done.output
        ready = tls_in.enclave.wait_for_event("certificate_ready", service="web", key="generated")
        assert ready["public_key_sha256"] == digest


def test_verify_tls_refuses_another_measurement() -> None:
    with serving(echo) as origin, serving_tls_in(origin) as tls_in:
        done = tls_in.verify("--pcr", f"0={'11' * 48}")
        assert done.exit_code == 1
        assert done.output.startswith("refused: pcr_mismatch: PCR0")
        done = tls_in.verify(*PCRS[:2], "--pcr", f"2={'11' * 48}")
        assert done.output.startswith("refused: pcr_mismatch: PCR2")


def test_verify_tls_refuses_a_parent_that_ends_tls_itself() -> None:
    """It sees all, changes nothing, and passes on true documents with the right nonce."""
    seen: list[bytes] = []
    recorder = Recorder()
    with (
        serving(recorder) as origin,
        serving_tls_in(origin) as tls_in,
        intruding(tls_in.port, seen=seen) as port,
    ):
        done = tls_in.verify(port=port)
        assert done.exit_code == 1
        assert done.output.startswith("refused: key_mismatch: the document is of another key")
        assert b"".join(seen).startswith(b"GET /.well-known/attestation?nonce=")
        assert tls_in.verify().exit_code == 0, "the true server, asked directly"


def test_verify_tls_refuses_an_old_nonce() -> None:
    """Whoever is in between asks for a document with a nonce of an earlier time."""

    def with_old_nonce(data: bytes) -> bytes:
        return re.sub(rb"nonce=[0-9a-f]+", b"nonce=" + b"ab" * 32, data)

    with (
        serving(echo) as origin,
        serving_tls_in(origin) as tls_in,
        intruding(tls_in.port, to_server=with_old_nonce) as port,
    ):
        done = tls_in.verify(port=port)
        assert done.exit_code == 1
        assert done.output.startswith("refused: nonce_mismatch")


# --------------------------------------------------------------- documents, and the rest


def test_a_document_binds_the_key_and_the_connection_goes_on_to_the_service() -> None:
    recorder = Recorder()
    with serving(recorder) as origin, serving_tls_in(origin) as tls_in:
        with tls_in.connect() as sock:
            certificate = sock.getpeercert(binary_form=True)
            assert certificate is not None
            key = key_of(certificate)
            for _ in range(2):
                answer = ask(sock, ATTESTATION)
                assert answer.status == 200
                fields = document_fields(answer.body)
                assert fields["nonce"] == b"\x00\xff"
                assert fields["public_key"] == key
                assert fields["user_data"] == bound_user_data(key, "generated")
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert receive_exactly(sock, 18) == b"GET / HTTP/1.1\r\n\r\n"
            # From here on everything is the service's.
            sock.sendall(ATTESTATION)
            assert receive_exactly(sock, len(ATTESTATION)) == ATTESTATION
            sock.unwrap()
        assert recorder.seen.get(timeout=SECONDS) == b"GET / HTTP/1.1\r\n\r\n" + ATTESTATION


def test_what_comes_behind_a_request_is_looked_at_in_its_turn() -> None:
    recorder = Recorder()
    with serving(recorder) as origin, serving_tls_in(origin) as tls_in:
        with tls_in.connect() as sock:
            sock.sendall(ATTESTATION + ATTESTATION + b"POST / HTTP/1.1\r\n")
            for _ in range(2):
                assert ask(sock, b"").status == 200
            assert receive_exactly(sock, 17) == b"POST / HTTP/1.1\r\n"
            sock.unwrap()
        assert recorder.seen.get(timeout=SECONDS) == b"POST / HTTP/1.1\r\n"


def test_a_connection_gives_four_documents_and_ends() -> None:
    recorder = Recorder()
    with serving(recorder) as origin, serving_tls_in(origin) as tls_in:
        with tls_in.connect() as sock:
            sock.sendall(6 * ATTESTATION)
            for _ in range(4):
                assert ask(sock, b"").status == 200
            assert sock.recv(100) == b""
        assert recorder.seen.get(timeout=SECONDS) == b""


UNTOUCHED = {
    "another request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "another method": b"POST /.well-known/attestation?nonce=00 HTTP/1.1\r\n\r\n",
    "a longer path": b"GET /.well-known/attestation/x HTTP/1.1\r\n\r\n",
    "a part of the request, and the end": b"GET /.well-kno",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no text": bytes(range(256)) * 1000,
    "nothing": b"",
}


def test_the_service_sees_everything_else_untouched() -> None:
    recorder = Recorder()
    with serving(recorder) as origin, serving_tls_in(origin) as tls_in:
        for data in UNTOUCHED.values():
            with tls_in.connect() as sock:
                sock.sendall(data)
                assert receive_exactly(sock, len(data)) == data
                with suppress(ssl.SSLError):
                    sock.unwrap()
            assert recorder.seen.get(timeout=SECONDS) == data


def test_a_service_that_speaks_first() -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"220 ready\r\n")
        echo(connection)

    with (
        serving(greet) as origin,
        serving_tls_in(origin) as tls_in,
        tls_in.connect() as sock,
    ):
        assert receive_exactly(sock, 11) == b"220 ready\r\n"
        sock.sendall(ATTESTATION)  # which is this protocol's, whatever it looks like
        assert receive_exactly(sock, len(ATTESTATION)) == ATTESTATION


def test_a_request_that_closes_and_malformed_ones() -> None:
    recorder = Recorder()
    with serving(recorder) as origin, serving_tls_in(origin) as tls_in:
        closing = ATTESTATION[:-2] + b"Connection: close\r\n\r\n"
        cases = [(closing, 200)]
        for target in (b"", b"?nonce=0", b"?nonce=xy", b"?nonce=00&a=b", b"?nonce=" + b"00" * 600):
            request = b"GET /.well-known/attestation" + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
            cases.append((request, 400))
        for request, status in cases:
            with tls_in.connect() as sock:
                answer = ask(sock, request + b"left over")
                assert answer.status == status, answer.body
                assert sock.recv(1) == b"", "a close_notify, and no reset"
            assert recorder.seen.get(timeout=SECONDS) == b""


def test_without_attestation_the_request_is_the_services() -> None:
    with (
        serving(echo) as origin,
        serving_tls_in(origin, {"attestation": False}) as tls_in,
        tls_in.connect() as sock,
    ):
        sock.sendall(ATTESTATION)
        assert receive_exactly(sock, len(ATTESTATION)) == ATTESTATION


def test_without_a_module_the_service_works_and_the_request_is_answered() -> None:
    with (
        serving(echo) as origin,
        serving_tls_in(origin, device="/dev/null") as tls_in,
    ):
        with tls_in.connect() as sock:
            answer = ask(sock, ATTESTATION)
            assert answer.status == 503
            assert answer.body == b"the security module gives no document\n"
        seen = tls_in.enclave.wait_for_event("attestation_refused", status=503)
        assert "/dev/null" in seen["text"]
        with tls_in.connect() as sock:
            sock.sendall(b"hello")
            assert receive_exactly(sock, 5) == b"hello"
        done = tls_in.verify()
        assert done.output.startswith("refused: no_document: the server has no document for us")


def test_the_service_is_told_who_connected() -> None:
    told: Queue[object] = Queue()

    def handle(connection: socket.socket) -> None:
        reader = ProxyHeaderReader()
        while (said := reader.receive(connection.recv(1))) is None:
            pass
        told.put(said.client)
        echo(connection)

    with (
        serving(handle) as origin,
        serving_tls_in(origin, service={"proxy_protocol": "v2"}) as tls_in,
        tls_in.connect() as sock,
    ):
        assert ask(sock, ATTESTATION).status == 200
        sock.sendall(b"hello")
        assert receive_exactly(sock, 5) == b"hello"
        assert told.get(timeout=SECONDS) == SocketAddress.of(sock.getsockname())


async def test_a_program_that_listens_on_the_stream_socket() -> None:
    with serving_tls_in("streams") as tls_in:
        async with await listen("web", path=str(tls_in.pair.streams)) as listener:

            def talk() -> bytes:
                with tls_in.connect() as sock:
                    assert ask(sock, ATTESTATION).status == 200
                    sock.sendall(b"hello")
                    return receive_exactly(sock, 5)

            async def echo_one() -> None:
                connection = await listener.accept()
                async with connection.stream:
                    await connection.stream.send_all(await connection.stream.receive_some(10))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo_one)
                assert await trio.to_thread.run_sync(talk) == b"hello"


# ---------------------------------------------------------------------------- ends, bulk


def test_half_close_and_bulk_both_ways() -> None:
    def digest_at_the_end(connection: socket.socket) -> None:
        digest = hashlib.sha256()
        while data := connection.recv(65_536):
            digest.update(data)
        connection.sendall(digest.digest() + bytes(3_000_000))

    data = os.urandom(3_000_000)
    with serving(digest_at_the_end) as origin, serving_tls_in(origin) as tls_in:
        plain = socket.create_connection(("127.0.0.1", tls_in.port), SECONDS)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        with plain:
            # Not an SSLSocket: its unwrap() waits for the other end's close_notify.
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(65_536))
            tls.write(data)
            with suppress(ssl.SSLWantReadError):
                tls.unwrap()
            plain.sendall(outgoing.read())
            received = b""
            while True:
                try:
                    piece = tls.read(65_536)
                    if not piece:
                        break
                    received += piece
                except ssl.SSLWantReadError:
                    incoming.write(plain.recv(65_536))
                except ssl.SSLZeroReturnError:
                    break
        assert received == hashlib.sha256(data).digest() + bytes(3_000_000)


def test_a_reset_of_the_service_is_one_for_the_client() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    with (
        serving(reset) as origin,
        serving_tls_in(origin) as tls_in,
        tls_in.connect() as sock,
    ):
        sock.sendall(b"hello")
        # Which of the two a reset is depends on OpenSSL; a clean end is neither.
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            sock.recv(1)
        tls_in.enclave.wait_for_event("close", host="web", ended="local_reset")


def test_a_service_that_nobody_listens_for_is_a_reset_before_any_tls() -> None:
    with serving_tls_in(free_port()) as tls_in, pytest.raises((ConnectionResetError, ssl.SSLError)):
        tls_in.connect()


# ------------------------------------------------------------------------------ clients


def openssl(port: int, *options: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options],
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
    )


def http(connection: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(65_536)
        if not piece:
            return
        head += piece
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nserved")


def test_curl_openssl_and_python_take_it_and_old_tls_is_refused(tmp_path: Path) -> None:
    names = {"names": ["localhost", "127.0.0.1"]}
    with serving(http) as origin, serving_tls_in(origin, names) as tls_in:
        pem = tmp_path / "certificate.pem"
        pem.write_text(ssl.DER_cert_to_PEM_cert(tls_in.certificate))
        url = f"https://localhost:{tls_in.port}/"
        for version in ("--tls-max=1.2", "--tlsv1.3"):
            options = version.split("=")
            done = subprocess.run(
                ["curl", "-sS", "--noproxy", "*", *options, "--cacert", str(pem), url],
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            assert (done.stdout, done.returncode) == ("served", 0), done.stderr
        for option in ("-tls1_2", "-tls1_3"):
            seen = openssl(tls_in.port, option, "-CAfile", str(pem), "-verify_return_error")
            assert b"Verification: OK" in seen.stdout, seen.stderr
        context = ssl.create_default_context(cafile=str(pem))
        with tls_in.connect(context) as sock:
            assert sock.version() == "TLSv1.3"
        for option in ("-tls1", "-tls1_1"):
            seen = openssl(tls_in.port, option, "-cipher", "ALL:@SECLEVEL=0")
            assert b"alert protocol version" in seen.stderr, seen.stderr
        failed = tls_in.enclave.wait_for_event("tls_failed", host="web")
        assert "neither TLS 1.2 nor 1.3" in failed["text"]
        with socket.create_connection(("127.0.0.1", tls_in.port), SECONDS) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            tls_in.enclave.wait_for(lambda line: "plain HTTP" in line.get("text", ""))


@pytest.mark.parametrize("attestation", [True, False], ids=["looked at", "relayed"])
def test_a_client_that_wants_to_negotiate_anew_does_not_wait_for_ever(attestation: bool) -> None:
    with serving(http) as origin, serving_tls_in(origin, {"attestation": attestation}) as tls_in:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{tls_in.port}", "-tls1_2"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as client:
            assert client.stdin is not None
            client.stdin.write(b"R\n")  # what s_client takes for this wish
            client.stdin.flush()
            failed = tls_in.enclave.wait_for_event("tls_failed", host="web")
            assert failed["text"] == "it wants to negotiate anew, which is off"
            assert client.wait(SECONDS) is not None


def is_failure(text: str, line: Line) -> bool:
    return line["event"] == "tls_failed" and text in line["text"]


@pytest.mark.parametrize(
    ("offered", "agreed"), [(["http/1.1", "h2"], "h2"), (["http/1.1"], None), ([], None)]
)
def test_what_the_service_speaks_is_agreed_on(offered: list[str], agreed: str | None) -> None:
    context = client_context()
    if offered:
        context.set_alpn_protocols(offered)
    with serving(echo) as origin, serving_tls_in(origin, {"alpn": ["h2"]}) as tls_in:
        with tls_in.connect(context) as sock:
            assert sock.selected_alpn_protocol() == agreed
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert receive_exactly(sock, 24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        assert tls_in.verify().exit_code == 0, "documents are asked for by HTTP/1.1"


def test_a_client_without_a_certificate_is_refused_where_one_is_demanded(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    authority, other = Authority(ours), Authority(theirs)
    good, bad = (
        each.issue("client", usage=ExtendedKeyUsageOID.CLIENT_AUTH) for each in (authority, other)
    )
    with (
        serving(echo) as origin,
        serving_tls_in(origin, {"client_ca": str(authority.file)}) as tls_in,
    ):
        context = client_context()
        context.load_cert_chain(good)
        with tls_in.connect(context) as sock:
            sock.sendall(b"hello")
            assert receive_exactly(sock, 5) == b"hello"
        for certificate, text in ((None, "no client certificate"), (bad, "unknown authority")):
            context = client_context()
            if certificate is not None:
                context.load_cert_chain(certificate)
            with pytest.raises(ssl.SSLError), tls_in.connect(context) as sock:
                sock.recv(1)  # with TLS 1.3 a client hears of it only now
            tls_in.enclave.wait_for(partial(is_failure, text))
        done = tls_in.verify(*PCRS, "--client-cert", str(good))
        assert done.exit_code == 0, done.output
        done = tls_in.verify()
        assert done.output.startswith("refused: tls_failed: the server ends TLS")


def test_a_handshake_that_does_not_come_is_ended() -> None:
    limits = {"limits": {"handshake": 0.2}}
    with (
        serving(echo) as origin,
        serving_tls_in(origin, enclave=limits) as tls_in,
        socket.create_connection(("127.0.0.1", tls_in.port), SECONDS) as sock,
    ):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        seen = tls_in.enclave.wait_for_event("tls_failed", host="web")
        assert seen["text"] == "the handshake was not complete in 0.2 s"


def test_two_hundred_clients_at_once() -> None:
    def talk(number: int) -> bytes:
        with tls_in.connect() as sock:
            fields = document_fields(ask(sock, ATTESTATION).body)
            sock.sendall(b"%5d" % number)
            assert receive_exactly(sock, 5) == b"%5d" % number
            return bytes(fields["public_key"])

    with (
        serving(echo) as origin,
        serving_tls_in(origin) as tls_in,
        ThreadPoolExecutor(200) as pool,
    ):
        keys = set(pool.map(talk, range(200)))
        assert len(keys) == 1


# ---------------------------------------------------------------------- processes that die


def test_a_killed_worker_and_a_killed_services_process_change_no_certificate() -> None:
    with serving(echo) as origin, serving_tls_in(origin) as tls_in:
        certificate = tls_in.certificate
        os.kill(tls_in.worker, 9)
        tls_in.enclave.wait_for_event("worker_replaced")
        tls_in.enclave.wait_for_count("link_up", 8)
        assert tls_in.certificate == certificate
        with tls_in.connect() as sock:
            sock.sendall(b"before")
            assert receive_exactly(sock, 6) == b"before"
            os.kill(tls_in.services, 9)
            tls_in.enclave.wait_for_event("service_replaced")
            sock.sendall(b"after")
            assert receive_exactly(sock, 5) == b"after", "an open connection goes on"
        assert tls_in.certificate == certificate
        assert tls_in.verify().exit_code == 0
        os.kill(tls_in.worker, 9)
        tls_in.enclave.wait_for_count("worker_replaced", 2)
        tls_in.enclave.wait_for_count("link_up", 12)
        assert tls_in.certificate == certificate
        assert len(tls_in.enclave.events("certificate_ready")) == 1


# ------------------------------------------------------------------------------- files


def files_of(authority: Authority) -> dict[str, str]:
    file = authority.issue("localhost")
    return {"chain": str(file), "key": str(file)}


def test_a_certificate_from_files_is_presented_and_said_to_be_of_the_image(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = {"certificate": files_of(authority)}
    with serving(echo) as origin, serving_tls_in(origin, files) as tls_in:
        context = ssl.create_default_context(cafile=str(authority.file))
        with tls_in.connect(context) as sock:
            sock.sendall(b"hello")
            assert receive_exactly(sock, 5) == b"hello"
        done = tls_in.verify()
        assert done.output.startswith("refused: key_from_image")
        done = tls_in.verify(*PCRS, "--allow-image-key", "--ca", str(authority.file))
        assert done.output.startswith("refused: tls_failed"), "127.0.0.1 is not its name"
        done = tls_in.verify(
            *(*PCRS, "--allow-image-key", "--ca", str(authority.file)),
            *("--server-name", "localhost"),
        )
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("tls", "path", "text"),
    [
        pytest.param(
            {"certificate": {"chain": "/nonexistent", "key": "/nonexistent"}},
            "ingress[0].tls.certificate",
            "/nonexistent cannot be read",
            id="a chain that is not there",
        ),
        pytest.param(
            {"client_ca": "/etc/hostname"},
            "ingress[0].tls.client_ca",
            "/etc/hostname",
            id="authorities that are none",
        ),
    ],
)
def test_files_that_cannot_be_used_are_said_before_anything_runs(
    tls: dict[str, object], path: str, text: str
) -> None:
    section = {"service": "web", "to": "tcp://127.0.0.1:1", "tls": tls}
    pair = Pair("unix", [], enclave={"ingress": [section]})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vsockproxy", "enclave", "--config", str(pair.enclave_config)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 2
        assert path in done.stderr
        assert text in done.stderr
    finally:
        pair.close()


def test_a_start_without_a_module_says_whose_documents_there_are_not() -> None:
    with serving_tls_in(9, device="/nowhere/nsm") as tls_in:
        text = f"there is no /nowhere/nsm, so no documents for ingress[0].tls: {DEVELOPMENT_HINT}"
        tls_in.enclave.wait_for_event("left_out", text=text)
