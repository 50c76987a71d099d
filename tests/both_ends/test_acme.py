"""Certificates by ACME: a real authority, its challenges over ingress, real processes."""

import contextlib
import hashlib
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.certificates import Authority
from tests.support.pair import Pair, Side, echo, free_port, serving
from tests.support.pebble import HOST, NO_PEBBLE, PEBBLE, Pebble, pebble

pytestmark = pytest.mark.skipif(PEBBLE is None, reason=NO_PEBBLE)

NAME = "web.test"
SECONDS = 60.0
NAMES = {NAME: "127.0.0.1"}


class Scene:
    """A pair whose service `web` has a certificate of an authority.

    Args:
        authority_port: where the authority listens.
        ca: what its own certificate is verified against.
        http_port: what the authority takes for port 80.
        to: where the service is.
        rules: what both sides allow; the authority by default.
    """

    def __init__(
        self,
        authority_port: int,
        ca: Path,
        http_port: int,
        to: int,
        rules: list[dict[str, Any]] | None = None,
    ) -> None:
        self.port = free_port()
        acme = {
            "directory": f"https://{HOST}:{authority_port}/dir",
            "contact": "mailto:ops@example.com",
            "ca": str(ca),
        }
        self.pair = Pair(
            "unix",
            [{"address": HOST, "port": authority_port, "private": True}]
            if rules is None
            else rules,
            parent={
                "resolver": {"hosts": {HOST: ["127.0.0.1"]}},
                "ingress": [
                    {"listen": f"tcp://127.0.0.1:{self.port}", "service": "web"},
                    {"listen": f"tcp://127.0.0.1:{http_port}", "service": "acme"},
                ],
            },
            enclave={
                "ingress": [
                    {
                        "service": "web",
                        "to": f"tcp://127.0.0.1:{to}",
                        "tls": {"certificate": {"acme": acme}, "names": [NAME]},
                    },
                    {"service": "acme", "to": "acme"},
                ]
            },
        )

    @property
    def enclave(self) -> Side:
        assert self.pair.enclave is not None
        return self.pair.enclave

    def connect(self) -> tuple[ssl.SSLSocket, x509.Certificate]:
        """A connection to the service, and the certificate that it shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        carrier = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        sock = context.wrap_socket(carrier, server_hostname=NAME)
        der = sock.getpeercert(binary_form=True)
        assert der is not None
        return sock, x509.load_der_x509_certificate(der)


@contextlib.contextmanager
def scene_of(authority: Pebble, http_port: int) -> Iterator[Scene]:
    with serving(echo) as to:
        scene = Scene(authority.port, authority.ca, http_port, to)
        with scene.pair:
            yield scene


def key_of(certificate: x509.Certificate) -> str:
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def ask_in_plain(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(request + b" HTTP/1.1\r\nHost: web.test\r\n\r\n")
        answer = b""
        while piece := sock.recv(65_536):
            answer += piece
    return answer


def test_a_certificate_is_ordered_and_proved_over_ingress(tmp_path: Path) -> None:
    http_port = free_port()
    with (
        pebble(tmp_path, NAMES, http_port, refused_nonces=30) as authority,
        scene_of(authority, http_port) as scene,
    ):
        enclave = scene.enclave
        assert enclave.wait_for_event("acme_registered")["account"].startswith("https://")
        assert enclave.wait_for_event("acme_ordered", names=NAME)
        enclave.wait_for_event("acme_challenge", name=NAME)
        enclave.wait_for_event("decision", host="acme", way="ingress", allowed=True)
        ready = enclave.wait_for_event("certificate_ready", service="web")
        assert ready["key"] == "generated"

        sock, certificate = scene.connect()
        with sock:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert names.value.get_values_for_type(x509.DNSName) == [NAME]
            assert "Pebble Intermediate" in certificate.issuer.rfc4514_string()
            assert key_of(certificate) == ready["public_key_sha256"]
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"

        path = b"GET /.well-known/acme-challenge/"
        assert ask_in_plain(http_port, path + b"x" * 43).startswith(b"HTTP/1.1 404 ")
        assert ask_in_plain(http_port, b"GET /").startswith(b"HTTP/1.1 404 ")
        assert ask_in_plain(http_port, b"DELETE /").startswith(b"HTTP/1.1 405 ")


def test_a_certificate_is_renewed_for_the_same_key_under_open_connections(tmp_path: Path) -> None:
    http_port = free_port()
    with (
        pebble(tmp_path, NAMES, http_port, valid_seconds=12) as authority,
        scene_of(authority, http_port) as scene,
    ):
        first = scene.enclave.wait_for_event("certificate_ready", service="web")
        old, former = scene.connect()
        seen = len(scene.enclave.lines)
        second = scene.enclave.wait_for_event("certificate_ready", service="web", after=seen)
        sock, certificate = scene.connect()
        deadline = time.monotonic() + SECONDS
        while certificate.serial_number == former.serial_number:  # it is on its way to the worker
            assert time.monotonic() < deadline, "the worker never got it"
            sock.close()
            sock, certificate = scene.connect()
        with old, sock:
            assert second["public_key_sha256"] == first["public_key_sha256"]
            assert key_of(certificate) == key_of(former)
            assert certificate.not_valid_before_utc < former.not_valid_after_utc
            old.sendall(b"still")
            assert old.recv(5) == b"still"
        assert sum(line["event"] == "acme_registered" for line in scene.enclave.lines) == 1


def test_an_authority_that_comes_late_is_asked_again(tmp_path: Path) -> None:
    http_port, port = free_port(), free_port()
    root = Authority(tmp_path)
    with serving(echo) as to:
        scene = Scene(port, root.file, http_port, to)
        with scene.pair:
            failed = scene.enclave.wait_for_event("certificate_failed", service="web")
            assert "dial_refused" in failed["text"]
            assert f"{HOST}:{port}" in failed["text"]
            assert failed["retry_after"] <= 2
            with pebble(tmp_path, NAMES, http_port, port=port, authority=root):
                scene.enclave.wait_for_event("certificate_ready", service="web")


def test_a_challenge_that_cannot_be_reached_is_said_and_not_repeated_soon(tmp_path: Path) -> None:
    http_port = free_port()
    with pebble(tmp_path, NAMES, free_port()) as authority, scene_of(authority, http_port) as scene:
        failed = scene.enclave.wait_for_event("certificate_failed", service="web")
        assert failed["level"] == "error"
        assert f"the proof for '{NAME}' is 'invalid'" in failed["text"]
        assert f"the server has to reach http://{NAME}/ on port 80" in failed["text"]
        assert 120 <= failed["retry_after"] <= 180


UNREACHABLE: dict[str, tuple[bool, list[dict[str, Any]] | None, str]] = {
    "another root": (True, None, "is refused: unable to get local issuer certificate"),
    "not in the allowlist": (False, [], "not_listed"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_an_authority_that_is_not_to_be_asked_is_said(case: str, tmp_path: Path) -> None:
    has_other_root, rules, text = UNREACHABLE[case]
    other = tmp_path / "other"
    other.mkdir()
    http_port = free_port()
    with pebble(tmp_path, NAMES, http_port) as authority, serving(echo) as to:
        ca = Authority(other).file if has_other_root else authority.ca
        scene = Scene(authority.port, ca, http_port, to, rules)
        with scene.pair:
            assert text in scene.enclave.wait_for_event("certificate_failed")["text"]


def test_the_certificate_outlives_the_process_that_ordered_it(tmp_path: Path) -> None:
    http_port = free_port()
    with (
        pebble(tmp_path, NAMES, http_port) as authority,
        scene_of(authority, http_port) as scene,
    ):
        enclave = scene.enclave
        enclave.wait_for_event("certificate_ready", service="web")
        (pid,) = [
            pid
            for pid in enclave.workers
            if b"enclave_side.services.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        seen = len(enclave.lines)
        os.kill(pid, signal.SIGKILL)
        enclave.wait_for_event("service_replaced", after=seen)
        # Whoever serves the challenges again asks nothing of the authority.
        assert ask_in_plain(http_port, b"GET /").startswith(b"HTTP/1.1 404 ")
        sock, _ = scene.connect()
        sock.close()
        assert sum(line["event"] == "acme_ordered" for line in enclave.lines) == 1
