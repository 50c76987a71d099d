"""A TLS server that answers for its key as an enclave does, or as the test wants it to."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.pair import serving
from vsockproxy.certificates.self_signed import make_self_signed
from vsockproxy.certificates.served import ServedCertificate

__all__ = ("Answer", "http_answer", "own_certificate", "server_context", "serving_tls")

Answer = Callable[[bytes, bytes], bytes]
"""The whole answer to a request: to its head, for the server's public key."""

SECONDS = 30.0


@cache
def own_certificate() -> ServedCertificate:
    """A self-signed certificate, one for all tests of a process."""
    key = ec.generate_private_key(ec.SECP256R1())
    return make_self_signed(
        key, "server", ["localhost", "127.0.0.1"], datetime.now(UTC), x509.random_serial_number()
    )


def server_context(certificate: ServedCertificate | None = None) -> ssl.SSLContext:
    """What a server with a certificate speaks TLS with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as directory:
        file = Path(directory) / "both.pem"
        file.write_bytes((certificate or own_certificate()).pem)
        context.load_cert_chain(file)
    return context


def http_answer(body: bytes, status: str = "200 OK") -> bytes:
    """An answer with a body."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def nonce_in(head: bytes) -> bytes:
    """The nonce that a request asks for."""
    target = head.split(b" ")[1].decode()
    return bytes.fromhex(target.partition("?nonce=")[2])


@contextmanager
def serving_tls(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve while the body runs; the port. After an answer the connection is ended."""
    used = context or server_context()
    key = own_certificate().public_key

    def serve(connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        with suppress(OSError), used.wrap_socket(connection, server_side=True) as secured:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = secured.recv(65_536)
                if not piece:
                    return
                head += piece
            secured.sendall(answer(head, key))

    with serving(serve) as port:
        yield port
