"""The client that believes documents: what it takes, and what it refuses with which reason."""

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.attesting_server import (
    Answer,
    http_answer,
    nonce_in,
    own_certificate,
    server_context,
    serving_tls,
)
from tests.support.certificates import Authority
from tests.support.nsm_server import attested, module_root
from tests.support.pair import free_port, serving
from vsockproxy.attestation.documents import Requirements
from vsockproxy.attestation.software_nsm import SOFTWARE_PCRS
from vsockproxy.attestation.tls_binding import KeyOrigin, bound_fields
from vsockproxy.attested_tls import connect_attested
from vsockproxy.cli.main import main

PCR0 = SOFTWARE_PCRS[0].hex()
OTHER = "11" * 48


def document_for(
    head: bytes,
    key: bytes,
    *,
    nonce: bytes | None = None,
    origin: KeyOrigin = "generated",
    at: datetime | None = None,
    pcrs: dict[int, bytes] | None = None,
) -> bytes:
    """What a true enclave says; an argument makes it something else."""
    user_data, public_key = bound_fields(key, origin)
    return attested(
        user_data=user_data,
        nonce=nonce_in(head) if nonce is None else nonce,
        public_key=public_key,
        at=at,
        pcrs=pcrs,
    )


def true_enclave(head: bytes, key: bytes) -> bytes:
    return http_answer(document_for(head, key))


def enclave_ago(seconds: float) -> Answer:
    at = datetime.now(UTC) - timedelta(seconds=seconds)
    return lambda head, key: http_answer(document_for(head, key, at=at))


def replayed() -> Answer:
    """One that gives the document of its first client to all."""
    recorded = document_for(b"GET /?nonce=00112233 HTTP/1.1", own_certificate().public_key)
    return lambda head, key: http_answer(recorded)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("root") / "root.pem"
    file.write_bytes(module_root().certificate.public_bytes(Encoding.PEM))
    return file


def verify(port: int, root: Path | None, *options: str) -> Result:
    roots = () if root is None else ("--root", str(root))
    arguments = ["attestation", "verify-tls", f"127.0.0.1:{port}", *roots, *options]
    return CliRunner().invoke(main, arguments)


def test_an_enclave_is_verified(root: Path) -> None:
    with serving_tls(true_enclave) as port:
        done = verify(port, root, "--pcr", f"0={PCR0}")
        assert (done.exit_code, done.output.splitlines()[0]) == (0, "verified")
        done = verify(port, root, "--pcr", f"0={PCR0}", "--max-age", "60", "--json")
    said = json.loads(done.output)
    assert said["verified"] is True
    assert said["reason"] is None
    assert said["public_key"] == own_certificate().public_key.hex()
    assert said["pcrs"]["0"] == PCR0
    assert datetime.fromisoformat(said["expires_at"]) > datetime.now(UTC)


def test_what_is_verified_is_shown_for_people(root: Path) -> None:
    with serving_tls(true_enclave) as port:
        done = verify(port, root, "--pcr", f"0={PCR0}")
    lines = done.stdout.splitlines()
    user_data = bound_fields(own_certificate().public_key, "generated")[0]
    assert f"user_data: {user_data.hex()} ({user_data.decode()!r})" in lines
    assert [line.partition(": ")[0] for line in lines[-2:]] == ["server_key_sha256", "expires_at"]
    assert done.stderr == "warning: the document is of a software NSM: it proves nothing\n"


KEY = own_certificate().public_key
WITH_PCR = ("--pcr", f"0={PCR0}")

REFUSED: dict[str, tuple[Callable[[], Answer], tuple[str, ...], str]] = {
    "another measurement": (lambda: true_enclave, ("--pcr", f"0={OTHER}"), "pcr_mismatch"),
    "one measurement of two": (
        lambda: true_enclave,
        (*WITH_PCR, "--pcr", f"2={OTHER}"),
        "pcr_mismatch",
    ),
    "a measurement that is not there": (
        lambda: true_enclave,
        ("--pcr", f"16={OTHER}"),
        "pcr_missing",
    ),
    "debug mode": (
        lambda: (
            lambda head, key: http_answer(
                document_for(head, key, pcrs=dict.fromkeys(range(3), bytes(48)))
            )
        ),
        ("--any-pcr",),
        "debug_mode",
    ),
    "a replayed document": (replayed, WITH_PCR, "nonce_mismatch"),
    "an old document": (lambda: enclave_ago(120), (*WITH_PCR, "--max-age", "60"), "too_old"),
    "a document of next year": (
        lambda: enclave_ago(-120),
        (*WITH_PCR, "--max-age", "60"),
        "not_yet_valid",
    ),
    "a part of the nonce": (
        lambda: lambda head, key: http_answer(document_for(head, key, nonce=nonce_in(head)[:-1])),
        WITH_PCR,
        "nonce_mismatch",
    ),
    "another key": (
        lambda: lambda head, key: http_answer(document_for(head, key[:-1] + b"x")),
        WITH_PCR,
        "key_mismatch",
    ),
    "no key": (
        lambda: lambda head, key: http_answer(attested(nonce=nonce_in(head))),
        WITH_PCR,
        "key_mismatch",
    ),
    "the key in one field alone": (
        lambda: lambda head, key: http_answer(attested(nonce=nonce_in(head), public_key=key)),
        WITH_PCR,
        "key_mismatch",
    ),
    "the key's digest alone": (
        lambda: (
            lambda head, key: http_answer(
                attested(nonce=nonce_in(head), user_data=bound_fields(key, "generated")[0])
            )
        ),
        WITH_PCR,
        "key_mismatch",
    ),
    "a key of the image": (
        lambda: lambda head, key: http_answer(document_for(head, key, origin="image")),
        WITH_PCR,
        "key_from_image",
    ),
    "no document at all": (
        lambda: lambda head, key: http_answer(b"hello"),
        WITH_PCR,
        "no_document",
    ),
    "an empty answer": (lambda: lambda head, key: http_answer(b""), WITH_PCR, "truncated"),
    "a server without": (
        lambda: lambda head, key: http_answer(b"nothing here", "404 Not Found"),
        WITH_PCR,
        "no_document",
    ),
    "too long an answer": (
        lambda: lambda head, key: http_answer(bytes(100_000)),
        WITH_PCR,
        "no_document",
    ),
    "no HTTP": (lambda: lambda head, key: b"220 mail\r\n\r\n", WITH_PCR, "no_document"),
    "an answer that is cut off": (
        lambda: lambda head, key: true_enclave(head, key)[:-1],
        WITH_PCR,
        "no_document",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_has_its_reason(case: str, root: Path) -> None:
    make, options, reason = REFUSED[case]
    with serving_tls(make()) as port:
        done = verify(port, root, *options)
        assert (done.exit_code, done.output.split(": ")[:2]) == (1, ["refused", reason])
        said = json.loads(verify(port, root, *options, "--json").output)
    assert (said["verified"], said["reason"], said.get("pcrs")) == (False, reason, None)


def test_another_root_is_not_trusted() -> None:
    with serving_tls(true_enclave) as port:
        done = verify(port, None, *WITH_PCR)
    assert done.exit_code == 1
    assert done.output.startswith("refused: untrusted_root")


def test_debug_mode_and_a_key_of_the_image_where_they_are_allowed(root: Path) -> None:
    def answer(head: bytes, key: bytes) -> bytes:
        zeros = dict.fromkeys(range(3), bytes(48))
        return http_answer(document_for(head, key, origin="image", pcrs=zeros))

    with serving_tls(answer) as port:
        done = verify(port, root, "--any-pcr", "--allow-debug", "--allow-image-key")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "verified")


UNUSABLE = {
    "no measurement": ((), "--any-pcr"),
    "measurements, and any": ((*WITH_PCR, "--any-pcr"), "contradict"),
    "half a byte": (("--pcr", "0=1"), "is no hex"),
    "zeros": (("--pcr", f"0={'00' * 48}"), "debug mode"),
    "a root that is not there": ((*WITH_PCR, "--root", "/nonexistent"), "cannot read"),
    "authorities that are not there": (
        (*WITH_PCR, "--ca", "/nonexistent"),
        "--ca: /nonexistent cannot be read: no such file or directory",
    ),
    "authorities that are none": (
        (*WITH_PCR, "--ca", "/dev/null"),
        "--ca: /dev/null holds no certificate",
    ),
    "a certificate that is not there": (
        (*WITH_PCR, "--client-cert", "/nonexistent"),
        "--client-cert: /nonexistent cannot be read: no such file or directory",
    ),
    "no name of a server": ((*WITH_PCR, "--server-name", "a b"), "has a space"),
    "an empty name": ((*WITH_PCR, "--server-name", ""), "--server-name"),
    "a certificate that is none": (
        (*WITH_PCR, "--client-cert", "/dev/null"),
        "--client-cert: /dev/null holds no certificate",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_used_is_said_before_anything_is_sent(case: str) -> None:
    options, text = UNUSABLE[case]
    done = verify(free_port(), None, *options)
    assert done.exit_code == 2
    assert text in done.output


def test_nobody_is_there(root: Path) -> None:
    done = verify(free_port(), root, *WITH_PCR)
    assert done.exit_code == 2
    assert done.output.startswith("Error: 127.0.0.1:")
    assert done.output.endswith(" cannot be connected to: Connection refused\n")
    assert done.output.count("\n") == 1
    arguments = ["attestation", "verify-tls", "localhost", *WITH_PCR]
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_a_server_may_be_asked_for_by_a_name_in_any_script(root: Path) -> None:
    asked = []

    def answer(head: bytes, key: bytes) -> bytes:
        asked.append(head)
        return true_enclave(head, key)

    with serving_tls(answer) as port:
        done = verify(port, root, *WITH_PCR, "--server-name", "Bücher.example")
    assert done.exit_code == 0, done.output
    assert f"\r\nHost: xn--bcher-kva.example:{port}\r\n".encode() in asked[0]


def test_a_server_without_tls(root: Path) -> None:
    with serving(lambda connection: connection.sendall(b"220 mail\r\n")) as port:
        done = verify(port, root, *WITH_PCR)
    assert done.exit_code == 1
    assert done.output.startswith("refused: tls_failed: no TLS with the server")


def test_old_tls_alone_is_refused(root: Path) -> None:
    context = server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving_tls(true_enclave, context) as port:
        done = verify(port, root, *WITH_PCR)
    assert done.exit_code == 1
    assert done.output.startswith("refused: tls_failed")


def test_time_is_bounded(root: Path) -> None:
    def never(connection: socket.socket) -> None:
        connection.recv(1)
        connection.settimeout(30)
        while connection.recv(65_536):
            pass

    began = time.monotonic()
    with serving(never) as port:
        done = verify(port, root, *WITH_PCR, "--timeout", "0.5")
    assert done.exit_code == 1
    assert done.output.startswith("refused: tls_failed: the handshake was not complete in time")
    assert time.monotonic() - began < 20


def test_an_authority_may_be_demanded_too(root: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost", "127.0.0.1")
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving_tls(lambda head, _: true_enclave(head, spki), context) as port:
        done = verify(port, root, *WITH_PCR, "--ca", str(authority.file))
        assert done.exit_code == 0, done.output
        done = verify(
            port, root, *WITH_PCR, "--ca", str(authority.file), "--server-name", "a.example"
        )
        assert done.output.startswith("refused: tls_failed: the server's certificate is not one")
    with serving_tls(true_enclave) as port:
        done = verify(port, root, *WITH_PCR, "--ca", str(authority.file))
        assert done.output.startswith("refused: tls_failed: the server's certificate is not one")


def test_a_program_goes_on_with_the_connection_that_it_has_verified() -> None:
    requirements = Requirements(
        roots=(module_root().certificate.public_bytes(Encoding.DER),), pcrs=SOFTWARE_PCRS
    )
    with serving_tls(true_enclave) as port:
        connection = connect_attested("127.0.0.1", port, requirements)
        assert connection.document.pcrs[0] == SOFTWARE_PCRS[0]
        assert connection.public_key == own_certificate().public_key
        assert connection.socket.getpeercert(binary_form=True)
        connection.close()


def test_it_runs_as_a_command(root: Path) -> None:
    arguments = ["--root", str(root), *WITH_PCR]
    with serving_tls(true_enclave) as port:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "vsockproxy", "attestation", "verify-tls"),
                *(f"127.0.0.1:{port}", *arguments),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "verified")
